"""The register of the paper's claims, and the scorecard: each claim judged on each experiment."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from quantskew.audits.audit import Audit
from quantskew.claims.backward import BACKWARD
from quantskew.claims.forward import FORWARD
from quantskew.claims.methods import METHODS_CLAIMED
from quantskew.claims.verdicts import BASE, cell, control, corrected, judge
from quantskew.measures.intervals import wilson

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


def needs(claims):
    """Keys of the runs that some claims are judged on, in order."""
    return list(dict.fromkeys(need for claim in claims for need in claim.needs))


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
    return audits if isinstance(audits, Mapping) else {BASE: audits}


def judged(evidence, keys=None):
    """Every claim judged on one experiment, with its control, corrected for how many are tested.

    Parameters
    ----------
    evidence : dict of str to sequence of Audit
        See `quantskew.experiments.runs`.
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


_CLAIM = next(claim for claim in FORWARD if claim.key == "minority_loses_accuracy")
_ACCURACY, _LOSS = 0.8, 0.05


def made_audit(effect, rng, spread=0.0, images=400):
    """An Audit of two groups at fp32 and int4 in which the minority loses more, by a known share.

    Parameters
    ----------
    effect : float
        What the minority loses more than the majority, in accuracy, over all seeds that there could be.
    rng : numpy.random.Generator
    spread : float
        Standard deviation of that between seeds.
    images : int
        Test images of each group.

    Returns
    -------
    Audit

    Examples
    --------
    >>> made_audit(0.1, np.random.default_rng(0)).group_counts
    array([400, 400])
    """
    own = effect + spread * rng.standard_normal()
    groups = np.repeat([0, 1], images)
    # One threshold an image: a precision that is more accurate is right wherever a worse one is.
    difficulty = rng.random(2 * images)
    after = np.where(groups == 0, _ACCURACY - _LOSS, _ACCURACY - _LOSS - own)
    right = {"fp32": difficulty < _ACCURACY, "int4": difficulty < after}
    logits = {name: np.stack([correct, ~correct], axis=1) for name, correct in right.items()}
    return Audit.from_logits(logits, np.zeros(2 * images, dtype=int), groups, train_counts=[900, 100])


def verdict_rates(effects, seeds, spread=0.0, images=400, trials=100, seed=0):
    """How often a claim is called right or wrong, by what is true.

    Parameters
    ----------
    effects : sequence of float
        See `made_audit`; at 0 every verdict but "undecided" is a false alarm.
    seeds : sequence of int
        Numbers of seeds.
    spread, images
        See `made_audit`.
    trials : int
    seed : int
        Of the random numbers.

    Returns
    -------
    pandas.DataFrame
        Columns ``effect``, ``seeds``, ``verdict`` ("holds" or "fails"), ``value`` (share of the trials),
        ``low``, ``high`` (95 % Wilson interval) and ``count`` (trials).
    """
    rng = np.random.default_rng(seed)
    rows = []
    for effect in effects:
        for number in seeds:
            given = [
                judge(_CLAIM, {BASE: [made_audit(effect, rng, spread, images) for _ in range(number)]})
                for _ in range(trials)
            ]
            for name in ("holds", "fails"):
                times = sum(judged["verdict"] == name for judged in given)
                low, high = wilson(times, trials)
                rows.append(
                    {
                        "effect": effect,
                        "seeds": number,
                        "verdict": name,
                        "value": times / trials,
                        "low": float(low),
                        "high": float(high),
                        "count": trials,
                    }
                )
    return pd.DataFrame(rows)
