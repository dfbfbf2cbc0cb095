"""The register of claims, and the scorecard: each claim judged on each experiment."""

from collections.abc import Mapping

import pandas as pd

from quantskew.audits.audit import Audit
from quantskew.checks import check_known
from quantskew.claims import backward, causes, forward, methods
from quantskew.claims.effects import BASE, Claim
from quantskew.claims.verdicts import cell, corrected, judge

_JUDGED = ("effect", "low", "high", "p", "q", "verdict", "seeds", "positive")
_JUDGED += ("control", "control_low", "control_high")
_ELSEWHERE = ("low", "high", "q", "verdict")


def claims_in(module):
    """Claims of a module by key, in the order of definition."""
    return {key: own for key, own in vars(module).items() if isinstance(own, Claim)}


# The paper's, and those of this book about what causes what.
CLAIMS = claims_in(forward) | claims_in(backward) | claims_in(methods)
OWN = claims_in(causes)
# Those of two chapters: on what causes the harm, and on what helps without training.
CAUSES, REMEDIES = (
    {key: own for key, own in OWN.items() if own.shown.startswith(chapter)}
    for chapter in ("10_causes", "11_calibrated")
)


def get(key):
    """The claim of that key; an unknown one is refused with the known ones."""
    check_known("claim", key, CLAIMS | OWN)
    return (CLAIMS | OWN)[key]


def needs(claims):
    """Keys of the runs that some claims are judged on, in order."""
    return list(dict.fromkeys(need for claim in claims for need in claim.needs))


def scorecard(evidence, keys, precisions=None):
    """Claims by row, experiments by column: the verdict of `judged` with effect and interval in each cell.

    Parameters
    ----------
    evidence : dict of str to (mapping of str to sequence of Audit)
        By the title of the column; Audits of an experiment alone (a sequence, or a single one) stand for
        the key ``base``.
    keys : sequence of str
        See `CLAIMS`.
    precisions : sequence of str, optional
        At which to judge; by default each claim at its own.

    Returns
    -------
    pandas.DataFrame
        Columns ``claim``, ``at`` and one for each title, with its number of seeds.
    """
    return compared({title: judged(_of_base(own), keys, precisions) for title, own in evidence.items()})


def compared(tables):
    """The `scorecard` of tables of `judged` by their titles."""
    table = next(iter(tables.values()))[["claim", "at"]]
    cells = {with_seeds(title, own): list(map(cell, own.to_dict("records"))) for title, own in tables.items()}
    return table.assign(**cells)


def with_seeds(title, table):
    """The title of an experiment with the number of seeds on which its claims are judged.

    Examples
    --------
    >>> with_seeds("record: utkface", pd.DataFrame({"seeds": [10, 10, 3, 0]}))
    'record: utkface, 3 to 10 seeds'
    """
    least, most = (table.loc[table["seeds"] > 0, "seeds"].agg(how) for how in ("min", "max"))
    if pd.isna(most):
        return title
    words = "one seed" if most == 1 else f"{most} seeds"
    return f"{title}, {words if least == most else f'{least} to {words}'}"


def _of_base(audits):
    if isinstance(audits, Mapping):
        return audits
    return {BASE: [audits] if isinstance(audits, Audit) else audits}


def judged(evidence, keys=None, precisions=None):
    """Claims judged on one experiment, each verdict corrected for the claims that read the same evidence.

    Whoever asks for one claim gets the verdict of whoever asks for all: the correction is over every claim of
    the paper, or of this book, with the same needs, at its own precision.

    Parameters
    ----------
    evidence : mapping of str to sequence of Audit
        The seeds of each method, by its key.
    keys : sequence of str, optional
        By default all claims of the paper.
    precisions : sequence of str, optional
        At which to judge; by default each claim at its own.

    Returns
    -------
    pandas.DataFrame
        A row a claim and precision: ``key``, ``section``, ``claim``, ``quote`` (the paper's words),
        ``measured`` (the effect in words), ``unit``, ``at``, what `quantskew.claims.verdicts.judge` says,
        ``q`` (the corrected p), ``elsewhere_low``, ``elsewhere_high``, ``elsewhere_q``, ``elsewhere_verdict``
        (for another data set) and ``lacks`` (what is missing in the evidence).
    """
    claims, own, rows = [get(key) for key in keys or CLAIMS], {}, []
    for claim in claims:
        register = CLAIMS if claim.key in CLAIMS else OWN
        family = [c for c in register.values() if (c.needs, c.curvature) == (claim.needs, claim.curvature)]
        own |= {c.key: judge(c, evidence) for c in family if c.key not in own}
        about = {"key": claim.key, "section": claim.source, "claim": claim.statement, "quote": claim.quote}
        about |= {"measured": claim.effect, "unit": claim.unit.name}
        for precision in precisions or [claim.at]:
            # At another precision it takes its own place among them.
            here = own[claim.key] if precision == claim.at else judge(claim, evidence, precision)
            others = [own[c.key] for c in family if c.key != claim.key]
            result, *_ = corrected([here, *others])
            elsewhere, *_ = corrected([one["elsewhere"] for one in (here, *others)])
            elsewhere = {"verdict": result["verdict"], **elsewhere}
            row = {name: result[name] for name in _JUDGED}
            row |= {f"elsewhere_{name}": elsewhere[name] for name in _ELSEWHERE}
            rows.append({**about, "at": precision, **row, "lacks": result["lacks"] or ""})
    return pd.DataFrame(rows)
