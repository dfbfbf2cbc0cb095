"""The impact flow of quantization (Fig. 2 of the paper): the chain that the chapters follow."""

from dataclasses import dataclass
from html import escape

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from quantskew.style import book_style


@dataclass(frozen=True)
class Stage:
    """One link of the chain: its name, what happens there, its chapter (None where there is none yet)."""

    name: str
    happens: str
    section: str
    chapter: str | None


FORWARD = (
    Stage("weights", "move and turn to zero", "4.1", "01_weights"),
    Stage("logits", "turn and lose variance", "4.2", "02_logits"),
    Stage("softmax", "moves to the boundary", "4.2", "03_softmax"),
    Stage("loss", "rises, accuracy falls", "4.3", "04_loss"),
)
BACKWARD = (
    Stage("gradients", "grow for small groups", "4.4", "05_gradients"),
    Stage("Hessian", "shows steeper loss", "4.5", "06_hessian"),
)


class Map:
    """The chain as a row of links, with one stage marked: the reader's place.

    Parameters
    ----------
    here : str, optional
        Name of the stage of this chapter.

    Raises
    ------
    ValueError
        If there is no such stage.

    Examples
    --------
    >>> Map("logits")
    weights → [logits] → softmax → loss → gradients → Hessian
    """

    def __init__(self, here=None):
        names = [stage.name for stage in FORWARD + BACKWARD]
        if here is not None and here not in names:
            raise ValueError(f"unknown stage {here!r}; known: {', '.join(names)}")
        self.here = here

    def __repr__(self):
        names = [f"[{s.name}]" if s.name == self.here else s.name for s in FORWARD + BACKWARD]
        return " → ".join(names)

    def _repr_html_(self):
        items = "".join(self._item(stage) for stage in FORWARD + BACKWARD)
        return f'<nav class="impact-flow" aria-label="Impact flow of quantization"><ol>{items}</ol></nav>'

    def _item(self, stage):
        text = f"<strong>{escape(stage.name)}</strong> <span>{escape(stage.happens)}</span>"
        if stage.name == self.here:
            return f'<li class="here" aria-current="page">{text}</li>'
        if stage.chapter is None:
            return f"<li>{text}</li>"
        return f'<li><a href="{stage.chapter}.html">{text}</a></li>'


def picture():
    """The impact flow as a figure: the forward pass above, the backward pass below."""
    with book_style():
        figure, axes = plt.subplots(figsize=(7.4, 3.0), layout="constrained")
        _draw(axes)
        plt.close(figure)
    return figure


def _draw(axes):
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 4)
    axes.axis("off")
    axes.text(0.1, 3.75, "forward pass", fontweight="bold")
    axes.text(0.1, 0.1, "backward pass, without an update", fontweight="bold")
    for column, stage in enumerate(FORWARD):
        _box(axes, 0.1 + 2.5 * column, 2.4, stage, "#e9e4f2")
    for column, stage in enumerate(BACKWARD):
        _box(axes, 7.6 - 2.5 * column, 0.6, stage, "#fbe6d4")
    for column in range(3):
        _arrow(axes, (2.3 + 2.5 * column, 2.95), (2.6 + 2.5 * column, 2.95))
    _arrow(axes, (8.7, 2.4), (8.7, 1.7))
    _arrow(axes, (7.6, 1.15), (7.3, 1.15))
    axes.text(0.1, 1.15, "lower precision", va="center", fontstyle="italic")
    _arrow(axes, (1.2, 1.4), (1.2, 2.4))


def _box(axes, x, y, stage, color):
    axes.add_patch(
        FancyBboxPatch((x, y), 2.2, 1.1, boxstyle="round,pad=0,rounding_size=0.12", fc=color, ec="#444444")
    )
    axes.text(x + 1.1, y + 0.78, stage.name, ha="center", va="center", fontweight="bold")
    axes.text(
        x + 1.1, y + 0.33, f"{stage.happens}\n(section {stage.section})", ha="center", va="center", fontsize=8
    )


def _arrow(axes, start, end):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#444444"})
