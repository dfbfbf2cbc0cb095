"""The paper's claims about difficulty (section 4.6), mitigation and activations (sections 5 and 6)."""

import functools

import numpy as np

from quantskew.claims.effects import LOGARITHM, MAJORITY, NotTested, claim
from quantskew.claims.forward import above_others
from quantskew.experiments.methods import PAPER
from quantskew.measures import forward

# A training accuracy, or a change of FVO, within so much counts as equal.
_EQUAL = 0.02
_ALIKE = 0.05
# Training has come to its end where so much of the other groups is known by heart.
_LEARNED = 0.95
_balanced = functools.partial(claim, needs=("balanced",), at="fp32")
_activated = functools.partial(
    claim, "6", "09_what_held_up#fig-activations", needs=("activations",), at="W4A4", grouped=False
)


def _spread(run):
    """Ratio of the largest to the smallest gradient norm in training, as the mean of its logarithm."""
    norms = run.norms()
    return np.log(np.nanmax(norms, axis=-1) / np.nanmin(norms, axis=-1)).mean(axis=-1)


@_balanced("4.6", "07_difficulty#fig-learning")
def difficult_late(run):
    """On balanced data the minority is learned later than every other group.

    the per-group accuracy was initially lower for the group Others, compared to the other classes

    training accuracy of each other group minus the minority's, over the first half of the epochs
    """
    curves = run.learned()
    return above_others(-curves[:, : curves.shape[1] // 2].mean(axis=1), run.minority)


# Shuffled groups are equal: the control would be the claim.
@_balanced("4.6", "07_difficulty#fig-learning", grouped=False)
def difficult_equal(run):
    """On balanced data the minority ends with the same training accuracy.

    The model then reaches equal training accuracy for every class towards the end

    0.02 minus the difference of each other group after the last epoch
    """
    last = run.learned()[:, -1]
    known = np.delete(last[0], run.minority).mean()
    if known < _LEARNED:
        raise NotTested(f"training ended early, with an accuracy of {known:.2f} of the other groups")
    return _EQUAL - np.abs(above_others(last, run.minority))


@_balanced("4.6", "07_difficulty#fig-rotation")
def difficult_test(run):
    """On balanced data the minority's test accuracy is lower.

    yet performs poorly on the test set for Others

    test accuracy of the others minus the minority's
    """
    return above_others(-run.of(forward.group_accuracy), run.minority).mean(axis=-1)


# The ratio does not depend on which group is which.
@claim("5.1", "08_mitigation#fig-norms-training", LOGARITHM, needs=("ptq", "u-o"), at="fp32", grouped=False)
def sampling_gradients(without, sampled):
    """U-O narrows the gradient norms of the groups in training.

    reduces the per-group differences in the gradient norm during training

    log ratio of the largest to the smallest norm, without U-O minus with it
    """
    return _spread(without) - _spread(sampled)


@claim("5.1", "08_mitigation#fig-methods", needs=("ptq", "u-o+wcr"), at="fp32")
def fair_base(without, both):
    """U-O and WCR together give a fairer float model.

    we train a fairer model θf using both U–O and WCR

    FVO of the float model without minus with them
    """
    return without.fvo() - both.fvo()


@claim("5.1", "08_mitigation#fig-methods", needs=("ptq", "u-o"), at="fp32")
def fair_sampling(without, sampled):
    """U-O alone gives a fairer float model.

    simple methods, such as undersampling, oversampling, [...] leads to fairer models

    FVO of the float model without minus with it
    """
    return without.fvo() - sampled.fvo()


@claim("5.1", "08_mitigation#fig-methods", needs=("ptq", "wcr"), at="fp32")
def fair_weighting(without, weighted):
    """WCR alone gives a fairer float model.

    simple methods, such as [...] adjusting weights in WCR, leads to fairer models

    FVO of the float model without minus with it
    """
    return without.fvo() - weighted.fvo()


@claim("5.3", "08_mitigation#fig-methods", needs=("ptq", "mpqat"))
def qat_alone(ptq, mpqat):
    """MPQAT alone lowers FVO.

    In fact, MPQAT alone also reduces FVO.

    FVO of PTQ minus that of MPQAT
    """
    return ptq.fvo() - mpqat.fvo()


@claim("5.3", "08_mitigation#fig-methods", needs=("ptq", "fair-qat"))
def fair_qat_fairer(ptq, fair):
    """Fair QAT lowers FVO against PTQ.

    Combining U–O, WCR, and MPQAT reduces the disparate impact of Quantization

    FVO of PTQ minus that of Fair QAT
    """
    return ptq.fvo() - fair.fvo()


# With shuffled groups nothing is left but the margin.
@claim("5.3", "08_mitigation#fig-methods", needs=("u-o+wcr",), at="int8", grouped=False)
def fair_ptq_high(fair):
    """PTQ at high precision leaves a fair model as fair as it was.

    PTQ has acceptable FVO for higher precisions, provided the original model is relatively fair

    0.02 minus the change of the FVO of U-O + WCR from fp32
    """
    return _EQUAL - (fair.fvo() - fair.fvo(0))


@claim("5.3", "08_mitigation#fig-methods", needs=("u-o+wcr",), at="int2")
def fair_ptq_low(fair):
    """PTQ of a fair model is not fair at low precision.

    But, for lower precisions, that does not hold.

    FVO of U-O + WCR minus that at fp32
    """
    return fair.fvo() - fair.fvo(0)


def _leads(statistic, methods):
    """By how much a statistic of the last of some methods is above that of each other one."""
    *others, own = map(statistic, methods)
    return np.stack([own - other for other in others], axis=-1)


@claim("5.3, Fig. 12", "08_mitigation#fig-tradeoff", needs=PAPER)
def fair_qat_fairest(*methods):
    """Fair QAT has the lowest FVO.

    our method achieves both the highest OA and lowest FVO

    FVO of each other method minus that of Fair QAT
    """
    return _leads(lambda run: -run.fvo(), methods)


# Overall accuracy knows no groups.
@claim("5.3, Fig. 12", "08_mitigation#fig-tradeoff", needs=PAPER, grouped=False)
def fair_qat_accurate(*methods):
    """Fair QAT has the highest overall accuracy.

    our method achieves both the highest OA and lowest FVO

    accuracy of Fair QAT minus that of each other method
    """
    return _leads(lambda run: run.accuracy(), methods)


@claim("5.3, Fig. 12", "08_mitigation#fig-tradeoff", needs=PAPER, grouped=False)
def fair_qat_best(*methods):
    """Fair QAT has both the highest overall accuracy and the lowest FVO.

    our method achieves both the highest OA and lowest FVO

    the weakest of its leads in accuracy and in FVO
    """
    return np.concatenate([own.of_seed(*methods) for own in (fair_qat_fairest, fair_qat_accurate)], axis=-1)


@claim("6", "08_mitigation#fig-methods", MAJORITY, needs=("mpqat", "fair-qat"), at="int2", grouped=False)
def qat_fairer_often(mpqat, fair):
    """At most precisions MPQAT alone has lower FVO than Fair QAT.

    For many quantization precisions, QAT has lower FVO than the Fair QAT

    share of int8, int4 and int2 at which it is so, minus one half
    """
    return np.mean([mpqat.fvo(row) < fair.fvo(row) for row in mpqat.ladder()], axis=0) - 0.5


@_activated()
def activations_cost(run):
    """Quantized activations lower the accuracy further.

    activation quantization further worsens the network accuracy

    accuracy with quantized weights minus that with quantized weights and activations
    """
    return run.accuracy(run.find("int4")) - run.accuracy()


# With shuffled groups nothing is left but the margin.
@_activated()
def activations_alike(run):
    """Quantized activations resemble the disparity of quantized weights, or widen it.

    the results would either resemble that of weight quantization or expand the disparity

    FVO with quantized weights and activations minus that with quantized weights, plus 0.05
    """
    return run.fvo() - run.fvo(run.find("int4")) + _ALIKE
