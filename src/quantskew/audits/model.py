"""Run a model through the quantizers and fill an Audit."""

import itertools
import logging
from collections import Counter
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
from quantskew.datasets import Dataset, Split, normalise
from quantskew.groups import as_array, distinct
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
    calibration=None,
    class_names=None,
    group_names=None,
    further=None,
):
    """Audit a classifier: its logits on every test sample under every quantizer, and its weights.

    Everything is computed in full fp32 (fp16 excepted), in evaluation mode, on the model's copy.

    Parameters
    ----------
    model : torch.nn.Module, callable, or dict of str to callable
        Maps what it is fed to logits (B, C), or to a tuple that begins with them, or to what has ``logits``;
        one logit for two classes is taken for [0, z].  It is not changed; one in another floating-point
        format is converted to fp32.  Of functions the weights cannot be replaced: they are audited as they
        are, as the columns of their names, the reference first.
    data : Dataset, Split, or iterable
        Of a Dataset the test split is used, and the training split's group counts are kept; activations and
        calibrated rounding see its training images (see `calibration_images`).  Or any iterable of batches
        (inputs, labels, groups), as a DataLoader gives them, or of dicts with ``labels`` and ``groups``,
        whose other values the model is fed by name; a data set of torch or of Hugging Face that has them; or
        one tuple of three arrays.  The inputs are what the model expects: nothing is done to them.
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
    calibration : Tensor, optional
        What activations are calibrated on, where `data` is no Dataset: inputs as the model expects them.
    class_names, group_names : sequence of str, optional
        Of the ids 0, 1, ..., where `data` is an iterable.
    further : dict of str to callable, optional
        Functions from inputs to logits for further columns: the model in other runtimes.

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
    >>> weights = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    >>> arrays = np.array([[2.0, 1.0], [0.0, 1.0]]), [0, 1], ["a", "b"]
    >>> audit_model(lambda inputs: inputs @ weights, arrays).predictions
    array([[0, 1]])
    """
    split = data.test if isinstance(data, Dataset) else data
    feed = _Feed(split, batch_size, class_names, group_names)
    if not isinstance(model, nn.Module):
        further = model if isinstance(model, Mapping) else {"fp32": model}
        if not all(map(callable, further.values())) or isinstance(model, torch.export.ExportedProgram):
            what = f"a model is a torch.nn.Module or functions; got a {type(model).__name__}"
            raise ValueError(f"{what}: load files with qs.load_model, a state_dict with load_state_dict")
        if quantizers is not DEFAULT_PRECISIONS or curvature:
            raise ValueError("a function's weights cannot be replaced: leave out quantizers and curvature")
        return _filled({}, further, feed, device or "cpu", data, facts)
    chosen = check_audit(quantizers, curvature)
    if curvature and not isinstance(split, Split):
        raise ValueError("curvature is measured on the images of a Dataset or Split; leave it out")
    if calibration is None and any(own.needs_images for own in chosen):
        calibration = calibration_images(data)
    model, tried, logits = _ready(model, feed)
    quantized = {own.name: quantize_model(model, own, calibration) for own in chosen}
    # Weights are compared with what they were made of: a folded model's are others.
    plain = {own.fold_batchnorm: Quantizer("fp32", fold_batchnorm=own.fold_batchnorm) for own in chosen}
    floats = {folded: quantize_model(model, own) for folded, own in plain.items()}
    originals = [floats[own.fold_batchnorm] for own in chosen]
    for copied in quantized.values() if logits is not None else ():
        checked.check_use(model, copied, weight_parameters(copied), tried)
    facts = {"quantizers": list(quantized), **(facts or {})}
    if any(own.bits for own in chosen):
        facts["floating"] = floating(originals[0])
    if True in floats:
        if logits is not None:
            with torch.inference_mode():
                checked.check_folded(logits, floats[True](tried).float())
        facts["unfolded"] = floats[True].unfolded
    device = torch.device(device or next(model.parameters()).device)
    weights = None if further else collect_statistics(originals, list(quantized.values()))
    audit = _filled(quantized, further or {}, feed, device, data, facts, weights)
    if not curvature:
        return audit
    options = {"images": None if curvature is True else curvature, "calibration": calibration}
    copied = checked.copied(model).to(device)
    surface = measure_curvature(copied, split, chosen, checkpoint=checkpoint, **options)
    return replace(audit, curvature=surface)


class Logits(nn.Module):
    """A model that gives its logits (B, C) among other things, or with further axes, gives them alone.

    It is fed a tensor, a tuple of what it takes, or a dict of that by name.  Of two `classes` one logit z
    stands for [0, z].
    """

    def __init__(self, model, classes=None):
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, inputs):
        """Logits (B, C) of inputs."""
        return logits_in(_fed(self.model, inputs), self.classes)


def _fed(model, inputs):
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def logits_in(output, classes=None):
    """The logits (B, C) in what a model gives; where there may be two classes, of one logit too."""
    tensors = torch.Tensor, torch.fx.Proxy
    if isinstance(output, np.ndarray):
        output = torch.from_numpy(output)
    elif isinstance(output, Mapping):
        output = output.get("logits", output)
    elif not isinstance(output, tensors):
        first = output[0] if isinstance(output, tuple | list) and output else output
        output = getattr(output, "logits", first)
    if isinstance(output, torch.Tensor) and classes in (2, None) and output.numel() == len(output):
        return torch.stack([torch.zeros_like(output.flatten()), output.flatten()], dim=1)
    return output.flatten(1) if isinstance(output, torch.Tensor) and output.ndim > 2 else output


class _Feed:
    """Samples batch by batch: what a model is fed; labels and groups are gathered on the way."""

    def __init__(self, data, size, class_names=None, group_names=None):
        own = isinstance(data, Split)
        self.prepare, self.total = (normalise, len(data)) if own else (lambda inputs: inputs, None)
        self.names = (data.class_names, data.group_names) if own else (class_names, group_names)
        self.labels, self.groups, batches = [], [], _batches(data, size)
        first = list(itertools.islice(batches, 1))
        if not own and not first:
            raise ValueError("there are no samples to audit: the data are empty")
        self.batches = itertools.chain(first, batches)
        self.tried = first and self.prepare(_each(first[0][0], lambda tensor: tensor[:_TRIED_IMAGES]))
        self.count = min(_TRIED_IMAGES, len(first[0][1])) if first else 0
        self.classes = len(self.names[0]) if own or self.names[0] else None
        if first:
            # Refused before any work, where they are no classes.
            distinct(first[0][1], "label")

    def on(self, device):
        """What the model is fed, batch by batch."""
        for inputs, labels, groups in self.batches:
            self.labels.append(as_array(labels, "labels"))
            self.groups.append(as_array(groups, "groups"))
            yield self.prepare(_each(inputs, lambda tensor: tensor.to(device))), len(self.labels[-1])


def _batches(data, size):
    """(inputs, labels, groups) of each batch, whatever holds the samples."""
    if isinstance(data, Split):
        data = data.images, data.labels, data.groups
    elif isinstance(data, torch.utils.data.Dataset):
        data = torch.utils.data.DataLoader(data, size)
    elif hasattr(data, "iter") and hasattr(data, "column_names"):
        data = data.iter(batch_size=size)
    if isinstance(data, tuple) and len(data) == 3:
        whole, labels, groups = data
        parts = (slice(start, start + size) for start in range(0, len(labels), size))
        data = ((_each(whole, lambda own, p=p: own[p]), labels[p], groups[p]) for p in parts)
    for batch in data:
        if isinstance(batch, Mapping):
            fed = dict(batch)
            labels, groups = (fed.pop(what, fed.pop(f"{what}s", None)) for what in ("label", "group"))
            batch = (fed if len(fed) != 1 else next(iter(fed.values()))), labels, groups
        if not isinstance(batch, tuple | list) or len(batch) != 3 or any(own is None for own in batch):
            raise ValueError("each batch must be (inputs, labels, groups), or a dict with labels and groups")
        yield _each(batch[0], _tensor), *batch[1:]


def _each(inputs, function):
    """What a model is fed, with the function applied to each array or tensor."""
    if isinstance(inputs, Mapping):
        return {name: _each(own, function) for name, own in inputs.items()}
    return tuple(_each(own, function) for own in inputs) if isinstance(inputs, tuple) else function(inputs)


def _tensor(values):
    tensor = torch.as_tensor(np.asarray(values) if isinstance(values, list) else values)
    return tensor.float() if tensor.dtype == torch.float64 else tensor


@torch.inference_mode()
def _ready(model, feed):
    """The model in fp32 as one that gives logits, the first inputs, and its logits of them; or a refusal."""
    model = checked.plain(model)
    tensors = [*model.parameters(), *model.buffers()]
    if any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors):
        model = checked.copied(model).float()
    float_model = quantize_model(model, "fp32")
    device = next(float_model.parameters()).device
    if not feed.count:
        return model, None, None
    tried = _each(feed.tried, lambda tensor: tensor.to(device))
    try:
        given = _fed(float_model, tried)
    except Exception as error:  # a model may raise anything
        shape = tuple(tried.shape[1:]) if isinstance(tried, torch.Tensor) else "these inputs"
        why = f"({type(error).__name__}: {str(error)[:300]}); give images of the size that it was made for"
        raise ValueError(f"the model cannot take images of shape {shape} {why}") from error
    logits = _checked_logits(logits_in(given, feed.classes), feed.count, feed.classes)
    alone = given is logits_in(given, feed.classes) and isinstance(tried, torch.Tensor)
    return (model if alone else Logits(model, feed.classes)), tried, logits


def _checked_logits(logits, count, classes, column="fp32"):
    """What a model gives for a few images in fp32, refused where it cannot be their logits."""
    classes = classes or (logits.shape[-1] if getattr(logits, "ndim", 0) == 2 else "its")
    if not isinstance(logits, torch.Tensor) or logits.shape != (count, classes):
        shape = f" of shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else ""
        what = f"the model gives a {type(logits).__name__}{shape} for {count} images at {column}"
        needs = f"needs logits of shape {(count, classes)}, alone, first in a tuple or as logits"
        remedy = "wrap the model in one that gives these (of a detector: the classifier of its boxes)"
        raise ValueError(f"{what}, but an audit of {classes} classes {needs}; {remedy}")
    logits = logits.float()
    broken = torch.nonzero(~torch.isfinite(logits).all(1)).flatten().tolist()
    if broken:
        what = f"the logits are not finite for sample {broken[0]} at {column}"
        raise ValueError(f"{what}; check the model's weights")
    # Logits that are all alike, as of a model that is not trained, are no shares.
    if bool((logits >= 0).all() and (logits <= 1).all() and (logits.amax(1) > logits.amin(1)).any()):
        if classes > 1 and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
            raise ValueError("the model gives probabilities; take off the softmax at its end, to give logits")
        said = "the outputs at %s lie between 0 and 1, as those of a sigmoid do, but an audit needs logits"
        _LOG.warning(f"{said}: where there is a sigmoid at the model's end, take it off", column)
    return logits


def floating(model):
    """What stays in floating point when a model's weights are quantized, the largest first, and its share."""
    weights, sizes = weight_parameters(model), Counter()
    quantized = {name.rpartition(".")[0] for name in weights}
    for name, parameter in model.named_parameters():
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        if path in quantized and "bias" in own:
            name = "biases"
        elif path and next(module.children(), None) is None:
            name = f"{path} ({type(module).__name__})"
        if all(parameter is not weight for weight in weights.values()):
            sizes[name] += parameter.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"share": sizes.total() / total, "names": [name for name, _ in sizes.most_common()]}


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
    if not isinstance(data, Dataset) or not len(data.train):
        remedy = "give the whole Dataset, not one split of it, calibration, or --train"
        raise ValueError(f"calibration is on training images; {remedy}")
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
            has = f"the {mix}, {data.group_names[only]}, has {counts[only]} training images"
            raise ValueError(f"{has}; calibrate on as many at most, not on {count}")
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
    feed = _Feed(data.test if isinstance(data, Dataset) else data, batch_size)
    originals = original if isinstance(original, list) else [checked.plain(original)] * len(quantized)
    for name, model in quantized.items() if feed.count and not isinstance(original, list) else ():
        own = feed.tried.to(next(model.parameters()).device)
        with torch.inference_mode():
            given = checked.check_use(originals[0], model, weight_parameters(model), own)
        _checked_logits(given, feed.count, feed.classes, name)
    weights = collect_statistics(originals, list(quantized.values()))
    device = device or next(originals[0].parameters()).device
    return _filled(quantized, {}, feed, device, data, facts, weights)


def _filled(models, further, feed, device, data, facts, weights=None):
    """The Audit of models and functions, which all see a batch while it is at hand."""
    names = *models, *further
    columns = [model.to(device) for model in models.values()]
    columns += [Logits(function, feed.classes) for function in further.values()]
    total, batches = feed.total and feed.total * len(names), []
    with torch.inference_mode(), tqdm(total=total, desc="auditing", unit=" samples", leave=False) as bar:
        for inputs, count in feed.on(device):
            outputs = [model(inputs) for model in columns]
            for name, output in zip(further, outputs[len(models) :], strict=True) if not batches else ():
                _checked_logits(output, count, feed.classes, name)
            batches.append(torch.stack([output.float().cpu() for output in outputs]).numpy())
            bar.update(count * len(names))
    class_names, group_names = feed.names
    if not batches:
        batches, feed.labels, feed.groups = [np.empty((len(names), 0, feed.classes), np.float32)], [[]], [[]]
    labels, groups = np.concatenate(feed.labels), np.concatenate(feed.groups)
    logits, made_by = np.concatenate(batches, axis=1), provenance(**(facts or {}))
    if feed.total is not None:
        counts = data.train.group_counts if isinstance(data, Dataset) and len(data.train) else None
        ids = labels.astype(np.int64), groups.astype(np.int64)
        return Audit(logits, *ids, names, class_names, group_names, counts, weights, provenance=made_by)
    columns = dict(zip(names, logits, strict=True))
    audit = Audit.from_logits(columns, labels, groups, group_names, class_names, provenance=made_by)
    return replace(audit, weights=weights)
