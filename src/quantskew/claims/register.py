"""The register of the paper's claims, and the scorecard: each claim judged on each experiment."""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from quantskew.audits.audit import Audit
from quantskew.checks import check_known
from quantskew.claims import backward, forward, methods
from quantskew.claims.verdicts import BASE, Claim, cell, control, corrected, judge
from quantskew.measures.intervals import wilson

_JUDGED = ("effect", "low", "high", "p", "q", "verdict", "seeds", "positive")


def claims_in(module):
    """Claims of a module by key, in the order of definition."""
    return {key: own for key, own in vars(module).items() if isinstance(own, Claim)}


CLAIMS = claims_in(forward) | claims_in(backward) | claims_in(methods)


def get(key):
    """The claim of that key; an unknown one is refused with the known ones."""
    check_known("claim", key, CLAIMS)
    return CLAIMS[key]


def needs(claims):
    """Keys of the runs that some claims are judged on, in order."""
    return list(dict.fromkeys(need for claim in claims for need in claim.needs))


def scorecard(evidence, keys, precisions=None):
    """Claims by row, experiments by column: verdict, effect and interval in each cell.

    Each claim is judged alone; see `judged` for the verdicts of all claims together.

    Parameters
    ----------
    evidence : dict of str to (mapping of str to sequence of Audit)
        By the title of the column; Audits of an experiment alone (a sequence, or a single one) stand for
        the key ``base``.
    keys : sequence of str
        See `CLAIMS`.
    precisions : sequence of str, optional
        At which to judge; by default each claim at its own.  What cannot be judged leaves its cell empty.

    Returns
    -------
    pandas.DataFrame
        Columns ``claim``, ``at`` and one for each title.
    """
    return pd.DataFrame(
        {
            "claim": claim.statement,
            "at": precision,
            **{title: cell(judge(claim, _of_base(own), precision)) for title, own in evidence.items()},
        }
        for claim in map(get, keys)
        for precision in precisions or [claim.at]
    )


def _of_base(audits):
    if isinstance(audits, Mapping):
        return audits
    return {BASE: [audits] if isinstance(audits, Audit) else audits}


def judged(evidence, keys=None):
    """Every claim judged on one experiment, with its control, corrected for how many are tested.

    Parameters
    ----------
    evidence : mapping of str to sequence of Audit
        The seeds of each method, by its key.
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
    rows = []
    for claim, result in zip(claims, corrected([judge(claim, evidence) for claim in claims]), strict=True):
        shuffled = control(claim, evidence) or dict.fromkeys(("effect", "low", "high"), np.nan)
        about = {"key": claim.key, "section": claim.source, "claim": claim.statement}
        about |= {"measured": claim.effect, "at": claim.at}
        own = {name: result[name] for name in _JUDGED} | {"control": shuffled["effect"]}
        own |= {f"control_{bound}": shuffled[bound] for bound in ("low", "high")}
        rows.append({**about, **own, "lacks": result["lacks"] or ""})
    return pd.DataFrame(rows)


def made_audit(effect, rng, spread=0.0, images=400):
    """An Audit of two groups, the smaller of which loses `effect` more accuracy, give or take `spread`."""
    own = effect + spread * rng.standard_normal()
    groups = np.repeat([0, 1], images)
    # One threshold an image: a precision that is more accurate is right wherever a worse one is.
    difficulty = rng.random(2 * images)
    right = {"fp32": difficulty < 0.8, "int4": difficulty < np.where(groups == 0, 0.75, 0.75 - own)}
    logits = {name: np.stack([correct, ~correct], axis=1) * 1.0 for name, correct in right.items()}
    return Audit.from_logits(logits, np.zeros(2 * images, dtype=int), groups, train_counts=[900, 100])


def verdict_rates(effects, seeds, spread=0.0, images=400, trials=100, seed=0):
    """How often a claim is called right or wrong, by its true effect and number of seeds (`made_audit`)."""
    rng = np.random.default_rng(seed)
    rows = []
    for effect, number in itertools.product(effects, seeds):
        verdicts = []
        for _ in range(trials):
            audits = [made_audit(effect, rng, spread, images) for _ in range(number)]
            verdicts.append(judge(forward.minority_loses_accuracy, {BASE: audits})["verdict"])
        for name in ("holds", "fails"):
            times = verdicts.count(name)
            low, high = map(float, wilson(times, trials))
            own = {"value": times / trials, "low": low, "high": high, "count": trials}
            rows.append({"effect": effect, "seeds": number, "verdict": name, **own})
    return pd.DataFrame(rows)
