"""The paper's claims about the forward pass (sections 1 and 4.1 to 4.3)."""

import numpy as np

from quantskew.claims.effects import claim, of_weights, over_images
from quantskew.groups import largest_gap
from quantskew.measures import forward, weights


def _falls_more(means):
    """How much more the minority falls than the majority."""
    return means.fall[..., means.minority] - means.fall[..., means.majority]


def _largest_but(values, group):
    """The largest value of the groups other than `group`."""
    return np.nanmax(np.delete(values, group, axis=-1), axis=-1)


def _extremes(values, highest, lowest):
    """By how much `highest` is above every other group and `lowest` below: the smaller of the two."""
    above = values[..., highest] - _largest_but(values, highest)
    below = -values[..., lowest] - _largest_but(-values, lowest)
    return np.minimum(above, below)


def _separation(means):
    """How many times as large the minority's value is as the majority's, as a logarithm."""
    return np.log(means.here[..., means.minority]) - np.log(means.here[..., means.majority])


@claim("1, Fig. 1", "00_problem#fig-fvo", "FVO less FVO at the reference")
@over_images(forward.group_accuracy)
def fvo_grows(accuracy):
    """Quantization widens the gap between the groups."""
    return largest_gap(accuracy.here) - largest_gap(accuracy.reference)


@claim("1, Fig. 1", "00_problem#fig-fvo", "FVO less the largest at a higher precision")
@over_images(forward.group_accuracy, at="int2")
def fvo_extreme(accuracy):
    """At two bits the gap is extreme."""
    return largest_gap(accuracy.here) - largest_gap(accuracy.higher).max(axis=-1)


@claim("1, Fig. 1", "00_problem#fig-accuracy", "fall of the minority's accuracy less the majority's")
@over_images(forward.group_accuracy)
def minority_loses_accuracy(accuracy):
    """The minority loses more accuracy than the majority."""
    return _falls_more(accuracy)


@claim("4.1, Fig. 3", "01_weights#fig-weights", "mean absolute difference less that at the precision before")
@of_weights()
def difference_grows(audit, position):
    """Each lower precision moves the weights further."""
    return np.diff(weights.absolute_difference(audit, mean=True)["value"])[position - 1]


@claim("4.1, Fig. 3", "01_weights#fig-weights", "sparsity less that at the precision before")
@of_weights()
def sparsity_grows(audit, position):
    """Each lower precision turns more weights to zero."""
    return np.diff(weights.sparsity(audit)["value"])[position - 1]


@claim(
    "4.1, Fig. 4", "01_weights#fig-distribution", "fall of the mean magnitude, as a share of the reference's"
)
@of_weights()
def weights_centre(audit, position):
    """The distribution of the weights moves to the centre."""
    magnitude = weights.mean_magnitude(audit)["value"]
    return 1 - magnitude[position] / magnitude[0]


@claim("4.2, Fig. 5a", "02_logits#fig-cosine", "margin by which both are so")
@over_images(forward.cosine_distance)
def cosine_order(distance):
    """The cosine distance is largest for the minority and least for the majority."""
    return _extremes(distance.here, highest=distance.minority, lowest=distance.majority)


@claim(
    "4.2, Fig. 5b",
    "02_logits#fig-norms",
    "log ratio minority : majority of the cosine distance less that of L1",
)
@over_images(forward.cosine_distance, forward.l1_distance)
def l1_separates_less(cosine, l1):
    """The L1 distance separates minority and majority less than the cosine distance does."""
    return _separation(cosine) - _separation(l1)


@claim(
    "4.2, Fig. 5c",
    "02_logits#fig-norms",
    "log ratio minority : majority of the cosine distance less that of L2",
)
@over_images(forward.cosine_distance, forward.l2_distance)
def l2_separates_less(cosine, l2):
    """The L2 distance separates minority and majority less than the cosine distance does."""
    return _separation(cosine) - _separation(l2)


@claim(
    "4.2, Fig. 5d",
    "02_logits#fig-logit-variance",
    "fall of the mean over groups, as a share of the reference's",
)
@over_images(forward.logit_variance, at="int2", grouped=False)
def logit_variance_falls(variance):
    """The variance of the logits falls."""
    return 1 - np.nanmean(variance.here, axis=-1) / np.nanmean(variance.reference, axis=-1)


@claim("4.2, Fig. 5d", "02_logits#fig-logit-variance", "margin by which both are so")
@over_images(forward.logit_variance)
def logit_variance_order(variance):
    """The variance of the logits is highest for the majority and least for the minority."""
    return _extremes(variance.here, highest=variance.majority, lowest=variance.minority)


@claim("4.2, Fig. 6a", "03_softmax#fig-softmax-variance", "least fall among the groups")
@over_images(forward.softmax_variance, at="int2", grouped=False)
def softmax_variance_falls(variance):
    """The variance of the probabilities falls for every group."""
    return np.nanmin(variance.fall, axis=-1)


@claim("4.2, Fig. 6a", "03_softmax#fig-softmax-variance", "the minority's fall less the largest other one")
@over_images(forward.softmax_variance, at="int2")
def softmax_minority_most(variance):
    """The variance of the probabilities falls most for the minority."""
    return variance.fall[..., variance.minority] - _largest_but(variance.fall, variance.minority)


@claim("4.2, Fig. 6b", "03_softmax#fig-dtdb", "fall of the minority's mean DTDB less the majority's")
@over_images(forward.dtdb)
def dtdb_left(distance):
    """The minority's distance to the decision boundary shifts left, unlike the majority's."""
    return _falls_more(distance)


@claim("4.3, Fig. 7", "04_loss#fig-loss", "margin by which both are so, in nats")
@over_images(forward.group_loss)
def loss_order(loss):
    """The loss is highest for the minority and least for the majority."""
    return _extremes(loss.here, highest=loss.minority, lowest=loss.majority)


@claim("4.3, Fig. 7", "04_loss#fig-loss", "the minority's added loss less the majority's, in nats")
@over_images(forward.group_loss)
def loss_minority_grows(loss):
    """Quantization adds more loss to the minority than to the majority."""
    return -_falls_more(loss)
