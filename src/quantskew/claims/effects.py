"""How a claim is written, and how its effect varies over test images and seeds.

A claim is a function under two decorators.  The lower one says which numbers the function is given, at which
precision, and how they are resampled; the upper one, `claim`, what the function is about.
"""

import functools
from dataclasses import dataclass

import numpy as np

from quantskew.claims.verdicts import Claim
from quantskew.groups import group_means
from quantskew.measures.intervals import bootstrap_group_means
from quantskew.measures.seeds import fairness_over_seeds, mean_over_seeds, over_seeds_alone


def claim(section, shown, effect):
    """Complete a `Claim`: the name of the function is its key, the docstring its statement."""
    return lambda begun: begun(source=f"section {section}", shown=shown, effect=effect)


def _begins(measure, **options):
    """Begin a `Claim` whose effect is (function, evidence, precision, number of draws) -> value and draws."""

    def of(function):
        own = functools.partial(measure, function)
        return functools.partial(Claim, function.__name__, statement=function.__doc__, measure=own, **options)

    return of


@dataclass(frozen=True)
class Means:
    """Group means of a measure, (..., G), and which groups have most and fewest images in training."""

    here: np.ndarray  # at the precision that is judged
    reference: np.ndarray
    higher: np.ndarray  # at every precision above, (..., P, G)
    majority: int
    minority: int

    @property
    def fall(self):
        """How much lower each group is than at the reference."""
        return self.reference - self.here


def over_images(*measures, **options):
    """Give a claim the `Means` of each measure, as measured and on resampled images of each seed."""

    def effect(function, audit, precision, means):
        row, roles = audit.index(precision), _roles(audit)
        each = (Means(m[..., row, :], m[..., 0, :], m[..., :row, :], *roles) for m in means)
        with np.errstate(divide="ignore", invalid="ignore"):
            return function(*each)

    def measure(function, evidence, precision, draws):
        values, resampled = [], []
        (audits,) = evidence.values()
        for audit in audits:
            samples = np.stack([measure.of_samples(audit) for measure in measures])
            groups = audit.groups, len(audit.group_names)
            drawn = bootstrap_group_means(np.concatenate(samples), *groups, draws)
            drawn = np.moveaxis(drawn.reshape(draws, *samples.shape[:2], -1), 1, 0)
            values.append(effect(function, audit, precision, group_means(samples, *groups)))
            resampled.append(effect(function, audit, precision, drawn))
        return mean_over_seeds(np.array(values), np.stack(resampled, axis=1))

    return _begins(measure, **options)


def _roles(audit):
    """The groups with most and with fewest images in training, of those that are in the test."""
    counts = np.where(audit.group_counts > 0, audit.train_counts, -1)
    return int(counts.argmax()), int(np.where(counts < 0, counts.max() + 1, counts).argmin())


def of_weights():
    """Give a claim an Audit with weights and the position of the precision: each seed's effect is exact."""

    def measure(function, evidence, precision, draws):
        (audits,) = evidence.values()
        values = [np.nan if a.weights is None else function(a, a.index(precision)) for a in audits]
        return mean_over_seeds(np.array(values), np.tile(values, (draws, 1)))

    return _begins(measure, grouped=False)


def over_seeds(*needs, within=(-np.inf, np.inf), **options):
    """Give a claim the Audits of a seed and the position of the precision: it varies over seeds alone."""

    def measure(function, evidence, precision, draws):
        seeds = zip(*evidence.values(), strict=True)
        values = [function(*audits, audits[0].index(precision)) for audits in seeds]
        value, resampled = over_seeds_alone(values, draws)
        return value, np.clip(resampled, *within)

    return _begins(measure, needs=needs, **options)


def over_methods(statistic, *needs, **options):
    """Give a claim (key, precision) -> a statistic of `fairness_over_seeds`: its value, then its draws."""

    def measure(function, evidence, precision, draws):
        def of_method(key, at=precision):
            return np.append(*fairness_over_seeds(evidence[key], at, draws)[statistic])

        values = function(of_method)
        return values[0], values[1:]

    return _begins(measure, needs=needs, **options)
