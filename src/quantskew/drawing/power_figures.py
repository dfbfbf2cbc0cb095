"""Figure of how often verdicts are right, by what is true: a table and axes in, the axes out."""

import numpy as np
from matplotlib import colormaps

from quantskew.drawing.style import legend_below

_MARKERS = "osD^vP"
# What a 95 % interval may say wrongly.
_ALLOWED = 0.05


def verdict_share(table, axes):
    """Share of trials with one verdict against the true effect, one line a number of seeds.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of one verdict of `quantskew.claims.power.verdict_rates`.
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
