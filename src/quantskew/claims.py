"""The register of the paper's claims, each a predicate on an Audit (see `quantskew.verdicts`)."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from quantskew import fairness, logits, losses, softmax, weights
from quantskew.groups import group_means, largest_gap
from quantskew.verdicts import Claim, cell, judge


def _fall(means, position):
    """How much lower each group is than at the reference."""
    return means[..., 0, :] - means[..., position, :]


def _extremes(values, highest, lowest):
    """By how much `highest` is above every other group and `lowest` below: the smaller of the two."""
    above = values[..., highest] - np.nanmax(np.delete(values, highest, axis=-1), axis=-1)
    below = np.nanmin(np.delete(values, lowest, axis=-1), axis=-1) - values[..., lowest]
    return np.minimum(above, below)


def _separation(values, majority, minority):
    """How many times as large the minority's value is as the majority's, as a logarithm."""
    return np.log(values[..., minority]) - np.log(values[..., majority])


def _all_distances(audit):
    return np.stack([logits.cosine_distance_of_samples(audit), logits.l1_distance_of_samples(audit)])


def _exact(value):
    """An effect without sampling: its bounds are itself."""
    return float(value), float(value), float(value)


def _ranks(first, second):
    """Rank correlation over the groups, less and plus what 95 % of random orders stay below."""
    present = ~(np.isnan(first) | np.isnan(second))
    first, second = rankdata(first[present]), rankdata(second[present])
    if len(first) < 3:
        return np.nan, np.nan, np.nan
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(second, (5000, 1)), axis=1)
    first = (first - first.mean()) / first.std()
    spread = second.std() * len(first)
    chance = np.quantile((orders - second.mean()) @ first / spread, 0.95)
    effect = (second - second.mean()) @ first / spread
    return float(effect), float(effect - chance), float(effect + chance)


def _accuracy(audit):
    return group_means(fairness.correct_of_samples(audit), audit.groups, len(audit.group_names))


def _confidence(audit):
    top = softmax.top_probability_of_samples(audit)
    return group_means(top, audit.groups, len(audit.group_names))


def _growth(audit, position):
    """Logarithm of each group's lambda_max over that at the reference; NaN where one is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(audit.curvature.lambda_max[position] / audit.curvature.lambda_max[0])


def _shrinking(values, position):
    """How much smaller the value is than at the reference, as a share of it."""
    return 1 - values[position] / values[0]


def _step(values, position):
    """Increase from the precision before."""
    return values[position] - values[position - 1]


_FORWARD = (
    Claim(
        "fvo_grows",
        "section 1, Fig. 1",
        "Quantization widens the gap between the groups.",
        "FVO less FVO at the reference",
        fairness.correct_of_samples,
        lambda m, p, major, minor: largest_gap(m[..., p, :]) - largest_gap(m[..., 0, :]),
    ),
    Claim(
        "minority_loses_accuracy",
        "section 1, Fig. 1",
        "The minority loses more accuracy than the majority.",
        "fall of the minority's accuracy less the majority's",
        fairness.correct_of_samples,
        lambda m, p, major, minor: _fall(m, p)[..., minor] - _fall(m, p)[..., major],
    ),
    Claim(
        "difference_grows",
        "section 4.1, Fig. 3",
        "Each lower precision moves the weights further.",
        "mean absolute difference less that at the precision before",
        None,
        lambda audit, p: _exact(_step(weights.absolute_difference(audit, mean=True)["value"], p)),
    ),
    Claim(
        "sparsity_grows",
        "section 4.1, Fig. 3",
        "Each lower precision turns more weights to zero.",
        "sparsity less that at the precision before",
        None,
        lambda audit, p: _exact(_step(weights.sparsity(audit)["value"], p)),
    ),
    Claim(
        "weights_centre",
        "section 4.1, Fig. 4",
        "The distribution of the weights moves to the centre.",
        "fall of the mean magnitude, as a share of the reference's",
        None,
        lambda audit, p: _exact(_shrinking(weights.mean_magnitude(audit)["value"], p)),
    ),
    Claim(
        "cosine_order",
        "section 4.2, Fig. 5a",
        "The cosine distance is largest for the minority and least for the majority.",
        "margin by which both are so",
        logits.cosine_distance_of_samples,
        lambda m, p, major, minor: _extremes(m[..., p, :], minor, major),
    ),
    Claim(
        "norms_separate_less",
        "section 4.2, Fig. 5b",
        "The L1 distance separates minority and majority less than the cosine distance does.",
        "log ratio minority : majority of the cosine distance less that of L1",
        _all_distances,
        lambda m, p, major, minor: (
            _separation(m[..., 0, p, :], major, minor) - _separation(m[..., 1, p, :], major, minor)
        ),
    ),
    Claim(
        "logit_variance_falls",
        "section 4.2, Fig. 5d",
        "The variance of the logits falls.",
        "fall of the mean over groups, as a share of the reference's",
        logits.logit_variance_of_samples,
        lambda m, p, major, minor: 1 - np.nanmean(m[..., p, :], axis=-1) / np.nanmean(m[..., 0, :], axis=-1),
    ),
    Claim(
        "logit_variance_order",
        "section 4.2, Fig. 5d",
        "The variance of the logits is highest for the majority and least for the minority.",
        "margin by which both are so",
        logits.logit_variance_of_samples,
        lambda m, p, major, minor: _extremes(m[..., p, :], major, minor),
    ),
    Claim(
        "softmax_variance_falls",
        "section 4.2, Fig. 6a",
        "The variance of the probabilities falls for every group.",
        "least fall among the groups",
        softmax.softmax_variance_of_samples,
        lambda m, p, major, minor: np.nanmin(_fall(m, p), axis=-1),
    ),
    Claim(
        "softmax_minority_most",
        "section 4.2, Fig. 6a",
        "It falls most for the minority.",
        "the minority's fall less the largest other one",
        softmax.softmax_variance_of_samples,
        lambda m, p, major, minor: (
            _fall(m, p)[..., minor] - np.nanmax(np.delete(_fall(m, p), minor, axis=-1), axis=-1)
        ),
    ),
    Claim(
        "dtdb_left",
        "section 4.2, Fig. 6b",
        "The minority's distance to the decision boundary shifts left, unlike the majority's.",
        "fall of the minority's mean DTDB less the majority's",
        softmax.dtdb_of_samples,
        lambda m, p, major, minor: _fall(m, p)[..., minor] - _fall(m, p)[..., major],
    ),
    Claim(
        "loss_order",
        "section 4.3, Fig. 7",
        "The loss is highest for the minority and least for the majority.",
        "margin by which both are so, in nats",
        losses.loss_of_samples,
        lambda m, p, major, minor: _extremes(m[..., p, :], minor, major),
    ),
    Claim(
        "loss_minority_grows",
        "section 4.3, Fig. 7",
        "Quantization adds more loss to the minority than to the majority.",
        "the minority's added loss less the majority's, in nats",
        losses.loss_of_samples,
        lambda m, p, major, minor: _fall(m, p)[..., major] - _fall(m, p)[..., minor],
    ),
)
_BACKWARD = (
    Claim(
        "gradient_size",
        "section 4.4, Fig. 8a",
        "The gradient norm is larger for groups with fewer images.",
        "rank correlation of norm and group size, negated",
        None,
        lambda audit, p: _ranks(audit.curvature.gradient_norms[p], -audit.train_counts),
        "curvature",
    ),
    Claim(
        "gradient_accuracy",
        "section 4.4, Fig. 8b",
        "The gradient norm is larger for groups with lower accuracy.",
        "rank correlation of norm and accuracy, negated",
        None,
        lambda audit, p: _ranks(audit.curvature.gradient_norms[p], -_accuracy(audit)[p]),
        "curvature",
    ),
    Claim(
        "lambda_accuracy",
        "section 4.5, Fig. 9a",
        "lambda_max is larger for groups with lower accuracy.",
        "rank correlation of lambda_max and accuracy, negated",
        None,
        lambda audit, p: _ranks(audit.curvature.lambda_max[p], -_accuracy(audit)[p]),
        "curvature",
    ),
    Claim(
        "lambda_confidence",
        "section 4.5, Fig. 9a",
        "lambda_max is larger for groups with a lower average prediction probability.",
        "rank correlation of lambda_max and Eq. 11, negated",
        None,
        lambda audit, p: _ranks(audit.curvature.lambda_max[p], -_confidence(audit)[p]),
        "curvature",
    ),
    Claim(
        "lambda_gradient",
        "section 4.5, Fig. 9b",
        "Gradient norm and lambda_max move together.",
        "rank correlation of the two",
        None,
        lambda audit, p: _ranks(audit.curvature.lambda_max[p], audit.curvature.gradient_norms[p]),
        "curvature",
    ),
    Claim(
        "lambda_half",
        "section 4.5.1, Fig. 10",
        "lambda_max is almost equal to that of the reference (claimed for fp16).",
        "0.05 less the largest relative change of a group",
        None,
        lambda audit, p: _exact(0.05 - np.nanmax(np.abs(np.expm1(_growth(audit, p))))),
        "curvature",
    ),
    Claim(
        "lambda_grows",
        "section 4.5.1, Fig. 10",
        "lambda_max grows with fewer bits.",
        "growth from the reference, in the mean over groups of the logarithm",
        None,
        lambda audit, p: _exact(np.nanmean(_growth(audit, p))),
        "curvature",
    ),
)
CLAIMS = {claim.key: claim for claim in _FORWARD + _BACKWARD}


def scorecard(audits, keys, precisions=("int4", "int2")):
    """Claims by row, Audits by column: verdict, effect and interval in each cell.

    Parameters
    ----------
    audits : dict of str to Audit
    keys : sequence of str
        See `CLAIMS`.
    precisions : sequence of str
        At which to judge; one that an Audit lacks leaves its cell empty.

    Returns
    -------
    pandas.DataFrame
        Columns ``claim``, ``at`` and one for each Audit.

    Raises
    ------
    ValueError
        If a key is not known; the message lists the known ones.
    """
    unknown = [key for key in keys if key not in CLAIMS]
    if unknown:
        raise ValueError(f"unknown claim {unknown[0]!r}; known: {', '.join(CLAIMS)}")
    rows = []
    for key in keys:
        for precision in precisions:
            cells = {
                title: cell(judge(CLAIMS[key], audit, precision)) if precision in audit.precisions[1:] else ""
                for title, audit in audits.items()
            }
            rows.append({"claim": CLAIMS[key].statement, "at": precision, **cells})
    return pd.DataFrame(rows)
