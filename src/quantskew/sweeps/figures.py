"""Figures that compare the runs of a sweep: its table in, a figure or axes out."""

import math
import textwrap
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps

from quantskew.figures.lines import by_precision
from quantskew.figures.style import (
    book_style,
    group_colors,
    group_markers,
    group_order,
    legend_below,
    precision_axis,
)
from quantskew.measures.measure import OVERALL
from quantskew.measures.seeds import pareto_front

# Panels in a row, and how many a page has room for.
_COLUMNS = 3
MOST = 24
# Letters of a title that fit above a panel.
_LETTERS = 36
_MARKERS = "osD^vPX*hp<>d8"


def group_accuracy(runs, axes):
    """Accuracy of each group of a run by precision."""
    shown = _groups(runs)
    own = runs[(runs["measure"] == "accuracy") & (runs["group"] != OVERALL)]
    axes.set_ylim(-0.03, 1.03)
    return by_precision(shown, axes, own, "accuracy")


def fvo(runs, axes):
    """FVO of a run by precision with its 95 % interval, and the overall accuracy beside it."""
    overall = runs[runs["group"] == OVERALL]
    for measure, color, line in (("fvo", "black", "-"), ("accuracy", "#777777", "--")):
        own = overall[overall["measure"] == measure]
        bars = np.clip([own["value"] - own["low"], own["high"] - own["value"]], 0, None)
        axes.errorbar(
            np.arange(len(own)),
            own["value"],
            yerr=bars,
            color=color,
            linestyle=line,
            marker="o",
            markersize=3,
            linewidth=1.2,
            elinewidth=1,
        )
    axes.set_ylim(-0.03, 1.03)
    return precision_axis(axes, list(own["precision"]), "FVO, accuracy")


def _groups(runs):
    """Groups and precisions of a run, by the names that the figures of an Audit go by."""
    counts = runs[runs["group"] != OVERALL].drop_duplicates("group")
    return SimpleNamespace(
        group_names=tuple(counts["group"]),
        train_counts=counts["trained_on"].to_numpy(),
        precisions=tuple(dict.fromkeys(runs["precision"])),
    )


def _group_handles(runs, axes):
    shown = _groups(runs)
    colors, markers, order = group_colors(shown), group_markers(shown), group_order(shown)
    handles = [axes.plot([], [], color=colors[g], marker=markers[g], markersize=4)[0] for g in order]
    return handles, [f"{shown.group_names[g]} ({shown.train_counts[g]:,})" for g in order]


def _fvo_handles(_, axes):
    lines = (("black", "-"), ("#777777", "--"))
    handles = [axes.plot([], [], color=color, linestyle=line, marker="o")[0] for color, line in lines]
    return handles, ["FVO of the groups", "overall accuracy"]


_LEGENDS = {
    group_accuracy: (_group_handles, "group (images in training)"),
    fvo: (_fvo_handles, None),
}


def small_multiples(draw, table, most=MOST):
    """One panel a run; runs with the same groups stand together above their legend.

    Parameters
    ----------
    draw : {group_accuracy, fvo}
    table : pandas.DataFrame
        See `quantskew.sweeps.table.named_runs`.
    most : int
        Panels at most; see `shown`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    chosen = table[table["run"].isin(shown(table, most))]
    sets = {}
    for run, rows in chosen.groupby("run", sort=False):
        groups = _groups(rows)
        sets.setdefault((groups.group_names, groups.precisions), {})[run] = rows
    heights = [1.9 * math.ceil(len(runs) / _COLUMNS) + 1 for runs in sets.values()]
    with book_style():
        figure = plt.figure(figsize=(7.4, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(sets), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, runs in zip(parts, sets.values(), strict=True):
            _panels(draw, part, runs)
        plt.close(figure)
    return figure


def _panels(draw, part, runs):
    lines = math.ceil(len(runs) / _COLUMNS)
    grid = part.subplots(lines, _COLUMNS, squeeze=False, sharex=True, sharey=True)
    for axes, (run, rows) in zip(grid.flat, runs.items(), strict=False):
        draw(rows, axes)
        axes.set_title(textwrap.fill(run, _LETTERS), fontsize=8, loc="left")
        axes.tick_params(labelsize=7.5)
        axes.label_outer()
    for empty in range(len(runs), grid.size):
        grid.flat[empty].set_axis_off()
        if lines > 1:
            grid.flat[empty - _COLUMNS].tick_params(labelbottom=True)
    handles, title = _LEGENDS[draw]
    part.legend(*handles(rows, axes), loc="outside lower center", ncols=5, title=title, title_fontsize=9)


def tradeoff(table, axes):
    """Overall accuracy of every run against its FVO, a colour and marker a precision, each with its front.

    The runs that no other one beats in both at that precision are ringed, and a dashed line joins them.
    """
    points = _points(table)
    precisions = list(dict.fromkeys(points["precision"]))
    shades = np.linspace(0.0, 0.88, len(precisions))
    handles = []
    for precision, shade, marker in zip(precisions, shades, _MARKERS, strict=False):
        own = points[points["precision"] == precision]
        color = colormaps["viridis"](shade)
        handles += axes.plot(
            own["fvo"], own["accuracy"], color=color, marker=marker, markersize=5, linestyle="", alpha=0.8
        )
        front = own[pareto_front(own["accuracy"], own["fvo"])].sort_values(["fvo", "accuracy"])
        axes.step(front["fvo"], front["accuracy"], where="post", color=color, linestyle="--", linewidth=1)
        ringed = {"markeredgecolor": "black", "markersize": 7, "linestyle": ""}
        axes.plot(front["fvo"], front["accuracy"], color=color, marker=marker, **ringed)
    axes.set_xlabel("FVO (left is fairer)")
    axes.set_ylabel("overall accuracy")
    return legend_below(axes, handles, precisions, "precision of the weights")


def _points(table):
    """FVO and overall accuracy, a row a run and precision."""
    overall = table[(table["group"] == OVERALL) & table["measure"].isin(["accuracy", "fvo"])]
    order = overall.drop_duplicates(["run", "precision"])[["run", "precision"]]
    values = overall.pivot(index=["run", "precision"], columns="measure", values="value").reset_index()
    return order.merge(values).dropna()


def on_the_front(table):
    """The runs on the trade-off front of each precision.

    Parameters
    ----------
    table : pandas.DataFrame
        See `quantskew.sweeps.table.named_runs`.

    Returns
    -------
    pandas.DataFrame
        Columns ``precision``, ``run``, ``accuracy`` (overall), ``fvo`` and ``alike``, the number of further
        runs with the same two values; fairest first at each precision.
    """
    points, same = _points(table), ["precision", "accuracy", "fvo"]
    points["alike"] = points.groupby(same)["run"].transform("size") - 1
    points = points.drop_duplicates(same)
    parts = [
        own[pareto_front(own["accuracy"], own["fvo"])].sort_values("fvo", kind="stable")
        for _, own in points.groupby("precision", sort=False)
    ]
    columns = ["precision", "run", "accuracy", "fvo", "alike"]
    return pd.concat(parts, ignore_index=True)[columns]


def shown(table, most=MOST):
    """The runs that get a panel: all, or those on a front and then the first of the grid.

    Parameters
    ----------
    table : pandas.DataFrame
        See `quantskew.sweeps.table.named_runs`.
    most : int

    Returns
    -------
    list of str
        In the order of the table.
    """
    runs = list(dict.fromkeys(table["run"]))
    first = dict.fromkeys([*on_the_front(table)["run"], *runs])
    chosen = set(list(first)[:most])
    return [run for run in runs if run in chosen]
