"""Run a model through the quantizers and fill an Audit."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from quantskew.audits.audit import Audit
from quantskew.audits.curvature import check_curvature, measure_curvature
from quantskew.audits.statistics import collect_statistics
from quantskew.cache import provenance
from quantskew.checks import check_known, check_whole
from quantskew.datasets import Dataset, normalise
from quantskew.quantization import checked
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, Quantizer

_LOG = logging.getLogger(__name__)
# Who is in a calibration set, see `calibration_images`.
MIXES = ("proportional", "balanced", "majority", "minority", "loss-weighted")
# What every copy is tried on before the audit.
_TRIED_IMAGES = 4


def audit_model(
    model,
    data,
    quantizers=DEFAULT_PRECISIONS,
    *,
    device=None,
    batch_size=64,
    facts=None,
    curvature=False,
    checkpoint=None,
):
    """Audit a classifier: its logits on every test image under every quantizer, and its weights.

    Everything is computed in full fp32 (fp16 excepted), in evaluation mode, on the model's copy.

    Parameters
    ----------
    model : torch.nn.Module
        Maps normalised images (B, C, H, W) to logits, or to a tuple that begins with them, or to what has
        ``logits``; it is not changed.  One in another floating-point format is converted to fp32.
    data : Dataset or Split
        Of a Dataset the test split is used, and the training split's group counts are kept; activations and
        calibrated rounding see its training images (see `calibration_images`).
    quantizers : sequence of Quantizer or str
        The first one is the reference.  Their names are the columns of the Audit.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
        With larger ones the allocator returns memory to the system between passes, which costs more than it
        saves.
    facts : dict, optional
        Added to the provenance.
    curvature : bool or int
        Whether to measure gradient norms, Hessian eigenvalues and traces as well: far more work.  A number
        is that of the test images of each group for the Hessian, which are all by default.
    checkpoint : path, optional
        See `quantskew.audits.curvature.measure_curvature`.

    Returns
    -------
    Audit

    Raises
    ------
    ValueError
        If a name is not known, there is nothing to audit, weights or logits are not finite, calibration has
        no training images, `curvature` cannot be measured, or a copy of the model fails the checks: on a few
        images it must use the weights that are listed, and folding must keep the logits.

    Examples
    --------
    >>> from quantskew import datasets
    >>> from quantskew.training import models
    >>> model = models.build("small_resnet", 10, in_channels=1)
    >>> audit_model(model, datasets.load("digits"), ["fp32", "int4", "int4:mse"]).precisions
    ('fp32', 'int4', 'int4:mse')
    """
    chosen = check_audit(quantizers, curvature)
    images = calibration_images(data) if any(own.needs_images for own in chosen) else None
    split = data.test if isinstance(data, Dataset) else data
    model, tried, logits = _ready(model, split)
    quantized = {own.name: quantize_model(model, own, images) for own in chosen}
    # Weights are compared with what they were made of: a folded model's are others.
    floats = {
        folded: quantize_model(model, Quantizer("fp32", fold_batchnorm=folded))
        for folded in {own.fold_batchnorm for own in chosen}
    }
    originals = [floats[own.fold_batchnorm] for own in chosen]
    for copied in quantized.values() if len(tried) else ():
        checked.check_use(model, copied, weight_parameters(copied), tried)
    facts = {"quantizers": list(quantized), **(facts or {})}
    if any(own.bits for own in chosen):
        facts["floating"] = floating(originals[0])
    if True in floats:
        if len(tried):
            with torch.inference_mode():
                checked.check_folded(logits, floats[True](tried).float())
        facts["unfolded"] = floats[True].unfolded
    device = torch.device(device or next(model.parameters()).device)
    audit = audit_models(originals, quantized, data, device=device, batch_size=batch_size, facts=facts)
    if not curvature:
        return audit
    surface = measure_curvature(
        checked.copied(model).to(device),
        split,
        chosen,
        images=None if curvature is True else curvature,
        checkpoint=checkpoint,
        calibration=images,
    )
    return replace(audit, curvature=surface)


class Logits(nn.Module):
    """A model that gives its logits (B, C) among other things, or with further axes, gives them alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        """Logits (B, C) of images."""
        return _logits_in(self.model(images))


def _logits_in(output):
    tensors = torch.Tensor, torch.fx.Proxy
    if isinstance(output, Mapping):
        output = output.get("logits", output)
    elif not isinstance(output, tensors):
        first = output[0] if isinstance(output, tuple | list) and output else output
        output = getattr(output, "logits", first)
    return output.flatten(1) if isinstance(output, tensors) and output.ndim > 2 else output


@torch.inference_mode()
def _ready(model, split):
    """The model in fp32 as one that gives logits, the first images, and its logits of them; or a refusal."""
    model, classes = checked.plain(model), len(split.class_names)
    tensors = [*model.parameters(), *model.buffers()]
    if any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors):
        model = checked.copied(model).float()
    images = normalise(split.images[:_TRIED_IMAGES])
    float_model = quantize_model(model, "fp32")
    images = images.to(next(float_model.parameters()).device)
    if not len(images):
        return model, images, None
    try:
        given = float_model(images)
    except Exception as error:  # a model may raise anything
        raise ValueError(
            f"the model cannot take images of shape {tuple(images.shape[1:])} "
            f"({type(error).__name__}: {str(error)[:300]}); give images of the size that it was made for"
        ) from error
    logits = _checked_logits(_logits_in(given), len(images), classes)
    alone = isinstance(given, torch.Tensor) and given.ndim == 2
    return (model if alone else Logits(model)), images, logits


def _checked_logits(logits, count, classes, column="fp32"):
    """What a model gives for a few images in fp32, refused where it cannot be their logits."""
    if not isinstance(logits, torch.Tensor) or logits.shape != (count, classes):
        shape = f" of shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else ""
        raise ValueError(
            f"the model gives a {type(logits).__name__}{shape} for {count} images at {column}, but an audit "
            f"of {classes} classes needs logits of shape {(count, classes)}, alone, first in a tuple or as "
            "logits; wrap the model in one that gives these"
        )
    logits = logits.float()
    broken = torch.nonzero(~torch.isfinite(logits).all(1)).flatten().tolist()
    if broken:
        raise ValueError(
            f"the logits are not finite for sample {broken[0]} at {column}; check the model's weights"
        )
    # Logits that are all alike, as of a model that is not trained, are no shares.
    if bool((logits >= 0).all() and (logits <= 1).all() and (logits.amax(1) > logits.amin(1)).any()):
        if classes > 1 and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
            raise ValueError("the model gives probabilities; take off the softmax at its end, to give logits")
        _LOG.warning(
            "the outputs at %s lie between 0 and 1, as those of a sigmoid do, but an audit needs logits: "
            "where there is a sigmoid at the model's end, take it off",
            column,
        )
    return logits


def floating(model):
    """What stays in floating point when a model's weights are quantized, the largest first, and its share."""
    seen, sizes = {id(weight) for weight in weight_parameters(model).values()}, {}
    quantized = {name.rpartition(".")[0] for name in weight_parameters(model)}
    for path, module in model.named_modules():
        for own, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            name = (
                f"{path} ({type(module).__name__})" if path and next(module.children(), None) is None else ""
            )
            name = "biases" if path in quantized and "bias" in own else name or f"{path}.{own}".lstrip(".")
            sizes[name] = sizes.get(name, 0) + parameter.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"share": sum(sizes.values()) / total, "names": sorted(sizes, key=sizes.get, reverse=True)}


def check_audit(quantizers, curvature=False):
    """The quantizers of an Audit; what `audit_model` cannot serve is refused before any work is done."""
    if not isinstance(curvature, bool):
        check_whole("curvature (True, False or a number of images)", curvature, 1)
    return check_curvature(quantizers) if curvature else Quantizer.each(quantizers)


def calibration_images(data, mix="proportional", count=256, seed=0, losses=None):
    """Training images, normalised, for the ranges of activations and for calibrated rounding.

    Parameters
    ----------
    data : Dataset
    mix : {"proportional", "balanced", "majority", "minority", "loss-weighted"}
        Of the groups in their shares and at least one of each; of each group as many, as far as it has them;
        of the group with most or with fewest training images alone; or drawn in proportion to the `losses`.
    count : int
        How many; all where there are fewer, but a group alone must have as many.
    seed : int
        They are drawn at random, with the same seed the same ones.
    losses : ndarray of shape (N,), optional
        Of each training image, 0 or more.

    Raises
    ------
    ValueError
        If there is no training split, the mix is not known or lacks its losses, or its group is too small.

    Examples
    --------
    >>> from quantskew import datasets
    >>> calibration_images(datasets.load("digits"), "balanced", 20).shape
    torch.Size([20, 1, 8, 8])
    """
    if not isinstance(data, Dataset):
        raise ValueError("calibration is on training images; give the whole Dataset, not one split of it")
    check_known("mix", mix, MIXES)
    check_whole("count", count, 1)
    counts, rng = data.train.group_counts, np.random.default_rng(seed)
    # In the order of the files the first images of a group may be alike: UTKFace's are of the young.
    order = rng.permutation(len(data.train))
    groups = data.train.groups.numpy()[order]
    progress = np.empty(len(order))
    if mix == "loss-weighted":
        if losses is None:
            raise ValueError("the mix loss-weighted needs the losses of the training images")
        # The smallest of these are a draw without replacement in proportion to the losses.
        progress = rng.exponential(size=len(order)) / np.maximum(losses[order], 1e-12)
    elif mix in ("majority", "minority"):
        present = np.flatnonzero(counts)
        only = present[np.argmax(counts[present]) if mix == "majority" else np.argmin(counts[present])]
        if counts[only] < count:
            raise ValueError(
                f"the {mix}, {data.group_names[only]}, has {counts[only]} training images; calibrate on as "
                f"many at most, not on {count}"
            )
        progress = groups != only
    else:
        for group, size in enumerate(counts):
            progress[groups == group] = np.arange(size) / (size if mix == "proportional" else 1)
    # In step through all groups, each at its own pace: the first of each come first.
    chosen = order[np.argsort(progress, kind="stable")[:count]]
    return normalise(data.train.images[chosen])


def audit_models(original, quantized, data, *, device=None, batch_size=64, facts=None):
    """Audit models that are quantized already, however they came about, by the columns that they make.

    Weights are compared layer by layer with those of the float model `original`, or of one for each column.
    """
    originals = original if isinstance(original, list) else [checked.plain(original)] * len(quantized)
    split = data.test if isinstance(data, Dataset) else data
    models = list(quantized.values())
    if not isinstance(original, list):
        _check_models(originals[0], quantized, split)
    device = torch.device(device or next(originals[0].parameters()).device)
    weights = collect_statistics(originals, models)
    return Audit(
        _logits(models, split, device, batch_size),
        split.labels.numpy(),
        split.groups.numpy(),
        tuple(quantized),
        split.class_names,
        split.group_names,
        data.train.group_counts if isinstance(data, Dataset) else None,
        weights,
        provenance=provenance(**(facts or {})),
    )


@torch.inference_mode()
def _check_models(original, quantized, split):
    """Refuse models that an audit of their columns would misread, before it begins."""
    images = normalise(split.images[:_TRIED_IMAGES])
    for name, model in quantized.items() if len(images) else ():
        own = images.to(next(model.parameters()).device)
        given = checked.check_use(original, model, weight_parameters(model), own)
        _checked_logits(given, len(images), len(split.class_names), name)


def _logits(models, split, device, batch_size):
    models = [model.to(device) for model in models]
    batches = [np.empty((len(models), 0, len(split.class_names)), np.float32)]
    total = len(split) * len(models)
    with torch.inference_mode(), tqdm(total=total, desc="auditing", unit=" images", leave=False) as bar:
        for start in range(0, len(split), batch_size):
            inputs = normalise(split.images[start : start + batch_size].to(device))
            # Every precision sees a batch while it is at hand; images are normalised once.
            outputs = [model(inputs).float().cpu() for model in models]
            batches.append(torch.stack(outputs).numpy())
            bar.update(len(inputs) * len(models))
    return np.concatenate(batches, axis=1)
