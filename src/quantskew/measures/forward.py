"""The effect on logits (section 4.2 of the paper): distances from the reference, and variance.

Every function takes an Audit and gives a table with one row a group and precision.
"""

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax

from quantskew.measures.measure import group_change_table, group_table


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
        See `quantskew.measures.measure.group_table`.
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
        See `quantskew.measures.measure.group_table`.
    """
    return group_table(audit, logit_variance_of_samples(audit))


def logit_variance_change(audit):
    """Change of `logit_variance` from the reference precision, paired image by image."""
    return group_change_table(audit, logit_variance_of_samples(audit))


def probabilities(audit):
    """Softmax of the logits, p = exp(z_g) / sum_j exp(z_j), ndarray of float64, shape (P, N, C)."""
    return softmax(audit.logits.astype(np.float64), axis=2)


def softmax_variance_of_samples(audit):
    """Variance over the C probabilities of each sample (divided by C), ndarray, shape (P, N)."""
    return probabilities(audit).var(axis=2)


def softmax_variance(audit):
    """Mean variance of the probabilities of each group (Fig. 6a).

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.measure.group_table`.
    """
    return group_table(audit, softmax_variance_of_samples(audit))


def softmax_variance_change(audit):
    """Change of `softmax_variance` from the reference precision, paired image by image."""
    return group_change_table(audit, softmax_variance_of_samples(audit))


def dtdb_of_samples(audit):
    """Distance to the decision boundary: the probability of the sample's own class.

    The paper views the softmax probability that a sample of group g obtains as its distance to the decision
    boundary.  Above one half a sample is certainly classified right; at 1 / C the model knows nothing.

    Returns
    -------
    ndarray of float64, shape (P, N), 0 to 1
    """
    samples = np.arange(len(audit.labels))
    return probabilities(audit)[:, samples, audit.labels]


def dtdb(audit):
    """Mean distance to the decision boundary of each group.

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.measure.group_table`.
    """
    return group_table(audit, dtdb_of_samples(audit))


def dtdb_change(audit):
    """Change of `dtdb` from the reference precision, paired image by image: negative is a left shift."""
    return group_change_table(audit, dtdb_of_samples(audit))


def dtdb_histogram(audit, bins=20):
    """Distribution of the distance to the decision boundary in each group (Fig. 6b).

    Parameters
    ----------
    audit : Audit
    bins : int

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``precision``, ``left``, ``right`` (bin edges), ``value`` (share of the group's
        samples, NaN for an empty group) and ``count`` (samples in the group).
    """
    distances = dtdb_of_samples(audit)
    edges = np.linspace(0, 1, bins + 1)
    tables = []
    for row, precision in enumerate(audit.precisions):
        for group, name in enumerate(audit.group_names):
            own = distances[row, audit.groups == group]
            share = np.histogram(own, edges)[0] / len(own) if len(own) else np.full(bins, np.nan)
            columns = {"left": edges[:-1], "right": edges[1:], "value": share, "count": len(own)}
            tables.append(pd.DataFrame({"group": name, "precision": precision, **columns}))
    return pd.concat(tables, ignore_index=True)


def top_probability_of_samples(audit):
    """Largest probability of each sample, ndarray of float64, shape (P, N)."""
    return probabilities(audit).max(axis=2)


def top_probability(audit):
    """Average prediction probability of each group, Eq. 11: the mean of the largest probability.

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.measure.group_table`.
    """
    return group_table(audit, top_probability_of_samples(audit))


def loss_of_samples(audit):
    """Cross-entropy of each sample, -log p_y, in nats: the summand of Eq. 1.

    Returns
    -------
    ndarray of float64, shape (P, N)
    """
    logs = log_softmax(audit.logits.astype(np.float64), axis=2)
    return -logs[:, np.arange(len(audit.labels)), audit.labels]


def group_loss(audit):
    """Mean cross-entropy of each group: the risk of Eq. 1 over the group's samples (Fig. 7).

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.measure.group_table`.
    """
    return group_table(audit, loss_of_samples(audit))


def group_loss_change(audit):
    """Change of `group_loss` from the reference precision, paired image by image."""
    return group_change_table(audit, loss_of_samples(audit))
