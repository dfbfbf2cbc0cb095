"""The backward pass of an Audit (sections 4.4 and 4.5 of the paper): gradient norms and the Hessian.

Every function takes an Audit whose curvature was measured and gives a table with one row a group and
precision.
"""

import numpy as np
import pandas as pd

from quantskew.derivatives.gradients import excess_loss_bound
from quantskew.groups import group_means
from quantskew.measures.forward import loss_of_samples
from quantskew.measures.measure import long_table


def _curvature(audit):
    if audit.curvature is None:
        raise ValueError(
            "this Audit has no gradients or Hessians: audit the model with curvature=True "
            "(quantskew audit --curvature)"
        )
    return audit.curvature


def gradient_norm(audit):
    """Norm of the gradient of each group's loss, Eq. 10, over all of its test images.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``precision``, ``value``, ``low``, ``high`` (NaN: the norm is exact for these
        images, and how it varies with them was not measured) and ``count`` (images).
    """
    values = _curvature(audit).gradient_norms
    unknown = np.full(values.shape, np.nan)
    counts = np.broadcast_to(audit.group_counts, values.shape)
    return long_table(audit, value=values, low=unknown, high=unknown, count=counts)


def lambda_max(audit):
    """Largest eigenvalue of the Hessian of each group's loss.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``precision``, ``value``, ``low``, ``high`` (the value less and plus its residual:
        an eigenvalue lies between them), ``count`` (images) and ``matvecs`` (Hessian-vector products).
    """
    curvature = _curvature(audit)
    values, error = curvature.lambda_max, curvature.residuals * np.abs(curvature.lambda_max)
    counts = np.broadcast_to(curvature.images, values.shape)
    return long_table(
        audit, value=values, low=values - error, high=values + error, count=counts, matvecs=curvature.matvecs
    )


def trace(audit):
    """Trace of the Hessian of each group's loss, Hutchinson's estimate.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``precision``, ``value``, ``low``, ``high`` (1.96 standard errors of the estimate
        on either side) and ``count`` (images).
    """
    curvature = _curvature(audit)
    values, error = curvature.traces, 1.96 * curvature.trace_errors
    counts = np.broadcast_to(curvature.images, values.shape)
    return long_table(audit, value=values, low=values - error, high=values + error, count=counts)


def excess_loss(audit):
    """What quantization adds to each group's loss, beside the bound of Tran et al. (2022).

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``precision``, ``value`` (added loss in nats), ``bound``
        (see `quantskew.derivatives.gradients.excess_loss_bound`) and ``share`` (the one over the other).
    """
    curvature = _curvature(audit)
    loss = group_means(loss_of_samples(audit), audit.groups, len(audit.group_names))
    bound = np.stack(
        [
            excess_loss_bound(curvature.gradient_norms[0], curvature.lambda_max[0], change)
            for change in curvature.change_norms
        ]
    )
    added = loss - loss[0]
    share = np.divide(added, bound, out=np.full(added.shape, np.nan), where=bound > 0)
    table = long_table(audit, value=added, bound=bound, share=share)
    return table[table["precision"] != audit.precisions[0]].reset_index(drop=True)


def loss_profile(audit):
    """Loss of the best- and the worst-served group as the original weights move in a straight line.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``direction`` ("top eigenvector" or "quantization"), ``step`` (1 along
        "quantization" is the quantized weights), ``distance`` (l2 norm from the original weights, with the
        step's sign) and ``value`` (mean cross-entropy in nats).
    """
    curvature = _curvature(audit)
    rows = []
    for position, group in enumerate(curvature.profile_groups):
        for index, direction in enumerate(("top eigenvector", "quantization")):
            distance = curvature.profile_steps * curvature.profile_lengths[index]
            losses = curvature.profile_losses[position, index]
            columns = {"step": curvature.profile_steps, "distance": distance, "value": losses}
            rows.append(pd.DataFrame({"group": audit.group_names[group], "direction": direction, **columns}))
    return pd.concat(rows, ignore_index=True)
