"""Panels: a view of several experiments side by side, one panel a choice of precision and scheme."""

from dataclasses import dataclass
from functools import cached_property
from html import escape

import pandas as pd

from quantskew.figures.style import compare, number
from quantskew.interactive.pictures import beside, fit_frame, png, share_frame, shown
from quantskew.quantization.quantizer import Quantizer, integer_bits

_PAGE = 7.4


@dataclass(frozen=True, eq=False)
class _Column:
    """One experiment in a panel: its numbers, its picture, and both as HTML."""

    numbers: pd.DataFrame
    picture: bytes
    html: str


class Panels:
    """The panels of a view; what was computed or drawn once is kept.

    Parameters
    ----------
    view : quantskew.interactive.views.View
    audits : dict of str to Audit
        One column each, by its title.
    precisions : sequence of str
    model : quantskew.interactive.live_model.LiveModel, optional
        Of the first column, for what its Audit does not have.
    scheme : str
        Of the first Audit.

    Examples
    --------
    >>> from quantskew.interactive import views
    >>> from quantskew.audits.audit import Audit
    >>> logits = {"fp32": [[2.0, 1.0], [0.0, 3.0]], "int2": [[2.0, 1.0], [1.0, 0.5]]}
    >>> audit = Audit.from_logits(logits, labels=[0, 1], groups=["a", "b"])
    >>> panels = Panels(views.ACCURACY, {"two images": audit}, ["fp32", "int2"])
    >>> panels.numbers("int2")["two images"].query("group == 'FVO'")["value"].tolist()
    [0.0, 1.0]
    """

    def __init__(self, view, audits, precisions, model=None, scheme="banner"):
        self.view, self.audits, self.precisions = view, audits, precisions
        self.model, self.scheme = model, scheme
        self._columns = {}

    def numbers(self, precision, scheme=None):
        """The numbers of each column that has this precision, dict of str to pandas.DataFrame.

        Parameters
        ----------
        precision : str
        scheme : str, optional
            Compute the first column from the model, with this quantizer; by default its Audit is read.
        """
        columns = self._chosen(precision, scheme)
        return {title: column.numbers for title, column in columns.items() if column is not None}

    def html(self, precision, scheme=None):
        """The panel of a choice, as for `numbers`."""
        columns = self._chosen(precision, scheme)
        parts = [
            f"<p>{escape(title)} has no {escape(precision)}.</p>" if column is None else column.html
            for title, column in columns.items()
        ]
        return f'<div class="bit-width-panel">{"".join(parts)}</div>'

    def picture(self, precision):
        """All columns of a precision as one PNG, for where there is no HTML."""
        columns = self._chosen(precision, None).values()
        return beside([column.picture for column in columns if column is not None])

    def _chosen(self, precision, scheme):
        return {title: self._column(title, precision, scheme) for title in self.audits}

    def _is_live(self, title):
        return self.model is not None and title == next(iter(self.audits))

    def _audit(self, title, precision, scheme=None):
        own = self.audits[title]
        if self._is_live(title) and (scheme or precision not in own.precisions):
            (chosen,) = Quantizer.each([precision], scheme=scheme or self.scheme)
            return self.model.audit(chosen, self.view.surface, own.precisions[0]).plain()
        if precision not in own.precisions:
            return None
        return own.select(dict.fromkeys((own.precisions[0], precision)))

    def _title(self, title, precision, scheme=None):
        return f"{title}, {precision}" + (f", {scheme}" if scheme and integer_bits(precision) else "")

    def _column(self, title, precision, scheme):
        key = title, precision, scheme if self._is_live(title) else None
        if key not in self._columns:
            self._columns[key] = self._make(*key)
        return self._columns[key]

    def _make(self, title, precision, scheme):
        audit = self._audit(title, precision, scheme)
        if audit is None:
            return None
        if scheme is None:
            figure = self._figures[title][precision]
        else:
            figure = self._draw(audit, title, precision, scheme)
            fit_frame(figure, list(self._figures[title].values()))
        numbers, picture = self.view.numbers(audit), png(figure)
        named, table = self._title(title, precision, scheme), self.view.table(numbers)
        headline = [
            f"{words}: {table.loc[row, precision]}" for words, row in self.view.headline(audit).items()
        ]
        alt = f"{self.view.title}, {named}: {self._spoken(numbers, precision)}."
        html = shown(picture, alt, "; ".join(headline), table)
        return _Column(numbers, picture, html)

    def _spoken(self, numbers, precision):
        """The numbers of a precision in words: what the picture shows, for those who do not see it."""
        own = numbers[numbers["precision"] == precision]
        digits = self.view.digits, self.view.scientific
        return ", ".join(
            f"{row} {number(value, *digits)}" for row, value in zip(own["group"], own["value"], strict=True)
        )

    def _draw(self, audit, title, precision, scheme=None):
        named = {self._title(title, precision, scheme): audit}
        return compare(self.view.draw, named, self.view.height, legend=False, width=_PAGE / 2)

    @cached_property
    def _figures(self):
        """The figures of what is read, by title and precision: axes move from none to the next."""
        figures = {}
        for title in self.audits:
            audits = {precision: self._audit(title, precision) for precision in self.precisions}
            figures[title] = {
                precision: self._draw(own, title, precision)
                for precision, own in audits.items()
                if own is not None
            }
            if figures[title]:
                share_frame(list(figures[title].values()))
        return figures
