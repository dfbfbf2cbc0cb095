"""Post-training quantization: a quantized copy of a model, layer by layer, with its integer codes."""

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from quantskew.quantization.activations import quantize_activations
from quantskew.quantization.grids import QParams, choose_qparams, dequantize, quantize_dequantize
from quantskew.quantization.quantizer import SCHEMES, integer_bits

_WEIGHTED = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# What these give is fp16 where what they get is.
_EXACT = (nn.ReLU, nn.MaxPool2d, nn.Identity, nn.Flatten, nn.Dropout)
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class QuantizedWeight:
    """One layer's weight on its grid.

    Attributes
    ----------
    codes : Tensor of int
        theta_q, in the shape of the weight.
    grid : QParams
    precision : str
    """

    codes: torch.Tensor
    grid: QParams
    precision: str

    @property
    def zeros(self):
        """Number of weights that are exactly 0, counted on the codes."""
        if self.grid.offset is None:
            return int((self.codes == self.grid.zero_point.to(self.codes.dtype)).sum())
        # A grid that starts at the smallest weight may hold 0 at any code or at none.
        return int((dequantize(self.codes, self.grid) == 0).sum())


def weight_parameters(model):
    """The weights that quantization acts on: of every convolution and linear layer, in order.

    The projections of an attention layer are linear layers too.  A weight that two layers share is listed
    once.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    dict of str to torch.nn.Parameter

    Examples
    --------
    >>> list(weight_parameters(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))))
    ['0.weight', '2.weight']
    """
    found, seen = {}, set()
    for path, module in model.named_modules():
        names = ["weight"] if isinstance(module, _WEIGHTED) else []
        if isinstance(module, nn.MultiheadAttention):
            names = _ATTENTION_WEIGHTS
        for name in names:
            weight = getattr(module, name, None)
            if weight is not None and id(weight) not in seen:
                seen.add(id(weight))
                found[f"{path}.{name}" if path else name] = weight
    return found


def check_options(precisions, scheme, boundary_precision, activation_precision=None):
    """Refuse names that are not known, with the known ones, before any work is done."""
    for precision in precisions:
        integer_bits(precision)
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    if boundary_precision is not None and integer_bits(boundary_precision) is None:
        raise ValueError(f"boundary_precision must be an integer precision; got {boundary_precision!r}")
    if quantizes_activations(activation_precision) and integer_bits(activation_precision) is None:
        raise ValueError(
            f"activation_precision must be an integer precision or fp32; got {activation_precision!r}"
        )


def quantizes_activations(activation_precision):
    """Whether activations are quantized at all: None and ``fp32`` leave them as they are."""
    return activation_precision not in (None, "fp32")


@torch.no_grad()
def quantize_model(
    model,
    precision,
    scheme="banner",
    per_channel=False,
    fold_batchnorm=False,
    boundary_precision=None,
    bias_correction=False,
    activation_precision=None,
    calibration=None,
):
    """A copy of a model whose weights are quantized; the model itself is not changed.

    The copy computes in floating point with the dequantized weights, as the paper does ("the integer
    weights are scaled to floating points during inference"); biases and batch norm stay as they are.
    Activations, which the paper leaves alone, are quantized where `activation_precision` asks for it.

    Parameters
    ----------
    model : torch.nn.Module
    precision : str
        ``fp32`` copies, ``fp16`` computes in half precision (see `HalfPrecision`), ``int1`` to ``int16``
        quantize the weight of every convolution and linear layer.
    scheme : {"banner", "symmetric", "mse"}
        See `quantskew.quantization.grids.choose_qparams`.
    per_channel : bool
        One grid per output channel instead of one per layer.
    fold_batchnorm : bool
        Whether each batch norm is first merged into the convolution before it.
    boundary_precision : str, optional
        An integer precision of the first and the last layer, such as ``int8``, for their activations too
        where these are quantized; by default they have `precision` and `activation_precision`.  Weights in
        ``fp32`` and ``fp16`` ignore it.
    bias_correction : bool
        Whether each output channel of a dequantized weight is shifted to its mean before quantization
        (Banner et al. 2019); the shift is part of the grid's offset.
    activation_precision : str, optional
        An integer precision of what every convolution and linear layer is fed, see
        `quantskew.quantization.activations`; with ``fp32`` weights activations alone are quantized.
    calibration : Tensor of float, shape (B, C, H, W), optional
        Normalised images whose activations give the ranges; needed where activations are quantized.  The
        weights are quantized first, so that the ranges are those of the model that is served.

    Returns
    -------
    torch.nn.Module
        In evaluation mode; its ``quantized`` maps the name of each quantized weight to its
        `QuantizedWeight`, its ``activation_grids`` the name of each layer whose input is quantized to the
        `QParams`.

    Raises
    ------
    ValueError
        If a name is not known, a weight or an activation is not finite (its layer is named), there is
        nothing to fold or to quantize, or activations cannot be quantized (without `calibration`, with
        ``fp16``, in a layer that is never called).

    Examples
    --------
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 0.3)
    >>> quantize_model(model, "int2").quantized["weight"].codes
    tensor([[1, 1]], dtype=torch.uint8)
    """
    check_options([precision], scheme, boundary_precision, activation_precision)
    bits = integer_bits(precision)
    if precision == "fp16" and quantizes_activations(activation_precision):
        raise ValueError("fp16 computes with fp16 activations; quantize them with fp32 or integer weights")
    if fold_batchnorm:
        model = _fold(model)
    weights = weight_parameters(model)
    if not weights:
        raise ValueError("the model has no convolution and no linear layer to quantize")
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight.sum())) and not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{name} has weights that are not finite; the model cannot be quantized")
    quantized, replacements = {}, {}
    if bits is not None:
        boundary = (next(iter(weights)), next(reversed(weights)))
        for name, weight in weights.items():
            chosen = boundary_precision if boundary_precision and name in boundary else precision
            axis = _output_axis(model, name)
            quantized[name], values = _quantize_weight(
                name, weight, chosen, scheme, axis if per_channel else None
            )
            if bias_correction:
                quantized[name], values = _correct_bias(weight, quantized[name], values, axis)
            # Handing the new weight to deepcopy saves copying the old one first.
            replacements[id(weight)] = nn.Parameter(values, weight.requires_grad)
    result = copy.deepcopy(model, replacements).eval()
    if precision == "fp16":
        result = HalfPrecision(result).eval()
    result.quantized, result.activation_grids = quantized, {}
    if quantizes_activations(activation_precision):
        chosen = _input_precisions(result, activation_precision, boundary_precision)
        result.activation_grids = quantize_activations(result, chosen, calibration)
    return result


def _input_precisions(model, precision, boundary_precision):
    """The precision of what each layer is fed; layers that share a weight are fed something else each."""
    layers = [name for name, module in model.named_modules() if isinstance(module, _WEIGHTED)]
    boundary = dict.fromkeys((layers[0], layers[-1]), boundary_precision or precision)
    return dict.fromkeys(layers, precision) | boundary


def _quantize_weight(name, weight, precision, scheme, axis):
    working = weight.detach()
    if working.dtype not in (torch.float32, torch.float64):
        working = working.float()
    try:
        grid = choose_qparams(working, precision, scheme, axis)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    codes, values = quantize_dequantize(working, grid)
    return QuantizedWeight(codes, grid, precision), values.to(weight.dtype)


def _correct_bias(weight, quantized, values, axis):
    others = [other for other in range(weight.ndim) if other != axis]
    shift = (weight - values).mean(others, keepdim=True)
    offset = shift if quantized.grid.offset is None else quantized.grid.offset + shift
    corrected = replace(quantized, grid=replace(quantized.grid, offset=offset))
    return corrected, dequantize(corrected.codes, corrected.grid).to(weight.dtype)


def _output_axis(model, name):
    layer = model.get_submodule(name.rpartition(".")[0])
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return 1 if isinstance(layer, transposed) else 0


def _fold(model):
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ValueError("the model has no batch norm to fold")
    try:
        return fuse(copy.deepcopy(model).eval(), inplace=True)
    except torch.fx.proxy.TraceError as error:
        raise ValueError(f"batch norm cannot be folded: the model cannot be traced ({error})") from error


class HalfPrecision(nn.Module):
    """A model that computes in half precision, with fp32 images in and fp32 logits out.

    Parameters, buffers and the output of every layer are rounded to fp16, while sums are accumulated in
    fp32: what a GPU's fp16 units do, in the same steps on every device.  (A processor without fp16 units
    gives the same values six times slower when torch's ``model.half()`` runs on it.)

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.

    Raises
    ------
    ValueError
        If a parameter or buffer is too large for fp16.
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
        return _round_to_half(self.model(_round_to_half(images)))


def _round_to_half(tensor):
    return tensor.to(torch.float16).to(tensor.dtype)


def _round_output(module, inputs, output):
    return _round_to_half(output) if isinstance(output, torch.Tensor) else output
