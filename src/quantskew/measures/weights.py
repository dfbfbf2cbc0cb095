"""Changes in the weights (section 4.1 of the paper): absolute difference, sparsity, distribution."""

import numpy as np
import pandas as pd
import torch

from quantskew.measures.statistics import WeightStatistics
from quantskew.measures.tables import OVERALL
from quantskew.quantization.ptq import weight_parameters

_BINS = 61
_REACH = 4.0


def collect_statistics(original, quantized, precisions):
    """Compare the weights of quantized models with the original's.

    Parameters
    ----------
    original : torch.nn.Module
    quantized : sequence of torch.nn.Module
        What `quantskew.quantization.ptq.quantize_model` made of it, one a precision.
    precisions : sequence of str

    Returns
    -------
    WeightStatistics
    """
    weights = weight_parameters(original)
    shape = (len(precisions), len(weights))
    difference, magnitude = np.zeros(shape), np.zeros(shape)
    zeros = np.zeros(shape, dtype=np.int64)
    histogram = np.zeros((len(precisions), _BINS), dtype=np.int64)
    for row, model in enumerate(quantized):
        pairs = zip(weights.items(), weight_parameters(model).values(), strict=True)
        for column, ((layer, weight), parameter) in enumerate(pairs):
            weight, values = weight.detach().float(), parameter.detach().float()
            codes = model.quantized.get(layer)
            zeros[row, column] = int((values == 0).sum()) if codes is None else codes.zeros
            magnitude[row, column] = float(values.abs().sum(dtype=torch.float64))
            difference[row, column] = float((values - weight).abs_().sum(dtype=torch.float64))
            histogram[row] += _count_bins(values, float(weight.std(correction=0)))
    sizes = np.array([weight.numel() for weight in weights.values()], dtype=np.int64)
    edges = np.linspace(-_REACH, _REACH, _BINS + 1)
    return WeightStatistics(tuple(weights), sizes, difference, zeros, magnitude, edges, histogram)


def _count_bins(values, spread):
    scaled = (values / max(spread, torch.finfo(torch.float32).tiny)).clamp_(-_REACH, _REACH)
    # The number of bins is odd, so that exact zeros fall into the middle of one and not on an edge.
    # In pieces, since histc counts in fp32, which is exact up to 2^24.
    pieces = scaled.flatten().split(2**23)
    counted = sum(torch.histc(piece, _BINS, -_REACH, _REACH).to(torch.int64) for piece in pieces)
    return counted.cpu().numpy()


def _statistics(audit):
    if audit.weights is None:
        raise ValueError(
            "this Audit has no weight statistics: it was made from logits; audit the model itself to see its "
            "weights"
        )
    return audit.weights


def _table(audit, values, per_layer, total):
    """Rows of a (P, L) array by layer, or of its (P,) total."""
    weights = _statistics(audit)
    if per_layer:
        columns = {"layer": weights.layers * len(audit.precisions)}
        columns["precision"] = np.repeat(audit.precisions, len(weights.layers))
        columns["value"], columns["count"] = values.ravel(), np.tile(weights.sizes, len(audit.precisions))
        return pd.DataFrame(columns)
    return pd.DataFrame(
        {"layer": OVERALL, "precision": audit.precisions, "value": total, "count": weights.sizes.sum()}
    )


def absolute_difference(audit, per_layer=False, mean=False):
    """Absolute difference of the weights, Eq. 5: sum over k of |W~_k - W_k|.

    It needs no interval: it counts every weight of one model.

    Parameters
    ----------
    audit : Audit
    per_layer : bool
        One row a layer instead of one for all.
    mean : bool
        Divide by the number of weights, so that layers and models of different sizes compare.

    Returns
    -------
    pandas.DataFrame
        Columns ``layer``, ``precision``, ``value`` (in units of the weights) and ``count`` (weights).
    """
    weights = _statistics(audit)
    values, total = weights.absolute_difference, weights.absolute_difference.sum(axis=1)
    if mean:
        values, total = values / weights.sizes, total / weights.sizes.sum()
    return _table(audit, values, per_layer, total)


def sparsity(audit, per_layer=False):
    """Share of the weights that are exactly zero, Eq. 6, counted on the integer codes.

    Parameters
    ----------
    audit : Audit
    per_layer : bool

    Returns
    -------
    pandas.DataFrame
        Columns ``layer``, ``precision``, ``value`` (0 to 1) and ``count`` (weights).
    """
    weights = _statistics(audit)
    return _table(
        audit, weights.zeros / weights.sizes, per_layer, weights.zeros.sum(axis=1) / weights.sizes.sum()
    )


def mean_magnitude(audit, per_layer=False):
    """Mean absolute dequantized weight: falls where weights move to the centre.

    Returns
    -------
    pandas.DataFrame
        Columns ``layer``, ``precision``, ``value`` (in units of the weights) and ``count`` (weights).
    """
    weights = _statistics(audit)
    return _table(
        audit,
        weights.magnitude / weights.sizes,
        per_layer,
        weights.magnitude.sum(axis=1) / weights.sizes.sum(),
    )


def weight_histogram(audit):
    """Distribution of the dequantized weights (Fig. 4), each layer in units of its own deviation.

    Returns
    -------
    pandas.DataFrame
        Columns ``precision``, ``left``, ``right`` (bin edges, in standard deviations of the layer's original
        weights) and ``value`` (share of all weights).
    """
    weights = _statistics(audit)
    bins = len(weights.edges) - 1
    return pd.DataFrame(
        {
            "precision": np.repeat(audit.precisions, bins),
            "left": np.tile(weights.edges[:-1], len(audit.precisions)),
            "right": np.tile(weights.edges[1:], len(audit.precisions)),
            "value": (weights.histogram / weights.sizes.sum()).ravel(),
        }
    )
