"""The paper's claims about the backward pass (sections 4.4 and 4.5), see `quantskew.claims.verdicts`.

Gradients and Hessians are kept as one number a group, so these effects vary over seeds alone: with fewer
than three they have no interval.
"""

import numpy as np
from scipy.stats import spearmanr

from quantskew.claims.verdicts import BASE, Claim
from quantskew.groups import group_means
from quantskew.measures import forward
from quantskew.measures.seeds import over_seeds_alone

# A lambda_max within so much of the reference's counts as equal.
_EQUAL = 0.05


def _of_surface(measure):
    """Effect of each seed's loss surface: (Audit, position) -> number."""

    def effect(evidence, precision, draws):
        values = [measure(audit, audit.index(precision)) for audit in evidence[BASE]]
        return over_seeds_alone(values, draws)

    return effect


def _of_order(measure):
    """As `_of_surface`, of a rank correlation: no draw is beyond a perfect order."""

    def effect(evidence, precision, draws):
        value, resampled = _of_surface(measure)(evidence, precision, draws)
        return value, np.clip(resampled, -1, 1)

    return effect


def _ranks(first, second):
    """Rank correlation over the groups that have both values; NaN with fewer than three."""
    present = ~(np.isnan(first) | np.isnan(second))
    if present.sum() < 3:
        return np.nan
    return float(spearmanr(first[present], second[present]).statistic)


def _accuracy(audit, position):
    return group_means(
        forward.group_accuracy.of_samples(audit)[position], audit.groups, len(audit.group_names)
    )


def _confidence(audit, position):
    top = forward.top_probability.of_samples(audit)[position]
    return group_means(top, audit.groups, len(audit.group_names))


def _growth(audit, position):
    """Logarithm of each group's lambda_max over that at the reference; NaN where one is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(audit.curvature.lambda_max[position] / audit.curvature.lambda_max[0])


BACKWARD = (
    Claim(
        "gradient_size",
        "section 4.4, Fig. 8a",
        "05_gradients#fig-gradient",
        "The gradient norm is larger for groups with fewer images.",
        "rank correlation of norm and group size, negated",
        "int4",
        _of_order(lambda audit, p: _ranks(audit.curvature.gradient_norms[p], -audit.train_counts)),
        curvature=True,
    ),
    Claim(
        "gradient_accuracy",
        "section 4.4, Fig. 8b",
        "05_gradients#fig-gradient",
        "The gradient norm is larger for groups with lower accuracy.",
        "rank correlation of norm and accuracy, negated",
        "int4",
        _of_order(lambda audit, p: _ranks(audit.curvature.gradient_norms[p], -_accuracy(audit, p))),
        curvature=True,
    ),
    Claim(
        "lambda_accuracy",
        "section 4.5, Fig. 9a",
        "06_hessian#fig-lambda",
        "lambda_max is larger for groups with lower accuracy.",
        "rank correlation of lambda_max and accuracy, negated",
        "int4",
        _of_order(lambda audit, p: _ranks(audit.curvature.lambda_max[p], -_accuracy(audit, p))),
        curvature=True,
    ),
    Claim(
        "lambda_confidence",
        "section 4.5, Fig. 9a",
        "06_hessian#fig-lambda",
        "lambda_max is larger for groups with a lower average prediction probability.",
        "rank correlation of lambda_max and Eq. 11, negated",
        "int4",
        _of_order(lambda audit, p: _ranks(audit.curvature.lambda_max[p], -_confidence(audit, p))),
        curvature=True,
    ),
    Claim(
        "lambda_gradient",
        "section 4.5, Fig. 9b",
        "06_hessian#fig-gradient-lambda",
        "Gradient norm and lambda_max move together.",
        "rank correlation of the two",
        "int4",
        _of_order(lambda audit, p: _ranks(audit.curvature.lambda_max[p], audit.curvature.gradient_norms[p])),
        curvature=True,
    ),
    Claim(
        "lambda_half",
        "section 4.5.1, Fig. 10",
        "06_hessian#fig-lambda-precision",
        "lambda_max at fp16 is almost equal to that of the reference.",
        f"{_EQUAL} less the largest relative change of a group",
        "fp16",
        _of_surface(lambda audit, p: _EQUAL - np.nanmax(np.abs(np.expm1(_growth(audit, p))))),
        curvature=True,
        grouped=False,
    ),
    Claim(
        "lambda_grows",
        "section 4.5.1, Fig. 10",
        "06_hessian#fig-lambda-precision",
        "lambda_max grows with fewer bits.",
        "growth from the reference, in the mean over groups of the logarithm",
        "int2",
        _of_surface(lambda audit, p: np.nanmean(_growth(audit, p))),
        curvature=True,
        grouped=False,
    ),
)
