"""Oscillations of quantized weights in training: a loss that dampens them, and freezing (Nagel et al. 2022).

With the straight-through estimator a weight near the border of two codes is pushed across it again and again.
The dampening loss pulls weights to the middle of their bins,

    L = lambda sum_layers sum_channels mean (Q(w) - clip(w, s n, s p))^2,

with no gradient through Q(w).  Iterative freezing pins a weight at its average code once it oscillates too
often.
"""

import math

import torch
from torch import nn

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


def _distances(weight, quantized, step, low, high):
    """clip(w, s n, s p) - Q(w), in a new tensor."""
    return weight.clamp(step * low, step * high).sub_(quantized)


@torch.no_grad()
def dampening_loss(weight, quantized, step, low, high, channels):
    """Dampening loss of one layer at lambda = 1.

    Parameters
    ----------
    weight : Tensor of float, any shape
    quantized : Tensor, same shape
        Q(w), the weight on its grid.
    step : Tensor, shape ()
    low, high : int
        Smallest and largest code, n and p.
    channels : int
        Number of output channels: the squared distances are summed over them and averaged over the rest.

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> weight = torch.tensor([[0.2, 0.6], [1.0, 9.0]])
    >>> dampening_loss(weight, torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor(1.0), -2, 1, channels=2)
    tensor(0.1000)
    """
    return _distances(weight, quantized, step, low, high).square_().sum() * (channels / weight.numel())


@torch.no_grad()
def add_dampening_gradient(gradient, weight, quantized, step, low, high, channels, strength):
    """Add the gradient of `strength` times `dampening_loss` to a weight's gradient, in place.

    The step has no part in it: where the clipped weight depends on it, its distance to the grid is 0.  For
    the same reason a clipped weight has no gradient.
    """
    distances = _distances(weight, quantized, step, low, high)
    gradient.add_(distances, alpha=2 * strength * channels / weight.numel())


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
