"""A claim about an Audit, and its verdict: effect, interval, and whether it holds.

An effect is a number that is positive where the claim is right.  Its interval comes from the paired
bootstrap over test images; a claim "holds" where the whole interval is positive, "fails" where it is
negative, and is "undecided" otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quantskew.groups import group_means
from quantskew.intervals import bootstrap_group_means, percentile_interval


@dataclass(frozen=True)
class Statement:
    """What a claim says, whatever it is judged on.

    Attributes
    ----------
    key : str
    source : str
        Section and figure.
    statement : str
        In our words.
    effect : str
        What is measured, in words; positive is as claimed.
    """

    key: str
    source: str
    statement: str
    effect: str


@dataclass(frozen=True)
class Claim(Statement):
    """One claim of the paper about a single Audit.

    Attributes
    ----------
    samples : callable or None
        Audit -> per-sample measures (..., P, N); None where the effect is a property of the weights.
    measure : callable
        (group means (..., P, G), position of the precision, majority, minority) -> effects; without
        samples (Audit, position) -> effect with its lower and upper bound.
    needs : str
        Part of the Audit that `measure` reads where there are no samples: ``weights`` or ``curvature``.
    """

    samples: Callable | None
    measure: Callable
    needs: str = "weights"


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


def judgement(effect, low, high):
    """An effect with its interval and verdict; one that is not defined is undecided."""
    return {"effect": float(effect), "low": float(low), "high": float(high), "verdict": verdict(low, high)}


def judge(claim, audit, precision):
    """Effect of a claim at one precision, with its interval and verdict.

    The majority and the minority are the groups with most and fewest images in training.

    Parameters
    ----------
    claim : Claim
    audit : Audit
        With at least two groups present.
    precision : str
        Not the reference.

    Returns
    -------
    dict
        ``effect``, ``low``, ``high`` and ``verdict``; an effect that is not defined is undecided.
    """
    position = audit.index(precision)
    if position == 0:
        raise ValueError(f"{precision} is the reference; name another of {', '.join(audit.precisions[1:])}")
    if claim.samples is None:
        if getattr(audit, claim.needs) is None:
            return judgement(np.nan, np.nan, np.nan)
        effect, low, high = claim.measure(audit, position)
    else:
        counts = np.where(audit.group_counts > 0, audit.train_counts, -1)
        roles = int(counts.argmax()), int(np.where(counts < 0, counts.max() + 1, counts).argmin())
        samples, num_groups = claim.samples(audit), len(audit.group_names)
        flat = samples.reshape(-1, samples.shape[-1])
        resampled = bootstrap_group_means(flat, audit.groups, num_groups)
        shape = (*samples.shape[:-1], num_groups)
        with np.errstate(divide="ignore", invalid="ignore"):
            effect = claim.measure(group_means(samples, audit.groups, num_groups), position, *roles)
            draws = claim.measure(resampled.reshape(len(resampled), *shape), position, *roles)
        low, high = percentile_interval(draws)
    return judgement(effect, low, high)


def cell(result):
    """A judgement as a table shows it: verdict, effect and interval."""
    known = result["low"] != result["high"] and not np.isnan(result["low"])
    interval = f" [{result['low']:.3g}, {result['high']:.3g}]" if known else ""
    return f"{result['verdict']}: {result['effect']:.3g}{interval}"
