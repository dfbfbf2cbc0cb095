"""Activation quantization: what a layer is fed lies on a grid of integers, as its weights do.

An integer kernel multiplies integers with integers, so what is quantized is the input of every convolution
and linear layer; what lies between them (batch norm, sums, means) stays in floating point.  Each input has
one grid, asymmetric and from the smallest to the largest value that the layer was fed on calibration
images, with zero among its points, so that padding and what a ReLU cuts off stay exactly zero.
"""

import contextlib
import functools
from dataclasses import replace

import torch
from torch import nn

from quantskew.quantization.grids import QParams, choose_qparams, quantize_dequantize


class InputQuantizer(nn.Module):
    """Puts the input of a layer on a grid: its pre-hook, and its child, to be moved and saved with it."""

    def __init__(self, grid):
        super().__init__()
        self.register_buffer("scale", grid.scale)
        self.register_buffer("zero_point", grid.zero_point)
        self.low, self.high, self.half_away = grid.low, grid.high, grid.half_away

    @property
    def grid(self):
        """The grid, where the quantizer is."""
        return QParams(self.scale, self.zero_point, None, self.low, self.high, self.half_away)

    def forward(self, layer, inputs):
        """The layer's inputs with the first of them on the grid."""
        fed, *others = inputs
        _, values = quantize_dequantize(fed.to(self.scale.dtype), self.grid)
        return values.to(fed.dtype), *others


@torch.no_grad()
def quantize_activations(model, precisions, images):
    """Put a quantizer before layers of a model, in place; the grid of each by the layer's name.

    The ranges are those of the model as it is given, in evaluation mode: where its weights are quantized
    already, of what these make of the images, while no activation is quantized yet.  A layer that is fed
    nothing but zeros is left as it is.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(1, 1))
    >>> grids = quantize_activations(model, {"0": "int2"}, torch.tensor([[-1.0], [2.0]]))
    >>> float(grids["0"].scale), float(grids["0"].zero_point)
    (1.0, 1.0)
    """
    check_images(images)
    if any(isinstance(module, InputQuantizer) for module in model.modules()):
        raise ValueError("the activations of this model are quantized already")
    ranges = _ranges(model.eval(), precisions, images)
    grids = {name: _grid(*ends, precisions[name]) for name, ends in ranges.items() if ends[0] < ends[1]}
    for name, grid in grids.items():
        layer = model.get_submodule(name)
        layer.input_quantizer = InputQuantizer(grid).eval()
        layer.register_forward_pre_hook(layer.input_quantizer)
    return grids


def check_images(images):
    """Refuse what no model can be calibrated on."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point() or not len(images):
        needed = "give a float tensor (B, C, H, W) of normalised ones, not empty"
        raise ValueError(f"activations and calibrated rounding need images: {needed}")


class Enough(Exception):
    """What follows in a forward pass is not needed."""


def watch(model, images, hooks, batch_size=64):
    """Forward passes over batches of images, seen by the pre-hook of each layer that `hooks` name."""
    device = next(model.parameters()).device
    with contextlib.ExitStack() as stack:
        for name, hook in hooks.items():
            stack.enter_context(model.get_submodule(name).register_forward_pre_hook(hook))
        for batch in images.split(batch_size):
            with contextlib.suppress(Enough):
                model(batch.to(device))


def _ranges(model, names, images):
    """Smallest and largest value that each layer is fed over all its calls, zero included."""
    ranges = {}

    def observe(name, layer, inputs):
        fed = inputs[0] if inputs[0].dtype == torch.float64 else inputs[0].float()
        low, high = torch.aminmax(fed)
        before = ranges.get(name, (low.new_zeros(()),) * 2)
        low, high = ranges[name] = torch.minimum(low, before[0]), torch.maximum(high, before[1])
        if not bool(torch.isfinite(high - low)):
            what = "activations that are not finite (NaN, infinity, or a range beyond its format)"
            raise ValueError(f"{name or 'the model'} is fed {what} on the calibration images")

    watch(model, images, {name: functools.partial(observe, name) for name in names})
    for name in names:
        if name not in ranges:
            why = "torch never calls the layers inside an attention layer one by one"
            raise ValueError(f"{name} is not called on the calibration images: no range is known ({why})")
    return {name: ranges[name] for name in names}


def _grid(low, high, precision):
    grid = choose_qparams(torch.stack([low, high]), precision)
    if grid.offset is None:
        return grid
    # Where the range ends at zero the grid starts at its smallest value, and zero need not be a point of it.
    return replace(grid, zero_point=(low.abs() / grid.scale).round(), offset=None)
