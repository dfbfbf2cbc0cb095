"""The paper's claims about the forward pass (sections 1 and 4.1 to 4.3), see `quantskew.claims.verdicts`."""

import numpy as np

from quantskew.claims.verdicts import BASE, Claim
from quantskew.groups import group_means, largest_gap
from quantskew.measures import forward, weights
from quantskew.measures.intervals import bootstrap_group_means
from quantskew.measures.seeds import mean_over_seeds


def _over_images(samples, measure):
    """Effect of each seed on resampled images, then over the seeds.

    Parameters
    ----------
    samples : callable
        Audit -> per-sample measures (..., P, N).
    measure : callable
        (group means (..., P, G), position of the precision, majority, minority) -> effects.
    """

    def effect(evidence, precision, draws):
        values, resampled = [], []
        for audit in evidence[BASE]:
            own, num_groups = samples(audit), len(audit.group_names)
            flat = own.reshape(-1, own.shape[-1])
            drawn = bootstrap_group_means(flat, audit.groups, num_groups, draws)
            drawn = drawn.reshape(draws, *own.shape[:-1], num_groups)
            where = audit.index(precision), *_roles(audit)
            with np.errstate(divide="ignore", invalid="ignore"):
                values.append(measure(group_means(own, audit.groups, num_groups), *where))
                resampled.append(measure(drawn, *where))
        return mean_over_seeds(np.array(values), np.stack(resampled, axis=1))

    return effect


def _of_weights(measure):
    """Effect that is exact for each seed's model: (Audit, position) -> number."""

    def effect(evidence, precision, draws):
        values = np.array([_of_model(measure, audit, precision) for audit in evidence[BASE]])
        return mean_over_seeds(values, np.tile(values, (draws, 1)))

    return effect


def _of_model(measure, audit, precision):
    return np.nan if audit.weights is None else measure(audit, audit.index(precision))


def _roles(audit):
    """The groups with most and with fewest images in training, of those that are in the test."""
    counts = np.where(audit.group_counts > 0, audit.train_counts, -1)
    return int(counts.argmax()), int(np.where(counts < 0, counts.max() + 1, counts).argmin())


def _fall(means, position):
    """How much lower each group is than at the reference."""
    return means[..., 0, :] - means[..., position, :]


def _falls_more(means, position, majority, minority):
    """How much more the minority falls than the majority."""
    fall = _fall(means, position)
    return fall[..., minority] - fall[..., majority]


def _extremes(values, highest, lowest):
    """By how much `highest` is above every other group and `lowest` below: the smaller of the two."""
    above = values[..., highest] - _largest_but(values, highest)
    below = -values[..., lowest] - _largest_but(-values, lowest)
    return np.minimum(above, below)


def _largest_but(values, group):
    """The largest value of the groups other than `group`."""
    return np.nanmax(np.delete(values, group, axis=-1), axis=-1)


def _separation(values, majority, minority):
    """How many times as large the minority's value is as the majority's, as a logarithm."""
    return np.log(values[..., minority]) - np.log(values[..., majority])


def _beside_cosine(distance):
    """Per-sample cosine distances and those of a norm, of the same samples."""
    return lambda audit: np.stack([forward.cosine_distance.of_samples(audit), distance(audit)])


def _separates_less(means, position, majority, minority):
    angle, norm = (_separation(means[..., k, position, :], majority, minority) for k in (0, 1))
    return angle - norm


def _shrinking(values, position):
    """How much smaller the value is than at the reference, as a share of it."""
    return 1 - values[position] / values[0]


def _step(values, position):
    """Increase from the precision before."""
    return values[position] - values[position - 1]


FORWARD = (
    Claim(
        "fvo_grows",
        "section 1, Fig. 1",
        "00_problem#fig-fvo",
        "Quantization widens the gap between the groups.",
        "FVO less FVO at the reference",
        "int4",
        _over_images(
            forward.group_accuracy.of_samples,
            lambda m, p, *_: largest_gap(m[..., p, :]) - largest_gap(m[..., 0, :]),
        ),
    ),
    Claim(
        "fvo_extreme",
        "section 1, Fig. 1",
        "00_problem#fig-fvo",
        "At two bits the gap is extreme.",
        "FVO less the largest at a higher precision",
        "int2",
        _over_images(
            forward.group_accuracy.of_samples,
            lambda m, p, *_: largest_gap(m[..., p, :]) - largest_gap(m[..., :p, :]).max(axis=-1),
        ),
    ),
    Claim(
        "minority_loses_accuracy",
        "section 1, Fig. 1",
        "00_problem#fig-accuracy",
        "The minority loses more accuracy than the majority.",
        "fall of the minority's accuracy less the majority's",
        "int4",
        _over_images(
            forward.group_accuracy.of_samples,
            _falls_more,
        ),
    ),
    Claim(
        "difference_grows",
        "section 4.1, Fig. 3",
        "01_weights#fig-weights",
        "Each lower precision moves the weights further.",
        "mean absolute difference less that at the precision before",
        "int4",
        _of_weights(lambda audit, p: _step(weights.absolute_difference(audit, mean=True)["value"], p)),
        grouped=False,
    ),
    Claim(
        "sparsity_grows",
        "section 4.1, Fig. 3",
        "01_weights#fig-weights",
        "Each lower precision turns more weights to zero.",
        "sparsity less that at the precision before",
        "int4",
        _of_weights(lambda audit, p: _step(weights.sparsity(audit)["value"], p)),
        grouped=False,
    ),
    Claim(
        "weights_centre",
        "section 4.1, Fig. 4",
        "01_weights#fig-distribution",
        "The distribution of the weights moves to the centre.",
        "fall of the mean magnitude, as a share of the reference's",
        "int4",
        _of_weights(lambda audit, p: _shrinking(weights.mean_magnitude(audit)["value"], p)),
        grouped=False,
    ),
    Claim(
        "cosine_order",
        "section 4.2, Fig. 5a",
        "02_logits#fig-cosine",
        "The cosine distance is largest for the minority and least for the majority.",
        "margin by which both are so",
        "int4",
        _over_images(
            forward.cosine_distance.of_samples,
            lambda m, p, major, minor: _extremes(m[..., p, :], minor, major),
        ),
    ),
    Claim(
        "l1_separates_less",
        "section 4.2, Fig. 5b",
        "02_logits#fig-norms",
        "The L1 distance separates minority and majority less than the cosine distance does.",
        "log ratio minority : majority of the cosine distance less that of L1",
        "int4",
        _over_images(_beside_cosine(forward.l1_distance.of_samples), _separates_less),
    ),
    Claim(
        "l2_separates_less",
        "section 4.2, Fig. 5c",
        "02_logits#fig-norms",
        "The L2 distance separates minority and majority less than the cosine distance does.",
        "log ratio minority : majority of the cosine distance less that of L2",
        "int4",
        _over_images(_beside_cosine(forward.l2_distance.of_samples), _separates_less),
    ),
    Claim(
        "logit_variance_falls",
        "section 4.2, Fig. 5d",
        "02_logits#fig-logit-variance",
        "The variance of the logits falls.",
        "fall of the mean over groups, as a share of the reference's",
        "int2",
        _over_images(
            forward.logit_variance.of_samples,
            lambda m, p, *_: 1 - np.nanmean(m[..., p, :], axis=-1) / np.nanmean(m[..., 0, :], axis=-1),
        ),
        grouped=False,
    ),
    Claim(
        "logit_variance_order",
        "section 4.2, Fig. 5d",
        "02_logits#fig-logit-variance",
        "The variance of the logits is highest for the majority and least for the minority.",
        "margin by which both are so",
        "int4",
        _over_images(
            forward.logit_variance.of_samples,
            lambda m, p, major, minor: _extremes(m[..., p, :], major, minor),
        ),
    ),
    Claim(
        "softmax_variance_falls",
        "section 4.2, Fig. 6a",
        "03_softmax#fig-softmax-variance",
        "The variance of the probabilities falls for every group.",
        "least fall among the groups",
        "int2",
        _over_images(
            forward.softmax_variance.of_samples,
            lambda m, p, *_: np.nanmin(_fall(m, p), axis=-1),
        ),
        grouped=False,
    ),
    Claim(
        "softmax_minority_most",
        "section 4.2, Fig. 6a",
        "03_softmax#fig-softmax-variance",
        "The variance of the probabilities falls most for the minority.",
        "the minority's fall less the largest other one",
        "int2",
        _over_images(
            forward.softmax_variance.of_samples,
            lambda m, p, _, minor: _fall(m, p)[..., minor] - _largest_but(_fall(m, p), minor),
        ),
    ),
    Claim(
        "dtdb_left",
        "section 4.2, Fig. 6b",
        "03_softmax#fig-dtdb",
        "The minority's distance to the decision boundary shifts left, unlike the majority's.",
        "fall of the minority's mean DTDB less the majority's",
        "int4",
        _over_images(
            forward.dtdb.of_samples,
            _falls_more,
        ),
    ),
    Claim(
        "loss_order",
        "section 4.3, Fig. 7",
        "04_loss#fig-loss",
        "The loss is highest for the minority and least for the majority.",
        "margin by which both are so, in nats",
        "int4",
        _over_images(
            forward.group_loss.of_samples,
            lambda m, p, major, minor: _extremes(m[..., p, :], minor, major),
        ),
    ),
    Claim(
        "loss_minority_grows",
        "section 4.3, Fig. 7",
        "04_loss#fig-loss",
        "Quantization adds more loss to the minority than to the majority.",
        "the minority's added loss less the majority's, in nats",
        "int4",
        _over_images(
            forward.group_loss.of_samples,
            lambda *where: -_falls_more(*where),
        ),
    ),
)
