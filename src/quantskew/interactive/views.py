"""What a control shows of one precision beside the reference: a figure, its numbers, and both in words."""

from dataclasses import dataclass, field
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from quantskew.figures import rows
from quantskew.figures.style import book_style, compare, crossed, group_looks, number, written
from quantskew.measures.fairness import fvo, overall_accuracy
from quantskew.measures.forward import cosine_distance, dtdb, group_accuracy, group_loss, logit_variance
from quantskew.measures.measure import MEASURES, MODEL_MEASURES, OVERALL, Measure, audit_rows
from quantskew.measures.surface import gradient_norm, lambda_max
from quantskew.measures.weights import absolute_difference, sparsity

_ACROSS = 3


@dataclass(frozen=True)
class View:
    """A figure of functions of `figures.rows`, one below the other, and the numbers of a measure.

    ``whole`` are tables without groups by the name of their row; ``surface`` is what `LiveModel.audit` has to
    measure of the loss; ``height`` is that of each row of the figure, in inches.
    """

    title: str
    draw: tuple
    measure: Measure | None = None
    whole: dict = field(default_factory=dict)
    height: float = 2.9
    surface: str | None = None

    @classmethod
    def of(cls, title, *measures, **options):
        """The view of some measures, with the numbers of the first one."""
        return cls(title, tuple(map(rows.of, measures)), measures[0], **options)

    def figure(self, audit, named, _=None):
        """The figure of an Audit that has this name."""
        return compare(self.draw, {named: audit}, self.height, legend=False, width=3.7)

    def numbers(self, audit):
        """A table: ``group`` (what a row is of), ``precision``, ``value``; where it has some, intervals."""
        tables = [of(audit).assign(group=name) for name, of in self.whole.items()]
        return pd.concat([*tables, *([self.measure(audit)] if self.measure else [])], ignore_index=True)

    def headline(self, audit):
        """The rows of the caption by what introduces them: of the whole model, or the ends of the groups."""
        if self.whole:
            return {row: row for row in self.whole}
        order = [look.name for look in group_looks(audit)]
        words = {order[0]: "most training images"} | dict.fromkeys(order[1:][-1:], "fewest")
        return {f"{name} ({said})": name for name, said in words.items()}

    def words(self, audit, numbers, named):
        """What the picture shows, for those who do not see it; its caption; the table for below."""
        # Of the weights only few are moved or turned to zero by a high precision.
        own = self.measure
        look = {"digits": own.digits, "scientific": own.scientific} if own else {"digits": 4}
        table, precision = crossed(numbers, "group", "precision", **look, like=audit), audit.precisions[-1]
        values = numbers[numbers["precision"] == precision].set_index("group")["value"]
        spoken = ", ".join(f"{row} {number(value, **look)}" for row, value in values.items())
        cells = table[precision]
        caption = "; ".join(f"{said}: {cells[row]}" for said, row in self.headline(audit).items())
        return f"{self.title}, {named}: {spoken}.", caption, table


_ACCURACIES = {"overall accuracy": overall_accuracy, "FVO": fvo}
_WEIGHTS = {"share of zeros": sparsity, "mean |W~ − W|": partial(absolute_difference, mean=True)}
_LOGITS = cosine_distance, logit_variance
VIEWS = {
    "accuracy": View.of("Accuracy of each group", group_accuracy, whole=_ACCURACIES),
    "weights": View("Distribution of the weights", (rows.weight_distribution,), whole=_WEIGHTS),
    "logits": View.of("Cosine distance and variance of the logits", *_LOGITS, height=2.4),
    "boundary": View("Distance to the decision boundary", (rows.dtdb_distribution,), dtdb, height=3.4),
    "loss": View.of("Loss of each group", group_loss),
    "gradients": View.of("Gradient norm of each group", gradient_norm, surface="gradients"),
    "hessian": View.of("Largest Hessian eigenvalue of each group", lambda_max, surface="hessian"),
}


class Chain:
    """Every measure of the chain at once: as a `View`, but with a panel a measure, however many there are."""

    title = "the whole chain"

    @property
    def measures(self):
        """The measures that have a panel, in the order of the chain."""
        return [measure for measure in MEASURES.values() if measure.chain]

    def numbers(self, audit):
        """As `audit_rows`, with the ``measure`` ``sparsity`` of the whole model too."""
        zeros = sparsity(audit).assign(measure="sparsity", group=OVERALL)
        return pd.concat([audit_rows(audit), zeros], ignore_index=True)

    def table(self, numbers, precision):
        """The numbers of one precision for reading: groups down, measures across."""
        own = numbers[(numbers["precision"] == precision) & (numbers["group"] != OVERALL)]
        values = own.pivot(index="group", columns="measure", values="value").loc[own["group"].unique()]
        columns = {
            m.title: [number(value, m.digits, m.scientific) for value in values[m.key]] for m in self.measures
        }
        return pd.DataFrame(columns, values.index).replace("nan", "not defined")

    def words(self, audit, numbers, named):
        """As those of a `View`."""
        precision = audit.precisions[-1]
        table = self.table(numbers, precision)
        whole = crossed(numbers[numbers["group"] == OVERALL], "measure", "precision", digits=2)[precision]
        titles = {"sparsity": "share of zeros"} | {m.key: m.title for m in MODEL_MEASURES.values() if m.chain}
        said = "; ".join(f"{title} {whole[key]}" for key, title in titles.items())
        accuracies = ", ".join(f"{group} {value}" for group, value in table[group_accuracy.title].items())
        alt = f"The chain at {named}: {said}; accuracy of each group: {accuracies}."
        hollow = f" (hollow markers: {audit.precisions[0]})" if len(audit.precisions) > 1 else ""
        return alt, f"{named}{hollow}: {said}", table

    def figure(self, audit, _, figure=None):
        """The panels; over an earlier figure of the same groups they take a third less time."""
        with book_style():
            figure = figure or self._empty(len(audit.group_names))
            for place, (axes, measure) in enumerate(zip(figure.axes, self.measures, strict=True)):
                for artist in [*axes.lines, *axes.collections, *axes.patches, *axes.texts]:
                    artist.remove()
                axes.ignore_existing_data_limits = True
                axes.autoscale(True)
                rows.of(measure)(audit, axes)
                axes.set_xlabel(axes.get_xlabel().partition("\n")[0])
                if place % _ACROSS:
                    axes.set_ylabel("")
                    axes.set_yticks([])
            return written(figure)

    def _empty(self, groups):
        """Empty panels at fixed places: to find places that fit would take longer than to draw."""
        down = -(-len(self.measures) // _ACROSS)
        figure = Figure(figsize=(7.6, down * (0.45 + 0.21 * max(groups, 6))))
        for axes in figure.subplots(down, _ACROSS, squeeze=False).flat[len(self.measures) :]:
            axes.remove()
        ends = {"top": 1 - 0.06 / down, "bottom": 0.26 / down}
        figure.subplots_adjust(left=0.1, right=0.98, **ends, hspace=0.45, wspace=0.12)
        return figure


CHAIN = Chain()
