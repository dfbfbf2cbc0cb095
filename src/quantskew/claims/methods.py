"""The paper's claims about difficulty (section 4.6), mitigation and activations (sections 5 and 6)."""

import numpy as np

from quantskew.claims.effects import claim, over_images, over_methods, over_seeds
from quantskew.experiments.methods import PAPER
from quantskew.measures import forward

# A training accuracy, or a change of FVO, within so much counts as equal.
_EQUAL = 0.02
_ALIKE = 0.05
_OTHERS = tuple(key for key in PAPER if key != "fair-qat")


def _margin(values, group):
    """Mean of the other groups less that of `group`, over the last axis."""
    return np.nanmean(np.delete(values, group, axis=-1), axis=-1) - values[..., group]


def _in_training(audit):
    """Margin of the other groups over the minority in training accuracy, by epoch."""
    curves = np.array([epoch["train"]["accuracy"] for epoch in audit.provenance["history"]])
    return _margin(curves, int(np.argmin(audit.train_counts)))


def _spread(audit):
    """Ratio of the largest to the smallest gradient norm in training, as the mean of its logarithm."""
    history = [epoch["measured"] for epoch in audit.provenance["history"] if "measured" in epoch]
    norms = np.array(history, dtype=float)
    return np.log(np.nanmax(norms, axis=1) / np.nanmin(norms, axis=1)).mean()


@claim(
    "4.6",
    "07_difficulty#fig-learning",
    "training accuracy of the others less the minority's, over the first half of the epochs",
)
@over_seeds("balanced", at="fp32")
def difficult_late(audit, _):
    """On balanced data the minority is learned later."""
    margins = _in_training(audit)
    return margins[: len(margins) // 2].mean()


# Shuffled groups are equal: the control would be the claim.
@claim("4.6", "07_difficulty#fig-learning", f"{_EQUAL} less the margin of the others after the last epoch")
@over_seeds("balanced", at="fp32", grouped=False)
def difficult_equal(audit, _):
    """On balanced data the minority ends with the same training accuracy."""
    return _EQUAL - np.abs(_in_training(audit)[-1])


@claim("4.6", "07_difficulty#fig-rotation", "test accuracy of the others less the minority's")
@over_images(forward.group_accuracy, needs=("balanced",), at="fp32")
def difficult_test(accuracy):
    """On balanced data the minority's test accuracy is lower."""
    return _margin(accuracy.here, accuracy.minority)


# The ratio does not depend on which group is which.
@claim(
    "5.1",
    "08_mitigation#fig-norms-training",
    "log ratio of the largest to the smallest norm, without U-O less with it",
)
@over_seeds("ptq", "u-o", at="fp32", grouped=False)
def sampling_gradients(without, sampled, _):
    """U-O narrows the gradient norms of the groups in training."""
    return _spread(without) - _spread(sampled)


@claim("5.1", "08_mitigation#fig-methods", "FVO of the float model without less with them")
@over_methods("fvo", "ptq", "u-o+wcr", at="fp32")
def fair_base(fvo):
    """U-O and WCR together give a fairer float model."""
    return fvo("ptq") - fvo("u-o+wcr")


@claim("5.3", "08_mitigation#fig-methods", "FVO of PTQ less that of MPQAT")
@over_methods("fvo", "ptq", "mpqat")
def qat_alone(fvo):
    """MPQAT alone lowers FVO."""
    return fvo("ptq") - fvo("mpqat")


@claim("5.3", "08_mitigation#fig-methods", "FVO of the float model less that of U-O + WCR")
@over_methods("fvo", "ptq", "u-o+wcr", at="int8")
def fair_ptq_high(fvo):
    """PTQ of a fair model is fair at high precision."""
    return fvo("ptq", "fp32") - fvo("u-o+wcr")


@claim("5.3", "08_mitigation#fig-methods", "FVO of U-O + WCR less that at fp32")
@over_methods("fvo", "u-o+wcr", at="int2")
def fair_ptq_low(fvo):
    """PTQ of a fair model is not fair at low precision."""
    return fvo("u-o+wcr") - fvo("u-o+wcr", "fp32")


@claim("5.3, Fig. 12", "08_mitigation#fig-tradeoff", "least FVO of the other methods less that of Fair QAT")
@over_methods("fvo", *PAPER)
def fair_qat_fairest(fvo):
    """Fair QAT has the lowest FVO."""
    return np.min([fvo(key) for key in _OTHERS], axis=0) - fvo("fair-qat")


# Overall accuracy knows no groups.
@claim(
    "5.3, Fig. 12", "08_mitigation#fig-tradeoff", "accuracy of Fair QAT less the highest of the other methods"
)
@over_methods("accuracy", *PAPER, grouped=False)
def fair_qat_accurate(accuracy):
    """Fair QAT has the highest overall accuracy."""
    return accuracy("fair-qat") - np.max([accuracy(key) for key in _OTHERS], axis=0)


# With shuffled groups nothing is left but the margin.
@claim(
    "6",
    "09_what_held_up#fig-activations",
    f"FVO with quantized weights and activations less that with quantized weights, plus {_ALIKE}",
)
@over_methods("fvo", "activations", at="W4A4", grouped=False)
def activations_alike(fvo):
    """Quantized activations resemble the disparity of quantized weights, or widen it."""
    return fvo("activations") - fvo("activations", "int4") + _ALIKE
