"""What an Audit keeps beside the logits: statistics of the weights, and the curvature of the loss."""

from dataclasses import dataclass, fields, replace

import numpy as np

_BINS = 61
_REACH = 4.0


class _Statistics:
    """Arrays of one model, those of ``PER_PRECISION`` with a row for each precision."""

    def arrays(self):
        """The arrays by the names of their fields."""
        values = {own.name: getattr(self, own.name) for own in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def select(self, rows):
        """The same with only these rows."""
        return replace(self, **{name: array[rows] for name, array in self._by_precision().items()})

    def join(self, other):
        """The same with the rows of both."""
        own, others = self._by_precision(), other._by_precision()
        rows = {name: np.concatenate([own[name], others[name]]) for name in own.keys() & others.keys()}
        # What only one of them has would lack rows.
        return replace(self, **(dict.fromkeys(own, None) | rows))

    def _by_precision(self):
        return {name: array for name, array in self.arrays().items() if name in self.PER_PRECISION}


@dataclass(frozen=True, eq=False)
class WeightStatistics(_Statistics):
    """What quantization did to the weights, layer by layer (L layers, P precisions).

    Attributes
    ----------
    layers : tuple of str
    sizes : ndarray of int64, shape (L,)
        Number of weights of each layer.
    absolute_difference : ndarray of float64, shape (P, L)
        Sum over the weights of |W~ - W| (Eq. 5), in units of the weights.
    zeros : ndarray of int64, shape (P, L)
        Weights that are exactly 0, counted on the integer codes.
    magnitude : ndarray of float64, shape (P, L)
        Sum over the weights of |W~|.
    edges : ndarray of float64, shape (B + 1,)
        Bins of the histograms, in standard deviations of the layer's original weights.
    histogram : ndarray of int64, shape (P, B)
        Number of dequantized weights of all layers in each bin; weights beyond the edges are in the
        outermost bins.
    """

    layers: tuple
    sizes: np.ndarray
    absolute_difference: np.ndarray
    zeros: np.ndarray
    magnitude: np.ndarray
    edges: np.ndarray
    histogram: np.ndarray

    PER_PRECISION = ("absolute_difference", "zeros", "magnitude", "histogram")


@dataclass(frozen=True, eq=False)
class Curvature(_Statistics):
    """The loss surface of each group at each precision (P precisions, G groups).

    Attributes
    ----------
    images : ndarray of int64, shape (G,)
        Test images of each group that were used.
    gradient_norms : ndarray of float64, shape (P, G)
        Eq. 10, over all test images of a group.
    lambda_max : ndarray of float64, shape (P, G)
        Largest algebraic eigenvalue of the Hessian; NaN for a group without images.
    residuals : ndarray of float64, shape (P, G)
        Relative residual of lambda_max.
    matvecs : ndarray of int64, shape (P, G)
        Hessian-vector products that lambda_max took.
    traces, trace_errors : ndarray of float64, shape (P, G)
        Hutchinson's estimate of the trace and its standard error.
    change_norms : ndarray of float64, shape (P,)
        ||d||, the l2 norm of the change of all parameters.
    profile_groups : ndarray of int64, shape (2,)
        The best- and the worst-served group at the reference.
    profile_steps : ndarray of float64, shape (S,)
        Steps from the original weights.
    profile_lengths : ndarray of float64, shape (2,)
        Length of one step: along the top eigenvector, one that adds one nat to second order for the steeper
        group; along the quantization direction, the change that `profile_precision` makes.
    profile_losses : ndarray of float64, shape (2, 2, S)
        Loss of those groups along the top eigenvector and along the quantization direction.
    profile_precision : str
        The one that gives the quantization direction.
    slopes, bends : ndarray of float64, shape (P, G), optional
        The terms of Eq. 4 for the change d of each precision: g.d and 1/2 d'Hd, with gradient and Hessian of
        the original model over the same `images`, in nats.
    """

    images: np.ndarray
    gradient_norms: np.ndarray
    lambda_max: np.ndarray
    residuals: np.ndarray
    matvecs: np.ndarray
    traces: np.ndarray
    trace_errors: np.ndarray
    change_norms: np.ndarray
    profile_groups: np.ndarray
    profile_steps: np.ndarray
    profile_lengths: np.ndarray
    profile_losses: np.ndarray
    profile_precision: str
    slopes: np.ndarray | None = None
    bends: np.ndarray | None = None

    PER_PRECISION = ("gradient_norms", "lambda_max", "residuals", "matvecs", "traces", "trace_errors")
    PER_PRECISION += ("change_norms", "slopes", "bends")


def collect_statistics(originals, quantized):
    """Compare the weights of quantized models with those of their floating-point originals, one for each."""
    # An Audit is read without torch.
    import torch

    from quantskew.quantization.ptq import weight_parameters

    weights = weight_parameters(originals[0])
    shape = (len(quantized), len(weights))
    difference, magnitude = np.zeros(shape), np.zeros(shape)
    zeros = np.zeros(shape, dtype=np.int64)
    histogram = np.zeros((len(quantized), _BINS), dtype=np.int64)
    for row, (original, model) in enumerate(zip(originals, quantized, strict=True)):
        pairs = zip(weight_parameters(original).items(), weight_parameters(model).values(), strict=True)
        for column, ((layer, weight), parameter) in enumerate(pairs):
            weight, values = weight.detach().float(), parameter.detach().float()
            codes = model.quantized.get(layer)
            zeros[row, column] = codes.zeros if codes else int((values == 0).sum())
            magnitude[row, column] = float(values.abs().sum(dtype=torch.float64))
            difference[row, column] = float((values - weight).abs_().sum(dtype=torch.float64))
            spread = max(float(weight.std(correction=0)), torch.finfo(torch.float32).tiny)
            # The number of bins is odd, so that exact zeros fall into the middle of one and not on an edge.
            # In pieces, since histc counts in fp32, which is exact up to 2^24.
            pieces = (values / spread).clamp_(-_REACH, _REACH).flatten().split(2**23)
            counted = sum(torch.histc(piece, _BINS, -_REACH, _REACH).to(torch.int64) for piece in pieces)
            histogram[row] += counted.cpu().numpy()
    sizes = np.array([weight.numel() for weight in weights.values()], dtype=np.int64)
    edges = np.linspace(-_REACH, _REACH, _BINS + 1)
    return WeightStatistics(tuple(weights), sizes, difference, zeros, magnitude, edges, histogram)
