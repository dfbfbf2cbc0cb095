"""Statistics over several seeds: a bootstrap of the seeds, and within each of its test images.

Each seed has its own split, initial weights and training.  A draw takes the test images of each group of
each seed again, with replacement (stratified), and moves the mean over the seeds by a random combination of
what they differ in.  The combination is scaled so that the movement follows Student's t: to draw three seeds
with replacement would claim a result too often, one null effect in four.  The same draws serve every model,
so that differences between methods are paired.  With a single seed the interval covers the test images
alone.
"""

import functools

import numpy as np
import pandas as pd

from quantskew.groups import group_means, largest_gap
from quantskew.measures.forward import group_accuracy
from quantskew.measures.intervals import DRAWS, bootstrap_group_means, percentile_interval


def paired(audits):
    """Audits of several methods, of the seeds that all of those have that have any.

    Parameters
    ----------
    audits : dict of str to sequence of Audit
        By the key of a method.

    Returns
    -------
    dict of str to list of Audit
        In the order of the seeds.  An Audit whose provenance does not say its seed goes by its position.
    """
    by_seed = {key: {_seed(*own): own[1] for own in enumerate(given)} for key, given in audits.items()}
    seeds = [set(own) for own in by_seed.values() if own]
    shared = sorted(set.intersection(*seeds)) if seeds else []
    return {key: [own[seed] for seed in shared if seed in own] for key, own in by_seed.items()}


def _seed(position, audit):
    return audit.provenance.get("experiment", {}).get("recipe", {}).get("seed", position)


def group_accuracies(audits, precision, draws=DRAWS):
    """Accuracy of each group of each seed, as measured and as resampled.

    Parameters
    ----------
    audits : sequence of Audit
        One a seed, of the same groups.
    precision : str
    draws : int
        Number of resamples B.

    Returns
    -------
    value : ndarray of float, shape (S, G)
    draws : ndarray of float, shape (B, S, G)
    """
    values, resampled = [], []
    for audit in audits:
        correct = group_accuracy.of_samples(audit)[[audit.index(precision)]]
        values.append(group_means(correct, audit.groups, len(audit.group_names))[0])
        own = bootstrap_group_means(correct, audit.groups, len(audit.group_names), draws)
        resampled.append(own[:, 0])
    return np.stack(values), np.stack(resampled, axis=1)


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
    mean, images = value.mean(axis=0), draws.mean(axis=1)
    if len(value) == 1:
        return mean, images
    return mean, images + np.tensordot(_seed_weights(len(draws), len(value)), value - mean, axes=1)


def over_seeds_alone(values, draws=DRAWS):
    """Mean of a statistic that was not resampled within the seeds, and its resampled values.

    Parameters
    ----------
    values : array_like of float, shape (S,)
    draws : int

    Returns
    -------
    value : float
    draws : ndarray of float, shape (B,)
        NaN with fewer than three seeds: two may agree by chance, and then seem not to vary at all.
    """
    values = np.asarray(values, dtype=np.float64)
    value, resampled = mean_over_seeds(values, np.tile(values, (draws, 1)))
    return value, resampled if len(values) > 2 else np.full(draws, np.nan)


@functools.lru_cache(maxsize=8)
def _seed_weights(draws, seeds):
    """Weights (draws, seeds) whose sums of deviations have the spread of t with seeds - 1 degrees of freedom.

    A sum of standard normal weights times the deviations has the deviation of sqrt(seeds - 1) standard
    deviations of the seeds; a chi-square in the denominator makes it Student's t times the standard error.
    """
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((draws, seeds))
    return weights / np.sqrt(seeds * rng.chisquare(seeds - 1, (draws, 1)))


def overall(accuracies, counts):
    """Accuracy over all images out of the groups' accuracies (..., S, G) and test counts (S, G)."""
    present = np.where(counts > 0, np.nan_to_num(accuracies), 0.0)
    return (present * counts).sum(axis=-1) / counts.sum(axis=-1)


def fairness_over_seeds(audits, precision, draws=DRAWS):
    """FVO and overall accuracy of one method at one precision, over its seeds.

    Parameters
    ----------
    audits : sequence of Audit
    precision : str
    draws : int
        Number of resamples B.

    Returns
    -------
    dict of str to (float, ndarray of shape (B,))
        ``accuracy``, ``fvo`` and ``least`` (accuracy of the worst-served group): the mean over seeds, and
        its resampled values.
    """
    value, resampled = group_accuracies(audits, precision, draws)
    counts = np.stack([audit.group_counts for audit in audits])
    statistics = {
        "accuracy": lambda a: overall(a, counts),
        "fvo": largest_gap,
        "least": lambda a: np.nanmin(a, axis=-1),
    }
    return {name: mean_over_seeds(of(value), of(resampled)) for name, of in statistics.items()}


def interval(value, draws):
    """A value with the bounds of its middle 95 %, as a dict of floats."""
    low, high = percentile_interval(draws)
    return {"value": float(value), "low": float(low), "high": float(high)}


MEASURES = {"accuracy": "overall accuracy", "fvo": "FVO", "least": "accuracy of the worst-served group"}


def comparison(audits, precisions=None):
    """FVO and accuracy of several methods.

    Parameters
    ----------
    audits : dict of str to sequence of Audit
        Seeds of each method, by its title.
    precisions : sequence of str, optional
        By default those of the first method; a method that lacks one has no row for it.

    Returns
    -------
    pandas.DataFrame
        Columns ``method``, ``precision``, ``measure`` (see `MEASURES`), ``value``, ``low``, ``high``
        (95 %) and ``seeds``.
    """
    first = next(iter(audits.values()))[0]
    rows = []
    for method, seeds in audits.items():
        for precision in precisions or first.precisions:
            if precision not in seeds[0].precisions:
                continue
            for measure, drawn in fairness_over_seeds(seeds, precision).items():
                rows.append(
                    {
                        "method": method,
                        "precision": precision,
                        "measure": measure,
                        **interval(*drawn),
                        "seeds": len(seeds),
                    }
                )
    return pd.DataFrame(rows)


def difference(audits, method, reference, precisions=None):
    """What a method changes against another one, paired by seed and test image.

    Seeds that only one of them has are left out.

    Parameters
    ----------
    audits : dict of str to sequence of Audit
    method, reference : str
        Titles.
    precisions : sequence of str, optional
        By default those that both have.

    Returns
    -------
    pandas.DataFrame
        As `comparison`; ``value`` is that of `method` less that of `reference`.

    Raises
    ------
    ValueError
        If they have no seed in common.
    """
    new, old = paired({name: audits[name] for name in (method, reference)}).values()
    if not new:
        raise ValueError(f"{method} and {reference} have no seed in common; a pair needs one")
    rows = []
    for precision in precisions or [p for p in new[0].precisions if p in old[0].precisions]:
        after, before = fairness_over_seeds(new, precision), fairness_over_seeds(old, precision)
        for measure in MEASURES:
            pair = [after[measure][k] - before[measure][k] for k in (0, 1)]
            rows.append(
                {
                    "method": f"{method} less {reference}",
                    "precision": precision,
                    "measure": measure,
                    **interval(*pair),
                    "seeds": len(new),
                }
            )
    return pd.DataFrame(rows)


def pareto_front(accuracy, fvo):
    """Which methods no other one beats in both: at least as accurate and as fair, and better in one.

    Parameters
    ----------
    accuracy, fvo : array_like of float, shape (M,)

    Returns
    -------
    ndarray of bool, shape (M,)

    Examples
    --------
    >>> pareto_front([0.8, 0.7, 0.6], [0.5, 0.2, 0.3])
    array([ True,  True, False])
    """
    accuracy, fvo = np.asarray(accuracy), np.asarray(fvo)
    as_good = (accuracy[:, None] >= accuracy) & (fvo[:, None] <= fvo)
    better = (accuracy[:, None] > accuracy) | (fvo[:, None] < fvo)
    return ~(as_good & better).any(axis=0)
