"""Changes in the weights (section 4.1 of the paper): absolute difference, sparsity, distribution."""

import numpy as np
import pandas as pd

from quantskew.measures.measure import OVERALL


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
