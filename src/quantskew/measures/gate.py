"""The gate: conditions on which a model is not to be shipped, in a language of one line.

    MEASURE[_change] [GROUP] < NUMBER at COLUMN

such as ``fvo_change > 0.02`` or ``accuracy_change[worst] < -0.01 at int8``.  MEASURE is any that `quantskew`
has, by its name or without its ``group_``; ``_change`` is from the reference.  GROUP in brackets is a name,
``all`` (all images as one), or ``worst``, the one that meets the condition most, as where there is none.
Without a column every one but the reference is looked at.
"""

import operator
import re
from collections import namedtuple
from pathlib import Path
from xml.etree import ElementTree

from scipy.special import ndtri

from quantskew.audits.audit import quantizer_of
from quantskew.checks import check_known, shortened
from quantskew.groups import OVERALL
from quantskew.measures.intervals import CONFIDENCE
from quantskew.measures.measure import MEASURES, MODEL_MEASURES, pooled, without_reference

_FORM = re.compile(r"(\w+?)(_change)?\s*(?:\[(.*)\])?\s*(<=|>=|<|>)\s*(-?[\d.]+(?:e-?\d+)?)(?:\s+at\s+(.+))?")
_MEETS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_WORST = "worst"
# What XML 1.0 cannot hold.
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Condition = namedtuple("Condition", "text measure change group sign bound column")
Outcome = namedtuple("Outcome", "condition failed sentence")


def parse(text):
    """The `Condition` of a text; a ValueError says what it does not understand.

    Examples
    --------
    >>> parse("accuracy_change[worst] < -0.01 at int8")[2:]
    (True, 'worst', '<', -0.01, 'int8')
    """
    text = " ".join(text.split())
    known = MODEL_MEASURES | {own.key: own for own in MEASURES.values()} | MEASURES
    try:
        name, change, group, sign, number, column = _FORM.fullmatch(text).groups()
        bound = float(number)
    except (AttributeError, ValueError):
        example = "accuracy_change[worst] < -0.01 at int8, or name a file with one a line"
        how = f"write MEASURE[GROUP] < NUMBER at COLUMN, as in {example}"
        raise ValueError(f"condition {shortened(text)} is not understood: {how}") from None
    check_known(f"measure in condition {text!r}", name, known)
    if group and name in MODEL_MEASURES:
        raise ValueError(f"{name} is of the whole model: leave out [{group}] in condition {text!r}")
    return Condition(text, known[name], bool(change), group or _WORST, sign, bound, column)


def conditions(texts, columns):
    """The conditions of some texts, each one condition or the path of a file with one a line (# comments).

    What an Audit of these columns could not decide is refused.
    """
    lines = []
    for text in texts:
        file = not set(text) & set("<>") and Path(text).is_file()
        lines += Path(text).read_text(encoding="utf-8").splitlines() if file else [text]
    found = [parse(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if texts and not found:
        raise ValueError(f"no condition in {', '.join(texts)}: a gate that looks at nothing cannot fail")
    known = {name for own in columns for name in (own, quantizer_of(own).precision) if name}
    for own in found:
        if own.column is not None:
            check_known(f"column in condition {own.text!r}", own.column, sorted(known))
        if own.change and len(columns) < 2:
            raise ValueError(f"condition {own.text!r} needs a column beside the reference {columns[0]}")
    return found


def decide(condition, audit, confidently=False):
    """The `Outcome` of a condition: whether an Audit meets it, which fails the gate, in a sentence.

    Parameters
    ----------
    condition : Condition
    audit : Audit
    confidently : bool
        Whether the whole 95 % interval must meet the condition, instead of the value; intervals are wider
        where the worst of several is looked for (Bonferroni).

    Raises
    ------
    ValueError
        If the Audit has no such group or column, or no value (with `confidently` no interval) for it.
    """
    text, below = condition.text, condition.sign.startswith("<")
    table = _rows(condition, audit)
    decisive = table["value"]
    if confidently:
        far = table["high" if below else "low"] if "high" in table else float("nan")
        factor = ndtri(1 - (1 - CONFIDENCE) / 2 / max(1, len(table))) / ndtri((1 + CONFIDENCE) / 2)
        decisive = decisive + (far - decisive) * factor
    decisive = decisive.dropna()
    if decisive.empty:
        what = "interval" if confidently else "value"
        raise ValueError(f"condition {text!r} cannot be decided: this Audit has no {what} for it")
    worst = decisive.idxmin() if below else decisive.idxmax()
    row, failed = table.loc[worst], bool(_MEETS[condition.sign](decisive[worst], condition.bound))
    interval = f" [{row['low']:.4f}, {row['high']:.4f}]" if "high" in table else ""
    of = f" of {row['group']}" if "group" in table else ""
    how = "confidently " * confidently + ("met" if failed else "not met")
    said = f"{how}, it is {row['value']:.4f}{interval}{of} at {row['precision']}"
    return Outcome(text, failed, f"{'FAILED' if failed else 'passed'}: {text}: {said}")


def _rows(condition, audit):
    """The rows of the measure that a condition is about."""
    text, measure = condition.text, condition.measure
    own = pooled(audit) if condition.group == OVERALL else audit
    if not measure.applies(own):
        raise ValueError(f"condition {text!r}: this Audit has no {measure.title}")
    table = measure.change(own) if condition.change else measure(own)
    if condition.column is not None:
        table = table[table["precision"] == audit.precisions[audit.index(condition.column)]]
    elif len(audit.precisions) > 1:
        table = without_reference(audit, table)
    if condition.group != _WORST:
        check_known(f"group in condition {text!r}", condition.group, own.group_names)
        table = table[table["group"] == condition.group]
    return table


def junit(outcomes):
    """Outcomes as JUnit's XML, a test case each."""
    failures = str(sum(own.failed for own in outcomes))
    suite = ElementTree.Element("testsuite", name="quantskew", tests=str(len(outcomes)), failures=failures)
    for own in outcomes:
        condition, sentence = (_CONTROL.sub("�", text) for text in (own.condition, own.sentence))
        case = ElementTree.SubElement(suite, "testcase", classname="quantskew.gate", name=condition)
        if own.failed:
            ElementTree.SubElement(case, "failure", message=sentence)
    return ElementTree.tostring(suite, encoding="unicode")


def annotation(outcome):
    """An outcome as a line that GitHub shows beside the commit.

    Examples
    --------
    >>> annotation(Outcome("fvo > 0.1", True, "FAILED: 100 %"))
    '::error title=quantskew gate::FAILED: 100 %25'
    """
    sentence = outcome.sentence.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{'error' if outcome.failed else 'notice'} title=quantskew gate::{sentence}"
