"""The control of a page: alive with a kernel, radio buttons over pictures without one, else a picture."""

import base64
from collections import ChainMap, namedtuple
from functools import partial
from html import escape

import ipywidgets

from quantskew.checks import check_known
from quantskew.interactive.live_model import LiveModel
from quantskew.interactive.pictures import LOOK, beside, png, radio_page, share_frame, shown
from quantskew.interactive.views import CHAIN, VIEWS
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, SCHEMES, Quantizer

_WIDGET = "application/vnd.jupyter.widget-view+json"
# What each button of the playground means to a `Quantizer`; the first ones are the paper's.
OPTIONS = {
    "scheme": {name: {"scheme": name} for name in SCHEMES},
    "grid": {"per tensor": {}, "per channel": {"per_channel": True}},
    "first_and_last_layer": {"as the others": {}, "int8": {"boundary_precision": "int8"}},
    "batch_norm": {"kept": {}, "folded": {"fold_batchnorm": True}},
}


def bit_width(view, audits, model=None, scheme="banner"):
    """A figure and its numbers at a precision that the reader chooses, of several experiments side by side.

    Parameters
    ----------
    view : str
        ``accuracy``, ``weights``, ``logits``, ``boundary``, ``loss``, ``gradients`` or ``hessian``.
    audits : dict of str to Audit
        By title.  The first is the model's, where there is one; the others are read as they are.
    model : quantskew.interactive.live_model.LiveModel, optional
        What the first column is computed from after each press; without one every Audit is only read.
    scheme : str
        Of the first Audit, with which the model begins.

    Raises
    ------
    ValueError
        If there is nothing to choose, or a name is not known.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> logits = {"fp32": [[2.0, 1.0], [0.0, 3.0]], "int2": [[2.0, 1.0], [1.0, 0.5]]}
    >>> chosen = bit_width("accuracy", {"two": Audit.from_logits(logits, [0, 1], groups=["a", "b"])})
    >>> chosen
    Accuracy of each group at int2 (of fp32, int2): two
    >>> chosen.choose(precision="fp32")
    >>> chosen.numbers["two"].query("group == 'FVO'")["value"].tolist()
    [0.0]
    """
    check_known("view", view, VIEWS)
    check_known("scheme", scheme, SCHEMES)
    if not audits:
        raise ValueError("a control needs an Audit to show; none was given")
    view = VIEWS[view]
    # Precision and scheme have buttons of their own.
    audits = {title: audit.plain() for title, audit in audits.items()}
    title, own = next(iter(audits.items()))
    rows = {"precision": _buttons("Precision", own.precisions)}
    if model is not None:
        rows["scheme"] = _buttons("Scheme", SCHEMES, scheme)

    def columns(precision, scheme=None):
        found = {key: (f"{key}, {precision}", partial(_read, own, precision)) for key, own in audits.items()}
        if scheme:
            (quantizer,) = Quantizer.each([precision], scheme=scheme)
            # Floating point has no grid to choose.
            if quantizer.bits:
                made = partial(model.audit, quantizer, view.surface, own.precisions[0])
                found[title] = f"{title}, {precision}, {scheme}", lambda: made().plain()
        return found

    def words(precision, **_):
        return f"{view.title} at {precision} (of {', '.join(own.precisions)}): {', '.join(audits)}"

    # Until something is chosen no Audit is made by a scheme: what the chapter has measured is shown.
    return Control(view, rows, columns, {"scheme": None}, words)


def playground(experiments, precisions=DEFAULT_PRECISIONS, seed=0, *, data_dir=None, device="auto"):
    """Every choice of a quantizer, and the whole chain of what it does to each group.

    Parameters
    ----------
    experiments : sequence of Experiment or str
        To choose from; one is trained, or taken from the cache, when it is chosen.
    precisions : sequence of str
        The first one is the reference.
    seed, data_dir, device
        See `quantskew.interactive.live_model.LiveModel`.

    Raises
    ------
    ValueError
        If there is no experiment or no precision to choose.

    Examples
    --------
    >>> chosen = playground(["digits"])
    >>> chosen.choose(precision="int3", grid="per channel")
    >>> chosen
    digits, int3, banner, per channel, first and last layer as the others, batch norm kept
    >>> chosen.numbers["digits"].query("measure == 'fvo'")["precision"].tolist()
    ['fp32', 'int3']
    """
    if not experiments or not precisions:
        raise ValueError("a playground needs an experiment and a precision; none was given")
    models = [LiveModel(own, seed, data_dir=data_dir, device=device) for own in experiments]
    models = {model.experiment.name: model for model in models}
    first = {name: next(iter(known)) for name, known in OPTIONS.items()}
    start = {"experiment": next(iter(models)), **first}
    known = {"experiment": models, "precision": precisions, **OPTIONS}
    rows = {
        name: _buttons(name, tuple(own), start.get(name), description_width="9rem")
        for name, own in known.items()
    }

    def audit(experiment, precision, **choice):
        options = ChainMap(*(OPTIONS[name][value] for name, value in choice.items()))
        (quantizer,) = Quantizer.each([precision], **options)
        return models[experiment].audit(quantizer, reference=precisions[0]).plain()

    def columns(**choice):
        return {choice["experiment"]: (words(**choice), partial(audit, **choice))}

    def words(**choice):
        *others, layers, norms = choice.values()
        return f"{', '.join(others)}, first and last layer {layers}, batch norm {norms}"

    return Control(CHAIN, rows, columns, first, words)


_Shown = namedtuple("_Shown", "numbers picture html")


class Control:
    """Buttons, and what they choose as figure and numbers; a notebook shows it in the form that fits.

    With a kernel every press quantizes the model and measures it, once for each choice.  In a page only the
    precision can be chosen, with all else as it is.  Elsewhere it is a picture.

    ``rows`` are the buttons of each choice, one of them the ``precision``.  ``columns`` takes a choice and
    gives by title what is shown: its name, and a function that gives the Audit, or None where there is none.
    ``first`` are choices, precision apart: of the figures that give axes their place, and of what is shown
    until something is chosen.  ``words`` says a choice.
    """

    def __init__(self, view, rows, columns, first, words):
        self.view, self._rows, self._columns, self._first, self._words = view, rows, columns, first, words
        self._status, self._area = ipywidgets.HTML(), ipywidgets.HTML()
        self.widget = ipywidgets.VBox([*rows.values(), self._status, self._area])
        for row in rows.values():
            row.observe(self._press, names="value")
        self._pressed = False
        # By what it is called: what was made once is not made again.
        self._made, self._frames, self._canvases = {}, {}, {}

    @property
    def choice(self):
        """What is chosen, dict of str to str."""
        return {name: row.value for name, row in self._rows.items()}

    def choose(self, **choice):
        """Do what clicks do, such as ``choose(precision="int3")``; names that are not known are refused."""
        for name, value in choice.items():
            check_known("choice", name, self._rows)
            check_known(name, value, self._rows[name].options)
        for name, value in choice.items():
            self._rows[name].value = value

    @property
    def numbers(self):
        """The numbers that are shown, dict of str to pandas.DataFrame, by title."""
        return {title: own.numbers for title, own in self._shown(self._asked).items() if own}

    @property
    def _asked(self):
        return self.choice if self._pressed else self.choice | self._first

    def _press(self, _):
        self._pressed = True
        try:
            named, _ = next(iter(self._columns(**self.choice).values()))
            self._status.value = f'<p role="status">measuring {escape(named)} …</p>'
            self._show()
            self._status.value = ""
        except Exception as error:
            # Raised from here it would reach a log that no reader sees.
            self._status.value = f'<p role="alert">{escape(f"{type(error).__name__}: {error}")}</p>'

    def _show(self):
        self._area.value = f"<style>{LOOK}</style>{self._html(self._asked)}"

    def _html(self, choice):
        parts = [
            own.html if own else f"<p>{escape(title)} has no {escape(choice['precision'])}.</p>"
            for title, own in self._shown(choice).items()
        ]
        return f'<div class="bit-width-panel">{"".join(parts)}</div>'

    def _shown(self, choice):
        """What is shown of a choice, by title; None where there is no Audit."""
        found = self._columns(**choice)
        for title, (named, audit) in found.items():
            if named not in self._made:
                own = audit()
                self._made[named] = own and self._draw(title, named, own, choice)
        return {title: self._made[named] for title, (named, _) in found.items()}

    def _draw(self, title, named, audit, choice):
        frame = self._frame(title, choice)
        figure = frame.get(named)
        if figure is None:
            figure = self._canvases[title] = self.view.figure(audit, named, self._canvases.get(title))
            share_frame([figure], frame.values())
        numbers, picture = self.view.numbers(audit), png(figure)
        return _Shown(numbers, picture, shown(picture, *self.view.words(audit, numbers, named)))

    def _frame(self, title, choice):
        """The figures of the first choices, by what they are called: axes move from none to the next."""
        if title not in self._frames:
            known = self._rows["precision"].options
            firsts = ({**choice, **self._first, "precision": precision} for precision in known)
            audits = {named: audit() for named, audit in (self._columns(**own)[title] for own in firsts)}
            self._frames[title] = {key: self.view.figure(own, key) for key, own in audits.items() if own}
            share_frame(self._frames[title].values())
        return self._frames[title]

    def __repr__(self):
        return self._words(**self.choice)

    def _repr_mimebundle_(self, include=None, exclude=None):
        self._show()
        asked = self._asked
        pages = {name: self._html(asked | {"precision": name}) for name in self._rows["precision"].options}
        pictures = [own.picture for own in self._shown(asked).values() if own]
        return {
            "text/plain": repr(self),
            "text/html": radio_page(f"Bit-width: {self.view.title}", pages, asked["precision"]),
            "image/png": base64.b64encode(beside(pictures)).decode(),
            _WIDGET: self.widget._repr_mimebundle_()[_WIDGET],
        }


def _buttons(name, options, value=None, **style):
    """A row of buttons, of which one is pressed: by default the paper's precision, else the last."""
    value = value or ("int4" if "int4" in options else options[-1])
    style, name = {"button_width": "auto", **style}, name.replace("_", " ")
    return ipywidgets.ToggleButtons(options=options, value=value, description=name, style=style)


def _read(audit, precision):
    """The reference and one precision of an Audit; None where it has no such precision."""
    pair = dict.fromkeys((audit.precisions[0], precision))
    return audit.select(pair) if precision in audit.precisions else None
