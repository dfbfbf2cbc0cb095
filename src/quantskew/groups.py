"""Groups of samples: checked ids, counts, means and gaps.

A group is an integer id 0..G-1 per sample.  The value of a group without samples is NaN, never 0,
and every table that shows a group shows its count.
"""

import numpy as np


def check_group_ids(groups, num_groups=None, what="group"):
    """The ids as int64, and the number of groups; refused where they are no integers below `num_groups`."""
    ids = np.asarray(groups)
    if ids.ndim != 1:
        raise ValueError(f"{what}s must be one-dimensional, one id a sample; got shape {ids.shape}")
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{what}s must be integers; got dtype {ids.dtype}")
    ids = ids.astype(np.int64)
    largest = int(ids.max()) if ids.size else -1
    if ids.size and ids.min() < 0:
        raise ValueError(f"{what}s must be 0 or larger; sample {int(ids.argmin())} has {ids.min()}")
    if num_groups is None:
        num_groups = largest + 1
    elif largest >= num_groups:
        raise ValueError(f"sample {int(ids.argmax())} has {what} {largest}, but only {num_groups} are named")
    return ids, num_groups


def group_counts(groups, num_groups):
    """Number of samples in each group, shape (G,)."""
    return np.bincount(groups, minlength=num_groups)


def group_means(values, groups, num_groups):
    """Mean of `values` (..., N) over the samples of each group, shape (..., G); NaN values are left out.

    Examples
    --------
    >>> group_means(np.array([1.0, 2.0, 4.0]), np.array([0, 2, 2]), 3)
    array([ 1., nan,  3.])
    """
    membership = np.eye(num_groups)[groups]
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0) @ membership
    count = defined.astype(np.float64) @ membership
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def largest_gap(values):
    """Largest difference between two groups, over the last axis; NaN where fewer than two are present.

    The reduction of Eq. 2: the maximum over pairs is the maximum less the minimum.

    Examples
    --------
    >>> largest_gap(np.array([0.9, np.nan, 0.4]))
    0.5
    """
    values = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(values)
    high = np.where(present, values, -np.inf).max(axis=-1, initial=-np.inf)
    low = np.where(present, values, np.inf).min(axis=-1, initial=np.inf)
    gap = np.where(present.sum(axis=-1) >= 2, high - low, np.nan)
    return gap if gap.ndim else float(gap)
