"""Intersections: the groups of an Audit crossed with its classes, such as ethnicity by gender.

A cell is one group's samples of one class.  Cells are numbered group by group: the id of group g and class c
is g * C + c.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from quantskew.groups import group_counts, group_means, largest_gap
from quantskew.measures.fairness import correct_of_samples
from quantskew.measures.intervals import bootstrap_group_means, percentile_interval, wilson


def cell_ids(audit):
    """Id of each sample's cell: ndarray of int64, shape (N,)."""
    return audit.groups * len(audit.class_names) + audit.labels


def cell_counts(audit):
    """Number of test samples in each cell, ndarray of int64, shape (G, C).

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> audit = Audit.from_logits({"fp32": [[1.0, 0.0]] * 3}, labels=[0, 1, 1], groups=["a", "b", "b"])
    >>> cell_counts(audit)
    array([[1, 0],
           [0, 2]])
    """
    shape = len(audit.group_names), len(audit.class_names)
    return group_counts(cell_ids(audit), shape[0] * shape[1]).reshape(shape)


def groups_are_classes(audit):
    """Whether group and class are one: no group has samples of two classes, no class of two groups.

    The samples decide, not the names: classes may be named otherwise than the groups that they are.
    """
    present = cell_counts(audit) > 0
    return bool((present.sum(axis=0) < 2).all() and (present.sum(axis=1) < 2).all())


def intersections(audit, train_counts=None):
    """The same Audit with the intersections of group and class for its groups.

    Parameters
    ----------
    audit : Audit
    train_counts : array_like of int, shape (G * C,), optional
        Training samples of each cell, in the order of the new groups.  An Audit counts training samples by
        group alone, so that by default the test samples of each cell stand for its share.

    Returns
    -------
    Audit
        Its groups are named "group, class", all classes of the first group first; a cell without samples
        keeps its place, with a count of 0.  Logits, labels, weights and provenance are the same, with a note;
        the curvature is left out, since it was measured by the former groups.

    Raises
    ------
    ValueError
        If the groups are the classes: nothing is left to cross.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> audit = Audit.from_logits(
    ...     {"fp32": [[1.0, 0.0]] * 3}, [0, 1, 1], ["a", "a", "b"], class_names=["x", "y"]
    ... )
    >>> crossed = intersections(audit)
    >>> dict(zip(crossed.group_names, crossed.group_counts.tolist()))
    {'a, x': 1, 'a, y': 1, 'b, x': 0, 'b, y': 1}
    """
    if groups_are_classes(audit):
        raise ValueError(
            "the groups of this Audit are its classes: every intersection of a group with another class is "
            "empty, and nothing is left to cross; make an Audit with another --group, such as "
            "--label gender --group ethnicity"
        )
    note = {
        "groups": list(audit.group_names),
        "classes": list(audit.class_names),
        "train_counts": "test samples" if train_counts is None else "given",
    }
    return replace(
        audit,
        groups=cell_ids(audit),
        group_names=tuple(f"{group}, {name}" for group in audit.group_names for name in audit.class_names),
        train_counts=None if train_counts is None else np.asarray(train_counts, dtype=np.int64),
        curvature=None,
        provenance={**audit.provenance, "intersections": note},
    )


def class_accuracy(audit):
    """Accuracy of each class in each group: P(prediction = c | label = c, group = g), the recall of c in g.

    Parameters
    ----------
    audit : Audit

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``class``, ``precision``, ``value``, ``low``, ``high`` (95 % Wilson interval) and
        ``count`` (samples).  A group without samples of a class has a count of 0 and NaN for a value.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> audit = Audit.from_logits({"fp32": [[1.0, 0.0]] * 3}, labels=[0, 1, 0], groups=[0, 0, 1])
    >>> class_accuracy(audit)[["group", "class", "value", "count"]].values.tolist()[1:3]
    [['group 0', 'class 1', 0.0, 1], ['group 1', 'class 0', 1.0, 1]]
    """
    groups, classes, precisions = audit.group_names, audit.class_names, audit.precisions
    cells = cell_counts(audit).ravel()
    means = group_means(correct_of_samples(audit), cell_ids(audit), len(cells))
    counts = np.broadcast_to(cells, means.shape)
    low, high = wilson(means * counts, counts)
    return pd.DataFrame(
        {
            "group": [group for group in groups for _ in classes] * len(precisions),
            "class": list(classes) * (len(groups) * len(precisions)),
            "precision": np.repeat(precisions, len(cells)),
            "value": means.ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
            "count": counts.ravel(),
        }
    )


def equalized_odds(audit):
    """Equalized odds difference: the largest gap between groups of P(prediction = c | label = c').

    The maximum is over the pairs of groups, over every class c and every class c'.  With two classes this is
    fairlearn's definition, the larger of the gaps in true and in false positive rate, since the rate of the
    other prediction is the complement and has the same gap.  With several it asks the same of every entry of
    the groups' confusion matrices; the gaps of `class_accuracy` are those with c = c'.  A group without
    samples of c' has no rate there and is left out (fairlearn takes its rate for 0).

    The interval is a bootstrap's, stratified by group and label: the rates are conditional on both, as the
    split of the data set was, and no draw leaves a cell empty.  Sampling alone makes a largest difference
    positive: see `equalized_odds_of_chance`.

    Parameters
    ----------
    audit : Audit

    Returns
    -------
    pandas.DataFrame
        Columns ``precision``, ``value``, ``low``, ``high`` (95 % interval), ``count`` (groups present) and
        ``empty`` (cells of a group and a class without samples).  The value is NaN where no class has samples
        of two groups.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> logits = {"fp32": [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]}
    >>> equalized_odds(Audit.from_logits(logits, labels=[0, 1, 0, 1], groups=[0, 0, 1, 1]))["value"].item()
    1.0
    """
    return _gap_table(audit, _odds_strata(audit))


def equalized_odds_change(audit):
    """Change of `equalized_odds` from the reference precision, paired on the same resampled images.

    Returns
    -------
    pandas.DataFrame
        As `equalized_odds`, without the reference precision's row.
    """
    return _gap_table(audit, _odds_strata(audit), change=True)


def equalized_odds_of_chance(audit, draws=500, seed=0):
    """The control: `equalized_odds` where the groups are shuffled among the samples of each class.

    Labels and predictions stay together and cells keep their sizes, so that no group is served otherwise
    than another.

    Returns
    -------
    pandas.DataFrame
        As `equalized_odds`; ``value`` is the mean over the shuffles, ``low`` and ``high`` their middle 95 %.
    """
    rng = np.random.default_rng(seed)
    predicted, num_classes = _predicted(audit), len(audit.class_names)
    classes = [np.flatnonzero(audit.labels == label) for label in range(num_classes)]
    shuffled, groups = [], audit.groups.copy()
    for _ in range(draws):
        for own in classes:
            groups[own] = rng.permutation(groups[own])
        cells = groups * num_classes + audit.labels
        rates = group_means(predicted, cells, len(audit.group_names) * num_classes)
        shuffled.append(_largest_gaps(audit, rates))
    low, high = percentile_interval(np.stack(shuffled))
    return _table(audit, np.mean(shuffled, axis=0), low, high)


def demographic_parity(audit):
    """Demographic parity difference: the largest gap between groups of P(prediction = c), over every c.

    It asks that each class be predicted as often in every group, whatever the labels are; where the classes
    are not as frequent in every group, a model without errors violates it.  The interval is a bootstrap's,
    stratified by group.

    Returns
    -------
    pandas.DataFrame
        As `equalized_odds`.
    """
    return _gap_table(audit, (audit.groups, len(audit.group_names)))


def demographic_parity_change(audit):
    """Change of `demographic_parity` from the reference precision, as `equalized_odds_change`."""
    return _gap_table(audit, (audit.groups, len(audit.group_names)), change=True)


def _odds_strata(audit):
    """Cell of each sample, and how many cells there are."""
    return cell_ids(audit), len(audit.group_names) * len(audit.class_names)


def _predicted(audit):
    """Whether each class is predicted for each sample: float64 (0 or 1), shape (P * C, N)."""
    precisions, samples, classes = audit.logits.shape
    chosen = audit.predictions[:, None, :] == np.arange(classes)[:, None]
    return chosen.reshape(precisions * classes, samples).astype(np.float64)


def _largest_gaps(audit, rates):
    """Largest gap between groups of rates (..., P * C, G * K) in K conditions: shape (..., P)."""
    precisions, classes, groups = len(audit.precisions), len(audit.class_names), len(audit.group_names)
    gaps = largest_gap(np.moveaxis(rates.reshape(*rates.shape[:-2], precisions, classes, groups, -1), -2, -1))
    # fmax leaves out the conditions that fewer than two groups have.
    return np.fmax.reduce(gaps, axis=(-2, -1))


def _gap_table(audit, strata, change=False):
    predicted = _predicted(audit)
    value = _largest_gaps(audit, group_means(predicted, *strata))
    resampled = _largest_gaps(audit, bootstrap_group_means(predicted, *strata))
    if change:
        value, resampled = value - value[0], resampled - resampled[:, :1]
    table = _table(audit, value, *percentile_interval(resampled))
    return table.iloc[1:].reset_index(drop=True) if change else table


def _table(audit, value, low, high):
    counts = {"count": int((audit.group_counts > 0).sum()), "empty": int((cell_counts(audit) == 0).sum())}
    return pd.DataFrame({"precision": audit.precisions, "value": value, "low": low, "high": high, **counts})
