"""A model as it is shipped, in a file: read without unpickling, fed as it expects, checked, and audited."""

import contextlib
import importlib
import inspect
import json
import os
import sys
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from scipy.optimize import linear_sum_assignment
from torch import nn

from quantskew.audits.model import Logits, audit_model
from quantskew.audits.runtimes import logits_functions, session, version
from quantskew.checks import check_known, in_brief, shortened, some
from quantskew.datasets import Dataset, Split, listed, normalise
from quantskew.datasets.listed import FIELDS, Preprocessing, facts_of
from quantskew.datasets.split import split_arrays
from quantskew.groups import distinct
from quantskew.quantization import checked
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS
from quantskew.training import models

# What metadata say of images: a key of ONNX and safetensors, a file in .pt2 and TorchScript.
_KEY, _FILE = "preprocessing", "preprocessing.json"
_BUILDERS = "torchvision:NAME, timm:NAME or package.module:function"
_BATCH = 64
# Images that ways to prepare them are compared on, at most and at first, and what is clearly better.
_COMPARED, _TRIED = 1024, 96
_CLEARLY, _CHANCE = 0.02, 0.01


def load(path, arch=None, num_classes=None):
    """A model from a file, and what it says of its images.

    The file is a torch.export program (.pt2), ONNX, TorchScript, or a checkpoint (safetensors or torch.save)
    of the network that `arch` builds.  Nothing is unpickled that could run code.  A program is run, and so is
    `arch`: take them from someone you trust.

    Parameters
    ----------
    path : path
    arch : str, optional
        ``torchvision:NAME``, ``timm:NAME`` or ``package.module:function``, which may take ``num_classes``.
    num_classes : int, optional
        For `arch`.

    Returns
    -------
    model : torch.nn.Module or callable
        A function where weights cannot be replaced: of ONNX and TorchScript.
    facts : dict of str to (value, str)
        Of its images (see `quantskew.datasets.listed.facts_of`), each with where it is from.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is not there, cannot be read without running code, or does not fit `arch`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}; give .pt2, .onnx, TorchScript or a checkpoint")
    records = _records(path)
    kinds = {"ONNX": path.suffix == ".onnx", "torch.export": "archive_format" in records}
    kinds |= {"TorchScript": any(name.startswith("code/") for name in records)}
    kind = next((kind for kind, found in kinds.items() if found), None)
    if kind is None:
        if arch is None:
            raise ValueError(f"{path} holds weights alone; say with --arch of which network: {_BUILDERS}")
        said = _said(path, records)
        model, facts = _built(arch, len(said["classes"][0]) if "classes" in said else num_classes)
        models.load_weights(model, path)
        return model.eval(), facts | said
    if arch is not None:
        raise ValueError(f"{path} is a whole model ({kind}); leave out --arch, or give a checkpoint")
    try:
        return {"ONNX": _onnx, "TorchScript": _script, "torch.export": _exported}[kind](path, records)
    except ImportError:
        raise ValueError(f"{path} needs onnxruntime; pip install onnxruntime") from None
    except ValueError:
        raise
    except Exception as error:  # whatever a reader raises of bytes from outside
        raise ValueError(f"{path} cannot be read as {kind} ({in_brief(error)})") from error


def _records(path):
    """Names of what a zip archive of torch holds, by the reader that torch itself uses."""
    try:
        return torch._C.PyTorchFileReader(str(path)).get_all_records()
    except RuntimeError:
        return []


def _said(path, records=(), text=None):
    """What the metadata of a file say of images, with their source, or the text of a file of its own."""
    if f"extra/{_FILE}" in records:
        text = torch._C.PyTorchFileReader(str(path)).get_record(f"extra/{_FILE}")
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    try:
        said = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text or "{}")
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"what {path} says of its images is no JSON or TOML ({error})") from None
    return {name: (value, path.name) for name, value in facts_of(said, path).items()}


def _built(arch, num_classes):
    """The network of a builder, with random weights, and what its library says of images."""
    library, _, name = arch.partition(":")
    if not name:
        raise ValueError(f"--arch is {_BUILDERS}; got {shortened(arch)}")
    if library == "torchvision":
        models.check_name(name)
        weights = _import("torchvision.models").get_model_weights(name).DEFAULT
        how = weights.transforms()
        facts = {"size": how.crop_size[0], "resize": how.resize_size[0], "mean": how.mean, "std": how.std}
        facts["interpolation"] = how.interpolation.value
        return models.build(name, num_classes), {own: (value, str(weights)) for own, value in facts.items()}
    if library == "timm":
        model = _import("timm").create_model(name, pretrained=False, num_classes=num_classes)
        facts = facts_of(model.pretrained_cfg, arch)
        return model, {own: (value, f"timm's {name}") for own, value in facts.items()}
    with mock.patch.object(sys, "path", [os.getcwd(), *sys.path]):
        build = getattr(_import(library), name, None)
    if not callable(build):
        raise ValueError(f"--arch {arch}: {library} has no function {name}")
    takes = "num_classes" in inspect.signature(build).parameters
    return build(num_classes=num_classes) if takes else build(), {}


def _import(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"--arch: {name} cannot be imported ({error}); install it, or go there") from None


def _onnx(path, records):
    run, running = session(path)
    if len(running.get_inputs()) > 1:
        raise ValueError(f"{path} takes several inputs; an audit of a file feeds it images alone")
    return run, _said(path, text=running.get_modelmeta().custom_metadata_map.get(_KEY))


def _script(path, records):
    with warnings.catch_warnings():
        # Of its retirement, which whoever has such a file knows.
        warnings.simplefilter("ignore", FutureWarning)
        model = torch.jit.load(str(path), map_location="cpu").eval()
    return lambda images: model(images), _said(path, records)


def _exported(path, records):
    risky = [n for n in records if any(part in n for part in ("custom_obj_", "opaque_obj_", "aotinductor/"))]
    if risky:
        raise ValueError(f"{path} holds what would be run or unpickled ({risky[0]}); export it without")
    # Otherwise torch.export falls back to unpickling whatever there is.
    with mock.patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):
        module = torch.export.load(str(path)).module(check_guards=False)
    size = next(node for node in module.graph.nodes if node.op == "placeholder").meta["val"].shape[0]
    # A plain one, which can be copied and put into evaluation mode.
    model = torch.fx.GraphModule(module, module.graph)
    return FixedBatch(model, size) if isinstance(size, int) else model, _said(path, records)


class FixedBatch(nn.Module):
    """A model for batches of one size, for those of any: what the last one lacks is zeros."""

    def __init__(self, model, size):
        super().__init__()
        self.model, self.size = Logits(model), size

    def forward(self, images):
        """Logits (B, C) of images."""
        lacking = images.new_zeros(-len(images) % self.size, *images.shape[1:])
        parts = torch.cat([images, lacking]).split(self.size)
        return torch.cat([self.model(part) for part in parts])[: len(images)]


def prepared(path, facts):
    """The `Preprocessing` of a model by its facts, and words that say where each value is from.

    Size, mean and deviation are never assumed.
    """
    missing = [f"--{name}" for name in ("size", "mean", "std") if name not in facts]
    if missing:
        what = f"how {path} expects its images is not known: give {', '.join(missing)}"
        raise ValueError(f"{what}, or --preprocessing with JSON or TOML of {', '.join(FIELDS)}")
    sources = {}
    for name in FIELDS:
        sources.setdefault(facts.get(name, (None, "the default"))[1], []).append(name)
    how = Preprocessing(**{name: facts[name][0] for name in FIELDS if name in facts})
    return how, f"{how}; {'; '.join(f'{some(own, 9)} from {source}' for source, own in sources.items())}"


def class_ids(labels, names=None):
    """Ids of labels by the names of the classes, and the names: sorted, or none where labels are numbers."""
    if names is None and all(label.isdecimal() for label in labels):
        return np.array(labels, dtype=np.int64), None
    names = tuple(names or sorted(set(labels)))
    places = {name: place for place, name in enumerate(names)}
    unknown = sorted({*labels} - {*names})
    if unknown:
        what = f"{len(unknown)} labels, the first {shortened(unknown[0])}, are"
        raise ValueError(f"{what} no class of {some([*map(str, names)], 10)}; give all with --classes")
    return np.array([places[label] for label in labels]), names


@torch.inference_mode()
def better_ways(model, samples, labels, how):
    """A sentence on usual preprocessing with which the model would clearly score better, in a list, or none.

    All ways are tried on a few images, drawn at random, and the best on more, where it has to win by an exact
    McNemar test that is corrected for their number.
    """
    index = np.random.default_rng(0).permutation(len(labels))[:_COMPARED].tolist()
    few, more, tried = index[:_TRIED], index[_TRIED:], {}
    ways = how.alternatives([_shape(samples.paths[sample]) for sample in few])

    def right(way, chunk):
        parts = samples.batches(way, chunk, _BATCH, {})
        found = [model(way.inputs(pixels)).argmax(1).numpy() == labels[own] for own, pixels in parts]
        return np.concatenate([np.empty(0, bool), *found])

    given = right(how, few)
    for name, own in ways.items():
        # A model may raise anything where it is fed another size.
        with contextlib.suppress(Exception):
            tried[name] = right(own, few)
    name = max(tried, key=lambda name: tried[name].sum(), default=None)
    if name is None or tried[name].sum() <= given.sum():
        return []
    other, given = np.append(tried[name], right(ways[name], more)), np.append(given, right(how, more))
    if not _is_better(other, given, _CLEARLY, _CHANCE / len(ways)):
        return []
    said = f"{name} would score {other.mean():.1%} on {len(given)} images where the preprocessing"
    return [f"{said} that is used scores {given.mean():.1%}; look up how the model was trained"]


def _shape(path):
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:  # it is left out, and said, when it is decoded
        return 1, 1


def _is_better(other, given, gain, chance):
    """Whether the other way is right more often by so much, and McNemar's exact test says so."""
    # Here, since it is slow to import and every command comes by.
    from scipy.stats import binomtest

    more, fewer = int((other & ~given).sum()), int((given & ~other).sum())
    enough = more - fewer >= max(gain * len(given), 1)
    return enough and binomtest(more, more + fewer, alternative="greater").pvalue < chance


def better_order(predictions, labels, names):
    """A sentence on another order of the classes that would clearly score better, in a list, or none.

    The order is fitted on one half of the samples and judged on the other.
    """
    halves, fitted = np.random.default_rng(0).permutation(len(labels)) % 2, np.empty_like(predictions)
    for half in (0, 1):
        order = _order(predictions[halves == half], labels[halves == half], len(names))
        fitted[halves != half] = order[predictions[halves != half]]
    given, other = predictions == labels, fitted == labels
    # A model that knows next to nothing does a little better in some order, too.
    least = min(0.5, 2 * np.bincount(labels).max() / len(labels))
    if not _is_better(other, given, 2 * _CLEARLY, _CHANCE) or other.mean() < least:
        return []
    order = [names[place] for place in _order(predictions, labels, len(names))]
    pairs = [(own, new) for own, new in zip(names, order, strict=True) if own != new]
    moved = [f"{shortened(own)} is {shortened(new)}" for own, new in pairs]
    return [
        f"another order of the classes would score {other.mean():.1%}, this one {given.mean():.1%}: "
        f"what is called {some(moved)}; give --classes in the model's order, perhaps {','.join(order[:20])}"
    ]


def _order(predictions, labels, count):
    """The class that each output most plausibly stands for."""
    table = np.eye(count) / 2
    np.add.at(table, (predictions, labels), 1)
    return linear_sum_assignment(table, maximize=True)[1]


@dataclass(frozen=True)
class Opened:
    """A model in a file with its test images, which fit together.

    Attributes
    ----------
    model : torch.nn.Module or callable
        See `load`.
    samples : Listed
    labels : ndarray of int64, shape (N,)
    names : tuple of str, length C
        Of the classes; their numbers where nobody named them.
    how : Preprocessing
    facts : dict
        ``model``, ``preprocessing`` and ``classes`` in words, and ``warnings``: to be read before any number.
    accuracy : float
        That the model is said to have, or 0.
    """

    model: nn.Module | Callable
    samples: listed.Listed
    labels: np.ndarray
    names: tuple
    how: Preprocessing
    facts: dict
    accuracy: float

    def doubt(self, predictions, labels):
        """Add to the warnings what speaks against such predictions (N,) of the model as it is."""
        self.facts["warnings"] += better_order(predictions, labels, self.names)
        from scipy.stats import binomtest

        found = binomtest(int((predictions == labels).sum()), len(labels))
        if found.proportion_ci(0.99).high < self.accuracy:
            said = f"the accuracy is {found.statistic:.1%} where {self.accuracy:.1%} is expected"
            self.facts["warnings"].append(said)

    def dataset(self, name, train=None, group=None, seed=0):
        """The test images and those of a `Listed` for training in memory, as a `Dataset`.

        Without any for training the other splits are empty.
        """
        column, arrays, left_out = group or next(iter(self.samples.columns)), [[], [], [], []], {}
        tests = 2, self.samples, self.labels
        trained = [(0, train, class_ids(train.labels, self.names)[0])] if train else []
        for split, samples, labels in (*trained, tests):
            check_known("group column", column, samples.columns)
            for index, pixels in samples.batches(self.how, range(len(labels)), _BATCH, left_out):
                groups = [samples.columns[column][place] for place in index]
                own = pixels, labels[index], groups, [split] * len(index)
                for array, part in zip(arrays, own, strict=True):
                    array.append(part)
        images, labels, groups, given = map(np.concatenate, arrays)
        ids, group_names = distinct(groups)
        if train:
            named = self.names, group_names, seed, left_out
            return split_arrays(name, images, labels, ids, *named, given=given)
        whole = Split(*map(torch.from_numpy, (images, labels, ids)), self.names, tuple(group_names))
        return Dataset(name, whole.subset([]), whole.subset([]), whole, left_out)

    def network(self, arch=None):
        """The model for images as data sets give them; with `arch` that network with random weights."""
        if not isinstance(self.model, nn.Module):
            said = f"{self.facts['model']}, and what is asked for needs another"
            raise ValueError(f"{said}: give a .pt2 of torch.export, or a checkpoint with --arch")
        return Fed(_built(arch, len(self.names))[0] if arch else checked.copied(self.model), self)


def told(facts):
    """What is to be read before any number of an Audit with such facts or provenance, a line each."""
    lines = [f"{what}: {facts[what]}" for what in ("model", "preprocessing", "classes") if what in facts]
    # The left out of an experiment are a number, which was said when it was loaded.
    left_out = facts.get("left_out", {}) if "samples" in facts else {}
    lines += [f"left out: {shortened(name)} ({reason})" for name, reason in left_out.items()]
    return lines + [f"WARNING: {warning}" for warning in facts.get("warnings", ())]


class Fed(Logits):
    """A model that takes images as `quantskew.datasets.normalise` gives them, and is fed as it expects."""

    def __init__(self, model, opened):
        super().__init__(model, len(opened.names))
        how, self.reverse = opened.how, opened.how.channels == "bgr"
        ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, how.width, 1, 1)
        # Both ways of feeding it are straight lines through the darkest and the lightest pixel.
        low, high = normalise(ends).double().flip(1 if self.reverse else ())
        dark, light = how.inputs(ends)
        factor = (light - dark) / (high - low)
        self.register_buffer("factor", factor.float(), persistent=False)
        self.register_buffer("offset", (dark - low * factor).float(), persistent=False)

    def forward(self, inputs):
        """Logits (B, C) of normalised images."""
        return super().forward((inputs.flip(1) if self.reverse else inputs) * self.factor + self.offset)


def opened(path, samples, arch=None, given=None):
    """The model of a file with its test images, see `audit_file`, and what already speaks against them."""
    said = {name: (value, f"--{name}") for name, value in (given or {}).items()}
    if "preprocessing" in said:
        file = Path(said.pop("preprocessing")[0])
        said = _said(file, text=file.read_text(encoding="utf-8")) | said
    labels, names = class_ids(samples.labels, said.get("classes", [None])[0])
    model, facts = load(path, arch, len(names) if names else int(labels.max()) + 1)
    facts = {name: own for name, own in facts.items() if name != "resize" or "size" not in said} | said
    if "classes" in facts:
        labels, names = class_ids(samples.labels, facts["classes"][0])
    how, words = prepared(path, facts)
    run = Logits(model, names and len(names))
    order = facts.get("classes", (0, "their numbers" if names is None else "the labels, sorted"))[1]
    try:
        first = next(samples.batches(how, range(len(labels)), 1, {}))[1]
        with torch.inference_mode():
            count = run(how.inputs(first)).shape[1]
    except Exception as error:  # a model may raise anything
        raise ValueError(f"{path} cannot take images of {how} ({str(error)[:200]})") from error
    if count != len(names or range(count)):
        what = f"{path} gives {count} logits, but there are {len(names)} classes, from {order}"
        raise ValueError(f"{what}; give the names of all with --classes, in the order of the logits")
    names = tuple(map(str, names or range(count)))
    as_it_is = "" if isinstance(model, nn.Module) else ", as it is: its weights cannot be replaced"
    told = {"model": f"{Path(path).name}{as_it_is}", "preprocessing": words}
    told |= {"classes": f"{some(names)}, from {order}", "warnings": better_ways(run, samples, labels, how)}
    return Opened(model, samples, labels, names, how, told, facts.get("accuracy", [0])[0])


def audit_file(
    path, test, quantizers=("fp32",), *, runtimes=(), arch=None, given=None, calibration=None, device=None
):
    """Audit the model of a file on listed test images: an Audit for each group column and intersection.

    Parameters
    ----------
    path, arch
        See `load`.
    test : path or Listed
        See `quantskew.datasets.listed.read`.
    quantizers : sequence of Quantizer or str
        Of ONNX and TorchScript the weights cannot be replaced: there it is fp32 alone, the model as it is.
    runtimes : sequence of str
        Of `quantskew.audits.runtimes.RUNTIMES`: further columns.
    given : dict, optional
        Attributes of the `Preprocessing`, ``classes`` (names in the order of the logits), the ``accuracy``
        that the model is known to have, or ``preprocessing``, a JSON or TOML file of these.  By default they
        are what the metadata of the model say, and classes the labels, sorted.
    calibration : path, optional
        Images to take the ranges of activations from, listed as those of `test`; runtimes need them, too.
    device : str, optional

    Returns
    -------
    dict of str to Audit
        Their provenance has ``model``, ``preprocessing``, ``classes``, ``samples`` (the ids), ``left_out``
        and ``warnings``, which are to be read before any number.
    """
    samples = test if isinstance(test, listed.Listed) else listed.read(test)
    model = opened(path, samples, arch, given)
    how, labels, told = model.how, model.labels, model.facts
    replaced, asked = isinstance(model.model, nn.Module), tuple(map(str, quantizers))
    if not replaced and asked not in (("fp32",), DEFAULT_PRECISIONS):
        what = f"{path}: the weights of ONNX and TorchScript cannot be replaced; give --precisions fp32"
        raise ValueError(f"{what}, or a .pt2 or a checkpoint of the model")
    if runtimes and calibration is None:
        raise ValueError("runtimes are calibrated: give images other than the test's with --train")
    everything, left_out, kept = range(len(labels)), {}, []
    first = next(iter(samples.columns.values()))

    def batches():
        for index, pixels in samples.batches(how, everything, _BATCH, left_out):
            kept.extend(index)
            yield how.inputs(pixels), labels[index], [first[place] for place in index]

    others = None
    if calibration is not None:
        others = calibration if isinstance(calibration, listed.Listed) else listed.read(calibration)
        chosen = np.random.default_rng(0).permutation(len(others.names))[:256].tolist()
        calibration = how.inputs(next(others.batches(how, chosen, 256, {}))[1])
    functions = {}
    if runtimes:
        source = model.model if replaced else path
        functions, refused = logits_functions(runtimes, source, calibration)
        told |= {"runtimes": {name: version(name) for name in functions}, "runtimes_left_out": refused}
    options = {"quantizers": quantizers, "calibration": calibration, "further": functions} if replaced else {}
    own = model.model if replaced else {"fp32": model.model, **functions}
    made = audit_model(own, batches(), class_names=model.names, device=device, facts=told, **options)
    model.doubt(made.predictions[0], made.labels)
    made.provenance.update(samples=[samples.names[place] for place in kept], left_out=left_out)
    audits = {name: made.regrouped([own[place] for place in kept]) for name, own in samples.columns.items()}
    for name in others.columns.keys() & audits.keys() if others else ():
        counts = np.array([others.columns[name].count(group) for group in audits[name].group_names])
        audits[name] = replace(audits[name], train_counts=counts)
    return audits
