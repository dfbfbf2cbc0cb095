"""Figures of methods compared (Fig. 11 and 12 of the paper): a table and axes in, the axes out."""

import numpy as np
from matplotlib import colormaps

from quantskew.figures.style import precision_axis
from quantskew.measures.seeds import MEASURES, pareto_front

_MARKERS = "osD^vPX*hp<>d8H1234"


def method_styles(methods):
    """Colour and marker of each method: the same in every figure of a page, in the order of `methods`.

    The shades run from light to dark, so that they differ in grey too.
    """
    shades = np.linspace(0.88, 0.0, len(methods))
    colors = [colormaps["viridis"](shade) for shade in shades]
    return dict(zip(methods, zip(colors, _MARKERS[: len(methods)], strict=True), strict=True))


def by_method(measure):
    """Fig. 11: one line a method over the precisions, with 95 % intervals.

    Parameters
    ----------
    measure : {"accuracy", "fvo", "least"}

    Returns
    -------
    callable
        Table of `quantskew.measures.seeds.comparison` and axes -> axes.
    """

    def draw(table, axes):
        own = table[table["measure"] == measure]
        precisions = list(dict.fromkeys(own["precision"]))
        methods = list(dict.fromkeys(table["method"]))
        shifts = np.linspace(-0.24, 0.24, len(methods)) if len(methods) > 1 else [0.0]
        for shift, (method, (color, marker)) in zip(shifts, method_styles(methods).items(), strict=True):
            rows = own[own["method"] == method]
            positions = np.array([precisions.index(p) for p in rows["precision"]]) + shift
            bars = np.clip([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0, None)
            axes.errorbar(
                positions,
                rows["value"],
                yerr=bars,
                color=color,
                marker=marker,
                markersize=4.5,
                linewidth=1,
                elinewidth=1,
            )
        axes.set_ylim(-0.03, 1.03)
        return precision_axis(axes, precisions, MEASURES[measure])

    return draw


def accuracy_against_fvo(precision):
    """Fig. 12: overall accuracy against FVO at one precision, with the Pareto front.

    Parameters
    ----------
    precision : str

    Returns
    -------
    callable
        Table of `quantskew.measures.seeds.comparison` and axes -> axes.
    """

    def draw(table, axes):
        own = table[table["precision"] == precision].pivot(index="method", columns="measure")
        methods = [m for m in dict.fromkeys(table["method"]) if m in own.index]
        own = own.loc[methods]
        styles = method_styles(list(dict.fromkeys(table["method"])))
        for method, row in own.iterrows():
            color, marker = styles[method]
            bars = [
                [[row["value", name] - row["low", name]], [row["high", name] - row["value", name]]]
                for name in ("fvo", "accuracy")
            ]
            axes.errorbar(
                row["value", "fvo"],
                row["value", "accuracy"],
                xerr=np.clip(bars[0], 0, None),
                yerr=np.clip(bars[1], 0, None),
                color=color,
                marker=marker,
                markersize=7,
                elinewidth=0.8,
            )
        front = own[pareto_front(own["value", "accuracy"], own["value", "fvo"])].sort_values(("value", "fvo"))
        axes.step(
            front["value", "fvo"],
            front["value", "accuracy"],
            where="post",
            color="#777777",
            linestyle="--",
            linewidth=1,
            zorder=0,
        )
        axes.set_xlabel(f"FVO at {precision} (left is fairer)")
        axes.set_ylabel(f"overall accuracy at {precision}")
        return axes

    return draw


def method_legend(table, axes):
    """A legend below the axes with every method of the table."""
    styles = method_styles(list(dict.fromkeys(table["method"])))
    handles = [
        axes.plot([], [], color=color, marker=marker, markersize=5, linewidth=1.2)[0]
        for color, marker in styles.values()
    ]
    axes.legend(
        handles,
        list(styles),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.22),
        ncols=2,
        columnspacing=0.8,
        handlelength=1.4,
    )
    return axes
