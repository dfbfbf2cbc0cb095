"""The grids of integers that a weight tensor is put on, and the verbs that do it.

``choose_qparams`` picks the grid, ``quantize`` gives integer codes, ``dequantize`` turns them back into
floating point and ``fake_quantize`` does both.  A scheme is a function here and its name in ``SCHEMES`` of
`quantskew.quantization.quantizer`, which stays free of torch: who adds one touches these two files.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from quantskew.quantization.quantizer import CALIBRATED, INTEGER_PRECISIONS, SCHEMES, Quantizer

_MSE_CANDIDATES = 100
# Parts of a bin, and weights whose squares no format rounds to 0 or to infinity, when they are searched.
_PARTS = 256
_SQUARABLE = 1e-12
# Weights that are quantized together.
_PIECE = 2**16
_SCHEMES = {}


@dataclass(frozen=True)
class QParams:
    """The grid of an integer quantizer: W~ = (q - zero_point) * scale + offset.

    Attributes
    ----------
    scale : Tensor, shape () or broadcastable to the weight
        The step between neighbouring grid points, in units of the weight; larger than 0.
    zero_point : Tensor, same shape
        The code of the real value `offset`, integer-valued.
    offset : Tensor of the same shape, or None for 0
        Of weights that are all of one sign: their grid starts at the smallest.
    low, high : int
        Smallest and largest code.
    half_away : bool
        Whether ties are rounded away from zero; otherwise to the even code.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    offset: torch.Tensor | None
    low: int
    high: int
    half_away: bool

    @property
    def code_dtype(self):
        """Smallest integer dtype of torch that holds every code."""
        limits = map(torch.iinfo, (torch.uint8, torch.int8, torch.int16, torch.int32))
        fitting = next(own for own in limits if own.min <= self.low and self.high <= own.max)
        return getattr(torch, fitting.dtype)


def _shared(weight, channel_axis):
    """The axes along which all weights have one grid, and whether these axes are kept when it is chosen."""
    if channel_axis is None:
        return (), False
    return [axis for axis in range(weight.ndim) if axis != channel_axis % weight.ndim], True


def _range(weight, channel_axis):
    """Smallest and largest weight, of the tensor or of each channel (shape broadcastable to it)."""
    shared = _shared(weight, channel_axis)
    # Twice as fast as torch.aminmax.
    return weight.amin(*shared), weight.amax(*shared)


def _positive(scale):
    """The scale, or the smallest normal number where it is 0 (all weights 0) or underflows."""
    return scale.clamp(min=torch.finfo(scale.dtype).tiny)


def _round_(values, half_away):
    """Round in place to whole numbers: ties away from zero (values of 0 or more only), or to the even one."""
    if not half_away:
        return values.round_()
    # The largest number below one half: adding 0.5 itself would round 0.49999997 up.
    below_half = torch.nextafter(torch.tensor(0.5, dtype=values.dtype), torch.tensor(0.0, dtype=values.dtype))
    return values.add_(float(below_half)).floor_()


def _scheme(choose):
    """Register a scheme by its function's name: weight, bits, axis of the channels or None -> `QParams`."""
    _SCHEMES[choose.__name__] = choose
    return choose


@_scheme
def banner(weight, bits, channel_axis):
    """Asymmetric min-max of Banner et al. (2019), ``float2gemmlowp`` of submission2019/cnn-quantization."""
    low, high = _range(weight, channel_axis)
    steps = 2**bits - 1
    flat = low == high
    # Without a range there is one value: one step of its size reproduces it exactly.
    scale = torch.where(flat & (low != 0), low.abs(), _positive((high - low) / steps))
    crosses_zero = ((low < 0) & (high > 0)) | flat
    # The reference's kernel for whole tensors rounds with C's roundf, its code for channels with torch's
    # round.
    half_away = channel_axis is None
    ideal = _round_((-low / scale).clamp_(min=0), half_away)
    zero_point = torch.where(flat, (low < 0).to(scale.dtype), ideal)
    offset = None
    if not bool(crosses_zero.all()):
        offset = torch.where(crosses_zero, 0.0, low)
        zero_point = torch.where(crosses_zero, zero_point, 0.0)
    return QParams(scale, zero_point, offset, 0, steps, half_away)


def _signed(scale, bits):
    half = 2 ** (bits - 1)
    return QParams(_positive(scale), torch.zeros_like(scale), None, -half, half - 1, half_away=False)


def _symmetric_scale(weight, bits, channel_axis):
    low, high = _range(weight, channel_axis)
    # One bit leaves the codes -1 and 0: there is no positive code to reach the largest weight with.
    return torch.maximum(-low, high) / max(2 ** (bits - 1) - 1, 1)


@_scheme
def symmetric(weight, bits, channel_axis):
    """Signed grid that reaches the largest absolute weight."""
    return _signed(_symmetric_scale(weight, bits, channel_axis), bits)


@_scheme
def mse(weight, bits, channel_axis):
    """Signed grid with the step of least squared error of 100, as in Nagel et al. (2022)."""
    widest, shared = _symmetric_scale(weight, bits, channel_axis), _shared(weight, channel_axis)
    shares = [candidate / _MSE_CANDIDATES for candidate in range(_MSE_CANDIDATES, 0, -1)]
    shares = torch.tensor(shares, dtype=weight.dtype, device=weight.device)
    promising = _promising(weight, widest, shares, bits, channel_axis)
    # Those of each channel first, the widest before others that are as good.
    order = promising.byte().argsort(dim=1, descending=True, stable=True)
    best_scale, best_error = widest, torch.full_like(widest, math.inf)
    for place in range(int(promising.sum(dim=1).max())):
        grid = _signed(widest * shares[order[:, place]].view_as(widest), bits)
        error = _dequantize_(_quantize(weight, grid), grid).sub_(weight).square_().sum(*shared)
        better = error < best_error
        best_scale = torch.where(better, grid.scale, best_scale)
        best_error = torch.where(better, error, best_error)
    return _signed(best_scale, bits)


def _promising(weight, widest, shares, bits, channel_axis):
    """Which shares (S,) of the widest step may have the least error in each of R channels, bool (R, S).

    Squared errors of all steps follow from the number and mean of the weights in narrow bins, but for the
    bins that two codes share, where the error is known up to step times width.  What positions are rounded
    by, and what the errors themselves are, is allowed for.
    """
    # In the order of memory, so that a view will do.
    first = None if channel_axis is None else channel_axis % weight.ndim
    axes = sorted(range(weight.ndim), key=lambda axis: (axis != first, -weight.stride(axis)))
    rows = weight.permute(axes).reshape(widest.numel(), -1)
    number, most = rows.shape[1], 2 ** (bits - 1) - 1
    reach = (widest * max(most, 1)).view(-1, 1)
    if number < 256 * 2**bits or not bool(((reach > _SQUARABLE) & (reach < 1 / _SQUARABLE)).all()):
        return torch.ones(len(rows), len(shares), dtype=torch.bool, device=weight.device)
    bins = min(2 ** (bits + 8), number // 4)
    starts = torch.arange(len(rows), dtype=torch.int32, device=weight.device)[:, None] * bins
    counts, rests = torch.zeros(2, len(rows), bins, dtype=torch.float64, device=weight.device)
    for piece in rows.split(4 * _PIECE, dim=1):
        # In parts of a bin.
        place = (piece * (bins * _PARTS / 2 / reach)).to(torch.int32).add_(bins * _PARTS // 2)
        rest = place.clamp_(0, bins * _PARTS - 1) & (_PARTS - 1)
        index = (place >> _PARTS.bit_length() - 1).add_(starts).reshape(-1)
        for total, values in ((counts, torch.ones_like(rest)), (rests, rest)):
            empty = torch.zeros(total.numel(), dtype=torch.int32, device=weight.device)
            total += empty.index_add_(0, index, values.reshape(-1)).view_as(total)
    codes = torch.arange(-most, most + 1, device=weight.device)
    lows = torch.arange(bins, dtype=torch.float64, device=weight.device) - bins / 2
    step = shares.double() * bins / 2 / max(most, 1)
    edges = ((codes - 0.5) * step[:, None] + bins / 2).clamp_(0, bins - 1)
    sums = counts * lows + rests / _PARTS
    below, sums_below = (
        functional.pad(own.cumsum(1), (1, 0))[:, edges.round().long()] for own in (counts, sums)
    )
    mean = most * sums.sum(1, keepdim=True) - sums_below.sum(2)
    square = most**2 * number - (below * (2 * codes - 1)).sum(2)
    whole = (sums * lows + rests / _PARTS * lows + counts).sum(1, keepdim=True)
    errors = (whole - 2 * step * mean + step**2 * square).clamp_(min=0)
    shared = step * counts[:, edges.long()].sum(2)
    off = (1 / _PARTS + 1e-6 * bins) * number**0.5
    doubt = 1e-5 * errors + 2 * off * errors.sqrt() + off**2
    return errors - shared - doubt <= (errors + doubt).amin(1, keepdim=True)


if tuple(_SCHEMES) != SCHEMES:
    raise ImportError(
        f"quantization/grids.py has the schemes {', '.join(_SCHEMES)}, but SCHEMES of "
        f"quantization/quantizer.py names {', '.join(SCHEMES)}"
    )


@torch.no_grad()
def choose_qparams(weight, quantizer, channel_axis=0):
    """Choose the integer grid of a weight tensor.

    Parameters
    ----------
    weight : Tensor of float32 or float64, any shape, not empty
    quantizer : Quantizer or str
        Its precision, scheme and whether it is per channel.  ``banner`` is, with b bits,
        D = (max W - min W) / (2^b - 1) and z = round(-min W / D) where min W < 0 < max W, else the affine
        form whose code 0 is min W.  ``symmetric`` is D = max |W| / (2^(b-1) - 1) with codes
        -2^(b-1) .. 2^(b-1) - 1 (at one bit -1 and 0, D = max |W|).  ``mse`` is the signed grid with
        D = i/100 of the symmetric one, for the i in 1..100 of least squared error, which ``gptq`` and
        ``adaround`` round on as well.
    channel_axis : int
        Axis of the output channels, which have a grid each where the quantizer is per channel.

    Returns
    -------
    QParams

    Raises
    ------
    ValueError
        If the quantizer is unknown or has no integer grid, the tensor is empty, the axis is outside, or a
        weight is not finite.

    Examples
    --------
    >>> grid = choose_qparams(torch.tensor([-1.0, 0.2, 2.0]), "int2")
    >>> float(grid.scale), float(grid.zero_point)
    (1.0, 1.0)
    """
    quantizer = Quantizer.of(quantizer)
    if quantizer.bits is None:
        raise ValueError(f"{quantizer} has no integer grid; choose one of {', '.join(INTEGER_PRECISIONS)}")
    if weight.numel() == 0:
        raise ValueError("an empty weight tensor has no range to quantize")
    if quantizer.per_channel and not -weight.ndim <= channel_axis < weight.ndim:
        raise ValueError(f"channel_axis {channel_axis} is outside a tensor of {weight.ndim} axes")
    axis = channel_axis if quantizer.per_channel else None
    grid = _SCHEMES.get(quantizer.scheme, mse)(weight, quantizer.bits, axis)
    if not bool(torch.isfinite(grid.scale).all()):
        raise ValueError(
            "the weights are not finite (NaN, infinity, or a range beyond the floating-point format); "
            "no grid can hold them"
        )
    return grid


def _quantize(weight, grid, out=None):
    """Codes of `weight` in floating point, in a new tensor or in `out`."""
    if grid.offset is None:
        codes = torch.div(weight, grid.scale, out=out)
        if grid.low >= 0:
            codes.add_(grid.zero_point)
    else:
        codes = torch.sub(weight, grid.offset, out=out).div_(grid.scale).add_(grid.zero_point)
    return _round_(codes.clamp_(grid.low, grid.high), grid.half_away)


def _dequantize_(codes, grid):
    """Real values of floating-point codes, in place."""
    if grid.low >= 0:
        codes.sub_(grid.zero_point)
    codes.mul_(grid.scale)
    return codes if grid.offset is None else codes.add_(grid.offset)


@torch.no_grad()
def quantize(weight, grid):
    """Integer codes of a weight tensor on a chosen grid: q = round(clamp(W / D + z)).

    The value is clamped before it is rounded, as in the reference code.

    Returns
    -------
    Tensor of the smallest integer dtype that holds the codes, same shape as `weight`

    Examples
    --------
    >>> weight = torch.tensor([-1.0, 0.2, 2.0])
    >>> quantize(weight, choose_qparams(weight, "int2"))
    tensor([0, 1, 3], dtype=torch.uint8)
    """
    return _quantize(weight, grid).to(grid.code_dtype)


@torch.no_grad()
def dequantize(codes, grid):
    """Real values of integer codes: W~ = (q - z) D, the paper's S . theta_q (section 3).

    Returns
    -------
    Tensor of the grid's floating-point dtype, same shape as `codes`

    Examples
    --------
    >>> weight = torch.tensor([-1.0, 0.2, 2.0])
    >>> grid = choose_qparams(weight, "int2")
    >>> dequantize(quantize(weight, grid), grid)
    tensor([-1.,  0.,  2.])
    """
    return _dequantize_(codes.to(grid.scale.dtype), grid)


@torch.no_grad()
def quantize_dequantize(weight, grid):
    """Integer codes and real values together, for less than the cost of one after the other."""
    values, codes = torch.empty_like(weight), torch.empty_like(weight, dtype=grid.code_dtype)
    whole = torch.atleast_1d(weight, values, codes)
    # In pieces that stay in the processor's cache from one step to the next, where one grid serves all.
    alike = all(own is None or own.numel() == 1 for own in (grid.scale, grid.offset))
    pieces = weight.numel() // _PIECE if alike else 1
    for own, into, code in zip(*(tensor.chunk(max(1, pieces)) for tensor in whole), strict=True):
        code.copy_(_quantize(own, grid, into))
        _dequantize_(into, grid)
    return codes, values


def on_own_grid(weight, quantizer, channel_axis=0, rounding=None):
    """Codes, grid and real values of a weight that is not empty, its bias corrected where that is asked.

    `rounding` gives the codes of a weight on a grid, by default the nearest.
    """
    working = weight if weight.dtype == torch.float64 else weight.float()
    grid = choose_qparams(working, quantizer, channel_axis)
    if rounding is None:
        codes, values = quantize_dequantize(working, grid)
    else:
        codes = rounding(working, grid)
        values = dequantize(codes, grid)
    if quantizer.bias_correction:
        shift = (working - values).mean(*_shared(working, channel_axis))
        grid = replace(grid, offset=shift if grid.offset is None else grid.offset + shift)
        values = dequantize(codes, grid)
    return codes, grid, values.to(weight.dtype)


@torch.no_grad()
def fake_quantize(weight, quantizer, channel_axis=0):
    """The weight as it is after quantization, in its own floating-point format.

    Parameters
    ----------
    weight : Tensor of float, any shape
        Of one layer, neither the first nor the last.
    quantizer : Quantizer or str
        Weights in ``fp32`` are copied, ``fp16`` rounds to half precision and back, integers are quantized
        and dequantized.
    channel_axis : int
        See `choose_qparams`.

    Returns
    -------
    Tensor of the same shape and dtype, detached, sharing no memory with `weight`

    Raises
    ------
    ValueError
        As `choose_qparams`, and if a weight is too large for half precision.

    Examples
    --------
    >>> fake_quantize(torch.tensor([-1.0, 0.2, 2.0]), "int2")
    tensor([-1.,  0.,  2.])
    """
    quantizer, weight = Quantizer.of(quantizer), weight.detach()
    if quantizer.scheme in CALIBRATED:
        raise ValueError(f"{quantizer} rounds by what a layer is fed; use quantize_model with images")
    if weight.numel() == 0 or quantizer.precision == "fp32":
        return weight.clone()
    if quantizer.bits is None:
        rounded = weight.to(torch.float16, copy=True)
        if not bool(torch.isfinite(rounded).all()):
            raise ValueError("a weight is not finite in half precision (the largest is 65504)")
        return rounded.to(weight.dtype)
    return on_own_grid(weight, quantizer, channel_axis)[2]
