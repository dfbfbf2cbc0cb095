"""A claim, and its verdict on evidence: effect, interval, and whether it holds.

An effect is a number that is positive where the claim is right.  Its interval comes from a bootstrap of
seeds and test images (see `quantskew.measures.seeds`), paired across precisions and methods; a claim "holds"
where the whole interval is positive, "fails" where it is negative, and is "undecided" otherwise.  Evidence
maps the key of each method to the Audits of its seeds.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control

from quantskew.measures.intervals import CONFIDENCE, DRAWS, percentile_interval
from quantskew.measures.seeds import paired

# Key of an experiment's own Audits, without any mitigation.
BASE = "base"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, see `quantskew.claims.effects` for how it is written.

    Attributes
    ----------
    key : str
    source, shown : str
        Section and figure of the paper; chapter and figure of this book, as ``04_loss#fig-loss``.
    statement, effect : str
        What the paper says, in our words; what is measured, which is positive where it is so.
    measure : callable
        (evidence, precision, number of draws) -> effect and its resampled values.
    at : str
        Precision at which the paper shows it.
    needs : tuple of str
        Keys of the evidence that `measure` reads.
    curvature, grouped : bool
        Whether it reads the curvature of the Audits, and whether it is about groups, so that the control is
        the same effect with shuffled groups.
    """

    key: str
    source: str
    shown: str
    statement: str
    effect: str
    measure: Callable
    at: str = "int4"
    needs: tuple = (BASE,)
    curvature: bool = False
    grouped: bool = True


def verdict(low, high):
    """Verdict of an effect by its interval.

    Examples
    --------
    >>> verdict(0.1, 0.3), verdict(-0.2, 0.1), verdict(-0.2, -0.1)
    ('holds', 'undecided', 'fails')
    """
    if low > 0:
        return "holds"
    return "fails" if high < 0 else "undecided"


def missing(claim, evidence, precision):
    """What a claim lacks in the evidence that it reads, in words; None where it can be judged."""
    for key, audits in evidence.items():
        if not audits:
            return f"no Audits of {key}"
        try:
            for audit in audits:
                audit.index(precision)
        except ValueError:
            return f"no {precision} in {key}"
        if claim.grouped and (audits[0].group_counts > 0).sum() < 2:
            return "fewer than two groups"
        if claim.curvature and any(audit.curvature is None for audit in audits):
            return f"no curvature in {key}"
    return None


def judge(claim, evidence, precision=None):
    """Effect of a claim, with its interval and verdict.

    Parameters
    ----------
    claim : Claim
    evidence : mapping of str to sequence of Audit
        The seeds of each method, of the same groups.
    precision : str, optional
        By default the claim's own.

    Returns
    -------
    dict
        ``effect``, ``low``, ``high`` (95 %), ``p`` (two-sided), ``verdict``, ``seeds``, ``positive`` (how
        many of the seeds are as claimed by themselves) and ``lacks``: what the evidence lacks, or None.  An
        effect that is not defined, or that has no interval, is undecided.

    Raises
    ------
    ValueError
        If the precision is the reference.
    """
    precision, evidence = precision or claim.at, read(claim, evidence)
    value, draws, seeds, positive = np.nan, np.full(1, np.nan), 0, 0
    lacks = missing(claim, evidence, precision)
    if lacks is None:
        first = evidence[claim.needs[0]]
        if precision != claim.at and first[0].index(precision) == 0:
            raise ValueError(f"{precision} is the reference; name another precision")
        value, draws = claim.measure(evidence, precision, DRAWS)
        seeds = len(first)
        alone = ({key: audits[s : s + 1] for key, audits in evidence.items()} for s in range(seeds))
        positive = sum(bool(claim.measure(own, precision, 1)[0] > 0) for own in alone)
        if np.isnan(draws).all() and not np.isnan(value):
            lacks = "an interval: it varies over seeds, and takes three"
    low, high = map(float, percentile_interval(draws))
    judged = {"effect": float(value), "low": low, "high": high, "p": p_value(draws)}
    return {**judged, "verdict": verdict(low, high), "seeds": seeds, "positive": positive, "lacks": lacks}


def read(claim, evidence):
    """The evidence that a claim reads: of the seeds that all of it has, and with the curvature it reads."""
    own = {key: evidence.get(key, ()) for key in claim.needs}
    if claim.curvature:
        curved = {key: [a for a in audits if a.curvature is not None] for key, audits in own.items()}
        own = {key: curved[key] or audits for key, audits in own.items()}
    return paired(own)


def p_value(draws):
    """Two-sided p-value of an effect by its resampled values: twice the share on the far side of zero."""
    if np.isnan(draws).all():
        return np.nan
    draws = draws[~np.isnan(draws)]
    # A share of none of the draws is one that was not seen yet.
    least = (1 + min((draws <= 0).sum(), (draws >= 0).sum())) / (1 + len(draws))
    return float(min(1.0, 2 * least))


def corrected(judgements):
    """Judgements whose verdict and ``q`` account for how many are tested (Benjamini and Hochberg)."""
    # Of those that are then decided, at most one in twenty is expected to be decided by chance.
    p = np.array([judged["p"] for judged in judgements], dtype=float)
    q, tested = p.copy(), ~np.isnan(p)
    q[tested] = false_discovery_control(p[tested])
    return [
        {**judged, "q": float(own), "verdict": judged["verdict"] if own <= 1 - CONFIDENCE else "undecided"}
        for judged, own in zip(judgements, q, strict=True)
    ]


def cell(result):
    """A judgement as a table shows it: verdict, effect, interval, and how many seeds are as claimed."""
    if np.isnan(result["effect"]):
        return ""
    known = result["low"] != result["high"] and not np.isnan(result["low"])
    interval = f" [{result['low']:.2g}, {result['high']:.2g}]" if known else ""
    seeds = f", {result['positive']} of {result['seeds']}" if result["seeds"] > 1 else ""
    return f"{result['verdict']}: {result['effect']:.2g}{interval}{seeds}"


def control(claim, evidence, precision=None, shuffles=20, seed=0):
    """Mean and middle 95 % of a claim's effect with groups shuffled among images; None where it has none."""
    precision, evidence = precision or claim.at, read(claim, evidence)
    if not claim.grouped or missing(claim, evidence, precision):
        return None
    rng = np.random.default_rng(seed)
    effects = []
    for _ in range(shuffles):
        shuffled = {key: [_shuffled(audit, rng) for audit in audits] for key, audits in evidence.items()}
        effects.append(claim.measure(shuffled, precision, 1)[0])
    low, high = percentile_interval(np.array(effects))
    return {"effect": float(np.nanmean(effects)), "low": float(low), "high": float(high)}


def _shuffled(audit, rng):
    """An Audit whose images are in random groups of the same sizes; what is kept by group is reordered."""
    order, other = (rng.permutation(len(audit.group_names)) for _ in range(2))
    curvature = audit.curvature
    if curvature is not None:
        norms, eigenvalues = curvature.gradient_norms[:, order], curvature.lambda_max[:, other]
        curvature = dataclasses.replace(curvature, gradient_norms=norms, lambda_max=eigenvalues)
    history = [_reordered(epoch, order) for epoch in audit.provenance.get("history", [])]
    provenance = {**audit.provenance, "history": history}
    groups = rng.permutation(audit.groups)
    return dataclasses.replace(audit, groups=groups, curvature=curvature, provenance=provenance)


def _reordered(epoch, order):
    """An epoch of a history with its groups in another order."""
    accuracy = {"accuracy": [epoch["train"]["accuracy"][g] for g in order]}
    measured = {"measured": [epoch["measured"][g] for g in order]} if "measured" in epoch else {}
    return {**epoch, "train": epoch["train"] | accuracy, **measured}
