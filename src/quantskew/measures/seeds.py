"""Statistics over several seeds: the seed is the unit.

Each seed has its own split, initial weights and training, so that how the seeds differ contains the choice of
test images.  A draw moves the mean over the seeds by a random combination of what they differ in, scaled so
that the movement follows Student's t: to draw three seeds with replacement would claim a result too often,
one null effect in four.  With a single seed a draw weighs its test images anew (`quantskew.measures.rates`).
The same draws serve every model, so that differences between methods are paired.
"""

import functools

import numpy as np
import pandas as pd

from quantskew.groups import group_means, largest_gap
from quantskew.measures.forward import group_accuracy
from quantskew.measures.intervals import DRAWS, percentile_interval
from quantskew.measures.rates import resampled_rates

MEASURES = {"accuracy": "overall accuracy", "fvo": "FVO", "least": "accuracy of the worst-served group"}


def paired(audits):
    """Audits by the key of a method, of the seeds that all of those have that have any, in their order.

    An Audit whose provenance does not say its seed goes by its position.
    """
    found = {key: by_seed(given) for key, given in audits.items()}
    seeds = [set(own) for own in found.values() if own]
    shared = sorted(set.intersection(*seeds)) if seeds else []
    return {key: [own[seed] for seed in shared if seed in own] for key, own in found.items()}


def by_seed(audits):
    """Audits by the seed that their provenance says, or else by their position."""
    recipes = (audit.provenance.get("experiment", {}).get("recipe", {}) for audit in audits)
    return {own.get("seed", n): audit for n, (own, audit) in enumerate(zip(recipes, audits, strict=True))}


def group_accuracies(audits, precision, draws=DRAWS):
    """Accuracy of each group of each seed, as measured (S, G) and, of a single one, resampled (B, S, G)."""
    of = [
        (group_accuracy.of_samples(audit)[audit.index(precision)], audit.groups, len(audit.group_names))
        for audit in audits
    ]
    values = np.stack([group_means(*own) for own in of])
    if len(of) > 1:
        return values, np.broadcast_to(values, (draws, *values.shape))
    # The images stay apart, so that they have the same draws in any other model.
    return values, resampled_rates(of[0][0][None] == 1, *of[0][1:], draws, apart=True)


def mean_over_seeds(value, draws):
    """Mean of a statistic over the seeds, from (S, ...) as measured and (B, S, ...) as resampled."""
    mean = value.mean(axis=0)
    if len(value) == 1:
        return mean, draws[:, 0]
    return mean, mean + np.tensordot(_seed_weights(len(draws), len(value)), value - mean, axes=1)


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
    """Each of `MEASURES` of a method at one precision: the mean over its seeds, and (B,) resampled ones."""
    accuracies = group_accuracies(audits, precision, draws)
    counts = np.stack([audit.group_counts for audit in audits])
    statistics = (lambda a: overall(a, counts), largest_gap, lambda a: np.nanmin(a, axis=-1))
    pairs = ([of(a) for a in accuracies] for of in statistics)
    return {name: mean_over_seeds(*pair) for name, pair in zip(MEASURES, pairs, strict=True)}


def interval(value, draws):
    """A value with the bounds of its middle 95 %, as a dict of floats."""
    low, high = percentile_interval(draws)
    return {"value": float(value), "low": float(low), "high": float(high)}


def comparison(audits, precisions=None):
    """FVO and accuracy of several methods: Audits by seed of each, by its title.

    The table has ``method``, ``precision`` (by default those of the first method; a seed that lacks one is
    left out there), ``measure`` (see `MEASURES`), ``value``, ``low``, ``high`` (95 %) and ``seeds``.
    """
    rows = []
    for method, seeds in audits.items():
        for precision in precisions or next(iter(audits.values()))[0].precisions:
            own = [audit for audit in seeds if precision in audit.precisions]
            if own:
                found = fairness_over_seeds(own, precision)
                within = {name: (value, np.clip(draws, 0, 1)) for name, (value, draws) in found.items()}
                rows += _rows(method, precision, len(own), within)
    return pd.DataFrame(rows)


def each_seed(audits, precisions):
    """As `comparison`, of every seed by itself and without intervals; ``seed`` says which one it is."""
    return pd.DataFrame(
        {"method": method, "precision": precision, "measure": name, "value": float(value), "seed": seed}
        for method, own in audits.items()
        for seed, audit in by_seed(own).items()
        for precision in precisions
        if precision in audit.precisions
        for name, (value, _) in fairness_over_seeds([audit], precision, 1).items()
    )


def difference(audits, method, reference, precisions=None):
    """As `comparison`, of a method minus a reference (titles in `audits`), paired by seed and test image.

    Seeds and precisions that only one of them has are left out; with no seed in common it is a ValueError.
    """
    new, old = paired({name: audits[name] for name in (method, reference)}).values()
    if not new:
        raise ValueError(f"{method} and {reference} have no seed in common; a pair needs one")
    rows, title = [], f"{method} minus {reference}"
    for precision in precisions or [p for p in new[0].precisions if p in old[0].precisions]:
        after, before = fairness_over_seeds(new, precision), fairness_over_seeds(old, precision)
        changes = {name: [after[name][k] - before[name][k] for k in (0, 1)] for name in MEASURES}
        rows += _rows(title, precision, len(new), changes)
    return pd.DataFrame(rows)


def _rows(method, precision, seeds, statistics):
    of = {"method": method, "precision": precision}
    return [{**of, "measure": name, **interval(*own), "seeds": seeds} for name, own in statistics.items()]


def pareto_front(accuracy, fvo):
    """Which methods (M,) no other one beats in both: at least as accurate and as fair, and better in one.

    Examples
    --------
    >>> pareto_front([0.8, 0.7, 0.6], [0.5, 0.2, 0.3])
    array([ True,  True, False])
    """
    accuracy, fvo = np.asarray(accuracy), np.asarray(fvo)
    as_good = (accuracy[:, None] >= accuracy) & (fvo[:, None] <= fvo)
    better = (accuracy[:, None] > accuracy) | (fvo[:, None] < fvo)
    return ~(as_good & better).any(axis=0)
