"""Fairness: FVO and overall accuracy (section 3.1 of the paper), flips, and group and class together.

A cell is one group's samples of one class, such as ethnicity by gender.  Cells are numbered group by group:
the id of group g and class c is g * C + c.
"""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd

from quantskew.groups import group_counts
from quantskew.measures.forward import group_accuracy
from quantskew.measures.measure import OVERALL, of_model, per_sample

_ACCURACY = {"limits": (0, 1), "chain": True}


@per_sample("overall accuracy", "overall accuracy", equation="Eq. 3", share=True, pooled=True, **_ACCURACY)
def overall_accuracy(audit):
    """Accuracy over all samples, the paper's OA (Eq. 3), as `quantskew.measures.forward.group_accuracy`."""
    return group_accuracy.of_samples(audit)


@of_model("FVO", "FVO", equation="Eq. 2", **_ACCURACY)
def fvo(audit):
    """Fairness violation observed, Eq. 2: the largest difference in accuracy between any two groups.

    Groups without samples are left out; with fewer than two groups the value is NaN.  Sampling alone makes a
    largest difference positive: see `fvo.of_chance` for the value without any disparity.
    """
    return audit.predictions == audit.labels


_FLIP = {"limits": (0, 1), "from_reference": True, "share": True, "swept": True}


@per_sample("harmed", "share that flips to wrong", **_FLIP)
def harmed(audit):
    """Whether each sample is classified wrong here and right by the reference (0 or 1).

    The share of samples that are `helped` minus this one is the change of accuracy.
    """
    right = audit.predictions == audit.labels
    return (right[:1] & ~right).astype(np.float64)


@per_sample("helped", "share that flips to right", **_FLIP)
def helped(audit):
    """Whether each sample is classified right here and wrong by the reference (0 or 1)."""
    right = audit.predictions == audit.labels
    return (~right[:1] & right).astype(np.float64)


def layer_changes(audit, measure):
    """What quantizing each layer changes of a measure, of an Audit of `quantskew.audits.layers`.

    The table is that of `Measure.change` with the columns ``layer`` (`OVERALL` for all at once) and
    ``others`` in place of ``precision``: whether the other layers are ``float``, so that this one alone is
    quantized, or ``quantized`` already, so that it comes last.
    """
    none, *between, every = audit.precisions
    layers = [name.removeprefix(f"{every} in ") for name in between[: len(between) // 2]]
    pairs = {("float", layer): (none, f"{every} in {layer}") for layer in layers}
    pairs |= {("quantized", layer): (f"{every} except {layer}", every) for layer in layers}
    pairs |= {(others, OVERALL): (none, every) for others in ("float", "quantized")}
    tables = [
        measure.change(audit.select(pair)).assign(others=others, layer=layer)
        for (others, layer), pair in pairs.items()
    ]
    return pd.concat(tables, ignore_index=True).drop(columns="precision")


def cell_counts(audit):
    """Number of test samples in each cell, ndarray of int64, shape (G, C)."""
    shape = len(audit.group_names), len(audit.class_names)
    return group_counts(_cells(audit), shape[0] * shape[1]).reshape(shape)


def _cells(audit):
    return audit.groups * len(audit.class_names) + audit.labels


def groups_are_classes(audit):
    """Whether group and class are one: no group has samples of two classes, no class of two groups.

    The samples decide, not the names: classes may be named otherwise than the groups that they are.
    """
    present = cell_counts(audit) > 0
    return bool((present.sum(axis=0) < 2).all() and (present.sum(axis=1) < 2).all())


def intersections(audit, train_counts=None):
    """The same Audit with the intersections of group and class for its groups.

    They are named "group, class", all classes of the first group first; a cell without samples keeps its
    place, with a count of 0.  The provenance gets a note; the curvature is left out, since it was measured by
    the former groups.

    Parameters
    ----------
    audit : Audit
        A ValueError says so where its groups are its classes: nothing is left to cross.
    train_counts : array_like of int, shape (G * C,), optional
        Training samples of each cell, in the order of the new groups.  An Audit counts training samples by
        group alone, so that by default the test samples of each cell stand for its share.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> logits = {"fp32": [[1.0, 0.0]] * 3}
    >>> crossed = intersections(Audit.from_logits(logits, [0, 1, 1], ["a", "a", "b"], class_names=["x", "y"]))
    >>> dict(zip(crossed.group_names, crossed.group_counts.tolist()))
    {'a, x': 1, 'a, y': 1, 'b, x': 0, 'b, y': 1}
    """
    if groups_are_classes(audit):
        raise ValueError(
            "the groups of this Audit are its classes, and nothing is left to cross; make an Audit with "
            "another --group, such as --label gender --group ethnicity"
        )
    note = {"groups": list(audit.group_names), "classes": list(audit.class_names)}
    note["train_counts"] = "test samples" if train_counts is None else "given"
    counts = None if train_counts is None else np.asarray(train_counts, dtype=np.int64)
    facts = audit.provenance | {"intersections": note}
    return replace(_crossed(audit), train_counts=counts, provenance=facts)


def _crossed(audit):
    names = tuple(f"{group}, {name}" for group in audit.group_names for name in audit.class_names)
    return replace(audit, groups=_cells(audit), group_names=names, train_counts=None, curvature=None)


def class_accuracy(audit):
    """Accuracy of each class in each group: P(prediction = c | label = c, group = g), the recall of c in g.

    The table has ``group``, ``class``, ``precision``, ``value``, ``low``, ``high`` (95 % Wilson interval) and
    ``count`` (samples).  A group without samples of a class has a count of 0 and NaN for a value.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> audit = Audit.from_logits({"fp32": [[1.0, 0.0]] * 3}, labels=[0, 1, 0], groups=[0, 0, 1])
    >>> class_accuracy(audit)[["group", "class", "value", "count"]].values.tolist()[1:3]
    [['group 0', 'class 1', 0.0, 1], ['group 1', 'class 0', 1.0, 1]]
    """
    table, times = group_accuracy(_crossed(audit)), len(audit.precisions)
    groups, classes = zip(*itertools.product(audit.group_names, audit.class_names), strict=True)
    table.insert(1, "class", classes * times)
    return table.assign(group=groups * times)


# Where group and class are one, each class has one group and there is nothing to compare within it.
_CROSSED = {"limits": (0, 1), "applies": lambda audit: not groups_are_classes(audit)}
_CROSSED["facts"] = lambda audit: {"empty": int((cell_counts(audit) == 0).sum())}


@of_model("equalized odds", "equalized odds difference", by_class=True, **_CROSSED)
def equalized_odds(audit):
    """Equalized odds difference: the largest gap between groups of P(prediction = c | label = c').

    The maximum is over the pairs of groups and every class c and c'.  With two classes this is fairlearn's
    definition, the larger of the gaps in true and in false positive rate; with several it asks the same of
    every entry of the groups' confusion matrices.  A group without samples of c' has no rate there and is
    left out (fairlearn takes its rate for 0); such cells are counted in the column ``empty``.

    Draws and shuffles keep the size of each cell, as the split of the data set did: labels and predictions
    stay together, and no draw leaves a cell empty.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> logits = {"fp32": [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]}
    >>> equalized_odds(Audit.from_logits(logits, labels=[0, 1, 0, 1], groups=[0, 0, 1, 1]))["value"].item()
    1.0
    """
    return audit.predictions


@of_model("demographic parity", "demographic parity difference", **_CROSSED)
def demographic_parity(audit):
    """Demographic parity difference: the largest gap between groups of P(prediction = c), over every c.

    It asks that each class be predicted as often in every group, whatever the labels are; where the classes
    are not as frequent in every group, a model without errors violates it.
    """
    return audit.predictions
