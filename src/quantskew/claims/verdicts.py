"""The one rule by which claims are judged: effect, interval and verdict over seeds.

The seed is the unit: another one has another split of the same images, other initial weights and another
order of training, so that what differs between seeds already contains the choice of test images.  Each seed
has one effect, and the mean over them the interval of Student's t.  The estimand is another training run on
the same pool of images.
"""

import itertools

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, t

from quantskew.claims.effects import POINTS, NotJudged, effects
from quantskew.measures.intervals import CONFIDENCE, percentile_interval, wilson
from quantskew.measures.seeds import paired

VERDICTS = ("holds", "fails", "tie", "undecided", "one seed", "not tested", "not judged")
_ALPHA = 1 - CONFIDENCE
_UNKNOWN = dict.fromkeys(("effect", "low", "high", "p"), np.nan) | {"tie": False}
_NO_CONTROL = dict.fromkeys(("control", "control_low", "control_high"), np.nan)


def verdict(effect, p, tie=False):
    """Verdict on an effect by its two-sided p-value, and by whether it is shown to be about nothing.

    Examples
    --------
    >>> verdict(0.2, 0.01), verdict(-0.2, 0.01), verdict(0.2, 0.3), verdict(0.001, 0.3, tie=True)
    ('holds', 'fails', 'undecided', 'tie')
    """
    if p <= _ALPHA:
        return "holds" if effect > 0 else "fails"
    return "tie" if tie else "undecided"


def mean_test(values, unit, further=0.0):
    """The mean over seeds of one or more effects (S, ...), each by itself.

    Parameters
    ----------
    values : ndarray, shape (S, ...)
        Of two seeds or more.
    unit : Unit
    further : float
        Test images a training image, for which Nadeau and Bengio (2003) widen the interval: seeds share
        images of one pool, and vary less than other data sets would.

    Returns
    -------
    dict of ndarray
        ``effect``, ``low``, ``high`` (95 %, within what is possible), the one-sided p-values ``above`` and
        ``below`` zero, and ``tie``: whether two one-sided tests place it within the unit's margin.
    """
    seeds, effect = len(values), values.mean(axis=0)
    error = values.std(axis=0, ddof=1) * np.sqrt(1 / seeds + further)
    freedom, coin = seeds - 1, 0.5**seeds
    # Seeds that agree to the last digit are no proof of agreement: of coins, so many fall on one side.
    same = np.ptp(values, axis=0) <= 1e-9 * np.abs(effect)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = effect / error
    above = np.where(same, np.where(effect > 0, coin, 1), t.sf(ratio, freedom))
    below = np.where(same, np.where(effect < 0, coin, 1), t.cdf(ratio, freedom))
    wide, narrow = (t.ppf(1 - tail, freedom) * error for tail in (_ALPHA / 2, _ALPHA))
    low, high = (np.clip(effect + sign * wide, unit.low, unit.high) for sign in (-1, 1))
    tie = (np.abs(effect) + narrow < unit.tie) & (~same | (coin <= _ALPHA))
    return {"effect": effect, "low": low, "high": high, "above": above, "below": below, "tie": tie}


def _all_of(values, unit, further=0.0):
    """The test of an effect whose parts (S, K) must all be positive: that of its weakest part.

    An intersection-union test holds where each part does, without any correction; that one of them fails has
    as many chances as there are parts, and is corrected for them.
    """
    parts = mean_test(values, unit, further)
    weakest = np.lexsort((parts["effect"], -parts["above"]))[0]
    ends = parts["above"][weakest], values.shape[1] * parts["below"].min()
    own = {name: parts[name][weakest].item() for name in ("effect", "low", "high", "tie")}
    return own | {"p": float(min(1.0, 2 * min(ends)))}


def judge(claim, evidence, precision=None):
    """Effect of a claim, with its interval and verdict; alone, see `quantskew.claims.register.judged`.

    Parameters
    ----------
    claim : Claim
    evidence : mapping of str to sequence of Audit
        The seeds of each method, of the same groups.  A seed that lacks what the claim reads is left out.
    precision : str, optional
        By default the claim's own.

    Returns
    -------
    dict
        ``effect`` (of several parts that of the weakest), ``low``, ``high`` (95 %), ``p`` (two-sided),
        ``tie``, ``verdict`` (one of `VERDICTS`), ``seeds``, ``positive`` (how many of the seeds are as
        claimed by themselves), ``control``, ``control_low``, ``control_high`` (mean and middle 95 % of the
        effect with shuffled groups; NaN where the claim is not about groups), ``elsewhere`` (the same test
        for another data set, see `mean_test`) and ``lacks``: what the evidence lacks, or None.

    Raises
    ------
    ValueError
        If the precision is the reference.
    """
    audits = paired({key: evidence.get(key, ()) for key in claim.needs})
    try:
        drawn = effects(claim, audits, precision or claim.at)
    except NotJudged as lack:
        nothing = {"seeds": 0, "positive": 0, "lacks": str(lack), "elsewhere": _UNKNOWN}
        return _UNKNOWN | {"verdict": lack.verdict} | _NO_CONTROL | nothing
    values, control = drawn[:, 0], _NO_CONTROL
    if claim.grouped:
        shuffled = drawn[:, 1:].mean(axis=0).min(axis=-1)
        ends = percentile_interval(shuffled)
        control = dict(zip(_NO_CONTROL, map(float, (np.nanmean(shuffled), *ends)), strict=True))
    own = {"seeds": len(values), "positive": int((values > 0).all(axis=1).sum()), "lacks": None, **control}
    if len(values) == 1:
        alone = _UNKNOWN | {"effect": float(values.min())}
        return alone | {"verdict": "one seed", "elsewhere": alone} | own
    first = audits[claim.needs[0]][0]
    here = _all_of(values, claim.unit)
    elsewhere = _all_of(values, claim.unit, len(first.labels) / first.train_counts.sum())
    return here | {"verdict": verdict(here["effect"], here["p"], here["tie"]), "elsewhere": elsewhere} | own


def corrected(judgements):
    """Judgements whose verdict and ``q`` account for how many are tested (Benjamini and Hochberg)."""
    # Of those that are then decided, at most one in twenty is expected to be decided by chance.
    p = np.array([judged["p"] for judged in judgements], dtype=float)
    q, known = p.copy(), ~np.isnan(p)
    q[known] = false_discovery_control(p[known])
    return [
        judged
        | {"q": float(own)}
        | ({} if np.isnan(own) else {"verdict": verdict(judged["effect"], own, judged["tie"])})
        for judged, own in zip(judgements, q, strict=True)
    ]


def cell(result):
    """A judgement as a table shows it: verdict, effect, interval, seeds as claimed, and what chance gives."""
    if result["lacks"]:
        reason = f": {result['lacks']}" if result["verdict"] == "not tested" else ""
        return result["verdict"] + reason
    known = result["low"] < result["high"]
    interval = f" [{result['low']:.2g}, {result['high']:.2g}]" if known else ""
    seeds = f", {result['positive']} of {result['seeds']}" if result["seeds"] > 1 else ""
    # Far below what an effect could be, digits are noise.
    chance = "" if np.isnan(result["control"]) else f" (by chance {round(result['control'], 3) + 0.0:.2g})"
    return f"{result['verdict']}: {result['effect']:.2g}{interval}{seeds}{chance}"


def made_effects(effect, seeds, spread=0.0, images=400, trials=1, seed=0):
    """Effects (seeds, trials) of made test sets: the minority loses `effect` more accuracy than the majority.

    Each seed's own effect is `spread` from that; a group has so many `images`, of which the majority loses
    one in twenty.
    """
    rng = np.random.default_rng(seed)
    own = 0.05 + effect + spread * rng.standard_normal((seeds, trials))
    minority = np.sign(own) * rng.binomial(images, np.minimum(np.abs(own), 1))
    return (minority - rng.binomial(images, 0.05, own.shape)) / images


def verdict_rates(effects, seeds, spread=0.0, images=400, trials=2000):
    """How often a claim is called right or wrong, by its true effect and number of seeds (`made_effects`)."""
    rows = []
    for effect, number in itertools.product(effects, seeds):
        own = mean_test(made_effects(effect, number, spread, images, trials), POINTS)
        for name, side in (("holds", "above"), ("fails", "below")):
            times = int((2 * own[side] <= _ALPHA).sum())
            low, high = map(float, wilson(times, trials))
            share = {"value": times / trials, "low": low, "high": high, "count": trials}
            rows.append({"effect": effect, "seeds": number, "verdict": name, **share})
    return pd.DataFrame(rows)
