"""The Measure: a value that carries all that a table, a figure, a file or a panel of it needs.

It is made by a decorator on the function that is the equation, and enters `MEASURES` or `MODEL_MEASURES` in
the order of definition: what is written, drawn or swept goes through these, and names no measure.
"""

import copy
import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from quantskew.groups import OVERALL, group_means, group_sums
from quantskew.measures.intervals import (
    bootstrap_group_means,
    percentile_interval,
    student_factor,
    wilson,
)
from quantskew.measures.rates import resampled_gaps, resampled_rates, shuffled_gaps

MEASURES, MODEL_MEASURES = {}, {}
# Logits of the samples that are looked at together: in double precision they fit into a processor's cache.
_NUMBERS = 2**16


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
    swept: bool = False  # has these rows without a panel
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
        return once(audit, self, self._table).copy()

    def _table(self, audit):
        if self.of_samples is None:
            value, drawn, columns = self._of_groups(audit)
            return long_table(audit, value=value, **(_bounds(value, *drawn) if drawn else {}), **columns)
        values = self.of_samples(audit)
        within = self.limits or (-np.inf if (values < 0).any() else 0, np.inf)
        return group_table(pooled(audit) if self.pooled else audit, values, self.share, within=within)

    def change(self, audit):
        """Change from the reference precision, paired image by image; the reference has no row.

        Only samples that are defined at both precisions count.  What is neither measured per sample nor
        resampled has no interval.
        """
        if self.of_samples is None:
            value, drawn, columns = self._of_groups(audit)
            changes = _changes(value, *drawn) if drawn else {"value": value - value[0]}
            return without_reference(audit, long_table(audit, **changes, count=columns["count"]))
        values = self.of_samples(audit)
        audit, resampled, least = pooled(audit) if self.pooled else audit, None, 0
        if self.share:
            resampled = resampled_rates(values == 1, audit.groups, len(audit.group_names))
            resampled -= resampled[:, :1]
        if not self.from_reference:
            least = -np.inf if self.limits is None else self.limits[0] - self.limits[1]
        table = group_table(audit, values - values[:1], resampled=resampled, within=(least, -least or np.inf))
        return without_reference(audit, table)

    def _of_groups(self, audit):
        """Values (P, G), what `_bounds` needs of them where they are resampled, and further columns."""
        columns = dict(once(audit, self.function, self.function))
        return columns.pop("value"), columns.pop("drawn", ()), columns


@dataclass(frozen=True, eq=False, repr=False)
class ModelMeasure(_Described):
    """The largest gap between groups of how often an outcome occurs, such as being classified right.

    Called with an Audit it gives a table of ``precision``, ``value``, ``low``, ``high`` (95 % interval, see
    `quantskew.measures.rates`) and ``count`` (groups present).  The function takes an Audit and gives the
    outcome of each sample, ndarray of shape (P, N): bool, or int for one of the classes.

    Noise in the rates makes a largest gap larger: the measured one, and once more those of the draws.  What
    groups of few samples add is twice taken off the interval's lower end, which is 0 where groups that are
    served alike show as large a gap more often than once in forty times.
    """

    by_class: bool = False  # whether the samples of each class are compared by themselves
    facts: Callable = lambda audit: {}  # further columns of an Audit's table

    def __call__(self, audit):
        """The table of an Audit."""
        value, *drawn = self._measured(audit)
        return self._table(audit, value, **_bounds(value, *drawn))

    def change(self, audit):
        """Change from the reference precision: both are computed on the same resampled images."""
        return without_reference(audit, self._table(audit, **_changes(*self._measured(audit))))

    def of_chance(self, audit, draws=500, seed=0):
        """The control: groups shuffled among the samples (of a class), so that no group is served otherwise.

        ``value`` is the mean over the shuffles, ``low`` and ``high`` their middle 95 %.
        """
        outcomes, *of = self._outcomes(audit)
        shuffled = np.stack([shuffled_gaps(row, *of, draws, seed) for row in outcomes], axis=1)
        return self._table(audit, shuffled.mean(axis=0), *percentile_interval(shuffled))

    def _measured(self, audit):
        """What `resampled_gaps` gives."""
        return once(audit, self.function, lambda audit: resampled_gaps(*self._outcomes(audit)))

    def _outcomes(self, audit):
        """Outcomes, and the condition and group of each sample, and how many there are of each."""
        outcomes = self.function(audit)
        size = 2 if outcomes.dtype == bool else len(audit.class_names)
        conditions = audit.labels if self.by_class else np.zeros_like(audit.labels)
        shape = len(audit.class_names) if self.by_class else 1, len(audit.group_names), size
        return outcomes, conditions, audit.groups, shape

    def _table(self, audit, value, low, high):
        columns = {"precision": audit.precisions, "value": value, "low": low, "high": high}
        return pd.DataFrame({**columns, "count": int((audit.group_counts > 0).sum()), **self.facts(audit)})


def _bounds(value, draws, noise, excess):
    """Bounds of a distance, from 0 on where the `noise` alone would give as large a one."""
    low, high = np.clip(_around(value, draws, excess), 0, 1)
    _, by_chance = percentile_interval(noise)
    return {"low": np.where(value <= by_chance, 0, low), "high": high}


def _changes(value, draws, noise, excess):
    """Change of such a distance from the reference, whose draws are of the same images, with its bounds."""
    value, draws, excess = value - value[0], draws - draws[:, :1], excess - excess[0]
    low, high = np.clip(_around(value, draws, excess), -1, 1)
    return {"value": value, "low": low, "high": high}


def _around(value, draws, excess):
    """Bounds of a value out of draws that exceed it by their noise: wider by that twice, never narrower."""
    low, high = percentile_interval(draws)
    low, high = low - 2 * np.maximum(excess, 0), high - 2 * np.minimum(excess, 0)
    return np.minimum(low, value), np.maximum(high, value)


def per_sample(*described, **options):
    """Make a `Measure` of a function Audit -> ndarray of float64, shape (P, N)."""

    def make(of):
        def of_samples(audit):
            return once(audit, of, lambda audit: np.concatenate([*map(of, _parts(audit))], axis=1))

        return _registered(Measure(of, *described, of_samples=of_samples, **options))

    return make


_KEPT = weakref.WeakKeyDictionary()


def once(audit, what, make):
    """What is made of an Audit, kept as long as it: tables, changes, figures and claims ask for the same."""
    kept = _KEPT.setdefault(audit, {})
    if what not in kept:
        kept[what] = make(audit)
    return kept[what]


def _parts(audit):
    """The Audit in parts of so many samples that what is made of their logits on the way is small."""
    precisions, samples, classes = audit.logits.shape
    step = max(1, _NUMBERS // max(1, precisions * classes))
    for start in range(0, max(samples, 1), step):
        own, part = slice(start, start + step), copy.copy(audit)
        vars(part).update(logits=audit.logits[:, own], labels=audit.labels[own], groups=audit.groups[own])
        yield part


def per_group(*described, **options):
    """Make a `Measure` of a function Audit -> dict of columns of its table, each (P, G).

    In place of bounds it may give what is ``drawn``: draws, noise and excess, see `resampled_gaps`.
    """
    return lambda of: _registered(Measure(of, *described, **options))


def of_model(*described, **options):
    """Make a `ModelMeasure` of a function Audit -> outcome of each sample, shape (P, N)."""
    return lambda of: _registered(ModelMeasure(of, *described, **options))


def _registered(measure):
    whole = isinstance(measure, ModelMeasure) or measure.pooled
    (MODEL_MEASURES if whole else MEASURES)[measure.name] = measure
    return measure


def pooled(audit):
    """The same Audit with all samples in one group."""
    one = {"groups": np.zeros_like(audit.groups), "train_counts": audit.train_counts.sum(keepdims=True)}
    return replace(audit, **one, group_names=(OVERALL,), curvature=None)


def group_table(audit, samples, share=False, resampled=None, within=(-np.inf, np.inf)):
    """Group means of samples (P, N), NaN left out, with their intervals; see `Measure`."""
    num_groups, defined = len(audit.group_names), ~np.isnan(samples)
    value = group_means(samples, audit.groups, num_groups)
    count = group_sums(defined.astype(np.int64), audit.groups, num_groups)
    if share:
        low, high = wilson(np.rint(value * count), count)
        return long_table(audit, value=value, low=low, high=high, count=count)
    wider = 1.0
    if resampled is None:
        resampled = bootstrap_group_means(samples, audit.groups, num_groups)
        wider = student_factor(count)
    bounds = [value + wider * (bound - value) for bound in percentile_interval(resampled)]
    low, high = np.clip([np.minimum(bounds[0], value), np.maximum(bounds[1], value)], *within)
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
        if (measure.chain or measure.swept) and measure.applies(audit)
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows["trained_on"] = rows["group"].map(counts)
    return rows[["precision", "group", "trained_on", "measure", "value", "low", "high", "count"]]


def audited(audit):
    """What an Audit is of in a few words, such as ``digits seed 1 mpqat``: experiment, seed and method."""
    experiment = audit.provenance["experiment"]
    method = audit.provenance.get("method", {}).get("key")
    return " ".join(filter(None, [experiment["name"], f"seed {experiment['recipe']['seed']}", method]))
