"""The Measure: a value that carries all that a table, a figure, a file or a panel of it needs.

It is made by a decorator on the function that is the equation, and enters `MEASURES` or `MODEL_MEASURES` in
the order of definition: what is written, drawn or swept goes through these, and names no measure.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from quantskew.groups import OVERALL, group_means, group_sums
from quantskew.measures.intervals import bootstrap_group_means, percentile_interval, wilson

MEASURES, MODEL_MEASURES = {}, {}


@dataclass(frozen=True, eq=False, repr=False)
class _Described:
    """What tables, figures and pages say of a measure; its name and docstring are its function's."""

    function: Callable
    title: str  # of a panel or a column
    label: str  # of an axis, with the unit
    equation: str = ""  # of the paper
    figure: str = ""
    digits: int = 2  # how its numbers are written, see quantskew.figures.style.number
    scientific: bool = False
    log: bool = False  # whether its axis is logarithmic
    limits: tuple | None = None  # smallest and largest possible value, where the axis shows both
    from_reference: bool = False  # a distance from the reference, which has none; it is its own change
    chain: bool = False  # has a panel in the chain, and rows in the table of a sweep
    applies: Callable = lambda audit: True  # whether it can be taken of an Audit

    def __post_init__(self):
        # So that help, doctests and error messages see the function.
        names = ("__module__", "__name__", "__qualname__", "__doc__")
        vars(self).update({name: getattr(self.function, name) for name in names}, __wrapped__=self.function)
        vars(self)["__signature__"] = inspect.signature(self.__call__)

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}>"

    @property
    def name(self):
        """The function's name, which its CSV and PNG have too."""
        return self.function.__name__

    @property
    def key(self):
        """What the measure is called in the table of a sweep, whose rows say what they are of."""
        return self.name.removeprefix("group_").removeprefix("overall_")


@dataclass(frozen=True, eq=False, repr=False)
class Measure(_Described):
    """A measure of each group: called with an Audit it gives a table, a row a group and precision.

    The table's columns are ``group``, ``precision``, ``value``, ``low`` and ``high`` (95 % interval; NaN for
    groups of fewer than two samples), ``count`` (samples in the mean) and ``undefined`` (samples left out).
    """

    of_samples: Callable | None = None  # Audit -> (P, N), NaN where a sample has no value; None of per_group
    share: bool = False  # whether a sample's value is 0 or 1: the interval is Wilson's, none is left out
    pooled: bool = False  # whether all samples are one group

    def __call__(self, audit):
        """The table of an Audit."""
        if self.of_samples is None:
            return long_table(audit, **self.function(audit))
        return group_table(pooled(audit) if self.pooled else audit, self.of_samples(audit), self.share)

    def change(self, audit):
        """Change from the reference precision, paired image by image; the reference has no row.

        Only samples that are defined at both precisions count.  What is not measured per sample has no
        interval.
        """
        values = self.function(audit)
        if self.of_samples is None:
            return without_reference(audit, long_table(audit, value=values["value"] - values["value"][0]))
        return without_reference(
            audit, group_table(pooled(audit) if self.pooled else audit, values - values[:1])
        )


@dataclass(frozen=True, eq=False, repr=False)
class ModelMeasure(_Described):
    """A number of the whole model out of the means of its groups, such as the largest gap between them.

    Called with an Audit it gives a table of ``precision``, ``value``, ``low``, ``high`` (95 % interval of a
    bootstrap, stratified as the means are) and ``count`` (groups present).  The function takes the Audit and
    the means (..., R, S) of the strata, and gives ndarray of float, shape (..., P).
    """

    samples: Callable | None = None  # Audit -> (R, N)
    by_class: bool = False  # whether the strata are the classes of each group, rather than the groups
    facts: Callable = lambda audit: {}  # further columns of an Audit's table

    def __call__(self, audit):
        """The table of an Audit."""
        return self._table(audit, *self._measured(audit))

    def change(self, audit):
        """Change from the reference precision: both are computed on the same resampled images."""
        value, resampled = self._measured(audit)
        return without_reference(audit, self._table(audit, value - value[0], resampled - resampled[:, :1]))

    def of_chance(self, audit, draws=500, seed=0):
        """The control: groups shuffled among the samples (of a class), so that no group is served otherwise.

        ``value`` is the mean over the shuffles, ``low`` and ``high`` their middle 95 %.
        """
        samples, every = self.samples(audit), self._shuffled(audit, draws, seed)
        means = (group_means(samples, *strata(audit, groups, self.by_class)) for groups in every)
        shuffled = np.stack([self.function(audit, own) for own in means])
        return self._table(audit, shuffled.mean(axis=0), shuffled)

    def _measured(self, audit):
        """The value at each precision, and on resampled images."""
        of = self.samples(audit), *strata(audit, audit.groups, self.by_class)
        return self.function(audit, group_means(*of)), self.function(audit, bootstrap_group_means(*of))

    def _shuffled(self, audit, draws, seed):
        rng, groups = np.random.default_rng(seed), audit.groups.copy()
        for _ in range(draws):
            if not self.by_class:
                groups = rng.permutation(audit.groups)
            for label in range(len(audit.class_names)) if self.by_class else ():
                own = audit.labels == label
                groups[own] = rng.permutation(groups[own])
            yield groups

    def _table(self, audit, value, resampled):
        low, high = percentile_interval(resampled)
        columns = {"precision": audit.precisions, "value": value, "low": low, "high": high}
        return pd.DataFrame({**columns, "count": int((audit.group_counts > 0).sum()), **self.facts(audit)})


def per_sample(*described, **options):
    """Make a `Measure` of a function Audit -> ndarray of float64, shape (P, N)."""
    return lambda of: _registered(Measure(of, *described, of_samples=of, **options))


def per_group(*described, **options):
    """Make a `Measure` of a function Audit -> dict of columns of its table, each (P, G)."""
    return lambda of: _registered(Measure(of, *described, **options))


def of_model(samples, *described, **options):
    """Make a `ModelMeasure` of a function of the means of `samples`."""
    return lambda of: _registered(ModelMeasure(of, *described, samples=samples, **options))


def _registered(measure):
    whole = isinstance(measure, ModelMeasure) or measure.pooled
    (MODEL_MEASURES if whole else MEASURES)[measure.name] = measure
    return measure


def strata(audit, groups, by_class=True):
    """Stratum of each sample, shape (N,), and how many there are: groups, or the classes of each group."""
    classes, labels = (len(audit.class_names), audit.labels) if by_class else (1, 0)
    return groups * classes + labels, len(audit.group_names) * classes


def pooled(audit):
    """The same Audit with all samples in one group."""
    one = {"groups": np.zeros_like(audit.groups), "train_counts": audit.train_counts.sum(keepdims=True)}
    return replace(audit, **one, group_names=(OVERALL,), curvature=None)


def group_table(audit, samples, share=False):
    """Group means of samples (P, N), NaN left out, with their intervals; see `Measure`."""
    num_groups, defined = len(audit.group_names), ~np.isnan(samples)
    value = group_means(samples, audit.groups, num_groups)
    count = group_sums(defined.astype(np.int64), audit.groups, num_groups)
    if share:
        low, high = wilson(np.rint(value * count), count)
        return long_table(audit, value=value, low=low, high=high, count=count)
    low, high = percentile_interval(bootstrap_group_means(samples, audit.groups, num_groups))
    low, high = (np.where(count < 2, np.nan, bound) for bound in (low, high))
    left_out = audit.group_counts - count
    return long_table(audit, value=value, low=low, high=high, count=count, undefined=left_out)


def long_table(audit, **columns):
    """A row for each group and precision out of arrays of shape (P, G)."""
    names, precisions = audit.group_names, audit.precisions
    keys = {"group": names * len(precisions), "precision": np.repeat(precisions, len(names))}
    return pd.DataFrame(keys | {name: np.asarray(values).ravel() for name, values in columns.items()})


def without_reference(audit, table):
    """A table without the rows of the reference."""
    return table[table["precision"] != audit.precisions[0]].reset_index(drop=True)


def audit_rows(audit):
    """The measures of the chain in tidy rows, of each group and over all (``group`` is `OVERALL`).

    Further columns are ``precision``, ``trained_on`` (training images of the group), ``measure`` (its key),
    ``value``, ``low`` and ``high`` (95 % interval) and ``count`` (test samples; of FVO groups).
    """
    counts = dict(zip(audit.group_names, audit.train_counts.tolist(), strict=True))
    counts[OVERALL] = sum(counts.values())
    parts = [
        measure(audit).assign(measure=measure.key, **whole)
        for registry, whole in ((MEASURES, {}), (MODEL_MEASURES, {"group": OVERALL}))
        for measure in registry.values()
        if measure.chain and measure.applies(audit)
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows["trained_on"] = rows["group"].map(counts)
    return rows[["precision", "group", "trained_on", "measure", "value", "low", "high", "count"]]


def audited(audit):
    """What an Audit is of in a few words, such as ``digits seed 1 mpqat``: experiment, seed and method."""
    experiment = audit.provenance["experiment"]
    method = audit.provenance.get("method", {}).get("key")
    return " ".join(filter(None, [experiment["name"], f"seed {experiment['recipe']['seed']}", method]))
