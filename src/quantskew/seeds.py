"""Statistics over several seeds: a bootstrap of the seeds, and within each of its test images.

Each seed has its own split, initial weights and training.  A draw takes as many seeds as there are, with
replacement, and for each of them the test images of each group again (stratified).  The same seed's images
are drawn alike for every model, so that differences between methods are paired.  With a single seed the
interval covers the test images alone.
"""

import numpy as np

from quantskew.fairness import correct_of_samples
from quantskew.groups import group_means, largest_gap
from quantskew.intervals import bootstrap_group_means, percentile_interval


def group_accuracies(audits, precision):
    """Accuracy of each group of each seed, as measured and as resampled.

    Parameters
    ----------
    audits : sequence of Audit
        One a seed, of the same groups.
    precision : str

    Returns
    -------
    value : ndarray of float, shape (S, G)
    draws : ndarray of float, shape (B, S, G)
    """
    values, draws = [], []
    for audit in audits:
        correct = correct_of_samples(audit)[[audit.index(precision)]]
        values.append(group_means(correct, audit.groups, len(audit.group_names))[0])
        draws.append(bootstrap_group_means(correct, audit.groups, len(audit.group_names))[:, 0])
    return np.stack(values), np.stack(draws, axis=1)


def mean_over_seeds(value, draws):
    """Mean of a statistic over the seeds, as measured and as resampled.

    Parameters
    ----------
    value : ndarray of float, shape (S, ...)
    draws : ndarray of float, shape (B, S, ...)
        Each seed's statistic on resampled images.

    Returns
    -------
    value : ndarray of float, shape (...)
    draws : ndarray of float, shape (B, ...)

    Examples
    --------
    >>> value, draws = mean_over_seeds(np.array([1.0, 3.0]), np.tile([1.0, 3.0], (4, 1)))
    >>> float(value), draws.shape
    (2.0, (4,))
    """
    seeds = len(value)
    # One generator for every statistic: the same seeds are drawn for all methods.
    chosen = np.random.default_rng(0).integers(0, seeds, (len(draws), seeds))
    return value.mean(axis=0), draws[np.arange(len(draws))[:, None], chosen].mean(axis=1)


def overall(accuracies, counts):
    """Accuracy over all images out of the groups' accuracies (..., S, G) and test counts (S, G)."""
    present = np.where(counts > 0, np.nan_to_num(accuracies), 0.0)
    return (present * counts).sum(axis=-1) / counts.sum(axis=-1)


def fairness_over_seeds(audits, precision):
    """FVO and overall accuracy of one method at one precision, over its seeds.

    Parameters
    ----------
    audits : sequence of Audit
    precision : str

    Returns
    -------
    dict of str to (float, ndarray of shape (B,))
        ``accuracy``, ``fvo`` and ``least`` (accuracy of the worst-served group): the mean over seeds, and
        its resampled values.
    """
    value, draws = group_accuracies(audits, precision)
    counts = np.stack([audit.group_counts for audit in audits])
    statistics = {
        "accuracy": lambda a: overall(a, counts),
        "fvo": largest_gap,
        "least": lambda a: np.nanmin(a, axis=-1),
    }
    return {name: mean_over_seeds(of(value), of(draws)) for name, of in statistics.items()}


def interval(value, draws):
    """A value with the bounds of its middle 95 %, as a dict of floats."""
    low, high = percentile_interval(draws)
    return {"value": float(value), "low": float(low), "high": float(high)}
