"""Fake quantization of a weight with a learned step, on a symmetric signed grid.

The forward pass gives w~ = s clamp(round(w / s), n, p) with n = -2^(b-1) and p = 2^(b-1) - 1, ties to the
even code.  The backward pass takes rounding for the identity (the straight-through estimator): the gradient
of w passes where the code is inside [n, p] and is 0 where it is clipped, and the gradient of s sums
round(w / s) - w / s inside, and n or p where it is clipped (Esser et al. 2020).  It is not scaled down by
1 / sqrt(p N): Nagel et al. (2022) leave that out and give s a small learning rate instead.
"""

import torch
from torch import nn

from quantskew.quantization.grids import QParams, choose_qparams
from quantskew.quantization.quantizer import integer_bits

# The smallest scale that the search of the `mse` scheme considers, as a share of the largest.
_LEAST_SHARE = 0.01


def trainable_bits(precision):
    """Number of bits of a precision that a weight can be trained at; any other is refused."""
    bits = integer_bits(precision)
    if bits is None:
        raise ValueError(f"{precision} has no integer grid to train on; choose one of int2 to int16")
    if bits < 2:
        raise ValueError(
            f"{precision} has no positive code on a signed grid, so it cannot be trained; use at least int2"
        )
    return bits


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, step, low, high):
        ctx.save_for_backward(weight, step)
        ctx.low, ctx.high = low, high
        return torch.div(weight, step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        weight, step = ctx.saved_tensors
        ratio = weight / step
        codes = ratio.round()
        # Gives its first argument where the second is between the bounds, else 0, in one pass: the codes are
        # whole, so half a step beyond the last ones tells inside from clipped exactly.
        inside = torch.ops.aten.hardtanh_backward
        bounds = (ctx.low - 0.5, ctx.high + 0.5)
        of_step = None
        of_weight = inside(gradient, codes, *bounds)
        if ctx.needs_input_grad[1]:
            unclipped = inside(ratio, codes, *bounds)
            of_step = codes.clamp_(ctx.low, ctx.high).sub_(unclipped).mul_(gradient).sum()
        return of_weight, of_step, None, None


def fake_quantize_learned(weight, step, low, high):
    """The weight on its grid, differentiable in the weight and the step.

    Parameters
    ----------
    weight : Tensor of float, any shape
    step : Tensor of float, shape ()
        Larger than 0.
    low, high : int
        Smallest and largest code, n and p.

    Returns
    -------
    Tensor of the shape, dtype and memory layout of `weight`

    Examples
    --------
    >>> weight = torch.tensor([-3.0, 0.4, 0.6, 5.0], requires_grad=True)
    >>> step = torch.tensor(1.0, requires_grad=True)
    >>> quantized = fake_quantize_learned(weight, step, -2, 1)
    >>> quantized.sum().backward()
    >>> quantized.tolist(), weight.grad.tolist()
    ([-2.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0])
    >>> round(step.grad.item(), 4)  # -2 - 0.4 + 0.4 + 1
    -1.0
    """
    return _FakeQuantize.apply(weight, step, low, high)


class LearnedStep(nn.Module):
    """The fake quantizer of one weight tensor, to be registered as its parametrization.

    The step, a parameter in units of the weight, begins as the scale of least squared error, and is learned
    or kept.  ``quantized`` is what the last forward pass in training mode gave, without its graph, so that
    what acts between the backward pass and the step need not compute it again; see `forget`.
    """

    def __init__(self, weight, precision, learn=True):
        super().__init__()
        bits = trainable_bits(precision)
        if weight.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"weights are trained in float32 or float64; got {weight.dtype}")
        scale = choose_qparams(weight.detach(), f"{precision}:mse").scale
        self.precision = precision
        self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.step = nn.Parameter(scale.clone(), requires_grad=learn)
        self.register_buffer("least_step", scale * _LEAST_SHARE)
        self.quantized = None

    @property
    def grid(self):
        """The grid as it is now, as `QParams`."""
        scale = self.step.detach().clone()
        return QParams(scale, torch.zeros_like(scale), None, self.low, self.high, half_away=False)

    def forward(self, weight):
        """The quantized weight, of the shape of `weight`."""
        quantized = fake_quantize_learned(weight, self.step, self.low, self.high)
        if self.training and torch.is_grad_enabled():
            self.quantized = quantized.detach()
        return quantized

    def forget(self):
        """Let go of `quantized`, which belongs to weights that have moved since."""
        self.quantized = None

    @torch.no_grad()
    def keep_positive(self):
        """Keep the step from reaching 0: at least a hundredth of its first value."""
        self.step.clamp_(min=self.least_step)
