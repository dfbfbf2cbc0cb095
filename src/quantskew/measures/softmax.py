"""The effect on softmax probabilities (section 4.2 of the paper): variance and distance to the boundary."""

import numpy as np
import pandas as pd
from scipy.special import softmax

from quantskew.measures.tables import group_change_table, group_table


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
        See `quantskew.measures.tables.group_table`.
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
        See `quantskew.measures.tables.group_table`.
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
        See `quantskew.measures.tables.group_table`.
    """
    return group_table(audit, top_probability_of_samples(audit))
