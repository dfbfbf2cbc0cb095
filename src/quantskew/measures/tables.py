"""Tidy tables of group measures: one row a group and precision, with value, interval and count."""

import numpy as np
import pandas as pd

from quantskew.base.groups import group_means
from quantskew.measures.intervals import bootstrap_group_means, percentile_interval

OVERALL = "all"


def group_table(audit, samples):
    """Group means of a per-sample measure, with bootstrap intervals.

    Parameters
    ----------
    audit : Audit
    samples : ndarray of float, shape (P, N)
        NaN where the measure is not defined for a sample; such samples are left out and counted.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``precision``, ``value``, ``low``, ``high`` (95 % interval; NaN for groups of
        fewer than two samples), ``count`` (samples in the mean) and ``undefined`` (samples left out).
    """
    num_groups = len(audit.group_names)
    defined = ~np.isnan(samples)
    membership = np.eye(num_groups, dtype=np.int64)[audit.groups]
    count = defined @ membership
    low, high = percentile_interval(bootstrap_group_means(samples, audit.groups, num_groups))
    few = count < 2
    return long_table(
        audit,
        value=group_means(samples, audit.groups, num_groups),
        low=np.where(few, np.nan, low),
        high=np.where(few, np.nan, high),
        count=count,
        undefined=~defined @ membership,
    )


def group_change_table(audit, samples):
    """Change of each group's mean from the reference precision, with paired bootstrap intervals.

    Only samples that are defined at both precisions count.

    Returns
    -------
    pandas.DataFrame
        As `group_table`, without the reference precision's rows.
    """
    table = group_table(audit, samples - samples[:1])
    return table[table["precision"] != audit.precisions[0]].reset_index(drop=True)


def long_table(audit, **columns):
    """A row for each group and precision out of arrays of shape (P, G)."""
    precisions, groups = len(audit.precisions), len(audit.group_names)
    return pd.DataFrame(
        {
            "group": list(audit.group_names) * precisions,
            "precision": np.repeat(audit.precisions, groups),
            **{name: np.asarray(values).ravel() for name, values in columns.items()},
        }
    )


def number(value, digits, scientific=False):
    """A number as text, without the sign of a zero; in powers of ten where it is to be `scientific`.

    Examples
    --------
    >>> number(-0.004, 2), number(0.125, 3), number(-0.0000314, 1, scientific=True)
    ('0.00', '0.125', '-3.1e-05')
    """
    if scientific:
        return f"{value + 0.0:.{digits}e}"
    return f"{round(value, digits) + 0.0:.{digits}f}"


def wide(table, value="value", digits=3):
    """A table for reading: groups down, precisions across, each cell a value with its interval.

    Examples
    --------
    >>> row = {"group": "a", "precision": "int8", "value": 0.5, "low": 0.4, "high": 0.61, "count": 9}
    >>> wide(pd.DataFrame([row]), digits=2).loc["a", "int8"]
    '0.50 [0.40, 0.61]'
    """
    named = table if "group" in table else table.assign(group=OVERALL)
    return crossed(named, "group", "precision", value, digits)


def crossed(table, rows, columns, value="value", digits=3, scientific=False):
    """A long table laid out by two of its columns, each cell a value with its interval.

    Parameters
    ----------
    table : pandas.DataFrame
        With columns ``low`` and ``high`` beside `value` where it has intervals.
    rows, columns : str
        The columns that go down and across, in the order of their first appearance.
    value : str
    digits, scientific
        See `number`.

    Returns
    -------
    pandas.DataFrame of str
    """
    shown = [value, *(name for name in ("low", "high") if name in table)]
    texts = table[shown].map(number, digits=digits, scientific=scientific)
    cells = texts[value]
    if "low" in table:
        cells = cells + " [" + texts["low"] + ", " + texts["high"] + "]"
    frame = table[[rows, columns]].assign(cell=cells.where(np.isfinite(table[value]), "not defined"))
    pivoted = frame.pivot(index=rows, columns=columns, values="cell")
    return pivoted.loc[frame[rows].unique(), frame[columns].unique()]
