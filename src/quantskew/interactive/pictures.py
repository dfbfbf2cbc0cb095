"""Pictures inside of a page: small files with words, and axes that stand still while the data change."""

import base64
import io
from html import escape

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from quantskew.cache import digest
from quantskew.figures.style import book_style

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


# Colours are the theme's where there is one, so that they follow its dark mode.
LOOK = """
.bit-width { border: 1px solid var(--pst-color-border, #888); border-radius: .4rem; margin: 0 0 1rem;
  min-width: 0; padding: .4rem .6rem; position: relative; }
.bit-width legend { float: none; font-size: 1rem; font-weight: 600; margin: 0; padding: 0 .3rem;
  width: auto; }
.bit-width > input { height: 1px; margin: 0; opacity: 0; position: absolute; width: 1px; }
.bit-width > label { border: 1px solid var(--pst-color-text-muted, #666); border-radius: .3rem;
  cursor: pointer; display: inline-block; line-height: 1.4; margin: 0 .3rem .4rem 0; padding: .25rem .6rem; }
.bit-width > input:checked + label { background: var(--pst-color-text-base, #222);
  color: var(--pst-color-background, #fff); text-decoration: underline; }
.bit-width > input:focus-visible + label { outline: 3px solid var(--pst-color-primary, #459db9);
  outline-offset: 2px; }
.bit-width-panels > * { display: none; }
.bit-width-panel { display: flex; flex-wrap: wrap; gap: .6rem 1rem; }
.bit-width-panel > * { flex: 1 1 16rem; margin: 0; min-width: 0; }
.bit-width-panel img { background: #fff; height: auto; max-width: 100%; }
.bit-width-panel figure > :is(figcaption, details) { font-size: .85rem; }
.bit-width-panel figure > figcaption { color: inherit; font-family: inherit; font-weight: inherit;
  margin: .2rem 0; text-align: left; }
.bit-width-panel td { white-space: nowrap; }
.bit-width-panel details { overflow-x: auto; }
"""


def radio_page(title, panels, chosen):
    """Radio buttons over panels (HTML by the button's name), as HTML that needs nothing beside itself.

    Where the page has ``bit-width.js`` all controls of a page and of the next one follow the last choice.

    Examples
    --------
    >>> html = radio_page("Accuracy", {"fp32": "<p>0.9</p>", "int2": "<p>0.1</p>"}, chosen="int2")
    >>> html.count('type="radio"'), html.count("checked>")
    (2, 1)
    """
    if chosen not in panels:
        raise ValueError(f"there is no panel {chosen!r}; there are {', '.join(panels)}")
    # Named by content: the same on every build, and different for two controls of a page.
    name = f"bit-width-{digest([title, panels])[:8]}"
    buttons, rules = "", []
    for place, value in enumerate(panels):
        mark, button = " checked" if value == chosen else "", f"{name}-{place}"
        buttons += f'<input type="radio" name="{name}" id="{button}" value="{escape(value)}"{mark}>'
        buttons += f'<label for="{button}">{escape(value)}</label>'
        rules.append(f"#{button}:checked ~ .bit-width-panels > :nth-child({place + 1})")
    shown = "".join(f"<div>{panel}</div>" for panel in panels.values())
    return (
        f"<style>{LOOK}{', '.join(rules)} {{ display: block; }}\n</style>"
        f'<fieldset class="bit-width"><legend>{escape(title)}</legend>{buttons}'
        f'<div class="bit-width-panels">{shown}</div></fieldset>'
    )
