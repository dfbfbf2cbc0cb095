"""Figures of example difficulty (section 4.6 of the paper): runs and axes in, the axes out."""

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator

from quantskew.experiments import difficulty
from quantskew.figures.style import (
    group_colors,
    group_legend,
    group_markers,
    group_order,
    legend_below,
    log_scale,
)


def learning_curves(runs, axes):
    """Training accuracy of each group on the balanced set over the epochs; its test accuracy at the right.

    Parameters
    ----------
    runs : dict of str to list of Audit
        `quantskew.experiments.difficulty.rotations` of several seeds.
    axes : matplotlib.axes.Axes
    """
    audits = runs[difficulty.BALANCED]
    epochs, end = difficulty.learning_curves(audits)
    last = _curves(audits[0], axes, epochs)
    _at_end(audits[0], axes, end, last)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("accuracy: training (lines),\ntest (markers)")
    return axes


def gradient_curves(audits, axes):
    """Gradient norm of each group over the epochs of training (section 5.1).

    Parameters
    ----------
    audits : list of Audit
        One a seed.
    axes : matplotlib.axes.Axes
    """
    _curves(audits[0], axes, difficulty.gradient_curves(audits))
    log_scale(axes, "y")
    axes.set_ylabel("gradient norm")
    return axes


def rotation_map(runs, axes):
    """Change of each group's accuracy from the balanced set where one group is cut, a cell a pair.

    Parameters
    ----------
    runs : dict of str to list of Audit
    axes : matplotlib.axes.Axes
    """
    audit = runs[difficulty.BALANCED][0]
    table = difficulty.rotation_table(runs).pivot(index="cut", columns="group", values="value")
    names = [audit.group_names[g] for g in group_order(audit)]
    change = 100 * (table.loc[names, names] - table.loc[difficulty.BALANCED, names]).to_numpy()
    extent = max(1.0, np.nanmax(np.abs(change)))
    axes.imshow(change, cmap="RdBu", vmin=-extent, vmax=extent, aspect="auto")
    for (row, column), value in np.ndenumerate(change):
        color = "white" if abs(value) > 0.6 * extent else "black"
        axes.text(column, row, f"{round(value):+d}", ha="center", va="center", fontsize=8.5, color=color)
    axes.set_xticks(np.arange(len(names)), names, rotation=45 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_xlabel("accuracy measured of group")
    axes.set_ylabel("group that was cut")
    axes.grid(visible=False)
    return axes


def runs_legend(runs, axes):
    """The groups' legend of a figure that is drawn from several Audits."""
    audits = runs if isinstance(runs, list) else runs[difficulty.BALANCED]
    return group_legend(audits[0], axes)


def _curves(audit, axes, table):
    colors = group_colors(audit)
    for group in group_order(audit):
        own = table[table["group"] == audit.group_names[group]]
        axes.plot(own["epoch"], own["value"], color=colors[group], linewidth=1.3)
        if (own["low"] < own["high"]).any():
            axes.fill_between(own["epoch"], own["low"], own["high"], color=colors[group], alpha=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    return table["epoch"].max()


def _at_end(audit, axes, table, last):
    colors, markers, order = group_colors(audit), group_markers(audit), group_order(audit)
    places = last * (1.05 + 0.03 * np.arange(len(order)))
    for place, group in zip(places, order, strict=True):
        row = table[table["group"] == audit.group_names[group]].iloc[0]
        bars = [[max(0, row["value"] - row["low"])], [max(0, row["high"] - row["value"])]]
        axes.errorbar(
            place, row["value"], yerr=bars, color=colors[group], marker=markers[group], markersize=4.5
        )


_MARKERS = "osD^vP"
# What a 95 % interval may say wrongly.
_ALLOWED = 0.05


def verdict_share(table, axes):
    """Share of trials with one verdict against the true effect, one line a number of seeds.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of one verdict of `quantskew.claims.register.verdict_rates`.
    axes : matplotlib.axes.Axes
    """
    for seeds, (color, marker) in _looks(table).items():
        rows = table[table["seeds"] == seeds]
        bars = np.clip([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0, None)
        axes.errorbar(rows["effect"], rows["value"], yerr=bars, color=color, marker=marker, markersize=4.5)
    axes.axhline(_ALLOWED, color="#555555", linestyle="--", linewidth=1)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("true effect (accuracy)")
    axes.set_ylabel("share of the experiments")
    return axes


def seeds_legend(table, axes):
    """A legend below the axes: a line a number of seeds."""
    looks = _looks(table)
    handles = [axes.plot([], [], color=c, marker=m, markersize=4.5)[0] for c, m in looks.values()]
    return legend_below(axes, handles, [str(seeds) for seeds in looks], "seeds", handlelength=1.5)


def _looks(table):
    """Colour and marker of each number of seeds, from light to dark."""
    numbers = sorted(set(table["seeds"]))
    shades = np.linspace(0.8, 0.0, len(numbers))
    return {n: (colormaps["viridis"](s), m) for n, s, m in zip(numbers, shades, _MARKERS, strict=False)}
