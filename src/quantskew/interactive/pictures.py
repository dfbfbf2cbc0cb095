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


def control(title, panels, chosen):
    """Radio buttons over panels, as HTML that needs nothing beside itself.

    Where the page has ``bit-width.js`` all controls of a page and of the next one follow the last choice.

    Parameters
    ----------
    title : str
    panels : dict of str to str
        HTML by the name of its radio button.
    chosen : str
        The panel that is shown first.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such panel.

    Examples
    --------
    >>> html = control("Accuracy", {"fp32": "<p>0.9</p>", "int2": "<p>0.1</p>"}, chosen="int2")
    >>> html.count('type="radio"'), html.count("checked>")
    (2, 1)
    """
    if chosen not in panels:
        raise ValueError(f"there is no panel {chosen!r}; there are {', '.join(panels)}")
    # Named by content: the same on every build, and different for two controls of a page.
    name = f"bit-width-{digest([title, panels])[:8]}"
    buttons, rules, shown = [], [], []
    for place, (value, panel) in enumerate(panels.items()):
        mark = " checked" if value == chosen else ""
        button = f"{name}-{place}"
        buttons.append(
            f'<input type="radio" name="{name}" id="{button}" value="{escape(value)}"{mark}>'
            f'<label for="{button}">{escape(value)}</label>'
        )
        rules.append(f"#{button}:checked ~ .bit-width-panels > :nth-child({place + 1})")
        shown.append(f"<div>{panel}</div>")
    rules = f"{', '.join(rules)} {{ display: block; }}\n"
    return (
        f'<style>{LOOK}{rules}</style><fieldset class="bit-width"><legend>{escape(title)}</legend>'
        f'{"".join(buttons)}<div class="bit-width-panels">{"".join(shown)}</div></fieldset>'
    )
