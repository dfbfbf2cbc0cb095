"""Pictures inside of a page: small files with words, and axes that stand still while the data change."""

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from quantskew.checks import check_known
from quantskew.figures.style import TEMPLATES, book_style
from quantskew.files import digest

_DPI = 160
# CSS pixels an inch: what matplotlib draws in points has the size of the page's own text.
_SCREEN = 110


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
    few = picture.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # Its white is the mean of all that is nearly white.
    few.putpalette([255 if value >= 254 else value for value in few.getpalette()])
    few.save(content, "PNG")
    return content.getvalue()


def beside(pictures):
    """PNG pictures of the same height in a row, as one PNG; bytes."""
    parts = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in pictures]
    return _encoded(Image.fromarray(np.hstack(parts)))


def shown(content, alt, caption, table):
    """A PNG of `png` with its caption and, folded below it, all its numbers, as HTML that holds its own data.

    Examples
    --------
    >>> import pandas as pd
    >>> import matplotlib.pyplot as plt
    >>> shown(png(plt.figure(figsize=(1, 2))), "An empty box", "No data", pd.DataFrame())[:59]
    '<figure><img alt="An empty box" width="110" height="220" sr'
    >>> plt.close()
    """
    width, height = (round(pixels * _SCREEN / _DPI) for pixels in Image.open(io.BytesIO(content)).size)
    data = base64.b64encode(content).decode()
    rows = table.rename_axis(index=None, columns=None).to_html(border=0)
    return (
        f'<figure><img alt="{escape(alt)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption>'
        f"<details><summary>All numbers</summary>{rows}</details></figure>"
    )


def share_frame(figures, frame=()):
    """Give figures that are drawn alike the limits of all, and the layout of the first.

    Axes without data take the limits of the others.  A `frame`, whose figures share theirs already, comes
    first, and stays as it is.
    """
    for axes in zip(*(figure.axes for figure in (*figures, *frame)), strict=True):
        filled = [own for own in axes if own.has_data()] or axes
        for name in "xy":
            limits = np.array([getattr(own, f"get_{name}lim")() for own in filled])
            for own in axes[: len(figures)]:
                getattr(own, f"set_{name}lim")(limits.min(), limits.max())
    first, *_ = *frame, *figures
    if not frame:
        with book_style():
            first.draw_without_rendering()
    for figure in figures:
        figure.set_layout_engine("none")
        for own, model in zip(figure.axes, first.axes, strict=True):
            own.set_position(model.get_position())


LOOK = Path(__file__).with_name("control.css").read_text(encoding="utf-8")


def radio_page(title, panels, chosen):
    """Radio buttons over panels (HTML by the button's name), as HTML that needs nothing beside itself.

    Where the page has ``bit-width.js`` all controls of a page and of the next one follow the last choice.

    Examples
    --------
    >>> html = radio_page("Accuracy", {"fp32": "<p>0.9</p>", "int2": "<p>0.1</p>"}, chosen="int2")
    >>> html.count('type="radio"'), html.count("checked>")
    (2, 1)
    """
    check_known("panel", chosen, panels)
    # Named by content: the same on every build, and different for two controls of a page.
    name = f"bit-width-{digest([title, panels])[:8]}"
    template = TEMPLATES.get_template("interactive/control.html")
    return template.render(title=title, panels=panels, chosen=chosen, name=name)
