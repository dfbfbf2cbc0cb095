"""How figures look: one colour and marker a group, the size of a page, the same type everywhere."""

import contextlib

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from quantskew.measures.measure import OVERALL
from quantskew.quantization.quantizer import PRECISIONS

_MARKERS = "osD^vPXph*"
_STYLE = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "grid.color": "#dddddd",
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.hashsalt": "quantskew",
}


def group_order(audit):
    """Group ids from the largest training share to the smallest."""
    return np.argsort(-np.asarray(audit.train_counts), kind="stable")


def group_colors(audit):
    """One colour a group, dark for the largest in training, light for the smallest.

    The lightness alone tells the order, so that it survives grey print and colour blindness.

    Returns
    -------
    list of RGBA tuples, one a group id
    """
    ranks = np.argsort(group_order(audit))
    shades = np.linspace(0.02, 0.82, max(len(ranks), 2))
    return [colormaps["plasma"](shades[rank]) for rank in ranks]


def group_markers(audit):
    """One marker a group, by the same order as the colours."""
    ranks = np.argsort(group_order(audit))
    return [_MARKERS[rank % len(_MARKERS)] for rank in ranks]


@contextlib.contextmanager
def book_style():
    """The book's matplotlib settings, for the time of the block."""
    with plt.rc_context(_STYLE):
        yield


def compare(draw, audits, height=3.2, legend=True, width=None):
    """Draw the same figure of several Audits, or of whatever it is drawn from, side by side.

    Parameters
    ----------
    draw : callable or sequence of callables
        Each takes an Audit and axes; several make several rows.
    audits : dict of str to Audit
        One column each, by its title.
    height : float
        Of a row, in inches.
    legend : bool or callable
        Whether each column gets a legend of its groups below; or what draws another one, from the Audit and
        the axes.
    width : float, optional
        Of the figure, in inches; by default that of a page, or of one column where there is only one.

    Returns
    -------
    matplotlib.figure.Figure
        Closed for pyplot: a notebook shows it once, as the value of its cell.
    """
    rows = [draw] if callable(draw) else list(draw)
    width = width or (7.4 if len(audits) > 1 else 4.6)
    with book_style():
        figure, grid = plt.subplots(
            len(rows),
            len(audits),
            figsize=(width, height * len(rows) + (0.9 if legend else 0)),
            squeeze=False,
            layout="constrained",
        )
        for column, (title, audit) in enumerate(audits.items()):
            for row, function in enumerate(rows):
                function(audit, grid[row, column])
            grid[0, column].set_title(title, loc="left", fontweight="bold")
            if legend:
                (group_legend if legend is True else legend)(audit, grid[-1, column])
        plt.close(figure)
    return figure


class _LogTicks(LogLocator):
    """Ticks at 1, 2 and 5 of each decade, or at powers of ten where these would crowd."""

    def tick_values(self, vmin, vmax):
        self.set_params(subs=(1, 2, 5) if vmax < 300 * vmin else (1,))
        return super().tick_values(vmin, vmax)


def log_scale(axes, name):
    """Make the ``x`` or ``y`` axis logarithmic, with ticks in plain numbers that do not overlap."""
    getattr(axes, f"set_{name}scale")("log")
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(_LogTicks(numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def precision_label(precisions):
    """What an axis of precisions is of: the weights, unless one is a name of the Audit's own, as W8A8 is.

    Examples
    --------
    >>> precision_label(["fp32", "int8"]), precision_label(["fp32", "W8A8"])
    ('precision of the weights', 'precision')
    """
    return "precision of the weights" if set(precisions) <= set(PRECISIONS) else "precision"


def precision_axis(axes, precisions, label):
    """A horizontal axis with one place a precision."""
    # Two columns of a page have room for six names in full size.
    axes.set_xticks(np.arange(len(precisions)), precisions, fontsize=None if len(precisions) < 7 else 8)
    axes.set_xlabel(precision_label(precisions))
    axes.set_ylabel(label)
    axes.grid(axis="x", visible=False)
    return axes


def group_legend(audit, axes, title="group (images in training)"):
    """A legend below the axes: every group with its number of training images, largest first."""
    colors, markers = group_colors(audit), group_markers(audit)
    handles = [
        axes.plot([], [], color=colors[g], marker=markers[g], markersize=4, linewidth=1.5)[0]
        for g in group_order(audit)
    ]
    labels = [f"{audit.group_names[g]} ({audit.train_counts[g]:,})" for g in group_order(audit)]
    return legend_below(axes, handles, labels, title, handlelength=1.2)


def legend_below(axes, handles, labels, title, **options):
    """A legend below the axes, in as many columns as its words leave room for."""
    short = max(map(len, labels), default=0) < 12
    axes.legend(
        handles,
        labels,
        title=title,
        title_fontsize=9.5,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.22),
        ncols=4 if short and len(labels) > 5 else 2,
        columnspacing=0.8,
        handletextpad=0.4,
        **options,
    )
    return axes


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
    >>> import pandas as pd
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
