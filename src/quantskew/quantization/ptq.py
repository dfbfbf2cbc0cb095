"""Post-training quantization: a quantized copy of a model, layer by layer, with its integer codes."""

import operator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from quantskew.quantization import checked
from quantskew.quantization.activations import check_images, quantize_activations
from quantskew.quantization.grids import QParams, dequantize, on_own_grid
from quantskew.quantization.quantizer import CALIBRATED, Quantizer, integer_bits
from quantskew.quantization.rounding import roundings

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
# What these give is fp16 where what they get is.
_EXACT = (nn.ReLU, nn.MaxPool2d, nn.Identity, nn.Flatten, nn.Dropout)
# What a model's own code may compute beyond fp16's range, and where that rounds to infinity.
_ARITHMETIC = {"add", "sub", "mul", "div", "truediv", "exp", "pow", "square", "sum", "prod", "cumsum"}
_ARITHMETIC |= {"matmul", "mm", "bmm", "einsum", "addmm", "baddbmm", "norm"}
_HALF_OVERFLOW = 65520
# And what a program of torch.export calls.
_CALLED = {f"aten.{name}" for name in ("conv1d", "conv2d", "conv3d", "convolution", "linear", "embedding")}
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class QuantizedWeight:
    """One layer's weight on its grid: its codes (theta_q, in the shape of the weight) and their precision."""

    codes: torch.Tensor
    grid: QParams
    precision: str

    @property
    def zeros(self):
        """Number of weights that are exactly 0, counted on the codes where one of them stands for 0."""
        if self.grid.offset is None:
            return int((self.codes == self.grid.zero_point.to(self.codes.dtype)).sum())
        # A grid that starts at the smallest weight may hold 0 at any code or at none.
        return int((dequantize(self.codes, self.grid) == 0).sum())


def weight_parameters(model):
    """The weights that quantization acts on by name: of every convolution, linear layer, embedding and
    projection of attention, in order; one that two layers share is listed once.

    Examples
    --------
    >>> list(weight_parameters(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))))
    ['0.weight', '2.weight']
    """
    found, seen = {}, set()
    for path, module in model.named_modules():
        names = ["weight"] if isinstance(module, (*_WEIGHTED, nn.Embedding)) else []
        if isinstance(module, nn.MultiheadAttention):
            names = _ATTENTION_WEIGHTS
        if isinstance(module, torch.fx.GraphModule):
            names = _read_weights(module.graph)
        for name in names:
            weight = operator.attrgetter(name)(module)
            if weight is not None and id(weight) not in seen:
                seen.add(id(weight))
                found[f"{path}.{name}" if path else name] = weight
    return found


def _read_weights(graph):
    """Names of the weights that the functions of an exported program read."""
    for node in graph.nodes:
        if node.op == "call_function" and str(node.target).rpartition(".")[0] in _CALLED:
            read = node.args[0 if "embedding" in str(node.target) else 1]
            if read.op == "get_attr":
                yield read.target


def layer_precisions(model, precision, ends=None, plan=None):
    """The precision of each weight that is quantized, by its name; refuses a plan that does not fit.

    Parameters
    ----------
    model : torch.nn.Module
    precision : str
    ends : str, optional
        Precision of the first and the last layer.
    plan : dict of str to str, optional
        Precisions of single layers by the name of their weight, ``fp32`` for one that is left alone; they go
        before the others.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> layer_precisions(model, "int4", ends="int8", plan={"0.weight": "fp32"})
    {'1.weight': 'int8'}
    """
    names, plan = list(weight_parameters(model)), plan or {}
    for name, own in plan.items():
        if name not in names:
            raise ValueError(f"the plan names an unknown layer {name!r}; known: {', '.join(names)}")
        if own != "fp32" and integer_bits(own) is None:
            raise ValueError(f"{name}: a plan has integer precisions and fp32; got {own}")
    chosen = dict.fromkeys(names, precision) | dict.fromkeys(names[:1] + names[-1:], ends or precision) | plan
    chosen = {name: own for name, own in chosen.items() if own != "fp32"}
    if not chosen:
        raise ValueError("no convolution and no linear layer is left to quantize")
    return chosen


@torch.no_grad()
def quantize_model(model, quantizer, calibration=None, plan=None):
    """A copy of a model whose weights are quantized; the model itself is not changed.

    The copy computes in floating point with the dequantized weights, as the paper does ("the integer
    weights are scaled to floating points during inference"); biases and batch norm stay as they are.
    Activations, which the paper leaves alone, are quantized where the quantizer says so.

    Parameters
    ----------
    model : torch.nn.Module
    quantizer : Quantizer or str
        The weight of every convolution and linear layer is quantized, and what it is fed where the
        quantizer has an activation precision; ``fp32`` copies, ``fp16`` computes in half precision.
    calibration : Tensor of float, shape (B, C, H, W), optional
        Normalised images; needed where activations are quantized, whose ranges are theirs, or weights are
        rounded by what layers are fed.  The weights are quantized first, so that the ranges are those of the
        model that is served, and each by what the quantized layers before it give.
    plan : dict of str to str, optional
        Of integer weights, see `layer_precisions`.

    Returns
    -------
    torch.nn.Module
        In evaluation mode; its ``quantized`` maps the name of each quantized weight to its
        `QuantizedWeight`, its ``activation_grids`` the name of each layer whose input is quantized to the
        `QParams`.

    Raises
    ------
    ValueError
        If the quantizer is not known, a weight or an activation is not finite (its layer is named), there
        is nothing to fold or to quantize, or activations cannot be quantized (without `calibration`, or in
        a layer that is never called).

    Examples
    --------
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 0.3)
    >>> quantize_model(model, "int2").quantized["weight"].codes
    tensor([[1, 1]], dtype=torch.uint8)
    """
    quantizer = Quantizer.of(quantizer)
    ends = quantizer.boundary_precision
    model = checked.plain(model)
    if quantizer.fold_batchnorm:
        model = checked.fold(model)
    weights = weight_parameters(model)
    if not weights:
        raise ValueError("the model has no convolution and no linear layer to quantize")
    for name, weight in weights.items():
        layer, _, own = name.rpartition(".")
        if own not in model.get_submodule(layer)._parameters:
            raise ValueError(f"{name} is no parameter but computed from other tensors; make it one")
        if not bool(torch.isfinite(weight.sum())) and not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{name} has weights that are not finite; the model cannot be quantized")
    if quantizer.needs_images:
        check_images(calibration)
    chosen = layer_precisions(model, quantizer.precision, ends, plan) if quantizer.bits else {}
    rounded = quantizer.scheme in CALIBRATED
    # Weights that are replaced need not be copied first; rounding by images still looks at them.
    replaced = [weights[name] for name in chosen if not rounded]
    room = {id(own): nn.Parameter(torch.empty_like(own), own.requires_grad) for own in replaced}
    result = checked.copied(model, room).eval()
    copies, quantized = weight_parameters(result), {}
    for name, weight in weights.items():
        if copies[name] is weight:
            raise ValueError(f"{name} is not replaced in a copy of the model; look at its __deepcopy__")
    if quantizer.precision == "fp16":
        result = HalfPrecision(result).eval()
    ways = dict.fromkeys(chosen).items()
    if rounded:
        ways = roundings(result, {name: copies[name] for name in chosen}, quantizer.scheme, calibration)
    for name, rounding in ways:
        layer, own = model.get_submodule(name.rpartition(".")[0]), replace(quantizer, precision=chosen[name])
        try:
            axis = 1 if isinstance(layer, TRANSPOSED) else 0
            codes, grid, values = on_own_grid(weights[name].detach(), own, axis, rounding)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        quantized[name] = QuantizedWeight(codes, grid, own.precision)
        copies[name].data = values
    result.quantized = {name: quantized[name] for name in chosen}
    result.activation_grids = {}
    result.unfolded = getattr(model, "unfolded", [])
    if quantizer.activation_precision:
        # Layers that share a weight are fed something else each.
        layers = [name for name, module in result.named_modules() if isinstance(module, _WEIGHTED)]
        if not layers:
            raise ValueError("no layers of torch.nn call for activations; give a checkpoint and its network")
        fed = dict.fromkeys(layers, quantizer.activation_precision)
        fed |= dict.fromkeys((layers[0], layers[-1]), ends or quantizer.activation_precision)
        result.activation_grids = quantize_activations(result, fed, calibration)
    return result


class HalfPrecision(nn.Module):
    """A model, changed in place, that computes in half precision, with fp32 images in and fp32 logits out.

    Parameters, buffers and the output of every layer are rounded to fp16, while sums are accumulated in
    fp32: what a GPU's fp16 units do, in the same steps on every device.  What the model's own code computes
    between layers (residual sums, a softmax by hand) keeps its digits until the next layer, but is infinite
    where fp16 overflows.  (A processor without fp16 units
    gives the same values six times slower when torch's ``model.half()`` runs on it.)
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                tensor.data = _round_to_half(tensor.data)
                if not bool(torch.isfinite(tensor).all()):
                    raise ValueError(f"{name} is not finite in half precision (the largest is 65504)")
        for module in model.modules():
            if next(module.children(), None) is None and not isinstance(module, _EXACT):
                module.register_forward_hook(_round_output)

    def forward(self, images):
        """Logits of images, both fp32 in format and fp16 in precision."""
        with _Overflow():
            output = self.model(_round_to_half(images))
        return _round_to_half(output)


class _Overflow(TorchFunctionMode):
    """Makes the results of arithmetic infinite that fp16 cannot hold."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        # As in __iadd__ and __rsub__.
        name = getattr(function, "__name__", "").strip("_").removeprefix("i").removeprefix("r")
        if name not in _ARITHMETIC or not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return result
        beyond = result.abs() >= _HALF_OVERFLOW
        return torch.where(beyond, result.sign() * torch.inf, result) if bool(beyond.any()) else result


def _round_to_half(tensor):
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.float16).to(tensor.dtype)


def _round_output(module, inputs, output):
    return _round_to_half(output)
