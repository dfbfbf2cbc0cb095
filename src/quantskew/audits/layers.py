"""The Audit of one layer at a time: what each does alone, and what all do but it."""

import copy
import functools
import itertools
import logging
import operator

import numpy as np
import torch
from torch import nn

from quantskew.audits.model import audit_model, audit_models, logits_in
from quantskew.checks import in_brief
from quantskew.datasets import Dataset, normalise
from quantskew.quantization import checked
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.quantization.quantizer import Quantizer

_LOG = logging.getLogger(__name__)
_TRIED_IMAGES = 4
# By which share of the largest logit what two ways of computing give may differ.
_TOLERANCE = 1e-6


def check_layers(quantizer):
    """The quantizer; one that has no weights on a grid, or that needs calibration images, is refused."""
    own = Quantizer.of(quantizer)
    if own.bits is None or own.needs_images:
        raise ValueError(f"one layer's weights are quantized at a time; give int4 or int4:mse, not {own}")
    return own


@torch.inference_mode()
def audit_layers(model, data, quantizer="int4", *, others=True, device=None, batch_size=64, facts=None):
    """Audit a classifier with the weights of one layer quantized at a time, and of all layers but one.

    What networks have in common in front of the first layer in which they differ is computed once.

    Parameters
    ----------
    model, data, device, batch_size, facts
        See `quantskew.audits.model.audit_model`.
    quantizer : Quantizer or str
        Of the weights, to integers.
    others : bool
        Whether all layers but one are audited too.

    Returns
    -------
    Audit
        Its columns are the float model, ``int4 in LAYER`` of each layer in their order, ``int4 except LAYER``
        of each, and ``int4``, where that is the quantizer.

    Raises
    ------
    ValueError
        If the quantizer or the model cannot be used.

    Examples
    --------
    >>> from quantskew import datasets
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    >>> audit_layers(model, datasets.load("digits"), "int2").precisions
    ('fp32', 'int2 in 0', 'int2 in 3', 'int2 except 0', 'int2 except 3', 'int2')
    """
    own, split = check_layers(quantizer), data.test if isinstance(data, Dataset) else data
    reference = Quantizer("fp32", fold_batchnorm=own.fold_batchnorm)
    few = split.subset(np.arange(min(_TRIED_IMAGES, len(split))))
    # What cannot be audited is refused here.
    tried = audit_model(model, few, [reference, own], facts=facts)
    model = checked.copied(checked.plain(model)).float()
    device = torch.device(device or next(model.parameters()).device)
    before, after = (quantize_model(model, each).to(device) for each in (reference, own))
    alone, rest = {reference.name: before}, {own.name: after}
    for layer in after.quantized:
        name = layer.removesuffix(".weight")
        alone[f"{own} in {name}"] = _swapped(before, after, layer)
        if others:
            rest[f"{own} except {name}"] = _swapped(after, before, layer)
    passes = _shared(alone, rest, normalise(few.images.to(device)))
    # The fully quantized network comes last.
    networks = alone | {column: rest[column] for column in [*rest][1:]} | {own.name: after}
    models = {column: _Column(column, network, passes) for column, network in networks.items()}
    facts = tried.provenance | {"passes": "shared" if passes else "whole"}
    originals = [before] * len(models)
    return audit_models(originals, models, data, device=device, batch_size=batch_size, facts=facts)


def _swapped(network, other, layer):
    """A network with the weight of one layer of another, and all other tensors in common with the first."""
    same = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    same[id(network.get_parameter(layer))] = other.get_parameter(layer)
    made, own = checked.copied(network, same), network.quantized
    codes = (own | other.quantized).items()
    made.quantized = {name: code for name, code in codes if (name in own) != (name == layer)}
    return made


class _Column(nn.Module):
    """A network whose logits are computed together with those of other columns, where passes are shared."""

    def __init__(self, column, network, passes):
        super().__init__()
        self.column, self.network, self.passes, self.quantized = column, network, passes, network.quantized

    def forward(self, images):
        return logits_in(self.passes(images)[self.column] if self.passes else self.network(images))


@torch.inference_mode()
def _shared(alone, others, images):
    """What gives the outputs of all columns at once; None where passes cannot be shared, which is said."""
    try:
        model = next(iter(alone.values()))
        graph = torch.fx.Tracer().trace(model)
        # Tensors that the model's code makes are kept as attributes of what was traced.
        made = {name: own for name, own in vars(model).items() if name.startswith("_tensor_constant")}
        for network in (alone | others).values():
            vars(network).update(made)
        starts = [_first_use(graph, model, weight) for weight in weight_parameters(model).values()]
        bases = [_Base(networks, starts[: len(networks) - 1], graph) for networks in (alone, others)]

        @functools.lru_cache(1)
        def passes(images):
            return bases[0].outputs(images) | bases[1].outputs(images)

        for column, network in (alone | others).items():
            own, given = logits_in(network(images)), logits_in(passes(images)[column])
            if not torch.allclose(given, own, 0, _TOLERANCE * float(own.abs().max())):
                raise ValueError(f"what was traced gives other logits for {column}")
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        _LOG.warning("every layer takes whole passes, since the model cannot be traced (%s)", in_brief(error))
        return None
    return passes


def _first_use(graph, model, weight):
    """The first node that reads a weight, under whatever name; None where none does."""
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            own = operator.attrgetter(node.target)(model)
            if any(read is weight for read in (own.parameters() if isinstance(own, nn.Module) else [own])):
                return node
    return None


class _Base(torch.fx.Interpreter):
    """The first of some networks as it was traced; the others go on from where they begin to differ."""

    def __init__(self, networks, starts, graph):
        (self.column, first), *others = networks.items()
        super().__init__(first, graph=graph)
        self.forks = {}
        for (column, network), start in zip(others, starts, strict=True):
            self.forks.setdefault(start, {})[column] = torch.fx.Interpreter(network, graph=graph)

    def outputs(self, images):
        """What each network gives, by column; one that never differs gives what the first does."""
        self.given = {}
        own = self.run(images)
        return dict.fromkeys([self.column, *self.forks.get(None, ())], own) | self.given

    def run_node(self, n):
        """The value of a node; what goes on from there has run before."""
        for column, other in self.forks.get(n, {}).items():
            # Copies, which may be changed in place; what shares memory goes on sharing it.
            live = dict(zip(self.env, copy.deepcopy([*self.env.values()]), strict=True))
            before = itertools.takewhile(lambda node: node is not n, self.graph.nodes)
            self.given[column] = other.run(initial_env=dict.fromkeys(before) | live)
        return super().run_node(n)
