"""The register of the paper's claims, and the scorecard: each claim judged on each experiment."""

import pandas as pd

from quantskew.audits.audit import Audit
from quantskew.claims.backward_claims import BACKWARD
from quantskew.claims.controls import control
from quantskew.claims.forward_claims import FORWARD
from quantskew.claims.method_claims import METHODS_CLAIMED
from quantskew.claims.verdicts import BASE, cell, corrected, judge

_JUDGED = ("effect", "low", "high", "p", "q", "verdict", "seeds", "positive")
CLAIMS = {claim.key: claim for claim in FORWARD + BACKWARD + METHODS_CLAIMED}


def get(key):
    """The claim of that key.

    Raises
    ------
    ValueError
        If it is not known; the message lists the known ones.

    Examples
    --------
    >>> get("cosine_order").source
    'section 4.2, Fig. 5a'
    """
    if key not in CLAIMS:
        raise ValueError(f"unknown claim {key!r}; known: {', '.join(CLAIMS)}")
    return CLAIMS[key]


def scorecard(evidence, keys, precisions=None):
    """Claims by row, experiments by column: verdict, effect and interval in each cell.

    Each claim is judged alone; see `judged` for the verdicts of all claims together.

    Parameters
    ----------
    evidence : dict of str to (dict of str to sequence of Audit)
        By the title of the column; Audits of an experiment alone (a sequence, or a single one) stand for
        the evidence ``base``.
    keys : sequence of str
        See `CLAIMS`.
    precisions : sequence of str, optional
        At which to judge; by default each claim at its own.  What cannot be judged leaves its cell empty.

    Returns
    -------
    pandas.DataFrame
        Columns ``claim``, ``at`` and one for each title.
    """
    columns = {title: _of_base(own) for title, own in evidence.items()}
    return pd.DataFrame(
        {
            "claim": claim.statement,
            "at": precision,
            **{title: cell(judge(claim, own, precision)) for title, own in columns.items()},
        }
        for claim in map(get, keys)
        for precision in precisions or [claim.at]
    )


def _of_base(audits):
    if isinstance(audits, Audit):
        audits = [audits]
    return audits if isinstance(audits, dict) else {BASE: audits}


def judged(evidence, keys=None):
    """Every claim judged on one experiment, with its control, corrected for how many are tested.

    Parameters
    ----------
    evidence : dict of str to sequence of Audit
        See `quantskew.claims.evidence`.
    keys : sequence of str, optional
        By default the whole register.

    Returns
    -------
    pandas.DataFrame
        A row a claim: ``key``, ``section``, ``claim``, ``measured`` (the effect in words), ``at``,
        ``effect``, ``low``, ``high``, ``p``, ``q``, ``verdict``, ``seeds``, ``positive`` (how many of the
        seeds are as claimed by themselves), ``control``, ``control_low``, ``control_high`` (the effect with
        shuffled groups; NaN where the claim is not about groups) and ``lacks`` (what is missing in the
        evidence).
    """
    claims = [get(key) for key in keys or CLAIMS]
    results = corrected([judge(claim, evidence) for claim in claims])
    rows = []
    for claim, result in zip(claims, results, strict=True):
        placebo = control(claim, evidence) or dict.fromkeys(("effect", "low", "high"), float("nan"))
        rows.append(
            {
                "key": claim.key,
                "section": claim.source,
                "claim": claim.statement,
                "measured": claim.effect,
                "at": claim.at,
                **{name: result[name] for name in _JUDGED},
                "control": placebo["effect"],
                "control_low": placebo["low"],
                "control_high": placebo["high"],
                "lacks": result["lacks"] or "",
            }
        )
    return pd.DataFrame(rows)
