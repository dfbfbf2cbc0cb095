"""Confidence intervals of group values: Wilson's for proportions, a paired bootstrap for the rest.

The bootstrap draws the test images of each group again, as many as the group has, and uses the same draws
for every precision: a difference between precisions is therefore a paired one.
"""

import functools

import numpy as np
from scipy.special import ndtri

from quantskew.groups import group_counts

DRAWS = 2000
CONFIDENCE = 0.95


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
    """Interval of a proportion less another one, of samples that are not paired (Newcombe 1998, method 10).

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
    for group, count in enumerate(group_counts(groups, num_groups)):
        if count == 0:
            continue
        own = values[:, groups == group]
        defined = ~np.isnan(own)
        weights = _draw_weights(int(count), draws, seed, group)
        total = weights @ np.where(defined, own, 0.0).T
        if defined.all():
            means[:, :, group] = total / count
            continue
        share = weights @ defined.T.astype(np.float64)
        means[:, :, group] = np.divide(total, share, out=np.full(total.shape, np.nan), where=share > 0)
    return means


def percentile_interval(resampled, confidence=CONFIDENCE):
    """The middle `confidence` (low, high) of resampled values over the first axis; NaN where all are."""
    tail = 50 * (1 - confidence)
    missing = np.isnan(resampled).all(axis=0)
    filled = np.where(missing, 0.0, resampled)
    low, high = np.nanpercentile(filled, [tail, 100 - tail], axis=0)
    return np.where(missing, np.nan, low)[()], np.where(missing, np.nan, high)[()]
