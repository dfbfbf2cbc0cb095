"""The bit-width control: alive with a kernel, radio buttons over pictures without one, else a picture."""

import base64
from html import escape

import ipywidgets

from quantskew.interactive.panels import Panels
from quantskew.interactive.pictures import LOOK, control
from quantskew.quantization.quantizer import SCHEMES

_WIDGET = "application/vnd.jupyter.widget-view+json"
_PAPERS = "int4"


def bit_width(view, audits, model=None, scheme="banner", precisions=None):
    """A figure and its numbers at a precision that the reader chooses, of several experiments side by side.

    Parameters
    ----------
    view : quantskew.interactive.views.View
    audits : dict of str to Audit
        By title.  The first is the model's, where there is one; the others are read as they are.
    model : quantskew.interactive.live_model.LiveModel, optional
        What the first column is computed from after each choice; without one every Audit is only read.
    scheme : str
        The quantizer of the first Audit, with which the model begins.
    precisions : sequence of str, optional
        By default those of the first Audit.

    Returns
    -------
    BitWidth

    Raises
    ------
    ValueError
        If there is nothing to choose, the scheme is not known, or a precision has no Audit and no model to
        make it.

    Examples
    --------
    >>> from quantskew.interactive import views
    >>> from quantskew.audits.audit import Audit
    >>> logits = {"fp32": [[2.0, 1.0], [0.0, 3.0]], "int2": [[2.0, 1.0], [1.0, 0.5]]}
    >>> audit = Audit.from_logits(logits, labels=[0, 1], groups=["a", "b"])
    >>> chosen = bit_width(views.ACCURACY, {"two images": audit})
    >>> chosen
    Accuracy of each group at int2 (of fp32, int2): two images
    >>> chosen.value = "fp32"
    >>> chosen.numbers["two images"].query("group == 'FVO'")["value"].tolist()
    [0.0]
    """
    if not audits:
        raise ValueError("a control needs an Audit to show; none was given")
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    precisions = tuple(precisions or next(iter(audits.values())).precisions)
    for precision in precisions:
        if model is None and not any(precision in audit.precisions for audit in audits.values()):
            raise ValueError(f"no Audit has {precision!r}, and there is no model to make one")
    return BitWidth(Panels(view, audits, precisions, model, scheme))


class BitWidth:
    """The control that `bit_width` makes; a notebook shows it in the form that fits.

    With a kernel: buttons, each of which computes figure and numbers anew from the model.  In a page: radio
    buttons over pictures.  Elsewhere: a picture.

    Parameters
    ----------
    panels : Panels
    """

    def __init__(self, panels):
        self.panels = panels
        self._precision = buttons("Precision", panels.precisions, first_shown(panels.precisions))
        self._scheme = buttons("Scheme", SCHEMES, panels.scheme)
        self._status, self._area = ipywidgets.HTML(), ipywidgets.HTML()
        choices = [self._precision] if panels.model is None else [self._precision, self._scheme]
        self.widget = ipywidgets.VBox([*choices, self._status, self._area])
        for choice in choices:
            choice.observe(self._choose, names="value")
        # What the chapter has measured is shown until something is chosen.
        self._recomputed = False

    @property
    def value(self):
        """The precision that is shown; setting it does what a click does."""
        return self._precision.value

    @value.setter
    def value(self, precision):
        press(self._precision, precision)

    @property
    def scheme(self):
        """The quantizer of the model; setting it does what a click does."""
        return self._scheme.value

    @scheme.setter
    def scheme(self, scheme):
        press(self._scheme, scheme)

    @property
    def numbers(self):
        """The numbers that are shown, dict of str to pandas.DataFrame (see `interactive.views.View`)."""
        return self.panels.numbers(*self._choice())

    def _choice(self):
        return self.value, self.scheme if self._recomputed else None

    def _choose(self, _):
        self._recomputed = self.panels.model is not None
        refresh(self._status, self._area, self.value, lambda: self.panels.html(*self._choice()))

    def __repr__(self):
        known = ", ".join(self.panels.precisions)
        return f"{self.panels.view.title} at {self.value} (of {known}): {', '.join(self.panels.audits)}"

    def _repr_mimebundle_(self, include=None, exclude=None):
        self._area.value = f"<style>{LOOK}</style>{self.panels.html(*self._choice())}"
        pages = {precision: self.panels.html(precision) for precision in self.panels.precisions}
        page = control(f"Bit-width: {self.panels.view.title}", pages, self.value)
        return forms(repr(self), page, self.panels.picture(self.value), self.widget)


def first_shown(precisions):
    """The precision that a control shows first: the paper's, or the last one where that is missing."""
    return _PAPERS if _PAPERS in precisions else precisions[-1]


def forms(words, page, picture, widget):
    """All forms of a control, for whatever shows the notebook; the widget's is for a kernel.

    Parameters
    ----------
    words, page : str
        Plain text and HTML.
    picture : bytes
        PNG.
    widget : ipywidgets.Widget

    Returns
    -------
    dict of str to object
        By MIME type.
    """
    return {
        "text/plain": words,
        "text/html": page,
        "image/png": base64.b64encode(picture).decode(),
        _WIDGET: widget._repr_mimebundle_()[_WIDGET],
    }


def refresh(status, area, choice, make):
    """Fill an area with new HTML; say what goes on meanwhile, and what went wrong.

    Parameters
    ----------
    status, area : ipywidgets.HTML
    choice : str
        What is being measured, in words.
    make : callable
        Returns the HTML.
    """
    status.value = f'<p role="status">measuring {escape(choice)} …</p>'
    try:
        area.value = f"<style>{LOOK}</style>{make()}"
    except Exception as error:
        # Raised from here it would reach a log that no reader sees.
        status.value = f'<p role="alert">{escape(f"{type(error).__name__}: {error}")}</p>'
    else:
        status.value = ""


def buttons(description, options, value):
    """A row of buttons of which one is pressed, for one choice of a control."""
    return ipywidgets.ToggleButtons(
        options=options, value=value, description=description, style={"button_width": "auto"}
    )


def press(row, value):
    """Press one of the buttons of a row, as a click does; ValueError if there is no such button."""
    if value not in row.options:
        raise ValueError(f"there is no {value!r} to choose; there are {', '.join(row.options)}")
    row.value = value
