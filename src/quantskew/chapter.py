"""What a chapter of the book imports: its experiments as one `Chapter`, and what shows, draws and glues.

Nothing imports this module.
"""

import pandas as pd

from quantskew.audits.model import calibration_images
from quantskew.book.execution import check_declared, check_values
from quantskew.book.prose import (
    captioned,
    chooser,
    counts,
    elsewhere,
    forest,
    glue_finding,
    glue_roles,
    glue_table,
    glue_value,
    linked,
    of_role,
    roles,
    show,
)
from quantskew.claims import register, verdicts
from quantskew.experiments import catalogue, difficulty, interventions, methods
from quantskew.experiments.allocation import as_methods
from quantskew.experiments.runs import BASE, CALIBRATION, CAUSES, EVERY_CUT, FRONT, LAYERS, beside, read
from quantskew.figures import comparisons, flow, lines
from quantskew.figures.flow import Map
from quantskew.figures.style import compare, crossed, number, wide
from quantskew.interactive import control
from quantskew.interactive.control import bit_width
from quantskew.interactive.live_model import LiveModel
from quantskew.interactive.page import InPage
from quantskew.interactive.views import CHAIN
from quantskew.measures import seeds as over_seeds
from quantskew.measures.fairness import fvo, overall_accuracy
from quantskew.measures.forward import group_accuracy
from quantskew.measures.measure import Measure
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS
from quantskew.quantization.rounding import output_errors

# What the sentences of the chapters are about; they are not checked on another record.
_BOOK = "utkface"
_DECLARED = {"experiment": "digits", "precisions": None, "scheme": "banner", "seed": 0, "seeds": 1}
_DECLARED |= {"data_dir": None, "device": "auto"}
_KINDS = {"precisions": list, "experiments": list}


class Chapter:
    """The experiments that a chapter shows side by side: one made here and now, and others of record.

    Parameters
    ----------
    experiment : str
        Trained and audited by this call, or taken from the cache.
    record : str or sequence of str
        See `quantskew.experiments.runs.beside`; likewise `keys` and `curvature`.
    precisions : sequence of str, optional
        Of the experiments themselves, by default the book's; a record is shown at those that it has.
    scheme : str
        Of what is made here, see `quantskew.quantization.quantizer.Quantizer`.
    seed, seeds : int
        The first seed of what is made here, and how many.
    data_dir, device
        See `quantskew.experiments.catalogue.audit`.

    Attributes
    ----------
    runs : list of Runs
    audits : dict of str to Audit
        The first Audit of each experiment itself, by the title of its runs.
    live, kept : Audit
        What is made here, and the record; None where `keys` have no ``base``.
    """

    def __init__(
        self,
        experiment,
        record,
        precisions=None,
        scheme="banner",
        seed=0,
        seeds=1,
        data_dir=None,
        device="auto",
        *,
        keys=(BASE,),
        curvature=False,
    ):
        where = {"data_dir": data_dir, "device": device}
        _check(experiment=experiment, precisions=precisions, scheme=scheme, seed=seed, seeds=seeds, **where)
        records = [record] if isinstance(record, str) else record
        self._model = {"experiment": experiment, "seed": seed, "device": device}
        self._scheme, self._record, self._whole = scheme, records[0], {}
        options = {"precisions": precisions, "scheme": scheme, "curvature": curvature}
        self.runs = beside(experiment, records, keys, range(seed, seed + seeds), **options, **where)
        self.audits = self.of(*(own.experiment for own in self.runs))
        self.live, self.kept = (*self.audits.values(), None, None)[:2]

    def of(self, *experiments, key=BASE):
        """The first Audit of each of these experiments that there is, dict by the title of its runs."""
        found = [own for own in self.runs if own.experiment in experiments and key in own]
        return {own.title: own[key][0] for own in found}

    def draw(self, what, audits=None, **options):
        """The figure of Measures, or of functions that draw, of each Audit side by side.

        Parameters
        ----------
        what : Measure or callable, or a sequence of them
            Several make several rows.
        audits : dict of str to Audit, optional
            Or to whatever else is drawn, by title; by default the chapter's Audits, or its runs without any.
        **options
            See `quantskew.figures.style.compare`.
        """
        audits = self.audits or {own.title: own for own in self.runs} if audits is None else audits
        if not audits:
            print("nothing to draw: there is no record")
            return None
        rows = what if isinstance(what, list) else [what]
        draw = [lines.of(row) if isinstance(row, Measure) else row for row in rows]
        figure = compare(draw, audits, **options)
        if all(hasattr(own, "numbers") for own in draw):
            seeds = {title: self._seeds(audit) for title, audit in audits.items()}
            figure.numbers = [own.numbers(*each) for own in draw for each in seeds.items()]
        return figure

    def _seeds(self, first):
        """The Audits of all seeds of which this is the first one, that have all of its precisions."""
        found = (audits for own in self.runs for audits in own.values() if audits[0] is first)
        whole = set(first.precisions)
        return [own for own in next(found, [first]) if whole <= set(own.precisions)]

    def control(self, view):
        """The control of a view whose live column is computed, see `quantskew.interactive.control`."""
        return bit_width(view, self.audits, LiveModel(**self._model), self._scheme)

    def scorecard(self, keys, precisions=None):
        """Verdicts on claims, as on every other page, see `quantskew.claims.register.scorecard`."""
        return forest({own.title: register.judged(own, keys, precisions) for own in self.runs})

    def every_seed(self, key=BASE):
        """The Audits of all seeds of the record, whole: a page may be shown at fewer precisions."""
        if key not in self._whole:
            try:
                self._whole[key] = read(self._record, (key,))[key]
            except FileNotFoundError:
                self._whole[key] = next(own[key] for own in self.runs if own.experiment == self._record)
        return self._whole[key]

    def recorded(self, measure, key=BASE):
        """A Measure of every seed of the record: one row a seed and group, one column a precision.

        The largest and the smallest group in training are called ``majority`` and ``minority``.
        """
        tables = []
        for seed, audit in enumerate(self.every_seed(key)):
            if getattr(measure, "applies", lambda audit: True)(audit):
                named = {audit.group_names[group]: role for role, group in roles(audit).items()}
                tables.append(measure(audit).replace({"group": named}).assign(seed=seed))
        rows = ["seed", *({"group"} & set(tables[0]))]
        table = pd.concat(tables).pivot(index=rows, columns="precision", values="value")
        return table.reindex(columns=DEFAULT_PRECISIONS)

    def glue_seeds(self, **conditions):
        """Glue in how many seeds each of some conditions (Series of bool by seed) is so, as ``2 of 3``."""
        for name, so in conditions.items():
            glue_value(name.replace("_", "-"), f"{int(so.sum())} of {len(so)}")

    def check(self, sentences):
        """Fail where a sentence of the page is not true of the record.

        Parameters
        ----------
        sentences : dict of str to callable
            What the page says, word for word, and a function without arguments that is true where it is so.
            With another record than the one that the page was written about, nothing is checked.

        Raises
        ------
        ValueError
            With the sentences that are not true.
        """
        if f"record: {_BOOK}" not in [own.title for own in self.runs]:
            return
        untrue = [text for text, holds in sentences.items() if not holds()]
        if untrue:
            raise ValueError(f"not true of the record {_BOOK}: {'; '.join(untrue)}")

    def glue(self, *tables, **values):
        """Glue what functions of the live Audit and of the record give, as ``live-NAME`` and ``record-NAME``.

        Parameters
        ----------
        *tables, **values : callable or tuple of (callable, int)
            Audit -> table, dict or value, by its name, in which an underscore is a hyphen; the first ones
            have none.  A number is that of digits, which else are those of the Measure.
        """
        for prefix, audit in {"live": self.live, "record": self.kept}.items():
            _glue(prefix, audit, tables, values)

    def glue_roles(self, **tables):
        """As `glue`, of the largest and the smallest group alone, as ``live-majority-NAME`` and so on."""
        for prefix, audit in {"live": self.live, "record": self.kept}.items():
            glue_roles(prefix, audit)
            for role in roles(audit):
                _glue(f"{prefix}-{role}", audit, (), tables, role)

    def glue_further(self, prefix, experiment, *tables, **values):
        """As `glue`, tables of one more experiment; where it has no record, words stand in for numbers."""
        found = list(self.of(experiment).values())
        if found:
            _glue(prefix, found[0], tables, values)
        # What a row may be of: a group, all of them, or the model.
        for measure in () if found else (group_accuracy, overall_accuracy, fvo):
            for name in ("", *values):
                glue_table(_key(prefix, name), measure(self.kept), words="(no record)")


def _key(prefix, name):
    return "-".join(filter(None, [prefix, name.strip("_").replace("_", "-")]))


def _glue(prefix, audit, tables, values, role=None):
    for name, function in [*(("", table) for table in tables), *values.items()]:
        function, digits = function if isinstance(function, tuple) else (function, None)
        # A change is a method of its Measure.
        digits = getattr(getattr(function, "__self__", function), "digits", 2) if digits is None else digits
        key, value = _key(prefix, name), function(audit)
        if isinstance(value, pd.DataFrame):
            glue_table(key, of_role(audit, value, role) if role else value, digits)
        else:
            for part, own in value.items() if isinstance(value, dict) else [("", value)]:
                glue_value(f"{key}-{part}" if part else key, own)


def playground(experiments, precisions, seed=0, *, data_dir=None, device="auto"):
    """See `quantskew.interactive.control.playground`; what it is given is checked first."""
    where = {"data_dir": data_dir, "device": device}
    _check(experiments=experiments, precisions=precisions, seed=seed, **where)
    return control.playground(experiments, precisions, seed, **where)


def in_page(experiments, precisions, seed=0, *, data_dir=None, device="auto"):
    """See `quantskew.interactive.page.InPage`; what it is given is checked first."""
    where = {"data_dir": data_dir, "device": device}
    _check(experiments=experiments, precisions=precisions, seed=seed, **where)
    return InPage([LiveModel(own, seed, **where) for own in experiments], precisions)


def _check(**given):
    """Refuse parameters that nothing can be made of: plain papermill gives a chapter whatever it is told."""
    check_declared({name: _DECLARED.get(name) for name in given}, given, "this chapter", _KINDS)
    check_values(given, "this chapter")
