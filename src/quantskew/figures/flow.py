"""The impact flow of quantization (Fig. 2 of the paper): the chain that the chapters follow.

The map has a place for each chapter: the chain of the paper, and what comes before and after it.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt

from quantskew.checks import check_known
from quantskew.figures.style import TEMPLATES, book_style


@dataclass(frozen=True)
class Stage:
    """One place of the map: its name, what happens there, and the chapter."""

    name: str
    happens: str
    chapter: str


QUESTION = (Stage("problem", "who loses accuracy", "00_problem"),)
FORWARD = (
    Stage("weights", "move and turn to zero", "01_weights"),
    Stage("logits", "turn and lose variance", "02_logits"),
    Stage("softmax", "moves to the boundary", "03_softmax"),
    Stage("loss", "rises, accuracy falls", "04_loss"),
)
BACKWARD = (
    Stage("gradients", "grow for small groups", "05_gradients"),
    Stage("Hessian", "shows steeper loss", "06_hessian"),
)
CAUSES = (Stage("causes", "which links are causes", "10_causes"),)
ANSWERS = (
    Stage("difficulty", "small, or hard?", "07_difficulty"),
    Stage("mitigation", "what helps, and when", "08_mitigation"),
    Stage("calibration", "what helps untrained", "11_calibrated"),
    Stage("scorecard", "which claims hold", "09_what_held_up"),
)
# Only in the passes does one stage lead to the next.
_PARTS = {
    "question": (QUESTION, ", "),
    "forward pass": (FORWARD, " → "),
    "backward pass": (BACKWARD, " → "),
    "interventions": (CAUSES, ", "),
    "what can be done": (ANSWERS, ", "),
}
STAGES = tuple(stage for stages, _ in _PARTS.values() for stage in stages)


class Map:
    """The map of the book, part by part, with one stage marked: the reader's place.

    Its links lead to the chapters' text, so that they open the next notebook in JupyterLab; in the book they
    lead to the pages (`quantskew.book.chapters.build`).

    Examples
    --------
    >>> Map("logits")
    question: problem
    forward pass: weights → [logits] → softmax → loss
    backward pass: gradients → Hessian
    interventions: causes
    what can be done: difficulty, mitigation, calibration, scorecard
    """

    def __init__(self, here=None):
        if here is not None:
            check_known("stage", here, [stage.name for stage in STAGES])
        self.here = here

    def __repr__(self):
        lines = []
        for part, (stages, arrow) in _PARTS.items():
            names = [f"[{s.name}]" if s.name == self.here else s.name for s in stages]
            lines.append(f"{part}: {arrow.join(names)}")
        return "\n".join(lines)

    def _repr_html_(self):
        return TEMPLATES.get_template("figures/map.html").render(parts=_PARTS, here=self.here)


def links(verdicts):
    """Causes on the left, what they are said to do on the right, and how an intervention on each came out.

    Parameters
    ----------
    verdicts : dict of (str, str) to str
        The verdict on each pair of cause and effect; where it is "holds" the link is solid, else dashed.
    """
    with book_style():
        figure, axes = plt.subplots(figsize=(7.4, 0.46 * len(verdicts) + 0.2), layout="constrained")
        axes.set(xlim=(0, 10), ylim=(len(verdicts) - 0.4, -0.6))
        axes.axis("off")
        for row, ((cause, effect), verdict) in enumerate(verdicts.items()):
            axes.text(3.6, row, cause, ha="right", va="center")
            axes.text(7.1, row, effect, va="center")
            held = verdict == "holds"
            look = {"arrowstyle": "-|>", "linestyle": "-" if held else "--", "linewidth": 1.8 if held else 1}
            axes.annotate("", (7.0, row), (3.7, row), arrowprops={**look, "color": "#444444"})
            axes.text(5.3, row - 0.1, verdict, ha="center", va="bottom", fontsize=8.5)
        plt.close(figure)
    return figure
