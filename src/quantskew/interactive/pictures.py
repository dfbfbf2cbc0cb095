"""Pictures inside of a page: small files with words, and axes that stand still while the data change."""

import base64
import io
from html import escape

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from quantskew.drawing.style import book_style

_DPI = 160
# CSS pixels an inch: what matplotlib draws in points has the size of the page's own text.
_SCREEN = 110
_COLORS = 64


def png(figure):
    """A figure as PNG of few colours, a third to a fifth of the usual size; bytes."""
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    # Ticks are made when they are drawn, in the style that is set by then.
    with book_style():
        canvas.draw()
    return _encoded(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))


def _encoded(picture):
    content = io.BytesIO()
    # Five times as fast as the median cut, and no larger.
    few = picture.quantize(_COLORS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # Its white is the mean of all that is nearly white.
    few.putpalette([255 if value >= 254 else value for value in few.getpalette()])
    few.save(content, "PNG")
    return content.getvalue()


def beside(pictures):
    """PNG pictures in a row, as one PNG; bytes."""
    parts = [Image.open(io.BytesIO(content)) for content in pictures]
    row = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), "white")
    left = 0
    for part in parts:
        row.paste(part, (left, 0))
        left += part.width
    return _encoded(row)


def img(content, alt):
    """A PNG of `png` as an HTML image that holds its own data.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> img(png(plt.figure(figsize=(1, 2))), "An empty box")[:51]
    '<img alt="An empty box" width="110" height="220" sr'
    >>> plt.close()
    """
    size = Image.open(io.BytesIO(content)).size
    width, height = (round(pixels * _SCREEN / _DPI) for pixels in size)
    data = base64.b64encode(content).decode()
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="data:image/png;base64,{data}">'


def shown(content, alt, caption, table):
    """A PNG of `png` with its caption and, folded below it, all its numbers, as HTML.

    Parameters
    ----------
    content : bytes
    alt, caption : str
    table : pandas.DataFrame

    Returns
    -------
    str
    """
    rows = table.rename_axis(index=None, columns=None).to_html(border=0)
    return (
        f"<figure>{img(content, alt)}<figcaption>{escape(caption)}</figcaption>"
        f"<details><summary>All numbers</summary>{rows}</details></figure>"
    )


def share_frame(figures):
    """Give figures that are drawn alike the same limits, and their axes the places of the first one's.

    Axes without data take the limits of the others.

    Parameters
    ----------
    figures : sequence of matplotlib.figure.Figure
        With the same number of axes; from now on their layout is fixed.
    """
    for own in zip(*(figure.axes for figure in figures), strict=True):
        _share_limits(own, own)
    first, *others = figures
    with book_style():
        first.draw_without_rendering()
    first.set_layout_engine("none")
    for figure in others:
        _take_layout(figure, first)


def fit_frame(figure, frame):
    """Give a figure the limits of others that stay as they are, wider where its own data ask for it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Its axes get the places of the others'.
    frame : sequence of matplotlib.figure.Figure
        With the same number of axes, and a layout that is fixed (see `share_frame`).
    """
    for axes, *others in zip(figure.axes, *(other.axes for other in frame), strict=True):
        _share_limits([axes], [axes, *others])
    _take_layout(figure, frame[0])


def _take_layout(figure, first):
    figure.set_layout_engine("none")
    for axes, model in zip(figure.axes, first.axes, strict=True):
        axes.set_position(model.get_position())


def _share_limits(changed, sources):
    filled = [axes for axes in sources if axes.has_data()] or sources
    for name in "xy":
        limits = np.array([getattr(axes, f"get_{name}lim")() for axes in filled])
        for axes in changed:
            getattr(axes, f"set_{name}lim")(limits.min(), limits.max())
