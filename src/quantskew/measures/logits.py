"""The effect on logits (section 4.2 of the paper): distances from the reference, and variance.

Every function takes an Audit and gives a table with one row a group and precision.
"""

import numpy as np

from quantskew.measures.tables import group_change_table, group_table


def cosine_distance_of_samples(audit):
    """Cosine distance of each sample's logits from the reference's, Eq. 7.

    CD(A, B) = 1 - A . B / (|A| |B|), from 0 (same direction) over 1 (orthogonal) to 2 (opposite).

    Returns
    -------
    ndarray of float64, shape (P, N)
        NaN where either vector is null: a null vector has no direction.
    """
    logits = audit.logits.astype(np.float64)
    norms = np.linalg.norm(logits, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = logits / norms[:, :, None]
        # From the difference of directions: 1 - cos would lose every digit where the angle is small.
        distances = 0.5 * np.square(directions - directions[:1]).sum(axis=2)
    return distances


def null_logits(audit):
    """Whether each sample's logits are all exactly zero, ndarray of bool, shape (P, N)."""
    return ~audit.logits.any(axis=2)


def cosine_distance(audit):
    """Average cosine distance of each group, Eq. 8.

    Samples with null logits, at either precision, are left out and shown in ``undefined``.

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.tables.group_table`.
    """
    return group_table(audit, cosine_distance_of_samples(audit))


def l1_distance_of_samples(audit):
    """L1 distance of each sample's logits from the reference's, ndarray of float64, shape (P, N)."""
    return np.abs(_difference(audit)).sum(axis=2)


def l1_distance(audit):
    """Mean L1 distance of each group's logits from the reference's, as `cosine_distance` (Fig. 5b)."""
    return group_table(audit, l1_distance_of_samples(audit))


def l2_distance_of_samples(audit):
    """L2 distance of each sample's logits from the reference's, ndarray of float64, shape (P, N)."""
    return np.linalg.norm(_difference(audit), axis=2)


def l2_distance(audit):
    """Mean L2 distance of each group's logits from the reference's, as `cosine_distance` (Fig. 5c)."""
    return group_table(audit, l2_distance_of_samples(audit))


def _difference(audit):
    return audit.logits.astype(np.float64) - audit.logits[:1]


def logit_variance_of_samples(audit):
    """Variance over the C logits of each sample (divided by C), ndarray of float64, shape (P, N)."""
    return audit.logits.astype(np.float64).var(axis=2)


def logit_variance(audit):
    """Mean variance of the logits of each group, Eq. 9.

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.tables.group_table`.
    """
    return group_table(audit, logit_variance_of_samples(audit))


def logit_variance_change(audit):
    """Change of `logit_variance` from the reference precision, paired image by image."""
    return group_change_table(audit, logit_variance_of_samples(audit))
