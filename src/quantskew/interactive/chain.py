"""The whole chain at one precision: every measure of the forward pass, for all groups at once."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from quantskew.figures import rows
from quantskew.figures.style import book_style, number
from quantskew.measures import weights
from quantskew.measures.measure import MEASURES, OVERALL, audit_rows

# By the name in `audit_rows`: the name for reading, how it is drawn, and how its numbers are written.
_OF_GROUPS = {
    measure.key: (measure.title, rows.of(measure), (measure.digits, measure.scientific))
    for measure in MEASURES.values()
    if measure.chain
}
_OF_MODEL = {"sparsity": "share of zeros", "accuracy": "overall accuracy", "fvo": "FVO"}


def chain(audit):
    """Every measure of the chain, by group and precision.

    Parameters
    ----------
    audit : Audit
        With statistics of the weights.

    Returns
    -------
    pandas.DataFrame
        As `quantskew.measures.measure.audit_rows`, with the ``measure`` ``sparsity`` of the whole model
        too.

    Examples
    --------
    >>> from quantskew.experiments import experiments
    >>> table = chain(experiments.audit("digits", ["fp32", "int2"]))
    >>> table.query("measure == 'fvo'")["precision"].tolist()
    ['fp32', 'int2']
    """
    zeros = weights.sparsity(audit).assign(measure="sparsity", group=OVERALL)
    return pd.concat([audit_rows(audit), zeros], ignore_index=True)


def by_group(table, precision):
    """The numbers of one precision for reading: groups down, measures across.

    Parameters
    ----------
    table : pandas.DataFrame
        See `chain`.
    precision : str

    Returns
    -------
    pandas.DataFrame of str
    """
    own = table[(table["precision"] == precision) & (table["group"] != OVERALL)]
    values = own.pivot(index="group", columns="measure", values="value")
    values = values.loc[own["group"].unique(), list(_OF_GROUPS)]
    for key, (_, _, look) in _OF_GROUPS.items():
        values[key] = [number(v, *look) if np.isfinite(v) else "not defined" for v in values[key]]
    return values.rename(columns={key: name for key, (name, _, _) in _OF_GROUPS.items()})


def in_words(table, precision):
    """What is of the whole model, in words: share of zeros, overall accuracy and FVO.

    Parameters
    ----------
    table : pandas.DataFrame
        See `chain`.
    precision : str

    Returns
    -------
    str
    """
    own = table[(table["precision"] == precision) & (table["group"] == OVERALL)].set_index("measure")
    return "; ".join(
        f"{_OF_MODEL[row.Index]} {number(row.value, 2)}"
        + ("" if np.isnan(row.low) else f" [{number(row.low, 2)}, {number(row.high, 2)}]")
        for row in own.loc[list(_OF_MODEL)].itertuples()
    )


def chain_figure(audit, figure=None):
    """Six panels of the chain: a row is a group, a hollow marker the reference.

    Parameters
    ----------
    audit : Audit
        The reference and the precision that is shown, which comes last, or the reference alone.
    figure : matplotlib.figure.Figure, optional
        An earlier one of the same groups, which is drawn over: that takes a third less time.

    Returns
    -------
    matplotlib.figure.Figure
        Its layout is fixed: to find one that fits would take longer than to draw it.
    """
    with book_style():
        figure = figure or _empty_figure(len(audit.group_names))
        for place, (axes, (_, draw, _)) in enumerate(zip(figure.axes, _OF_GROUPS.values(), strict=True)):
            for artist in [*axes.lines, *axes.collections, *axes.patches, *axes.texts]:
                artist.remove()
            axes.ignore_existing_data_limits = True
            axes.autoscale(True)
            draw(audit, axes)
            axes.set_xlabel(axes.get_xlabel().partition("\n")[0])
            if place % 3:
                axes.set_ylabel("")
                axes.set_yticks([])
    return figure


def _empty_figure(groups):
    figure = Figure(figsize=(7.6, 0.9 + 0.42 * max(groups, 6)))
    figure.subplots(2, 3)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.97, bottom=0.13, hspace=0.45, wspace=0.12)
    return figure
