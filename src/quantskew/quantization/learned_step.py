"""Fake quantization of a weight with a learned step, on a symmetric signed grid.

The forward pass gives w~ = s clamp(round(w / s), n, p) with n = -2^(b-1) and p = 2^(b-1) - 1, ties to the
even code.  The backward pass takes rounding for the identity (the straight-through estimator): the gradient
of w passes where the code is inside [n, p] and is 0 where it is clipped, and the gradient of s sums
round(w / s) - w / s inside, and n or p where it is clipped (Esser et al. 2020).  It is not scaled down by
1 / sqrt(p N): Nagel et al. (2022) leave that out and give s a small learning rate instead.

A weight near the border of two codes can jump to and fro without end.  Against such oscillations there are a
loss that dampens them, and freezing (Nagel et al. 2022).
"""

import math

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
        why = "has no positive code on a signed grid, so it cannot be trained"
        raise ValueError(f"{precision} {why}; use at least int2")
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
    def dampen(self, weight, channels, strength):
        """Add the gradient of the dampening loss, times `strength`, to that of a weight of so many channels.

        The loss is the squared distance of Q(w) from clip(w, s n, s p), summed over output channels and
        averaged over the rest.  The step has no part in it: where the clipped weight depends on it, that
        distance is 0.  For the same reason a clipped weight has no gradient.
        """
        distances = weight.clamp(self.step * self.low, self.step * self.high).sub_(self.quantized)
        weight.grad.add_(distances, alpha=2 * strength * channels / weight.numel())

    @torch.no_grad()
    def keep_positive(self):
        """Keep the step from reaching 0: at least a hundredth of its first value."""
        self.step.clamp_(min=self.least_step)


# Weights that are worked on at a time.
_PIECE = 2**18


def cosine(first, last, progress):
    """Half a cosine from `first` at progress 0 to `last` at progress 1."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def dampening_strength(strength, start, progress):
    """lambda(t): 0 up to the share `start` of the steps, then a cosine ramp to `strength`.

    Examples
    --------
    >>> dampening_strength(0.1, 0.25, 0.25), dampening_strength(0.1, 0.25, 1.0)
    (0.0, 0.1)
    """
    return cosine(0.0, strength, (progress - start) / (1 - start)) if progress > start else 0.0


def _pieces(*tensors):
    """Matching slices of tensors of one shape, so small that what is computed from them stays cached."""
    rows = max(1, _PIECE * len(tensors[0]) // tensors[0].numel())
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


class Oscillations(nn.Module):
    """Counts how often each weight of a tensor oscillates, and freezes those that do so too often.

    A weight oscillates in a step when its code changes in the direction opposite to its last change.  Its
    frequency is an exponential moving average, f <- (1 - m) f + m o with o = 1 where it oscillates and else
    0; the same average is kept of its code.

    Five buffers have the weight's shape, so that a checkpoint resumes them exactly: `codes` as last seen,
    `direction` of the last change (0 where there has been none), the averages `frequency` and `mean`, and
    `frozen`.  A frozen weight has the frequency 0, and the code that it is pinned at as its mean.
    """

    def __init__(self, weight, step, low, high, momentum=0.01):
        super().__init__()
        self.momentum = momentum
        # All of these keep the weight's memory layout: passes over tensors of two layouts are slow.
        weight = weight.detach()
        codes = (weight / step.detach()).round_().clamp_(low, high).float()
        fits = torch.iinfo(torch.int8).min <= low and high <= torch.iinfo(torch.int8).max
        self.register_buffer("codes", codes.to(torch.int8 if fits else torch.int16))
        self.register_buffer("direction", torch.zeros_like(weight, dtype=torch.int8))
        self.register_buffer("frequency", torch.zeros_like(weight, dtype=torch.float32))
        self.register_buffer("mean", codes)
        self.register_buffer("frozen", torch.zeros_like(weight, dtype=torch.bool))

    @torch.no_grad()
    def observe(self, quantized, step):
        """Take note of the quantized weight of one step of training, and of the step of its grid."""
        kept = (self.codes, self.direction, self.frequency, self.mean)
        for now, codes, direction, frequency, mean in _pieces(quantized, *kept):
            # In floating point, where no difference of codes overflows and comparisons need no other type.
            now = (now / step).to(mean.dtype).round_()
            change = (now - codes).clamp_(-1, 1)
            oscillated = (change * direction).clamp_(max=0).neg_()
            # A change outweighs the direction before it; no change leaves it.
            direction.add_(change.to(direction.dtype), alpha=2).clamp_(-1, 1)
            frequency.lerp_(oscillated, self.momentum)
            mean.lerp_(now, self.momentum)
            codes.copy_(now)

    @torch.no_grad()
    def freeze(self, threshold):
        """Freeze each weight whose frequency is above the threshold, at the rounded mean of its codes."""
        for codes, direction, frequency, mean, frozen in _pieces(*self.buffers()):
            if float(frequency.amax()) > threshold:
                newly = frequency > threshold
                pinned = mean[newly].round_()
                # The mean of a code that no longer changes is that code; `pin` reads it from there.
                mean[newly], codes[newly] = pinned, pinned.to(codes.dtype)
                frequency[newly], direction[newly], frozen[newly] = 0, 0, True

    @torch.no_grad()
    def pin(self, weight, step):
        """Put each frozen weight at its code, in place: the optimizer's momentum may have moved it."""
        for values, mean, frozen in _pieces(weight, self.mean, self.frozen):
            torch.where(frozen, (mean * step).to(values.dtype), values, out=values)
