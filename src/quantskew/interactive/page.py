"""The network of an experiment as one small file, with which a page computes what else takes a kernel.

``book/_static/live-model.js`` reads it, and quantizes, runs and measures as this package does.
"""

import base64
import json
from html import escape

import numpy as np

from quantskew.figures.style import looks
from quantskew.files import digest
from quantskew.interactive.control import OPTIONS
from quantskew.interactive.views import CHAIN
from quantskew.measures.measure import OVERALL

# By the name of a file its text: what `quantskew.book.chapters` lays beside the pages.
_FILES = "application/vnd.quantskew.files+json"
_MOST = 600_000
_DESCRIBED = ("key", "title", "label", "digits", "scientific", "log", "limits", "from_reference", "share")


class InPage:
    """What a page needs to show the playground without a kernel: its models, each in a file.

    Parameters
    ----------
    models : sequence of LiveModel
        Those whose network a page cannot compute are left out.
    precisions : sequence of str
        The reference and others; between what is measured of them the axes of the figures lie.

    Examples
    --------
    >>> from quantskew.interactive.live_model import LiveModel
    >>> list(InPage([LiveModel("digits")], ["fp32", "int2"]).files)
    ['digits.js']
    """

    def __init__(self, models, precisions):
        texts = {own.experiment.name: _text(own, precisions) for own in models if _can_be_sent(own)}
        self.files = {f"{name}.js": text for name, text in texts.items() if len(text) <= _MOST}

    def _repr_mimebundle_(self, include=None, exclude=None):
        # A browser keeps files by their address: another content has another one.
        addresses = [f"{name}?v={digest(text)[:8]}" for name, text in self.files.items()]
        html = f'<div class="playground-models" data-files="{escape(" ".join(addresses))}" hidden></div>'
        names = ", ".join(name.removesuffix(".js") for name in self.files)
        return {"text/plain": f"The page computes with {names}.", "text/html": html, _FILES: self.files}


def _can_be_sent(live):
    # The script knows these layers, and grey images of 8 pixels a side; others need not be loaded or trained.
    return live.experiment.model == "small_resnet" and live.data.test.images.shape[1:] == (1, 8, 8)


def _text(live, precisions):
    quantizers = (live.audit(name, reference=precisions[0]) for name in precisions[1:])
    numbers = [CHAIN.numbers(audit.plain()) for audit in quantizers]
    return model_text(live.experiment.name, live.model, live.data, numbers)


def model_text(name, model, data, numbers=()):
    """A script that gives a `SmallResNet`, its test images and how they are drawn to the page.

    ``numbers`` are tables of `quantskew.interactive.views.Chain.numbers`, between whose values axes lie.
    """
    split, layers = data.test, list(_layers(model))
    content = b"".join(
        tensor.detach().cpu().numpy().astype("<f4").tobytes() for _, own in layers for tensor in own
    )
    content += b"".join(
        ids.numpy().astype(np.uint8).tobytes() for ids in (split.images, split.labels, split.groups)
    )
    ordered = looks(split.group_names, data.train.group_counts.tolist())
    groups = [look.described for look in sorted(ordered, key=lambda look: look.group)]
    described = {
        "layers": [facts for facts, _ in layers],
        "images": [len(split), split.images.shape[-1]],
        "classes": split.class_names,
        "groups": groups,
        "order": [look.group for look in ordered],
        "choices": OPTIONS,
        "measures": [_measure(own, numbers) for own in CHAIN.measures],
        "data": base64.b64encode(content).decode(),
    }
    return f"(globalThis.quantskewModels ??= {{}})[{json.dumps(name)}] = {json.dumps(described)};\n"


def _measure(measure, numbers):
    """What the script has to know of a measure, with the ``frame`` of its axis."""
    own = {name: getattr(measure, name) for name in _DESCRIBED}
    tables = [table[(table["measure"] == measure.key) & (table["group"] != OVERALL)] for table in numbers]
    values = np.concatenate([[], *(table[["value", "low", "high"]].to_numpy().ravel() for table in tables)])
    values = values[np.isfinite(values) & ((values > 0) | (not measure.log))]
    return own | {"frame": [float(values.min()), float(values.max())] if len(values) else None}


def _layers(model):
    """What the script has to know of each layer, in the order of computing, and its tensors."""
    yield _layer("stem", model.stem, model.bn, -1)
    last = 0
    for place, block in enumerate(model.stages):
        name, start, plus = f"stages.{place}", last, last
        yield _layer(f"{name}.conv1", block.conv1, block.bn1, start)
        first, last = last + 1, last + 2
        if len(list(block.shortcut.children())):
            yield _layer(f"{name}.shortcut.0", *block.shortcut, start, relu=False)
            plus, last = last, last + 1
        yield _layer(f"{name}.conv2", block.conv2, block.bn2, first, plus)
    yield _layer("head", model.head, None, last)


def _layer(name, layer, norm, source, plus=None, relu=True):
    shape = [*layer.weight.shape[:3]]
    facts = {"name": name, "shape": shape, "from": source, "plus": plus, "relu": relu}
    facts |= {"stride": getattr(layer, "stride", (1,))[0], "epsilon": norm and norm.eps}
    of_norm = norm and (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return facts, (layer.weight, *(of_norm or (layer.bias,)))
