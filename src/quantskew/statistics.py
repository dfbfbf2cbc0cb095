"""What an Audit keeps beside the logits."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, eq=False)
class WeightStatistics:
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


def arrays_of(statistics):
    """The arrays of a statistics object by the names of its fields."""
    values = {field.name: getattr(statistics, field.name) for field in fields(statistics)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def at_precisions(statistics, rows):
    """The same statistics with only these rows of what is kept per precision."""
    values = {field.name: getattr(statistics, field.name) for field in fields(statistics)}
    kept = {name: value[rows] for name, value in values.items() if name in statistics.PER_PRECISION}
    return type(statistics)(**{**values, **kept})
