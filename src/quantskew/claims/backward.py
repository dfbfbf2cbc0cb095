"""The paper's claims about the backward pass (sections 4.4 and 4.5)."""

import numpy as np
from scipy.stats import spearmanr

from quantskew.claims.effects import claim, over_seeds
from quantskew.claims.verdicts import BASE
from quantskew.groups import group_means
from quantskew.measures import forward

# No draw of a rank correlation is beyond a perfect order.
_ORDER = (-1, 1)
# A lambda_max within so much of the reference's counts as equal.
_EQUAL = 0.05


def _ranks(first, second):
    """Rank correlation over the groups that have both values; NaN with fewer than three."""
    present = ~(np.isnan(first) | np.isnan(second))
    if present.sum() < 3:
        return np.nan
    return float(spearmanr(first[present], second[present]).statistic)


def _means(measure, audit, position):
    return group_means(measure.of_samples(audit)[position], audit.groups, len(audit.group_names))


def _growth(audit, position):
    """Logarithm of each group's lambda_max over that at the reference; NaN where one is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(audit.curvature.lambda_max[position] / audit.curvature.lambda_max[0])


@claim("4.4, Fig. 8a", "05_gradients#fig-gradient", "rank correlation of norm and group size, negated")
@over_seeds(BASE, within=_ORDER, curvature=True)
def gradient_size(audit, position):
    """The gradient norm is larger for groups with fewer images."""
    return _ranks(audit.curvature.gradient_norms[position], -audit.train_counts)


@claim("4.4, Fig. 8b", "05_gradients#fig-gradient", "rank correlation of norm and accuracy, negated")
@over_seeds(BASE, within=_ORDER, curvature=True)
def gradient_accuracy(audit, position):
    """The gradient norm is larger for groups with lower accuracy."""
    return _ranks(audit.curvature.gradient_norms[position], -_means(forward.group_accuracy, audit, position))


@claim("4.5, Fig. 9a", "06_hessian#fig-lambda", "rank correlation of lambda_max and accuracy, negated")
@over_seeds(BASE, within=_ORDER, curvature=True)
def lambda_accuracy(audit, position):
    """lambda_max is larger for groups with lower accuracy."""
    return _ranks(audit.curvature.lambda_max[position], -_means(forward.group_accuracy, audit, position))


@claim("4.5, Fig. 9a", "06_hessian#fig-lambda", "rank correlation of lambda_max and Eq. 11, negated")
@over_seeds(BASE, within=_ORDER, curvature=True)
def lambda_confidence(audit, position):
    """lambda_max is larger for groups with a lower average prediction probability."""
    return _ranks(audit.curvature.lambda_max[position], -_means(forward.top_probability, audit, position))


@claim("4.5, Fig. 9b", "06_hessian#fig-gradient-lambda", "rank correlation of the two")
@over_seeds(BASE, within=_ORDER, curvature=True)
def lambda_gradient(audit, position):
    """Gradient norm and lambda_max move together."""
    return _ranks(audit.curvature.lambda_max[position], audit.curvature.gradient_norms[position])


@claim(
    "4.5.1, Fig. 10",
    "06_hessian#fig-lambda-precision",
    f"{_EQUAL} less the largest relative change of a group",
)
@over_seeds(BASE, at="fp16", curvature=True, grouped=False)
def lambda_half(audit, position):
    """lambda_max at fp16 is almost equal to that of the reference."""
    return _EQUAL - np.nanmax(np.abs(np.expm1(_growth(audit, position))))


@claim(
    "4.5.1, Fig. 10",
    "06_hessian#fig-lambda-precision",
    "growth from the reference, in the mean over groups of the logarithm",
)
@over_seeds(BASE, at="int2", curvature=True, grouped=False)
def lambda_grows(audit, position):
    """lambda_max grows with fewer bits."""
    return np.nanmean(_growth(audit, position))
