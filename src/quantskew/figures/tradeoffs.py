"""Figures of methods compared (Fig. 11 and 12 of the paper): a table and axes in, the axes out.

The table is that of `quantskew.measures.seeds.comparison`.
"""

import numpy as np

from quantskew.figures.style import bars, shaded, side_by_side, style_legend, with_bars
from quantskew.measures.seeds import MEASURES, pareto_front


def _styles(table):
    """How each method looks: the same in every figure of a page."""
    return shaded(table["method"].unique())


def by_method(measure):
    """Fig. 11: what draws one line a method over the precisions, of "accuracy", "fvo" or "least"."""

    def draw(table, axes):
        own = table[table["measure"] == measure]
        lines = [(own[own["method"] == method], style) for method, style in _styles(table).items()]
        axes.set_ylim(-0.03, 1.03)
        return side_by_side(axes, lines, MEASURES[measure], width=0.24)

    return draw


def accuracy_against_fvo(precision):
    """Fig. 12: what draws overall accuracy against FVO at one precision, with the Pareto front."""

    def draw(table, axes):
        own, styles = table[table["precision"] == precision], _styles(table)
        fvo, accuracy = (own[own["measure"] == name].set_index("method") for name in ("fvo", "accuracy"))
        for method in fvo.index:
            rows = [values.loc[[method]] for values in (fvo, accuracy)]
            with_bars(axes, rows[0]["value"], rows[1], xerr=bars(rows[0]), markersize=7, **styles[method])
        front_line(axes, fvo["value"], accuracy["value"], color="#777777", zorder=0)
        axes.set_xlabel(f"FVO at {precision} (left is fairer)")
        axes.set_ylabel(f"overall accuracy at {precision}")
        return axes

    return draw


def front_line(axes, fvo, accuracy, **look):
    """A dashed line along those that no other one beats in both; gives their values."""
    best = pareto_front(accuracy, fvo)
    front = np.array(sorted(zip(np.asarray(fvo)[best], np.asarray(accuracy)[best], strict=True))).T
    axes.step(*front, where="post", linestyle="--", linewidth=1, **look)
    return front


def method_legend(table, axes):
    """A legend below the axes with every method of the table."""
    return style_legend(axes, _styles(table))
