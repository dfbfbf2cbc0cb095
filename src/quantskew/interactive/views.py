"""What a bit-width control shows: a figure and the numbers of one precision beside the reference."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from quantskew.figures import rows
from quantskew.figures.style import crossed, group_order
from quantskew.measures import fairness, forward, surface, weights
from quantskew.measures.forward import cosine_distance


@dataclass(frozen=True)
class View:
    """A figure, its numbers, and which of them are said in a sentence.

    Attributes
    ----------
    title : str
        What is shown, without the precision.
    draw : tuple of callable
        Functions of an Audit and axes, one below the other (see `quantskew.figures.rows`).
    numbers : callable
        Audit -> table with columns ``group`` (what the row is of), ``precision`` and ``value``, and ``low``
        and ``high`` where there are intervals.
    headline : callable
        Audit -> dict of words to the ``group`` of the number that they introduce.
    digits, scientific
        See `quantskew.measures.measure.number`.
    height : float
        Of each row of the figure, in inches.
    surface : str, optional
        What of the loss surface it needs, see `quantskew.interactive.live_model.LiveModel.audit`.
    """

    title: str
    draw: tuple
    numbers: Callable
    headline: Callable
    digits: int = 2
    scientific: bool = False
    height: float = 2.9
    surface: str | None = None

    def table(self, numbers):
        """The numbers for reading: rows down, precisions across."""
        return crossed(numbers, "group", "precision", digits=self.digits, scientific=self.scientific)


def _ends(audit):
    """The groups with most and with fewest training images."""
    order = [audit.group_names[group] for group in group_order(audit)]
    words = {order[0]: "most training images"} | dict.fromkeys(order[1:][-1:], "fewest")
    return {f"{name} ({said})": name for name, said in words.items()}


def _accuracies(audit):
    whole = {"overall accuracy": fairness.overall_accuracy(audit), "FVO": fairness.fvo(audit)}
    rows = [table.assign(group=name) for name, table in whole.items()]
    return pd.concat([*rows, forward.group_accuracy(audit)], ignore_index=True)


def _weights(audit):
    rows = {
        "share of zeros": weights.sparsity(audit),
        "mean |W~ − W|": weights.absolute_difference(audit, mean=True),
    }
    return pd.concat([table.assign(group=name) for name, table in rows.items()], ignore_index=True)


def _norms(audit):
    # A norm is exact for its images: it has no interval.
    return surface.gradient_norm(audit).drop(columns=["low", "high"])


def _itself(*names):
    return lambda audit: {name: name for name in names}


ACCURACY = View(
    "Accuracy of each group",
    (rows.of(forward.group_accuracy),),
    _accuracies,
    _itself("overall accuracy", "FVO"),
)
WEIGHTS = View(
    "Distribution of the weights",
    (rows.weight_distribution,),
    _weights,
    _itself("share of zeros", "mean |W~ − W|"),
    digits=4,
)
LOGITS = View(
    "Cosine distance and variance of the logits",
    (rows.of(forward.cosine_distance), rows.of(forward.logit_variance)),
    cosine_distance,
    _ends,
    digits=1,
    scientific=True,
    height=2.4,
)
BOUNDARY = View(
    "Distance to the decision boundary", (rows.dtdb_distribution,), forward.dtdb, _ends, height=3.4
)
LOSS = View("Loss of each group", (rows.of(forward.group_loss),), forward.group_loss, _ends)
GRADIENTS = View(
    "Gradient norm of each group", (rows.of(surface.gradient_norm),), _norms, _ends, surface="gradients"
)
HESSIAN = View(
    "Largest Hessian eigenvalue of each group",
    (rows.of(surface.lambda_max),),
    surface.lambda_max,
    _ends,
    digits=1,
    surface="hessian",
)
