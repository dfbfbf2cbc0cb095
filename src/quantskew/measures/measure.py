"""Tidy tables of group measures: one row a group and precision, with value, interval and count."""

import numpy as np
import pandas as pd

from quantskew.groups import group_means
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
