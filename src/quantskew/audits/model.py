"""Run a model through the precisions and fill an Audit."""

import copy
from dataclasses import replace

import numpy as np
import torch
from tqdm.auto import tqdm

from quantskew.audits.audit import Audit
from quantskew.audits.curvature import measure_curvature
from quantskew.audits.statistics import collect_statistics
from quantskew.cache import provenance
from quantskew.datasets import Dataset, normalise
from quantskew.quantization.ptq import check_options, quantize_model, quantizes_activations
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, integer_bits

_CALIBRATION_IMAGES = 256


def audit_model(
    model,
    data,
    precisions=DEFAULT_PRECISIONS,
    scheme="banner",
    *,
    per_channel=False,
    fold_batchnorm=False,
    boundary_precision=None,
    activation_precision=None,
    device=None,
    batch_size=64,
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
        See `quantskew.quantization.ptq.quantize_model`.
    activation_precision : str, optional
        Of the activations where the weights are of an integer precision, calibrated on training images (see
        `calibration_images`); ``fp32`` and ``fp16`` stay as they are, so that the reference does.  For
        activations alone see `quantskew.experiments.runs`.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
        With larger ones the allocator returns memory to the system between passes, which costs more than it
        saves.
    facts : dict, optional
        Added to the provenance.
    curvature : bool
        Whether to measure gradient norms, Hessian eigenvalues and traces as well: far more work.
    curvature_images, checkpoint
        ``images`` and ``checkpoint`` of `quantskew.audits.curvature.measure_curvature`.

    Returns
    -------
    Audit

    Raises
    ------
    ValueError
        If a name is not known, there is nothing to audit, weights or logits are not finite, or activations
        are to be quantized without training images, without integer weights, or with `curvature`.
    """
    precisions = tuple(precisions)
    check_audit(precisions, scheme, boundary_precision, activation_precision, curvature)
    options = {
        "scheme": scheme,
        "per_channel": per_channel,
        "fold_batchnorm": fold_batchnorm,
        "boundary_precision": boundary_precision,
    }
    activations = {}
    if quantizes_activations(activation_precision):
        activations["activation_precision"] = activation_precision
        activations["calibration"] = calibration_images(data)
    quantized = {}
    for precision in precisions:
        more = activations if integer_bits(precision) else {}
        quantized[precision] = quantize_model(model, precision, **options, **more)
    original = quantize_model(model, "fp32", fold_batchnorm=fold_batchnorm)
    device = torch.device(device or next(model.parameters()).device)
    quantization = {**options, "activation_precision": activation_precision}
    facts = {"quantization": quantization, **(facts or {})}
    audit = audit_models(original, quantized, data, device=device, batch_size=batch_size, facts=facts)
    if not curvature:
        return audit
    surface = measure_curvature(
        copy.deepcopy(model).to(device),
        data.test if isinstance(data, Dataset) else data,
        precisions,
        images=curvature_images,
        checkpoint=checkpoint,
        **options,
    )
    return replace(audit, curvature=surface)


def check_audit(precisions, scheme, boundary_precision, activation_precision=None, curvature=False):
    """Refuse options that `audit_model` cannot serve, before any work is done; they are as there."""
    if not precisions:
        raise ValueError("no precisions were given; the first one is the reference")
    if len(set(precisions)) < len(precisions):
        raise ValueError(f"each precision is named once; got {', '.join(precisions)}")
    check_options(precisions, scheme, boundary_precision, activation_precision)
    if not quantizes_activations(activation_precision):
        return
    if curvature:
        raise ValueError(
            "the loss cannot be differentiated through rounded activations; leave out curvature or "
            "activation_precision"
        )
    if not any(map(integer_bits, precisions)):
        raise ValueError(
            f"activation_precision acts where the weights are integers; none of {', '.join(precisions)} is"
        )


def calibration_images(data):
    """Training images that the ranges of activations are taken from: 256, or all where there are fewer.

    They are drawn at random, always the same ones, in the groups' shares and at least one of each group.

    Parameters
    ----------
    data : Dataset

    Returns
    -------
    Tensor of float32, shape (B, C, H, W)
        Normalised.

    Raises
    ------
    ValueError
        If `data` is not a whole Dataset: test images must not be calibrated on.

    Examples
    --------
    >>> from quantskew import datasets
    >>> calibration_images(datasets.load("digits")).shape
    torch.Size([256, 1, 8, 8])
    """
    if not isinstance(data, Dataset):
        raise ValueError(
            "activations are calibrated on training images; give the whole Dataset, not one split of it"
        )
    # In the order of the files the first images of a group may be alike: UTKFace's are of the young.
    order = np.random.default_rng(0).permutation(len(data.train))
    groups = data.train.groups.numpy()[order]
    progress = np.empty(len(order))
    for group, count in enumerate(data.train.group_counts):
        progress[groups == group] = np.arange(count) / count
    # In step through all groups, each at its own pace: the first of each come first.
    chosen = order[np.argsort(progress, kind="stable")[:_CALIBRATION_IMAGES]]
    return normalise(data.train.images[chosen])


def audit_models(original, quantized, data, *, device=None, batch_size=64, facts=None):
    """Audit models that are quantized already, however they came about.

    Parameters
    ----------
    original : torch.nn.Module
        The float model whose weights the others' are compared with, layer by layer.
    quantized : dict of str to torch.nn.Module
        One model a precision, as `quantskew.quantization.ptq.quantize_model` or
        `quantskew.quantization.qat.convert` gives it; the first one is the reference.
    data : Dataset or Split
        See `audit_model`; likewise `batch_size` and `facts`.
    device : str or torch.device, optional
        Where to compute; by default where `original` is.

    Returns
    -------
    Audit

    Examples
    --------
    >>> from quantskew import datasets
    >>> from quantskew.training import models
    >>> model = models.build("small_resnet", 10, in_channels=1)
    >>> pair = {name: quantize_model(model, name) for name in ("fp32", "int4")}
    >>> audit_models(model, pair, datasets.load("digits")).logits.shape
    (2, 719, 10)
    """
    split = data.test if isinstance(data, Dataset) else data
    precisions = tuple(quantized)
    device = torch.device(device or next(original.parameters()).device)
    weights = collect_statistics(original, list(quantized.values()), precisions)
    return Audit(
        _logits(list(quantized.values()), split, device, batch_size),
        split.labels.numpy(),
        split.groups.numpy(),
        precisions,
        split.class_names,
        split.group_names,
        data.train.group_counts if isinstance(data, Dataset) else None,
        weights,
        provenance=provenance(**(facts or {})),
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
