"""The paper's claims on example difficulty, mitigation and activations (sections 4.6, 5 and 6).

These compare Audits of several methods, see `quantskew.claims.verdicts`.
"""

import numpy as np

from quantskew.claims.verdicts import Claim
from quantskew.experiments import difficulty
from quantskew.experiments.methods import PAPER
from quantskew.experiments.runs import ACTIVATIONS
from quantskew.measures.seeds import (
    fairness_over_seeds,
    group_accuracies,
    mean_over_seeds,
    over_seeds_alone,
)

# A training accuracy, or a change of FVO, within so much counts as equal.
_EQUAL = 0.02
_ALIKE = 0.05
_OTHERS = tuple(key for key in PAPER if key != "fair-qat")


def _fvo(before, after):
    """FVO of one method and precision less that of another; "at" stands for the precision judged at."""

    def effect(evidence, precision, draws):
        first, second = (
            fairness_over_seeds(evidence[key], precision if name == "at" else name, draws)["fvo"]
            for key, name in (before, after)
        )
        return first[0] - second[0], first[1] - second[1]

    return effect


def _minority(audit):
    return int(np.argmin(audit.train_counts))


def _margin(values, group):
    """Mean of the other groups less that of `group`, over the last axis."""
    return np.nanmean(np.delete(values, group, axis=-1), axis=-1) - values[..., group]


def _training(evidence, part):
    """Margin of the other groups over the minority in training accuracy, averaged over some epochs."""
    margins = []
    for audit in evidence[difficulty.BALANCED]:
        curves = np.array([epoch["train"]["accuracy"] for epoch in audit.provenance["history"]])
        margins.append(_margin(curves[part(len(curves))], _minority(audit)).mean())
    return np.array(margins)


def _late(evidence, precision, draws):
    return over_seeds_alone(_training(evidence, lambda epochs: slice(0, epochs // 2)), draws)


def _equal(evidence, precision, draws):
    return over_seeds_alone(_EQUAL - np.abs(_training(evidence, lambda epochs: slice(-1, None))), draws)


def _test(evidence, precision, draws):
    seeds = evidence[difficulty.BALANCED]
    accuracies = group_accuracies(seeds, precision, draws)
    return mean_over_seeds(*(_margin(own, _minority(seeds[0])) for own in accuracies))


def _spread(audit):
    """Ratio of the largest to the smallest gradient norm in training, as the mean of its logarithm."""
    history = [epoch["measured"] for epoch in audit.provenance["history"] if "measured" in epoch]
    norms = np.array(history, dtype=float)
    return np.log(np.nanmax(norms, axis=1) / np.nanmin(norms, axis=1)).mean()


def _narrower(evidence, precision, draws):
    pairs = zip(evidence["ptq"], evidence["u-o"], strict=True)
    return over_seeds_alone([_spread(without) - _spread(sampled) for without, sampled in pairs], draws)


def _lead(measure, sign):
    """By how much Fair QAT leads the best other method; `sign` is -1 where less is better."""

    def effect(evidence, precision, draws):
        own, *others = (
            fairness_over_seeds(evidence[key], precision, draws)[measure] for key in ("fair-qat", *_OTHERS)
        )
        best = [np.max([sign * other[k] for other in others], axis=0) for k in (0, 1)]
        return sign * own[0] - best[0], sign * own[1] - best[1]

    return effect


def _not_narrower(evidence, precision, draws):
    value, resampled = _fvo((ACTIVATIONS, "at"), (ACTIVATIONS, "int4"))(evidence, precision, draws)
    return value + _ALIKE, resampled + _ALIKE


METHODS_CLAIMED = (
    Claim(
        "difficult_late",
        "section 4.6",
        "07_difficulty#fig-learning",
        "On balanced data the minority is learned later.",
        "training accuracy of the others less the minority's, over the first half of the epochs",
        "fp32",
        _late,
        (difficulty.BALANCED,),
    ),
    Claim(
        "difficult_equal",
        "section 4.6",
        "07_difficulty#fig-learning",
        "On balanced data the minority ends with the same training accuracy.",
        f"{_EQUAL} less the margin of the others after the last epoch",
        "fp32",
        _equal,
        (difficulty.BALANCED,),
        # Shuffled groups are equal: the control would be the claim.
        grouped=False,
    ),
    Claim(
        "difficult_test",
        "section 4.6",
        "07_difficulty#fig-rotation",
        "On balanced data the minority's test accuracy is lower.",
        "test accuracy of the others less the minority's",
        "fp32",
        _test,
        (difficulty.BALANCED,),
    ),
    Claim(
        "sampling_gradients",
        "section 5.1",
        "08_mitigation#fig-norms-training",
        "U-O narrows the gradient norms of the groups in training.",
        "log ratio of the largest to the smallest norm, without U-O less with it",
        "fp32",
        _narrower,
        ("ptq", "u-o"),
        # The ratio does not depend on which group is which.
        grouped=False,
    ),
    Claim(
        "fair_base",
        "section 5.1",
        "08_mitigation#fig-methods",
        "U-O and WCR together give a fairer float model.",
        "FVO of the float model without less with them",
        "fp32",
        _fvo(("ptq", "at"), ("u-o+wcr", "at")),
        ("ptq", "u-o+wcr"),
    ),
    Claim(
        "qat_alone",
        "section 5.3",
        "08_mitigation#fig-methods",
        "MPQAT alone lowers FVO.",
        "FVO of PTQ less that of MPQAT",
        "int4",
        _fvo(("ptq", "at"), ("mpqat", "at")),
        ("ptq", "mpqat"),
    ),
    Claim(
        "fair_ptq_high",
        "section 5.3",
        "08_mitigation#fig-methods",
        "PTQ of a fair model is fair at high precision.",
        "FVO of the float model less that of U-O + WCR",
        "int8",
        _fvo(("ptq", "fp32"), ("u-o+wcr", "at")),
        ("ptq", "u-o+wcr"),
    ),
    Claim(
        "fair_ptq_low",
        "section 5.3",
        "08_mitigation#fig-methods",
        "PTQ of a fair model is not fair at low precision.",
        "FVO of U-O + WCR less that at fp32",
        "int2",
        _fvo(("u-o+wcr", "at"), ("u-o+wcr", "fp32")),
        ("u-o+wcr",),
    ),
    Claim(
        "fair_qat_fairest",
        "section 5.3, Fig. 12",
        "08_mitigation#fig-tradeoff",
        "Fair QAT has the lowest FVO.",
        "least FVO of the other methods less that of Fair QAT",
        "int4",
        _lead("fvo", -1),
        PAPER,
    ),
    Claim(
        "fair_qat_accurate",
        "section 5.3, Fig. 12",
        "08_mitigation#fig-tradeoff",
        "Fair QAT has the highest overall accuracy.",
        "accuracy of Fair QAT less the highest of the other methods",
        "int4",
        _lead("accuracy", 1),
        PAPER,
        # Overall accuracy knows no groups.
        grouped=False,
    ),
    Claim(
        "activations_alike",
        "section 6",
        "09_what_held_up#fig-activations",
        "Quantized activations resemble the disparity of quantized weights, or widen it.",
        f"FVO with quantized weights and activations less that with quantized weights, plus {_ALIKE}",
        "W4A4",
        _not_narrower,
        (ACTIVATIONS,),
        # With shuffled groups nothing is left but the margin.
        grouped=False,
    ),
)
