"""Figures that compare the runs of a sweep, drawn as those of the book.

The table is that of `quantskew.sweeps.table.named_runs`, or its rows of one run.
"""

import math
import textwrap

import matplotlib.pyplot as plt
import pandas as pd

from quantskew.figures import lines
from quantskew.figures.comparisons import front_line
from quantskew.figures.style import book_style, legend_of, looks, shaded, style_legend
from quantskew.measures import forward
from quantskew.measures.measure import OVERALL
from quantskew.measures.seeds import pareto_front

# Panels in a row, and how many a page has room for.
_COLUMNS = 3
MOST = 24
# Letters of a title that fit above a panel.
_LETTERS = 36


def group_accuracy(runs, axes):
    """Accuracy of each group of a run by precision."""
    own = runs[(runs["measure"] == "accuracy") & (runs["group"] != OVERALL)]
    return lines.by_precision(axes, _groups(runs), own, forward.group_accuracy)


def fvo(runs, axes):
    """FVO of a run by precision, and the overall accuracy beside it, with 95 % intervals."""
    overall = runs[runs["group"] == OVERALL]
    tables = (overall[overall["measure"] == measure] for measure in ("fvo", "accuracy"))
    return lines.of_fvo_and_accuracy(axes, *tables)


def _groups(runs):
    """How the groups of a run look."""
    counts = runs[runs["group"] != OVERALL].drop_duplicates("group")
    return looks(tuple(counts["group"]), counts["trained_on"].to_numpy())


def small_multiples(draw, table, most=MOST):
    """One panel a run (see `shown`) by `group_accuracy` or `fvo`; runs of the same groups share a legend."""
    chosen = table[table["run"].isin(shown(table, most))]
    sets = {}
    for run, rows in chosen.groupby("run", sort=False):
        groups = tuple(rows["group"].unique()), tuple(rows["precision"].unique())
        sets.setdefault(groups, {})[run] = rows
    heights = [1.9 * math.ceil(len(runs) / _COLUMNS) + 1 for runs in sets.values()]
    with book_style():
        figure = plt.figure(figsize=(7.4, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(sets), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, runs in zip(parts, sets.values(), strict=True):
            _panels(draw, part, runs)
        plt.close(figure)
    return figure


def _panels(draw, part, runs):
    rows_of_panels = math.ceil(len(runs) / _COLUMNS)
    grid = part.subplots(rows_of_panels, _COLUMNS, squeeze=False, sharex=True, sharey=True)
    for axes, (run, rows) in zip(grid.flat, runs.items(), strict=False):
        draw(rows, axes)
        axes.set_title(textwrap.fill(run, _LETTERS), fontsize=8, loc="left")
        axes.tick_params(labelsize=7.5)
        axes.label_outer()
    for empty in range(len(runs), grid.size):
        grid.flat[empty].set_axis_off()
        if rows_of_panels > 1:
            grid.flat[empty - _COLUMNS].tick_params(labelbottom=True)
    place = {"loc": "outside lower center", "ncols": 5, "title_fontsize": 9}
    if draw is fvo:
        part.legend(*axes.get_legend_handles_labels(), **place)
    else:
        part.legend(*legend_of(_groups(rows)), title="group (images in training)", **place)


def tradeoff(table, axes):
    """Overall accuracy of every run against its FVO, a colour and marker a precision, each with its front.

    The runs that no other one beats in both at that precision are ringed, and a dashed line joins them.
    """
    points = _points(table)
    styles = shaded(points["precision"].unique(), first=0.0, last=0.88)
    for precision, style in styles.items():
        own = points[points["precision"] == precision]
        axes.plot(own["fvo"], own["accuracy"], **style, markersize=5, linestyle="", alpha=0.8)
        front = front_line(axes, own["fvo"], own["accuracy"], color=style["color"])
        axes.plot(*front, **style, markeredgecolor="black", markersize=7, linestyle="")
    axes.set(xlabel="FVO (left is fairer)", ylabel="overall accuracy")
    return style_legend(axes, styles, "precision of the weights")


def _points(table):
    """FVO and overall accuracy, a row a run and precision."""
    overall = table[(table["group"] == OVERALL) & table["measure"].isin(["accuracy", "fvo"])]
    values = overall.set_index(["run", "precision", "measure"])["value"].unstack(sort=False)
    return values.dropna().reset_index()


def on_the_front(table):
    """The runs on the trade-off front of each precision, fairest first.

    Beside ``precision``, ``run``, ``accuracy`` (overall) and ``fvo`` there is ``alike``: the number of
    further runs with the same two values.
    """
    points, same = _points(table), ["precision", "accuracy", "fvo"]
    points["alike"] = points.groupby(same)["run"].transform("size") - 1
    points = points.drop_duplicates(same)
    by_precision = (own for _, own in points.groupby("precision", sort=False))
    fronts = [own[pareto_front(own["accuracy"], own["fvo"])].sort_values("fvo") for own in by_precision]
    return pd.concat(fronts, ignore_index=True)[["precision", "run", "accuracy", "fvo", "alike"]]


def shown(table, most=MOST):
    """The runs that get a panel, in the order of the table: all, or those on a front, then the first ones."""
    runs = list(dict.fromkeys(table["run"]))
    first = list(dict.fromkeys([*on_the_front(table)["run"], *runs]))[:most]
    return [run for run in runs if run in first]
