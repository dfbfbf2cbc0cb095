"""Changes in the weights (section 4.1 of the paper): absolute difference, sparsity, distribution.

Every function takes an Audit of a model.  Tables of numbers have the columns ``layer`` (`OVERALL` for all
weights, or `per_layer` a row each), ``precision``, ``value`` and ``count`` (weights); they need no intervals,
since they count every weight of one model.
"""

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


def _table(audit, sums, per_layer, mean=True):
    """Sums (P, L) of the layers, or their total, as means over the weights."""
    weights, precisions = _statistics(audit), audit.precisions
    sizes, layers = (weights.sizes, weights.layers) if per_layer else (weights.sizes.sum(), (OVERALL,))
    values = (sums if per_layer else sums.sum(axis=1)) / (sizes if mean else 1)
    columns = {"layer": layers * len(precisions), "precision": np.repeat(precisions, len(layers))}
    return pd.DataFrame({**columns, "value": values.ravel(), "count": np.tile(sizes, len(precisions))})


def absolute_difference(audit, per_layer=False, mean=False):
    """Absolute difference of the weights, Eq. 5: sum over k of |W~_k - W_k|, in units of the weights.

    The `mean` divides it by the number of weights, so that layers and models of different sizes compare.
    """
    return _table(audit, _statistics(audit).absolute_difference, per_layer, mean)


def sparsity(audit, per_layer=False):
    """Share of the weights that are exactly zero, Eq. 6, counted on the integer codes."""
    return _table(audit, _statistics(audit).zeros, per_layer)


def mean_magnitude(audit, per_layer=False):
    """Mean absolute dequantized weight: falls where weights move to the centre."""
    return _table(audit, _statistics(audit).magnitude, per_layer)


def weight_histogram(audit):
    """Distribution of the dequantized weights (Fig. 4), each layer in units of its own deviation.

    The table has ``precision``, ``left``, ``right`` (bin edges, in standard deviations of the layer's
    original weights) and ``value`` (share of all weights).
    """
    weights, precisions = _statistics(audit), audit.precisions
    left, right = (np.tile(edges, len(precisions)) for edges in (weights.edges[:-1], weights.edges[1:]))
    columns = {"precision": np.repeat(precisions, len(weights.edges) - 1), "left": left, "right": right}
    return pd.DataFrame({**columns, "value": (weights.histogram / weights.sizes.sum()).ravel()})
