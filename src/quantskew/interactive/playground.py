"""The playground: every choice of a quantizer, and the whole chain of what it does to each group."""

from dataclasses import dataclass

import ipywidgets
import pandas as pd

from quantskew.interactive.chain import by_group, chain, chain_figure, in_words
from quantskew.interactive.live_model import LiveModel
from quantskew.interactive.pictures import control, fit_frame, png, shown
from quantskew.interactive.widgets import buttons, first_shown, forms, press, refresh
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, SCHEMES, Quantizer

# What each button means to `quantskew.quantization.ptq.quantize_model`; the first ones are the paper's.
_OPTIONS = {
    "scheme": {name: {"scheme": name} for name in SCHEMES},
    "grid": {"per tensor": {}, "per channel": {"per_channel": True}},
    "first and last layer": {"as the others": {}, "int8": {"boundary_precision": "int8"}},
    "batch norm": {"kept": {}, "folded": {"fold_batchnorm": True}},
}


@dataclass(frozen=True, eq=False)
class _Shown:
    """What is shown of one choice."""

    numbers: pd.DataFrame
    picture: bytes
    html: str


class Playground:
    """Choose an experiment, a precision and a quantizer; see the chain of all groups.

    With a kernel every change quantizes the model and measures it, once for each choice.  In a page only the
    precision can be chosen, with all else as it is.  Elsewhere it is a picture.

    Parameters
    ----------
    experiments : sequence of Experiment or str
        To choose from; one is trained, or taken from the cache, when it is chosen.
    precisions : sequence of str
        The first one is the reference.
    seed : int
    data_dir : path, optional
    device : str
        See `quantskew.experiments.catalogue.audit`.

    Raises
    ------
    ValueError
        If there is no experiment or no precision to choose.

    Examples
    --------
    >>> playground = Playground(["digits"])
    >>> playground.choose(precision="int3", grid="per channel")
    >>> playground
    digits, int3, banner, per channel, first and last layer as the others, batch norm kept
    >>> playground.numbers.query("measure == 'fvo'")["precision"].tolist()
    ['fp32', 'int3']
    """

    def __init__(self, experiments, precisions=DEFAULT_PRECISIONS, seed=0, *, data_dir=None, device="auto"):
        if not experiments or not precisions:
            raise ValueError("a playground needs an experiment and a precision; none was given")
        self.precisions = tuple(precisions)
        models = [LiveModel(own, seed, data_dir=data_dir, device=device) for own in experiments]
        self._models = {model.experiment.name: model for model in models}
        self._rows = {
            "experiment": buttons("experiment", tuple(self._models), next(iter(self._models))),
            "precision": buttons("precision", self.precisions, first_shown(self.precisions)),
            **{name: buttons(name, tuple(known), next(iter(known))) for name, known in _OPTIONS.items()},
        }
        self._status, self._area = ipywidgets.HTML(), ipywidgets.HTML()
        for row in self._rows.values():
            row.style.description_width = "9rem"
            row.observe(self._changed, names="value")
        self.widget = ipywidgets.VBox([*self._rows.values(), self._status, self._area])
        # By all that was chosen: what was made once is not made again.
        self._made, self._canvases = {}, {}

    @property
    def choice(self):
        """What is chosen, dict of str to str; see `choose`."""
        return {name: row.value for name, row in self._rows.items()}

    def choose(self, **choice):
        """Do what clicks do.

        Parameters
        ----------
        **choice
            Of ``experiment``, ``precision``, ``scheme``, ``grid``, ``first_and_last_layer`` and
            ``batch_norm``.

        Raises
        ------
        ValueError
            If there is no such choice, or no such button.
        """
        chosen = {name.replace("_", " "): value for name, value in choice.items()}
        unknown = set(chosen) - set(self._rows)
        if unknown:
            raise ValueError(f"unknown choice {min(unknown)!r}; known: {', '.join(self._rows)}")
        for name, value in chosen.items():
            press(self._rows[name], value)

    @property
    def numbers(self):
        """Every measure of what is chosen and of the reference, see `quantskew.interactive.chain.chain`."""
        return self._shown(**self.choice).numbers

    def _changed(self, _):
        refresh(self._status, self._area, repr(self), lambda: self._shown(**self.choice).html)

    def _audit(self, experiment, precision, **choice):
        options = {}
        for name, value in choice.items():
            options |= _OPTIONS[name][value]
        (chosen,) = Quantizer.each([precision], **options)
        return self._models[experiment].audit(chosen, reference=self.precisions[0]).plain()

    def _canvas(self, experiment):
        if experiment not in self._canvases:
            papers = {name: next(iter(known)) for name, known in _OPTIONS.items()}
            self._canvases[experiment] = _Canvas(
                self._audit(experiment, precision, **papers) for precision in self.precisions
            )
        return self._canvases[experiment]

    def _shown(self, **choice):
        key = tuple(choice.values())
        if key not in self._made:
            self._made[key] = self._make(choice)
        return self._made[key]

    def _make(self, choice):
        audit = self._audit(**choice)
        numbers, precision, reference = chain(audit), choice["precision"], self.precisions[0]
        picture = png(self._canvas(choice["experiment"]).draw(audit))
        table, whole = by_group(numbers, precision), in_words(numbers, precision)
        accuracies = ", ".join(f"{group} {value}" for group, value in table["accuracy"].items())
        alt = f"The chain at {_named(choice)}: {whole}; accuracy of each group: {accuracies}."
        hollow = "" if precision == reference else f" (hollow markers: {reference})"
        html = shown(picture, alt, f"{_named(choice)}{hollow}: {whole}", table)
        html = f'<div class="bit-width-panel">{html}</div>'
        return _Shown(numbers, picture, html)

    def __repr__(self):
        return _named(self.choice)

    def _repr_mimebundle_(self, include=None, exclude=None):
        self._changed(None)
        pages = {
            precision: self._shown(**{**self.choice, "precision": precision}) for precision in self.precisions
        }
        panels = {precision: shown.html for precision, shown in pages.items()}
        chosen = self.choice["precision"]
        page = control("Bit-width: the whole chain", panels, chosen)
        return forms(repr(self), page, pages[chosen].picture, self.widget)


class _Canvas:
    """The figure of one experiment, drawn over for each choice, whose axes hold what these Audits show."""

    def __init__(self, audits):
        self._frame = [chain_figure(audit) for audit in audits]
        self._figure = None

    def draw(self, audit):
        self._figure = chain_figure(audit, self._figure)
        fit_frame(self._figure, self._frame)
        return self._figure


def _named(choice):
    """A choice in words."""
    experiment, precision, scheme, grid, layers, norms = choice.values()
    return f"{experiment}, {precision}, {scheme}, {grid}, first and last layer {layers}, batch norm {norms}"
