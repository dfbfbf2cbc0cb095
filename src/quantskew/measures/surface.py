"""The backward pass of an Audit (sections 4.4 and 4.5 of the paper): gradient norms and the Hessian."""

import numpy as np
import pandas as pd

from quantskew.groups import group_means
from quantskew.measures.forward import group_loss
from quantskew.measures.measure import long_table, per_group, without_reference

_MEASURED = {"applies": lambda audit: audit.curvature is not None}


def _curvature(audit):
    if audit.curvature is None:
        raise ValueError(
            "this Audit has no gradients or Hessians: audit the model with curvature=True "
            "(quantskew audit --curvature)"
        )
    return audit.curvature


def _between(values, error, images, **columns):
    counts = np.broadcast_to(images, values.shape)
    return {"value": values, "low": values - error, "high": values + error, "count": counts, **columns}


@per_group("gradient norm", "gradient norm", "Eq. 10", "Fig. 8", log=True, **_MEASURED)
def gradient_norm(audit):
    """Norm of the gradient of each group's loss, Eq. 10, over all of its test images (``count``).

    ``low`` and ``high`` are NaN: the norm is exact for these images, and how it varies was not measured.
    """
    return _between(_curvature(audit).gradient_norms, np.nan, audit.group_counts)


@per_group("lambda_max", "lambda_max", figure="Fig. 10", digits=1, log=True, **_MEASURED)
def lambda_max(audit):
    """Largest eigenvalue of the Hessian of each group's loss.

    ``low`` and ``high`` are the value minus and plus its residual: an eigenvalue lies between them.
    ``count`` is images, ``matvecs`` Hessian-vector products.
    """
    own = _curvature(audit)
    error = own.residuals * np.abs(own.lambda_max)
    return _between(own.lambda_max, error, own.images, matvecs=own.matvecs)


@per_group("trace", "trace of the Hessian", digits=1, **_MEASURED)
def trace(audit):
    """Trace of the Hessian of each group's loss, Hutchinson's estimate from ``count`` images.

    ``low`` and ``high`` are 1.96 standard errors of the estimate on either side.
    """
    own = _curvature(audit)
    return _between(own.traces, 1.96 * own.trace_errors, own.images)


def excess_loss(audit):
    """What quantization adds to each group's loss in nats, beside the bound of Tran et al. (2022).

    The table has ``value``, ``bound`` (see `excess_loss_bound`) and ``share`` (the one over the other).
    """
    own = _curvature(audit)
    loss = group_means(group_loss.of_samples(audit), audit.groups, len(audit.group_names))
    bound = excess_loss_bound(own.gradient_norms[0], own.lambda_max[0], own.change_norms[:, None])
    added = loss - loss[0]
    share = np.divide(added, bound, out=np.full(added.shape, np.nan), where=bound > 0)
    return without_reference(audit, long_table(audit, value=added, bound=bound, share=share))


def excess_loss_bound(gradient_norm, lambda_max, change_norm):
    """Bound on what a change d of the weights adds to a group's loss, to second order.

    R(a) <= ||g_a|| ||d|| + 1/2 lambda_max(H_a) ||d||^2 + O(||d||^3) (Tran et al., 2022, for pruning; the
    second-order expansion of Eq. 4 of the paper).  For quantization d is the dequantized minus the original
    weights.  The last term is left out, so that the excess loss of a large change can exceed the bound.

    Parameters
    ----------
    gradient_norm, lambda_max : array_like of float, shape (G,)
        ||g_a|| and lambda_max(H_a) of the original model; where lambda_max is negative, so is the quadratic
        term.
    change_norm : float or array_like of shape (G,)
        ||d||, the l2 norm over the parameters that gradient and Hessian are taken with respect to.

    Returns
    -------
    ndarray of float64, shape (G,)
        In nats; NaN where a group has no images.

    Raises
    ------
    ValueError
        If a norm is negative.

    Examples
    --------
    >>> excess_loss_bound([0.5, 1.0], [8.0, 2.0], change_norm=0.5)
    array([1.25, 0.75])
    """
    gradient_norm, change_norm = np.asarray(gradient_norm), np.asarray(change_norm)
    for norm, what in ((gradient_norm, "gradient_norm"), (change_norm, "change_norm")):
        if (norm < 0).any():
            raise ValueError(f"{what} is a norm and cannot be negative; got {norm.min()}")
    return gradient_norm * change_norm + np.asarray(lambda_max) * change_norm**2 / 2


def taylor(audit):
    """What quantization adds to each group's loss in nats, beside the first terms of Eq. 4.

    The table has ``value`` (added loss over the images of the Hessian), ``slope`` (g.d), ``bend`` (1/2 d'Hd)
    and ``predicted``, their sum.

    Raises
    ------
    ValueError
        If the Audit has no curvature, or one that was measured without these terms.
    """
    own = _curvature(audit)
    if own.slopes is None:
        raise ValueError("this Audit was made without the terms of Eq. 4; audit the model anew")
    # The first images of each group, as the Hessian has them.
    place = pd.Series(audit.groups).groupby(audit.groups).cumcount().to_numpy()
    chosen = place < own.images[audit.groups]
    loss = group_loss.of_samples(audit)[:, chosen]
    means = group_means(loss, audit.groups[chosen], len(audit.group_names))
    terms = {"slope": own.slopes, "bend": own.bends, "predicted": own.slopes + own.bends}
    return without_reference(audit, long_table(audit, value=means - means[0], **terms))


def loss_profile(audit):
    """Loss of the best- and the worst-served group as the original weights move in a straight line.

    The table has ``group``, ``direction`` ("top eigenvector" or "quantization"), ``step`` (1 along
    "quantization" is the quantized weights), ``distance`` (l2 norm from the original weights, with the step's
    sign) and ``value`` (mean cross-entropy in nats).
    """
    own, rows = _curvature(audit), []
    for position, group in enumerate(own.profile_groups):
        for index, direction in enumerate(("top eigenvector", "quantization")):
            distance = own.profile_steps * own.profile_lengths[index]
            columns = {"step": own.profile_steps, "distance": distance}
            columns["value"] = own.profile_losses[position, index]
            rows.append(pd.DataFrame({"group": audit.group_names[group], "direction": direction, **columns}))
    return pd.concat(rows, ignore_index=True)
