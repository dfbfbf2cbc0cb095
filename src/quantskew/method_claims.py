"""The paper's claims on example difficulty and mitigation (sections 4.6 and 5), each with a verdict.

These compare whole methods over seeds, where `quantskew.claims` judges a single Audit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quantskew import difficulty
from quantskew.intervals import DRAWS
from quantskew.methods import PAPER
from quantskew.seeds import fairness_over_seeds, group_accuracies, interval, mean_over_seeds
from quantskew.verdicts import Statement, cell, judgement

# A training accuracy within so much of the others' counts as equal.
_EQUAL = 0.02
_OTHERS = tuple(key for key in PAPER if key != "fair-qat")


@dataclass(frozen=True)
class MethodClaim(Statement):
    """One claim about what training on other data or in another way does.

    Attributes
    ----------
    measure : callable
        dict of str to list of Audit (the seeds of each method or rotation, by its key) -> effect and its
        resampled values.
    needs : tuple of str
        Keys that `measure` reads.
    """

    measure: Callable
    needs: tuple


def _fairness(audits, method, precision, measure="fvo"):
    return fairness_over_seeds(audits[method], precision)[measure]


def _less(first, second):
    """First less second, of pairs (value, draws)."""
    return first[0] - second[0], first[1] - second[1]


def _minority(audit):
    return int(np.argmin(audit.train_counts))


def _margin(values, group):
    """Mean of the other groups less that of `group`, over the last axis."""
    return np.nanmean(np.delete(values, group, axis=-1), axis=-1) - values[..., group]


def _seeds_alone(values):
    """A statistic of each seed that was not resampled: mean and draws of seeds, NaN below three."""
    values = np.asarray(values)
    mean, draws = mean_over_seeds(values, np.tile(values, (DRAWS, 1)))
    return mean, draws if len(values) > 2 else np.full(len(draws), np.nan)


def _training(audits, part):
    """Margin of the other groups over the minority in training accuracy, averaged over some epochs."""
    margins = []
    for audit in audits[difficulty.BALANCED]:
        curves = np.array([epoch["train"]["accuracy"] for epoch in audit.provenance["history"]])
        margins.append(_margin(curves[part(len(curves))], _minority(audit)).mean())
    return margins


def _test(audits):
    seeds = audits[difficulty.BALANCED]
    value, draws = group_accuracies(seeds, seeds[0].precisions[0])
    return mean_over_seeds(*(_margin(a, _minority(seeds[0])) for a in (value, draws)))


def _spread(audits, method):
    """Ratio of the largest to the smallest gradient norm in training, as the mean of its logarithm."""
    spreads = []
    for audit in audits[method]:
        history = [epoch["measured"] for epoch in audit.provenance["history"] if "measured" in epoch]
        norms = np.array(history, dtype=float)
        spreads.append(np.log(np.nanmax(norms, axis=1) / np.nanmin(norms, axis=1)).mean())
    return np.array(spreads)


def _lead(audits, measure, sign):
    """By how much Fair QAT leads the best other method at int4; `sign` is -1 where less is better."""
    own = _fairness(audits, "fair-qat", "int4", measure)
    others = [_fairness(audits, method, "int4", measure) for method in _OTHERS]
    best = [np.max([sign * other[k] for other in others], axis=0) for k in (0, 1)]
    return sign * own[0] - best[0], sign * own[1] - best[1]


_CLAIMS = (
    MethodClaim(
        "difficult_late",
        "section 4.6",
        "On balanced data the minority is learned later.",
        "training accuracy of the others less the minority's, over the first half of the epochs",
        lambda a: _seeds_alone(_training(a, lambda epochs: slice(0, epochs // 2))),
        (difficulty.BALANCED,),
    ),
    MethodClaim(
        "difficult_equal",
        "section 4.6",
        "It ends with the same training accuracy.",
        f"{_EQUAL} less the margin of the others after the last epoch",
        lambda a: _seeds_alone(_EQUAL - np.abs(_training(a, lambda epochs: slice(-1, None)))),
        (difficulty.BALANCED,),
    ),
    MethodClaim(
        "difficult_test",
        "section 4.6",
        "Its test accuracy is lower all the same.",
        "test accuracy of the others less the minority's",
        _test,
        (difficulty.BALANCED,),
    ),
    MethodClaim(
        "sampling_gradients",
        "section 5.1",
        "U-O narrows the differences between the gradient norms of the groups in training.",
        "mean log ratio of the largest to the smallest norm, without U-O less with it",
        lambda a: _seeds_alone(_spread(a, "ptq") - _spread(a, "u-o")),
        ("ptq", "u-o"),
    ),
    MethodClaim(
        "fair_base",
        "section 5.1",
        "U-O and WCR together give a fairer float model.",
        "FVO of the float model without less with them",
        lambda a: _less(_fairness(a, "ptq", "fp32"), _fairness(a, "u-o+wcr", "fp32")),
        ("ptq", "u-o+wcr"),
    ),
    MethodClaim(
        "qat_alone",
        "section 5.3",
        "MPQAT alone lowers FVO.",
        "FVO of PTQ at int4 less that of MPQAT",
        lambda a: _less(_fairness(a, "ptq", "int4"), _fairness(a, "mpqat", "int4")),
        ("ptq", "mpqat"),
    ),
    MethodClaim(
        "fair_ptq_high",
        "section 5.3",
        "PTQ of a fair model is fair at high precision.",
        "FVO of the float model less that of U-O + WCR at int8",
        lambda a: _less(_fairness(a, "ptq", "fp32"), _fairness(a, "u-o+wcr", "int8")),
        ("ptq", "u-o+wcr"),
    ),
    MethodClaim(
        "fair_ptq_low",
        "section 5.3",
        "It is not at low precision.",
        "FVO of U-O + WCR at int2 less that at fp32",
        lambda a: _less(_fairness(a, "u-o+wcr", "int2"), _fairness(a, "u-o+wcr", "fp32")),
        ("u-o+wcr",),
    ),
    MethodClaim(
        "fair_qat_fairest",
        "section 5.3, Fig. 12",
        "Fair QAT has the lowest FVO at int4.",
        "least FVO of the other methods less that of Fair QAT",
        lambda a: _lead(a, "fvo", -1),
        PAPER,
    ),
    MethodClaim(
        "fair_qat_accurate",
        "section 5.3, Fig. 12",
        "Fair QAT has the highest overall accuracy at int4.",
        "accuracy of Fair QAT less the highest of the other methods",
        lambda a: _lead(a, "accuracy", 1),
        PAPER,
    ),
)
METHOD_CLAIMS = {claim.key: claim for claim in _CLAIMS}


def judge_methods(claim, audits):
    """Effect of a claim over seeds, with its interval and verdict.

    Parameters
    ----------
    claim : MethodClaim
    audits : dict of str to list of Audit

    Returns
    -------
    dict
        ``effect``, ``low``, ``high`` and ``verdict``; undecided where a method is missing, or where the
        effect varies over seeds alone and there are less than three.
    """
    if any(key not in audits for key in claim.needs):
        return judgement(np.nan, np.nan, np.nan)
    value, draws = claim.measure(audits)
    bounds = interval(value, draws)
    return judgement(bounds["value"], bounds["low"], bounds["high"])


def method_scorecard(audits, keys):
    """Claims by row, experiments by column: verdict, effect and interval in each cell.

    Parameters
    ----------
    audits : dict of str to dict of str to list of Audit
        By the title of the column, then by method.
    keys : sequence of str
        See `METHOD_CLAIMS`.

    Returns
    -------
    pandas.DataFrame
    """
    unknown = [key for key in keys if key not in METHOD_CLAIMS]
    if unknown:
        raise ValueError(f"unknown claim {unknown[0]!r}; known: {', '.join(METHOD_CLAIMS)}")
    return pd.DataFrame(
        {
            "claim": METHOD_CLAIMS[key].statement,
            **{title: cell(judge_methods(METHOD_CLAIMS[key], own)) for title, own in audits.items()},
        }
        for key in keys
    )
