"""Run a model through the precisions and fill an Audit."""

import copy

import numpy as np
import torch
from tqdm.auto import tqdm

from quantskew.audit import Audit
from quantskew.curvature import measure_curvature
from quantskew.datasets import Dataset, normalise
from quantskew.provenance import provenance
from quantskew.ptq import quantize_model
from quantskew.quantizers import DEFAULT_PRECISIONS
from quantskew.weights import collect_statistics


def audit_model(
    model,
    data,
    precisions=DEFAULT_PRECISIONS,
    scheme="banner",
    *,
    per_channel=False,
    fold_batchnorm=False,
    boundary_precision=None,
    device=None,
    batch_size=256,
    facts=None,
    curvature=False,
    curvature_images=None,
    checkpoint=None,
):
    """Audit a classifier: its logits on every test image at every precision, and its weights.

    Everything is computed in full fp32 (fp16 excepted), in evaluation mode, on the model's copy.

    Parameters
    ----------
    model : torch.nn.Module
        Maps normalised images (B, C, H, W) to logits; it is not changed.
    data : Dataset or Split
        Of a Dataset the test split is used, and the training split's group counts are kept.
    precisions : sequence of str
        The first one is the reference.
    scheme, per_channel, fold_batchnorm, boundary_precision
        See `quantskew.ptq.quantize_model`.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
    facts : dict, optional
        Added to the provenance.
    curvature : bool
        Whether to measure gradient norms, Hessian eigenvalues and traces as well: far more work.
    curvature_images, checkpoint
        ``images`` and ``checkpoint`` of `quantskew.curvature.measure_curvature`.

    Returns
    -------
    Audit

    Raises
    ------
    ValueError
        If a name is not known, there is nothing to audit, or weights or logits are not finite.
    """
    precisions = tuple(precisions)
    if not precisions:
        raise ValueError("no precisions were given; the first one is the reference")
    split = data.test if isinstance(data, Dataset) else data
    options = {
        "scheme": scheme,
        "per_channel": per_channel,
        "fold_batchnorm": fold_batchnorm,
        "boundary_precision": boundary_precision,
    }
    quantized = [quantize_model(model, precision, **options) for precision in precisions]
    original = quantize_model(model, "fp32", fold_batchnorm=fold_batchnorm)
    weights = collect_statistics(original, quantized, precisions)
    device = torch.device(device or next(model.parameters()).device)
    logits = _logits(quantized, split, device, batch_size)
    surface = None
    if curvature:
        surface = measure_curvature(
            copy.deepcopy(model).to(device),
            split,
            precisions,
            images=curvature_images,
            checkpoint=checkpoint,
            **options,
        )
    return Audit(
        logits,
        split.labels.numpy(),
        split.groups.numpy(),
        precisions,
        split.class_names,
        split.group_names,
        data.train.group_counts if isinstance(data, Dataset) else None,
        weights,
        surface,
        provenance(quantization=options, **(facts or {})),
    )


def _logits(models, split, device, batch_size):
    models = [model.to(device) for model in models]
    batches = []
    with (
        torch.inference_mode(),
        tqdm(total=len(split) * len(models), desc="auditing", unit=" images", leave=False) as bar,
    ):
        for start in range(0, len(split), batch_size):
            inputs = normalise(split.images[start : start + batch_size].to(device))
            # Every precision sees a batch while it is at hand; images are normalised once.
            outputs = [model(inputs).float().cpu() for model in models]
            batches.append(torch.stack(outputs).numpy())
            bar.update(len(inputs) * len(models))
    if not batches:
        return np.empty((len(models), 0, len(split.class_names)), dtype=np.float32)
    return np.concatenate(batches, axis=1)
