"""How well verdicts are right: claims judged on made Audits whose truth is known."""

import numpy as np
import pandas as pd

from quantskew.audits.audit import Audit
from quantskew.claims.forward_claims import FORWARD
from quantskew.claims.verdicts import BASE, judge
from quantskew.measures.intervals import wilson

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
