"""The paper's claims about the backward pass (sections 4.4 and 4.5)."""

import functools

import numpy as np
from scipy.stats import rankdata

from quantskew.claims.effects import LOGARITHM, MAJORITY, RANKS, SHARE, claim
from quantskew.claims.forward import above_others
from quantskew.measures import forward

# A lambda_max within so much of the reference's counts as equal.
_EQUAL = 0.05
_curved = functools.partial(claim, curvature=True)


def ranks(first, second):
    """Rank correlation over the last axis, of three groups or more; NaN where it is not defined."""
    first, second = np.broadcast_arrays(first, second)
    if first.shape[-1] < 3:
        return np.full(first.shape[:-1], np.nan)
    ranks = [rankdata(values, axis=-1) for values in (first, second)]
    first, second = (own - own.mean(axis=-1, keepdims=True) for own in ranks)
    return (first * second).sum(axis=-1) / np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))


def _gradient(run):
    return run.surface("gradient_norms")[:, run.row]


def _lambda(run):
    return run.surface("lambda_max")[:, run.row]


def _contributions(run, epoch):
    """Logarithm of each group's part of the summed gradient: images by norm."""
    return np.log(run.counts * run.norms()[:, epoch])


@claim("4.4", "05_gradients#fig-gradient", LOGARITHM, at="fp32")
def gradient_dominated(run):
    """Early in training the majority contributes most to the gradient.

    Initially, the averaged gradients are dominated by classes with a higher number of samples.

    log ratio of its images times norm to each other group's, after the first epoch
    """
    return above_others(_contributions(run, 0), run.majority)


@claim("4.4", "05_gradients#fig-gradient", LOGARITHM, at="fp32")
def gradient_inverted(run):
    """Late in training the minority contributes more to the gradient than the majority.

    the initial dominance of the majority classes in the gradients which are inverted at some point

    log ratio minority : majority of images times norm, after the last epoch
    """
    last = _contributions(run, -1)
    return last[:, run.minority] - last[:, run.majority]


@_curved("4.4, Fig. 8a", "05_gradients#fig-gradient", RANKS)
def gradient_size(run):
    """The gradient norm is larger for groups with fewer images.

    an inverse trend between the gradient norm and group sizes

    rank correlation of norm and group size, negated
    """
    return ranks(_gradient(run), -run.counts)


@_curved("4.4, Fig. 8b", "05_gradients#fig-gradient", RANKS)
def gradient_accuracy(run):
    """The gradient norm is larger for groups with lower accuracy.

    an inverse trend with the accuracy of the model

    rank correlation of norm and accuracy, negated
    """
    return ranks(_gradient(run), -run.of(forward.group_accuracy))


@_curved("4.5, Fig. 9a", "06_hessian#fig-lambda", RANKS)
def lambda_accuracy(run):
    """lambda_max is larger for groups with lower accuracy.

    λmax and accuracy move in opposite directions

    rank correlation of lambda_max and accuracy, negated
    """
    return ranks(_lambda(run), -run.of(forward.group_accuracy))


@_curved("4.5, Fig. 9a", "06_hessian#fig-lambda", LOGARITHM)
def lambda_minority(run):
    """lambda_max is largest for the minority.

    the steepness is the highest for Others

    log ratio of the minority's lambda_max to each other one
    """
    return above_others(np.log(_lambda(run)), run.minority)


@_curved("4.5, Fig. 9a", "06_hessian#fig-lambda", RANKS)
def lambda_confidence(run):
    """lambda_max is larger for groups with a lower average prediction probability.

    the average prediction probability is lowest for the group with the highest λmax and vice versa

    rank correlation of lambda_max and Eq. 11, negated
    """
    return ranks(_lambda(run), -run.of(forward.top_probability))


@_curved("4.5, Fig. 9b", "06_hessian#fig-gradient-lambda", RANKS)
def lambda_gradient(run):
    """Gradient norm and lambda_max move together.

    gradient norm and λmax moving toward the same direction

    rank correlation of the two
    """
    return ranks(_lambda(run), _gradient(run))


@_curved("4.5.1, Fig. 10", "06_hessian#fig-lambda-precision", SHARE, at="fp16", grouped=False)
def lambda_half(run):
    """lambda_max at fp16 is almost equal to that of the reference.

    for fp32 and fp16, log(λmax) is almost equal

    0.05 minus the relative change of each group
    """
    return _EQUAL - np.abs(_lambda(run) / run.surface("lambda_max")[:, 0] - 1)


@_curved("4.5.1, Fig. 10", "06_hessian#fig-lambda-precision", MAJORITY, at="int2", grouped=False)
def lambda_grows(run):
    """In most groups lambda_max is larger at int4 than at int8, and at int2 than at int4.

    the scope for improvement is close to this order, int2 > int4 > int8, in most cases

    share of the groups whose lambda_max is in this order, minus one half
    """
    growth = np.diff(run.surface("lambda_max")[:, run.ladder()], axis=1)
    return (growth > 0).all(axis=1).mean(axis=-1) - 0.5 if growth.size else growth


@_curved("4.5.1, Fig. 10", "06_hessian#fig-lambda-precision", RANKS, at="int2")
def lambda_same_order(run):
    """The order of the groups' lambda_max is the same at every precision.

    The trend across groups is similar for all quantization levels

    rank correlation of lambda_max at int8, int4 and int2 with that at the reference
    """
    here, before = run.surface("lambda_max")[:, run.ladder()], run.surface("lambda_max", "alone")[:, :1]
    return ranks(here, before)
