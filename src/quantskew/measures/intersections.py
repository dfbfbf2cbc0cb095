"""Intersections: the groups of an Audit crossed with its classes, such as ethnicity by gender.

A cell is one group's samples of one class.  Cells are numbered group by group: the id of group g and class c
is g * C + c.
"""

from dataclasses import replace

import numpy as np

from quantskew.base.groups import group_counts


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
