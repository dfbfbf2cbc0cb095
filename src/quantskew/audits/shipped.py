"""A model as it is shipped, in a file: read without unpickling, fed as it expects, checked, and audited."""

import importlib
import inspect
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import nn

from quantskew.audits.audit import Audit
from quantskew.audits.model import Logits, audit_model
from quantskew.checks import shortened, some
from quantskew.datasets import listed
from quantskew.datasets.preprocessing import FIELDS, Preprocessing, facts_of, read_facts
from quantskew.groups import distinct
from quantskew.quantization.quantizer import Quantizer
from quantskew.training import models

# What the metadata of a model say of its images: a key of ONNX and safetensors, a file in .pt2 and TorchScript.
_KEY, _FILE = "preprocessing", "preprocessing.json"
_BUILDERS = "torchvision:NAME, timm:NAME or package.module:function"
_BATCH = 64
# Images that ways to prepare them are compared on, at most and a round, and what is clearly better.
_COMPARED, _ROUND = 1024, 64
_CLEARLY, _CHANCE = 0.02, 0.01
_aten = torch.ops.aten
_CONVOLUTIONS = _aten.conv1d, _aten.conv2d, _aten.conv3d, _aten.convolution
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


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
        Of its images (see `quantskew.datasets.preprocessing.facts_of`), each with where it is from.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is not there, cannot be read without running code, or does not fit `arch`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}; give a .pt2, .onnx, TorchScript or checkpoint file")
    records = _records(path)
    kinds = {"ONNX": path.suffix == ".onnx", "torch.export": "archive_format" in records}
    kinds |= {"TorchScript": any(name.startswith("code/") for name in records)}
    kind = next((kind for kind, found in kinds.items() if found), None)
    if kind is None:
        if arch is None:
            raise ValueError(f"{path} holds weights alone; say with --arch of which network: {_BUILDERS}")
        model, facts = _built(arch, num_classes)
        models.load_weights(model, path)
        return model.eval(), facts | _said(path, records)
    if arch is not None:
        raise ValueError(f"{path} is a whole model ({kind}); leave out --arch, or give a checkpoint")
    try:
        return {"ONNX": _onnx, "TorchScript": _script, "torch.export": _exported}[kind](path, records)
    except ImportError:
        raise ValueError(f"{path} needs onnxruntime; pip install onnxruntime") from None
    except ValueError:
        raise
    except Exception as error:  # whatever a reader raises of bytes from outside
        first = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"{path} cannot be read as {kind} ({type(error).__name__}: {first})") from error


def _records(path):
    """Names of what a zip archive of torch holds, by the reader that torch itself uses."""
    try:
        return torch._C.PyTorchFileReader(str(path)).get_all_records()
    except RuntimeError:
        return []


def _said(path, records=(), text=None):
    """What the metadata of a file say, with their source."""
    if f"extra/{_FILE}" in records:
        text = torch._C.PyTorchFileReader(str(path)).get_record(f"extra/{_FILE}")
    elif not records and path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    source = f"the metadata of {path.name}"
    try:
        return {name: (value, source) for name, value in facts_of(json.loads(text or "{}"), source).items()}
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} are no JSON ({error})") from None


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
        raise ValueError(f"--arch: {name} cannot be imported ({error}); install it, or go where it is") from None


def _onnx(path, records):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed, *others = session.get_inputs()
    if others:
        raise ValueError(f"{path} takes {len(others) + 1} inputs; an audit of a file feeds it images alone")
    form = np.float16 if fed.type == "tensor(float16)" else np.float32

    def run(images):
        return session.run(None, {fed.name: images.cpu().numpy().astype(form)})[0]

    return _of_shape(run, fed.shape, path, (), session.get_modelmeta().custom_metadata_map.get(_KEY))


def _script(path, records):
    model = torch.jit.load(str(path), map_location="cpu").eval()
    return lambda images: model(images), _said(path, records)


def _exported(path, records):
    risky = [n for n in records if any(part in n for part in ("custom_obj_", "opaque_obj_", "aotinductor/"))]
    if risky:
        raise ValueError(f"{path} holds what would be run or unpickled ({risky[0]}); export it without")
    # Otherwise torch.export falls back to unpickling whatever there is.
    with mock.patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):
        model = as_layers(torch.export.load(str(path)))
    fed = next(node for node in model.graph.nodes if node.op == "placeholder")
    return _of_shape(model, fed.meta["val"].shape, path, records)


def _of_shape(model, shape, path, records, text=None):
    """A model that takes inputs of such a shape, for batches of any size, and its facts."""
    batch, *channels, height, width = shape
    source = f"the input of {path.name}"
    fixed = {"size": ((height, width), source)} if {type(height), type(width)} == {int} else {}
    fixed |= {"channels": ("grey", source)} if channels == [1] else {}
    return FixedBatch(model, batch) if type(batch) is int else model, fixed | _said(path, records, text)


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


def as_layers(program):
    """The network of an exported program with layers of torch.nn where it calls their functions.

    Their weights can be replaced, batch norms folded and inputs quantized as in any other model.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> as_layers(torch.export.export(model, (torch.ones(1, 2),))).get_submodule("0")
    Linear(in_features=2, out_features=3, bias=True)
    """
    module = program.module(check_guards=False)
    for node in list(module.graph.nodes):
        schema = getattr(node.target, "_schema", None)
        arguments = schema.arguments if schema and node.op == "call_function" else []
        given = {own.name: own.default_value for own in arguments} | node.kwargs
        given |= zip((own.name for own in arguments), node.args, strict=False)
        read = {name: own.target for name, own in given.items() if getattr(own, "op", "") == "get_attr"}
        layer = "weight" in read and _layer(node, given, {n: _attribute(module, own) for n, own in read.items()})
        if not layer:
            continue
        path, _, own = read["weight"].rpartition(".")
        holder = module.get_submodule(path)
        if not path or own != "weight" or next(holder.children(), None) is not None:
            # As the weights of an attention layer, which has parts of its own.
            path = f"{path}.{own}_layer".lstrip(".")
        if type(holder) is not type(layer):
            module.set_submodule(path, layer)
        with module.graph.inserting_before(node):
            fed = given.get("indices", given.get("input"))
            node.replace_all_uses_with(module.graph.call_module(path, (fed,)))
        module.graph.erase_node(node)
    return nn.Module.eval(torch.fx.GraphModule(module, module.graph))


def _attribute(module, target):
    path, _, name = target.rpartition(".")
    return getattr(module.get_submodule(path), name)


def _layer(node, given, tensors):
    """The layer of torch.nn that computes a function of an exported program, or None."""
    function, weight = node.target.overloadpacket, tensors["weight"]
    biased = {"device": "meta", "bias": "bias" in tensors}
    if function in _CONVOLUTIONS and not given.get("transposed"):
        sizes = weight.shape[1] * given["groups"], weight.shape[0], tuple(weight.shape[2:])
        options = {name: given[name] for name in ("stride", "padding", "dilation")}
        options = {name: own if isinstance(own, str) else tuple(own) for name, own in options.items()}
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[weight.ndim - 3]
        layer = kind(*sizes, **options, groups=given["groups"], **biased)
    elif function is _aten.linear:
        layer = nn.Linear(*reversed(weight.shape), **biased)
    elif function is _aten.embedding:
        layer = nn.Embedding(*weight.shape, device="meta")
    elif function is _aten.batch_norm and not given["training"] and "running_var" in tensors:
        kind = _NORMS[given["input"].meta["val"].ndim]
        layer = kind(len(weight), given["eps"], given["momentum"], device="meta")
        layer.num_batches_tracked = None
    else:
        return None
    for name, value in tensors.items():
        plain = name in layer._buffers or isinstance(value, nn.Parameter)
        setattr(layer, name, value if plain else nn.Parameter(value))
    return layer


def prepared(path, facts, given=None, file=None):
    """The `Preprocessing` of a model, and the words that say where each of its values is from.

    Options that are `given` come first, then the JSON or TOML file, then the metadata.  Size, mean and
    deviation are never assumed.
    """
    known = facts | {name: (value, str(file)) for name, value in (read_facts(file) if file else {}).items()}
    if "size" in (given or {}):
        known.pop("resize", None)
    known |= {name: (value, f"--{name}") for name, value in (given or {}).items()}
    missing = [f"--{name}" for name in ("size", "mean", "std") if name not in known]
    if missing:
        raise ValueError(
            f"how {path} expects its images is not known: give {', '.join(missing)}, or --preprocessing with a "
            f"JSON or TOML file of {', '.join(FIELDS)}"
        )
    sources = {}
    for name in FIELDS:
        sources.setdefault(known.get(name, (None, "the default"))[1], []).append(name)
    words = "; ".join(f"{', '.join(names)} from {source}" for source, names in sources.items())
    return Preprocessing(**{name: known[name][0] for name in FIELDS if name in known}), words


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
    """A sentence for usual preprocessing with which the model would clearly score better, in a list.

    Ways are compared on the same images, drawn at random, and dropped as soon as they do not look better;
    what is left has to win by an exact McNemar test that is corrected for their number.
    """
    index = np.random.default_rng(0).permutation(len(labels))[:_COMPARED].tolist()
    racing = how.alternatives([_shape(samples.paths[sample]) for sample in index[:_ROUND]])
    ways, won, right, seen = len(racing), {name: np.zeros(2, int) for name in racing}, 0, 0
    for start in range(0, len(index), _ROUND):
        decoded = {}

        def scored(own, chunk=tuple(index[start : start + _ROUND]), decoded=decoded):
            if (own.size, own.resize) not in decoded:
                decoded[own.size, own.resize] = next(samples.batches(own, chunk, _ROUND, {}))
            used, pixels = decoded[own.size, own.resize]
            return model(own.inputs(pixels)).argmax(1).numpy() == labels[used]

        chosen = scored(how)
        right, seen = right + chosen.sum(), seen + len(chosen)
        for name in list(racing):
            try:
                other = scored(racing[name])
            except Exception:  # a model may raise anything where it is fed another size
                del racing[name]
                continue
            won[name] += (other & ~chosen).sum(), (chosen & ~other).sum()
            more, fewer = won[name]
            if more < fewer or (seen >= 4 * _ROUND and more - fewer < np.sqrt(more + fewer)):
                del racing[name]
        if not racing:
            return []
    clear = [n for n in racing if _is_better(*won[n], seen, _CLEARLY, _CHANCE / ways)]
    return [
        f"{name} would score {(right + won[name][0] - won[name][1]) / seen:.1%} on {seen} images where the "
        f"preprocessing that is used scores {right / seen:.1%}; look up how the model was trained"
        for name in sorted(clear, key=lambda name: won[name][1] - won[name][0])[:1]
    ]


def _shape(path):
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:  # it is left out, and said, when it is decoded
        return 1, 1


def _is_better(more, fewer, count, gain, chance):
    if more - fewer < max(gain * count, 1):
        return False
    return binomtest(int(more), int(more + fewer), alternative="greater").pvalue < chance


def better_order(predictions, labels, names):
    """A sentence on another order of the classes that would clearly score better, in a list, or none.

    The order is fitted on one half of the samples and judged on the other.
    """
    halves, fitted = np.random.default_rng(0).permutation(len(labels)) % 2, np.empty_like(predictions)
    for half in (0, 1):
        order = _order(predictions[halves == half], labels[halves == half], len(names))
        fitted[halves != half] = order[predictions[halves != half]]
    given, other = predictions == labels, fitted == labels
    if not _is_better((other & ~given).sum(), (given & ~other).sum(), len(labels), 2 * _CLEARLY, _CHANCE):
        return []
    order = [names[place] for place in _order(predictions, labels, len(names))]
    moved = [f"{shortened(own)} is {shortened(new)}" for own, new in zip(names, order, strict=True) if own != new]
    return [
        f"another order of the classes would score {other.mean():.1%} where this one scores {given.mean():.1%}: "
        f"what is called {some(moved)}; give --classes in the model's order, perhaps {','.join(order[:20])}"
    ]


def _order(predictions, labels, count):
    """The class that each output most plausibly stands for."""
    table = np.eye(count) / 2
    np.add.at(table, (predictions, labels), 1)
    return linear_sum_assignment(table, maximize=True)[1]


def audit_file(
    path,
    test,
    quantizers=("fp32",),
    *,
    arch=None,
    image_root=None,
    groups=None,
    classes=None,
    given=None,
    preprocessing=None,
    expected=None,
    device=None,
):
    """Audit the model of a file on listed test images: an Audit for each group column and intersection.

    Parameters
    ----------
    path, arch
        See `load`.
    test, image_root, groups
        See `quantskew.datasets.listed.read`.
    quantizers : sequence of Quantizer or str
        Of ONNX and TorchScript the weights cannot be replaced: there it is fp32 alone, the model as it is.
    classes : sequence of str, optional
        Names in the order of the logits; by default those of the metadata, or the labels, sorted.
    given, preprocessing
        Values and a file, see `prepared`.
    expected : float, optional
        The accuracy that the model is known to have; by default that of the metadata.
    device : str, optional

    Returns
    -------
    dict of str to Audit
        Their provenance has ``model``, ``preprocessing``, ``class_order``, ``samples`` (the ids), ``left_out``
        and ``warnings``, which are to be read before any number.
    """
    samples = listed.read(test, image_root, groups)
    numbers, names = class_ids(samples.labels, classes)
    model, facts = load(path, arch, len(names) if names else int(numbers.max()) + 1)
    order = "as given" if classes else "sorted" if names else "the model's outputs by number"
    if "classes" in facts and not classes:
        (classes, order) = facts["classes"]
        numbers, names = class_ids(samples.labels, classes)
    how, origin = prepared(path, facts, given, preprocessing)
    replaced = isinstance(model, nn.Module) and not isinstance(getattr(getattr(model, "model", 0), "model", 0), type(load))
    return samples, how, origin, order, replaced
