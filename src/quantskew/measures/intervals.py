"""Confidence intervals of group values: Wilson's for proportions, a paired bootstrap for means.

The bootstrap draws the test images of each group again, as many as the group has, and uses the same draws
for every precision: a difference between precisions is therefore a paired one.  Means of many images have its
normal limit, whose cost does not grow with the number of draws.
"""

import functools

import numpy as np
from scipy.special import ndtri, stdtrit

from quantskew.groups import group_counts

DRAWS = 2000
CONFIDENCE = 0.95
# Images of a group from which on its means are drawn from their normal limit.
_MANY = 1000


def wilson(successes, counts, confidence=CONFIDENCE):
    """Wilson score interval of a proportion (low, high); NaN where the count is 0.

    Unlike the bootstrap it has a width where all or no samples succeed.
    """
    counts = np.asarray(counts, dtype=np.float64)
    z = ndtri((1 + confidence) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.asarray(successes) / counts
        centre = share + z**2 / (2 * counts)
        spread = z * np.sqrt(share * (1 - share) / counts + z**2 / (4 * counts**2))
        low, high = ((centre + sign * spread) / (1 + z**2 / counts) for sign in (-1, 1))
        # Rounding must not push a bound outside of the possible values.
        return np.clip(low, 0, 1), np.clip(high, 0, 1)


def wilson_difference(successes, counts, other_successes, other_counts, confidence=CONFIDENCE):
    """Interval of a proportion minus another one, of samples that are not paired (Newcombe 1998, method 10).

    It is made of the Wilson intervals of both.
    """
    low, high = wilson(successes, counts, confidence)
    other_low, other_high = wilson(other_successes, other_counts, confidence)
    with np.errstate(invalid="ignore", divide="ignore"):
        share, other = np.divide(successes, counts), np.divide(other_successes, other_counts)
    difference = share - other
    below, above = np.hypot(share - low, other_high - other), np.hypot(high - share, other - other_low)
    return difference - below, difference + above


# Room for the groups of both experiments of a page: ten digits and five groups of faces.
@functools.lru_cache(maxsize=16)
def _draw_weights(count, draws, seed, group):
    """How often each of `count` samples is drawn: whole numbers in float32, shape (draws, count)."""
    rng = np.random.default_rng([seed, group])
    drawn = rng.integers(0, count, (draws, count), dtype=np.int32)
    drawn += np.arange(draws, dtype=np.int32)[:, None] * np.int32(count)
    times = np.bincount(drawn.ravel(), minlength=draws * count)
    return times.reshape(draws, count).astype(np.float32)


def bootstrap_group_means(values, groups, num_groups, draws=DRAWS, seed=0):
    """Group means (B, P, G) of values (P, N) of resampled images, stratified by group.

    A value that is NaN leaves its sample out, and a group without samples is NaN.  The same seed draws the
    same images, whatever the values are; the order of the images in a group decides only which of them are
    drawn together.
    """
    means = np.full((draws, len(values), num_groups), np.nan)
    counts, order = group_counts(groups, num_groups), np.argsort(groups, kind="stable")
    for group, members in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        if len(members):
            of = _limit if len(members) >= _MANY else _resampled
            means[:, :, group] = of(values[:, members], draws, seed, group)
    # Sums of equal rows may be rounded otherwise in other places of a matrix.
    rows = [row.tobytes() for row in values]
    return means[:, [rows.index(row) for row in rows]]


def _resampled(own, draws, seed, group):
    """Means (B, P) of the values of one group, each image as often as it is drawn."""
    weights, defined = _draw_weights(own.shape[1], draws, seed, group), ~np.isnan(own)
    total = weights @ np.where(defined, own, 0.0).T
    if defined.all():
        return total / own.shape[1]
    share = weights @ defined.T.astype(np.float64)
    return np.divide(total, share, out=np.full(total.shape, np.nan), where=share > 0)


def _limit(own, draws, seed, group):
    """Means (B, P) that vary as those of `_resampled` do for many images, jointly normal, in their range."""
    defined = ~np.isnan(own)
    known = defined.any(axis=1)
    means = np.full((draws, len(own)), np.nan)
    own, defined = own[known], defined[known]
    mean = np.nanmean(own, axis=1, keepdims=True)
    # How much each image moves a mean of those that are defined.
    moves = np.where(defined, own - mean, 0.0) / defined.sum(axis=1, keepdims=True)
    spread, directions = np.linalg.eigh(moves @ moves.T)
    normal = np.random.default_rng([seed, group]).standard_normal((draws, len(own)))
    drawn = mean.T + normal * np.sqrt(np.maximum(spread, 0)) @ directions.T
    means[:, known] = np.clip(drawn, np.nanmin(own, axis=1), np.nanmax(own, axis=1))
    return means


def student_factor(counts):
    """How much wider an interval of a mean is for its deviation being estimated from `counts` samples.

    The bootstrap's deviation divides by n, and its quantiles are those of the normal distribution.
    """
    counts, end = np.maximum(counts, 2), (1 + CONFIDENCE) / 2
    return stdtrit(counts - 1, end) / ndtri(end) * np.sqrt(counts / (counts - 1))


def percentile_interval(resampled, confidence=CONFIDENCE):
    """The middle `confidence` (low, high) of resampled values over the first axis; NaN where all are."""
    tail = 50 * (1 - confidence)
    missing = np.isnan(resampled).all(axis=0)
    filled = np.where(missing, 0.0, resampled)
    low, high = np.nanpercentile(filled, [tail, 100 - tail], axis=0)
    return np.where(missing, np.nan, low)[()], np.where(missing, np.nan, high)[()]
