"""How figures and tables look: one colour and marker a group, the size of a page, numbers as text."""

import contextlib
import functools
import itertools
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, FileSystemLoader
from matplotlib import colormaps, font_manager, rc_params_from_file
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from quantskew.audits.audit import quantizer_of
from quantskew.files import digest
from quantskew.measures import forward
from quantskew.measures.measure import OVERALL
from quantskew.quantization.quantizer import PRECISIONS

_MARKERS = (*"osD^vPX*hp<>d8H1234+x|_", *((points, 1) for points in range(3, 10)))
# Of more groups the ends are drawn; characters of names below an axis; share of a range that is little.
_MANY, _ENDS, _ROOM, _LITTLE = 12, 5, 44, 0.4
# Limits of an axis of shares.
SHARES = (-0.03, 1.03)
_SCALES = {"log": "log scale", "symlog": "partly log"}
# Of HTML, in which whatever is not marked as safe is escaped.
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parents[1]), autoescape=True)
_STYLE = rc_params_from_file(Path(__file__).with_name("book.mplstyle"), use_default_template=False)


# For the signs that matplotlib's own font lacks, where one is installed.
_STAND_INS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Arial Unicode MS", "Hiragino Sans"),
    *("PingFang SC", "Microsoft YaHei", "WenQuanYi Zen Hei", "Noto Sans", "Noto Sans Arabic"),
    *("Noto Sans Devanagari", "Noto Sans Kannada", "Nirmala UI"),
)


class Look(NamedTuple):
    """A group, by its id, and how it is named and drawn in every figure."""

    group: int
    name: str
    images: int
    color: tuple
    marker: str

    @property
    def style(self):
        """What matplotlib takes."""
        return {"color": self.color, "marker": self.marker}

    @property
    def described(self):
        """What a script of a page takes."""
        known = {"name": self.name, "images": int(self.images)}
        return known | {"color": to_hex(self.color), "marker": self.marker}


def looks(names, images):
    """A `Look` a group, from the one with most images in training to the one with fewest.

    They run from dark to light: the lightness alone tells the order, so that it survives grey print and
    colour blindness.
    """
    order = np.argsort(-np.asarray(images), kind="stable")
    shades = colormaps["plasma"](np.linspace(0.02, 0.82, max(len(order), 2)))
    return [
        Look(int(group), names[group], images[group], tuple(shades[rank]), _MARKERS[:10][rank % 10])
        for rank, group in enumerate(order)
    ]


def group_looks(audit):
    """The `looks` of the groups of an Audit."""
    return looks(audit.group_names, audit.train_counts)


def by_group(groups, table):
    """Each of some `looks` with the rows of a table that are of its group, list of pairs."""
    return [(look, table[table["group"] == look.name]) for look in groups]


def shaded(names, first=0.88, last=0.0):
    """A colour and a marker for each of some names in their order, from light to dark, as in grey print."""
    colors = map(tuple, colormaps["viridis"](np.linspace(first, last, len(names))))
    looks = zip(names, colors, itertools.cycle(_MARKERS), strict=False)
    return {name: {"color": color, "marker": marker} for name, color, marker in looks}


@contextlib.contextmanager
def book_style():
    """The book's matplotlib settings, for the time of the block."""
    with plt.rc_context({**_STYLE, "font.family": list(_fonts()[0])}):
        yield


@functools.cache
def _fonts():
    """The families that figures are written in, and the signs that these have."""
    families = ["sans-serif", *(name for name in _STAND_INS if name in font_manager.get_font_names())]
    files = (font_manager.findfont(font_manager.FontProperties(family=[name])) for name in families)
    return families, set().union(*(font_manager.get_font(file).get_charmap() for file in files))


@functools.cache
def legible(text, most=56):
    """Text as a figure can show it: lines of at most so many characters, unknown signs in letters.

    Where a line is cut a few signs of its digest stand, for names that differ in their middle alone.

    Examples
    --------
    >>> legible("\N{KATAKANA LETTER KA}\N{KATAKANA LETTER NA}", 10), legible("a" * 99, 10)
    ('ka na', 'aa…d423…aa')
    """
    for sign in set(text) - {"\n"}:
        if ord(sign) not in _fonts()[1]:
            name = unicodedata.name(sign, f"{ord(sign):x}").split()[-1].removeprefix("IDEOGRAPH-")
            text = text.replace(sign, f" {name.lower()} ")
    lines, cut = (" ".join(line.split()) for line in text.split("\n")), most - 8
    return "\n".join(f"{own[:cut]}…{digest(own)[:4]}…{own[-2:]}" if len(own) > most else own for own in lines)


def written(figure):
    """The figure with its words as text that can be read: names from outside are no mathematics."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(legible(text.get_text()))
    for axes in figure.axes:
        for axis, most in ((axes.xaxis, 40), (axes.yaxis, 30)):
            if axis.get_scale() != "linear" and axis.label.get_text():
                axis.label.set_text(f"{axis.label.get_text()}, {_SCALES[axis.get_scale()]}")
            if isinstance(axis.get_major_locator(), FixedLocator):
                names = [label.get_text() for label in axis.get_ticklabels()]
                short = [legible(" ".join(name.splitlines()), most) for name in names]
                if short != names:
                    axis.set_ticks(axis.get_ticklocs(), short)
    return figure


# Beside a figure the numbers that it is drawn from: `quantskew.book.chapters` lays them into the page.
NUMBERS = "application/vnd.quantskew.numbers+json"


class PageFigure(Figure):
    """A figure that a page may draw anew, from ``numbers`` as of `quantskew.figures.lines.numbers`."""

    numbers = ()

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {NUMBERS: self.numbers} if self.numbers else {}


def compare(draw, audits, height=3.2, legend=True, width=None, below=False):
    """Draw the same figure of several Audits, or of whatever it is drawn from, side by side.

    Parameters
    ----------
    draw : callable or sequence of callables
        Each takes an Audit and axes; several make several rows.
    audits : dict of str to Audit
        One column each, by its title.
    height, width : float
        Of a row and of the figure, in inches; by default that of a page, or of a column where there is one.
    legend : bool or callable
        Whether each column gets a legend of its groups below; or what draws another one, from the Audit and
        the axes.
    below : bool
        Whether a single function's figures stand one below the other instead.

    Returns
    -------
    matplotlib.figure.Figure
        Closed for pyplot: a notebook shows it once, as the value of its cell.
    """
    rows = [draw] if callable(draw) else list(draw)
    shape = (len(audits), 1) if below else (len(rows), len(audits))
    size = width or (7.4 if len(audits) > 1 else 4.6), height * shape[0] + (0.9 if legend else 0)
    with book_style():
        options = {"squeeze": False, "figsize": size, "layout": "constrained"}
        figure, grid = plt.subplots(*shape, FigureClass=PageFigure, **options)
        grid = grid.reshape(len(rows), len(audits))
        figure.get_layout_engine().set(h_pad=0.07)
        for column, (title, audit) in enumerate(audits.items()):
            for row, function in enumerate(rows):
                function(audit, grid[row, column])
            grid[0, column].set_title(title, loc="left", fontweight="bold")
            if legend:
                (group_legend if legend is True else legend)(audit, grid[-1, column])
        plt.close(written(figure))
    return figure


class _LogTicks(LogLocator):
    """Ticks at 1, 2 and 5 of each decade, at all digits or at powers of ten where these are few or crowd."""

    def tick_values(self, vmin, vmax):
        self.set_params(subs=range(1, 10) if vmax < 4 * vmin else (1, 2, 5) if vmax < 300 * vmin else (1,))
        return super().tick_values(vmin, vmax)


def log_scale(axes, name):
    """Make the ``x`` or ``y`` axis logarithmic, with ticks in plain numbers that do not overlap."""
    getattr(axes, f"set_{name}scale")("log")
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(_LogTicks(numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def scaled(axes, name, measure):
    """Make the ``x`` or ``y`` axis that of a measure: logarithmic, or as wide as its possible values."""
    if measure.log:
        log_scale(axes, name)
    if measure.limits:
        getattr(axes, f"set_{name}lim")(measure.limits[0] - 0.03, measure.limits[1] + 0.03)
    return axes


def bars(rows):
    """How far the interval of each row reaches below and above its value, shape (2, rows)."""
    return np.clip([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0, None)


def with_bars(axes, places, rows, **look):
    """The values of a table over places on the horizontal axis, with a bar for each interval."""
    look = {"markersize": 4.5, "linewidth": 1.2, "elinewidth": 1} | look
    return axes.errorbar(places, rows["value"], yerr=bars(rows), **look)


def side_by_side(axes, lines, label, width=0.2):
    """Lines over the precisions: pairs of a table and its look.

    They are shifted by up to `width`, so that intervals at the same precision do not cover each other.
    """
    precisions = list(dict.fromkeys(precision for rows, _ in lines for precision in rows["precision"]))
    shifts = np.linspace(-width, width, len(lines)) if len(lines) > 1 else np.zeros(len(lines))
    for shift, (rows, look) in zip(shifts, lines, strict=True):
        places = np.array([precisions.index(precision) for precision in rows["precision"]])
        with_bars(axes, places + shift, rows, **look)
    return precision_axis(axes, precisions, label)


def path(axes, x, y, look):
    """A line from a hollow marker through small ones to a large one: where it starts, and where it ends."""
    axes.plot(x, y, **look, markersize=3, linewidth=1)
    axes.plot(x[:1], y[:1], **look, markersize=6, markerfacecolor="white")
    axes.plot(x[-1:], y[-1:], **look, markersize=7)


def precision_label(precisions):
    """What an axis of precisions is of: the weights, unless one is a name of the Audit's own, as W8A8 is."""
    if not ordered(precisions):
        return "quantizer or runtime"
    return "precision of the weights" if set(precisions) <= set(PRECISIONS) else "precision"


def ordered(precisions):
    """Whether each is a precision, so that a line from one to the next says something."""
    return all(quantizer_of(name).precision for name in precisions)


def precision_axis(axes, precisions, label):
    """A horizontal axis with one place a precision; where these have no order, lines are taken off."""
    column_ticks(axes, precisions)
    for line in () if ordered(precisions) else axes.lines:
        line.set(linestyle="none", marker="_" if line.get_marker() == "None" else line.get_marker())
    axes.set(xlabel=precision_label(precisions), ylabel=label)
    axes.grid(axis="x", visible=False)
    return axes


def column_ticks(axes, names):
    """A tick a column, with its name, which is turned where the names would overlap."""
    # Two columns of a page have room for six names in full size.
    short = [legible(name, 24) for name in names]
    axes.set_xticks(np.arange(len(names)), short, fontsize=None if len(names) < 7 else 8)
    if sum(len(name) + 2 for name in short) > _ROOM:
        plt.setp(axes.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")


def zoomed(axes, measure):
    """Make the vertical axis that of a measure, or of the data where these take up little of its range."""
    low, high = axes.dataLim.intervaly
    scaled(axes, "y", measure)
    if measure.limits and high - low < _LITTLE * (measure.limits[1] - measure.limits[0]):
        margin = 0.06 * max(high - low, 0.02)
        axes.set_ylim(low - margin, high + margin)
    return axes


def summarised(audit):
    """The Audit with the groups that lose most and least alone and the others as one, where they are many."""
    names = audit.group_names
    if len(names) <= _MANY:
        return audit
    change = forward.group_accuracy.change(audit).groupby("group", sort=False)["value"].min()
    order = np.argsort(change.loc[list(names)])
    kept = np.sort(np.append(order[:_ENDS], order[-_ENDS:]))
    ids = np.full(len(names), len(kept))
    ids[kept] = np.arange(len(kept))
    counts = np.bincount(ids, audit.train_counts).astype(np.int64)
    named = (*(names[group] for group in kept), f"{len(names) - len(kept)} others")
    return replace(audit, groups=ids[audit.groups], group_names=named, train_counts=counts, curvature=None)


def number_map(axes, values, texts, dark, **look):
    """A cell for each value of a table, with its text in white where the cell is dark."""
    axes.imshow(values.to_numpy(), aspect="auto", **look)
    for (row, column), text in np.ndenumerate(texts[values.columns].to_numpy()):
        color = "white" if dark.iloc[row, column] else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    column_ticks(axes, list(values.columns))
    axes.set_yticks(np.arange(len(values)), values.index)
    axes.grid(visible=False)


def legend_of(groups):
    """Handles and labels of a legend of `looks`: every group with its number of images."""
    handles = [Line2D([], [], **look.style, markersize=4, linewidth=1.5) for look in groups]
    return handles, [f"{legible(look.name, 24)} ({look.images:,})" for look in groups]


def group_legend(audit, axes):
    """A legend below the axes: every group with its number of training images, largest first."""
    return legend_below(axes, *legend_of(group_looks(audit)), f"group ({audit.counted})", handlelength=1.2)


def style_legend(axes, styles, title=None):
    """A legend below the axes of what is `shaded`."""
    handles = [Line2D([], [], **style, markersize=5, linewidth=1.2) for style in styles.values()]
    return legend_below(axes, handles, list(map(str, styles)), title, handlelength=1.4)


def legend_below(axes, handles, labels, title, **options):
    """A legend below the axes, in as many columns as its words leave room for."""
    longest = max(map(len, labels))
    columns = 4 if len(labels) > 5 and longest < 12 else 2 if longest < 21 else 1
    options |= {"title": title, "title_fontsize": 9.5, "columnspacing": 0.8, "handletextpad": 0.4}
    turned = any(label.get_rotation() for label in axes.get_xticklabels())
    if turned and len(axes.figure.axes) == 1:
        # Only a figure's own legend leaves room for names that are turned.
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=columns, **options)
    else:
        below = -0.22 - 0.09 * axes.get_xlabel().count("\n")
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, below), "ncols": columns}
        axes.legend(handles, labels, **place, **options)
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


def wide(table, value="value", digits=3, like=None):
    """A table for reading: groups down, precisions across, each cell a value with its interval."""
    named = table if "group" in table else table.assign(group=OVERALL)
    return crossed(named, "group", "precision", value, digits, like=like)


def crossed(table, rows, columns, value="value", digits=3, scientific=False, like=None):
    """A long table laid out by two of its columns, each cell a value with its interval, if any, as text.

    `rows` go down and `columns` across, in the order of their first appearance, groups as in the figures of
    an Audit that they are to be `like`; numbers are as `number`.
    """
    shown = table.reindex(columns=[value, "low", "high"])
    texts = shown.map(number, digits=digits, scientific=scientific)
    intervals = " [" + texts["low"] + ", " + texts["high"] + "]"
    cells = texts[value] + intervals.where(shown["low"].notna(), "")
    frame = table[[rows, columns]].assign(cell=cells.where(np.isfinite(table[value]), "not defined"))
    pivoted = frame.pivot(index=rows, columns=columns, values="cell")
    places = {look.name: place for place, look in enumerate(group_looks(like) if like else [])}
    order = sorted(frame[rows].unique(), key=lambda name: places.get(name, -1))
    return pivoted.loc[order, frame[columns].unique()]
