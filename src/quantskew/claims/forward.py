"""The paper's claims about the forward pass (sections 1 and 4.1 to 4.3)."""

import numpy as np

from quantskew.claims.effects import LOGARITHM, NATS, SHARE, VARIANCE, claim
from quantskew.measures import forward, weights


def above_others(values, group):
    """By how much a group is above each other one, (..., G - 1)."""
    return values[..., [group]] - np.delete(values, group, axis=-1)


def _at_ends(values, highest, lowest):
    """Whether one group is above every other and another one below: both, part by part."""
    return np.concatenate([above_others(values, highest), above_others(-values, lowest)], axis=-1)


def minority_less_majority(run, values):
    """By how much the minority is above the majority (B,)."""
    return values[:, run.minority] - values[:, run.majority]


def _separation(run, measure):
    """How many times as large the minority's value is as the majority's, as a logarithm."""
    return minority_less_majority(run, np.log(run.of(measure)))


def _by_row(values, rows):
    return np.stack([values(row) for row in rows], axis=-1)


@claim("1, Fig. 1", "00_problem#fig-fvo")
def fvo_grows(run):
    """Quantization widens the gap between the groups.

    quantization can exacerbate disparity of a model

    FVO minus FVO at the reference
    """
    return run.fvo() - run.fvo(0)


@claim("1, Fig. 1", "00_problem#fig-fvo", at="int2")
def fvo_grows_always(run):
    """At every precision the gap is wider than before quantization.

    The leftmost chart is pre-quantization. As the precision is reduced, the disparity is exacerbated further.

    FVO at int8, int4 and int2 minus FVO at the reference
    """
    return _by_row(run.fvo, run.ladder()) - run.fvo(0)[:, None]


@claim("1, Fig. 1", "00_problem#fig-fvo", at="int2")
def fvo_monotone(run):
    """From int8 to int4 and from int4 to int2 the gap widens.

    As the precision is reduced, the disparity is exacerbated further.

    FVO minus FVO at the precision before
    """
    return np.diff(_by_row(run.fvo, run.ladder()))


@claim("1, Fig. 1", "00_problem#fig-fvo", at="int2")
def fvo_extreme(run):
    """At two bits the gap is wider than at any higher precision of the paper.

    When the model is quantized to int2, the disparity is extreme.

    FVO minus FVO at fp32, fp16, int8 and int4
    """
    return run.fvo()[:, None] - _by_row(run.fvo, [0, *run.ladder("fp16", "int8", "int4")[:-1]])


@claim("1, Fig. 1", "00_problem#fig-accuracy")
def minority_loses_accuracy(run):
    """The minority loses more accuracy than the majority.

    quantization can exacerbate disparity of a model, especially for the minority group

    fall of the minority's accuracy minus the majority's
    """
    return minority_less_majority(run, run.fall(forward.group_accuracy))


@claim("4.1, Fig. 3", "01_weights#fig-weights", SHARE, at="int2", grouped=False)
def difference_grows(run):
    """Each lower precision moves the weights further.

    an increase in both absolute difference in weights and sparsity as precision reduces

    mean absolute difference minus that at the precision before, as a share of the mean magnitude
    """
    difference = run.weights(weights.absolute_difference, mean=True)[:, [0, *run.ladder()]]
    return np.diff(difference) / run.weights(weights.mean_magnitude)[:, :1]


@claim("4.1, Fig. 3", "01_weights#fig-weights", SHARE, at="int2", grouped=False)
def sparsity_grows(run):
    """Each lower precision turns more weights to zero.

    an increase in both absolute difference in weights and sparsity as precision reduces

    sparsity minus that at the precision before
    """
    return np.diff(run.weights(weights.sparsity)[:, [0, *run.ladder()]])


@claim("4.1, Fig. 4", "01_weights#fig-distribution", SHARE, grouped=False)
def weights_centre(run):
    """The distribution of the weights moves to the centre.

    a distribution shift towards the center with reducing precision

    fall of the mean magnitude, as a share of the reference's
    """
    magnitude = run.weights(weights.mean_magnitude)
    return 1 - magnitude[:, run.row] / magnitude[:, 0]


@claim("4.2, Fig. 5a", "02_logits#fig-cosine", LOGARITHM)
def cosine_minority(run):
    """The cosine distance is largest for the minority.

    the angle between different quantization levels is largest for the minority class Others

    log ratio of the minority's cosine distance to each other one
    """
    return above_others(np.log(run.of(forward.cosine_distance)), run.minority)


@claim("4.2, Fig. 5a", "02_logits#fig-cosine", LOGARITHM)
def cosine_majority(run):
    """The cosine distance is smallest for the majority.

    and the least for the majority class White

    log ratio of each other cosine distance to the majority's
    """
    return above_others(-np.log(run.of(forward.cosine_distance)), run.majority)


@claim("4.2, Fig. 5a", "02_logits#fig-cosine", LOGARITHM)
def cosine_order(run):
    """The cosine distance is largest for the minority and smallest for the majority.

    largest for the minority class Others and the least for the majority class White

    the weaker of both ends, as a log ratio
    """
    return _at_ends(np.log(run.of(forward.cosine_distance)), run.minority, run.majority)


@claim("4.2, Fig. 5b", "02_logits#fig-norms", LOGARITHM)
def l1_separates_less(run):
    """The L1 distance separates minority and majority less than the cosine distance does.

    Note that L1 does not capture the dissimilarity as finely as cosine distance.

    log ratio minority : majority of the cosine distance minus that of L1
    """
    return _separation(run, forward.cosine_distance) - _separation(run, forward.l1_distance)


@claim("4.2, Fig. 5c", "02_logits#fig-norms", LOGARITHM)
def l2_separates_less(run):
    """The L2 distance separates minority and majority less than the cosine distance does.

    Note that L2 is worse in comparison to both L1 and CD

    log ratio minority : majority of the cosine distance minus that of L2
    """
    return _separation(run, forward.cosine_distance) - _separation(run, forward.l2_distance)


@claim("4.2, Fig. 5c", "02_logits#fig-norms", LOGARITHM)
def l2_separates_least(run):
    """The L2 distance separates minority and majority less than the L1 distance does.

    Note that L2 is worse in comparison to both L1 and CD

    log ratio minority : majority of the L1 distance minus that of L2
    """
    return _separation(run, forward.l1_distance) - _separation(run, forward.l2_distance)


def _mean_variance(run, rows):
    """Mean over groups of the variance of the logits, as a share of the reference's (B, rows)."""
    values = _by_row(lambda row: run.of(forward.logit_variance, row).mean(axis=-1), [0, *rows])
    return values / values[:, :1]


@claim("4.2, Fig. 5d", "02_logits#fig-logit-variance", SHARE, at="int2", grouped=False)
def logit_variance_falls(run):
    """The variance of the logits falls.

    Decrease in precision leads to reduction in variance in logits

    fall of the mean over groups, as a share of the reference's
    """
    return 1 - _mean_variance(run, [run.row])[:, 1]


@claim("4.2, Fig. 5d", "02_logits#fig-logit-variance", SHARE, at="int2", grouped=False)
def logit_variance_monotone(run):
    """Each lower precision lowers the variance of the logits.

    decreases with decreasing precision, as observed in Figure 5d

    fall of the mean over groups from the precision before, as a share of the reference's
    """
    return -np.diff(_mean_variance(run, run.ladder()))


@claim("4.2, Fig. 5d", "02_logits#fig-logit-variance", LOGARITHM)
def logit_variance_majority(run):
    """The variance of the logits is highest for the majority.

    the group White exhibits the highest variance

    log ratio of the majority's variance to each other one
    """
    return above_others(np.log(run.of(forward.logit_variance)), run.majority)


@claim("4.2, Fig. 5d", "02_logits#fig-logit-variance", LOGARITHM)
def logit_variance_minority(run):
    """The variance of the logits is lowest for the minority.

    the Others group demonstrates the least variance

    log ratio of each other variance to the minority's
    """
    return above_others(-np.log(run.of(forward.logit_variance)), run.minority)


@claim("4.2, Fig. 5d", "02_logits#fig-logit-variance", LOGARITHM)
def logit_variance_order(run):
    """The variance of the logits is highest for the majority and lowest for the minority.

    White exhibits the highest variance, while the Others group demonstrates the least variance

    the weaker of both ends, as a log ratio
    """
    return _at_ends(np.log(run.of(forward.logit_variance)), run.majority, run.minority)


@claim("4.2, Fig. 6a", "03_softmax#fig-softmax-variance", VARIANCE, at="int2", grouped=False)
def softmax_variance_falls(run):
    """The variance of the probabilities falls for every group.

    At lower precisions, there is a substantial decrease in variance across all groups

    fall of the variance in each group
    """
    return run.fall(forward.softmax_variance)


@claim("4.2, Fig. 6a", "03_softmax#fig-softmax-variance", VARIANCE, at="int2")
def softmax_minority_most(run):
    """The variance of the probabilities falls most for the minority.

    with the Others group being affected the most

    the minority's fall minus each other one
    """
    return above_others(run.fall(forward.softmax_variance), run.minority)


@claim("4.2, Fig. 6a", "03_softmax#fig-softmax-variance", SHARE, at="int2")
def softmax_minority_share(run):
    """The variance of the probabilities falls by the largest share for the minority.

    with the Others group being affected the most

    the minority's fall, as a share of its own at the reference, minus each other one
    """
    share = run.fall(forward.softmax_variance) / run.of(forward.softmax_variance, 0)
    return above_others(share, run.minority)


@claim("4.2, Fig. 6b", "03_softmax#fig-dtdb")
def dtdb_left(run):
    """The minority's distance to the decision boundary shifts left.

    a strong leftward shift of distribution for Others

    fall of the minority's mean DTDB
    """
    return run.fall(forward.dtdb)[:, run.minority]


@claim("4.2, Fig. 6b", "03_softmax#fig-dtdb")
def dtdb_left_more(run):
    """The minority's distance to the decision boundary shifts further left than the majority's.

    a strong leftward shift of distribution for Others unlike White

    fall of the minority's mean DTDB minus the majority's
    """
    return minority_less_majority(run, run.fall(forward.dtdb))


@claim("4.3, Fig. 7", "04_loss#fig-loss", NATS)
def loss_minority(run):
    """The loss is highest for the minority.

    The per-group loss is highest for Others

    the minority's loss minus each other one
    """
    return above_others(run.of(forward.group_loss), run.minority)


@claim("4.3, Fig. 7", "04_loss#fig-loss", NATS)
def loss_majority(run):
    """The loss is lowest for the majority.

    and least for White

    each other loss minus the majority's
    """
    return above_others(-run.of(forward.group_loss), run.majority)


@claim("4.3, Fig. 7", "04_loss#fig-loss", NATS)
def loss_order(run):
    """The loss is highest for the minority and lowest for the majority.

    The per-group loss is highest for Others and least for White.

    the weaker of both ends
    """
    return _at_ends(run.of(forward.group_loss), run.minority, run.majority)


@claim("4.3, Fig. 7", "04_loss#fig-loss", NATS, grouped=False)
def loss_rises(run):
    """Quantization adds loss to every group.

    a clear, unfavorable movement of the model in the optimization space for all the classes

    added loss of each group
    """
    return -run.fall(forward.group_loss)


@claim("4.3, Fig. 7", "04_loss#fig-loss", NATS)
def loss_minority_most(run):
    """Quantization adds most loss to the minority.

    with the most affected being Others

    the minority's added loss minus each other one
    """
    return above_others(-run.fall(forward.group_loss), run.minority)
