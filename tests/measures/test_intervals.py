import numpy as np
import pytest
from scipy.stats import binomtest

import oracles
from quantskew.measures.intervals import (
    bootstrap_group_means,
    percentile_interval,
    wilson,
    wilson_difference,
)


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (1, 1), (0, 12), (12, 12), (3, 7), (250, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_equals_scipy(successes, count, confidence):
    expected = binomtest(successes, count).proportion_ci(confidence, method="wilson")
    assert wilson(successes, count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_nan():
    low, high = wilson([0, 3], [0, 4])
    np.testing.assert_array_equal(np.isnan([low, high]), [[True, False]] * 2)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_wilson_covers_as_often_as_it_says(share):
    low, high = wilson(np.random.default_rng(0).binomial(60, share, 2000), np.full(2000, 60))
    assert 0.93 <= ((low <= share) & (share <= high)).mean() <= 0.97


@pytest.mark.parametrize(
    ("counts", "expected"),
    # Table II of Newcombe (1998), method 10.
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_the_difference_of_proportions_equals_the_published_values(counts, expected):
    assert wilson_difference(*counts) == pytest.approx(expected, abs=5e-5)


def test_the_difference_of_proportions_turns_round_with_its_samples():
    low, high = wilson_difference([7, 0, 12], [12, 5, 12], [3, 5, 0], [9, 5, 0])
    swapped = wilson_difference([3, 5, 0], [9, 5, 0], [7, 0, 12], [12, 5, 12])
    np.testing.assert_allclose(swapped, (-high, -low))
    assert np.isnan([low[2], high[2]]).all()


def test_the_bootstrap_covers_as_often_as_it_says():
    repetitions, count = 400, 60
    values = np.random.default_rng(1).exponential(size=(repetitions, count))
    means = bootstrap_group_means(values, np.zeros(count, int), 1, draws=1000)
    low, high = percentile_interval(means[:, :, 0])
    assert 0.90 <= ((low <= 1) & (high >= 1)).mean() <= 0.98


def test_the_bootstrap_spreads_like_the_standard_error():
    values = np.random.default_rng(0).normal(size=(1, 200))
    means = bootstrap_group_means(values, np.zeros(200, int), 1)[:, 0, 0]
    assert means.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.1)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)


def test_precisions_share_their_draws():
    rng = np.random.default_rng(0)
    base, groups = rng.normal(size=50), np.arange(50) % 3
    means = bootstrap_group_means(np.stack([base, base, base + 2, -base]), groups, 3, draws=50)
    np.testing.assert_array_equal(means[:, 0], means[:, 1])
    np.testing.assert_allclose(means[:, 2] - means[:, 0], 2, rtol=1e-12)
    np.testing.assert_allclose(means[:, 3], -means[:, 0], rtol=1e-12)


def test_draws_stay_within_their_group():
    groups = np.repeat([0, 1, 2], 10)
    means = bootstrap_group_means(np.array([[10.0] * 10 + [20.0] * 10 + [30.0] * 10]), groups, 3, draws=40)
    np.testing.assert_array_equal(means, np.broadcast_to([10.0, 20.0, 30.0], (40, 1, 3)))


def test_equal_values_leave_no_width():
    low, high = percentile_interval(bootstrap_group_means(np.ones((1, 7)), np.zeros(7, int), 1))
    assert (low, high) == (1, 1)


def test_the_seed_decides_the_draws():
    values, groups = np.random.default_rng(0).normal(size=(2, 30)), np.arange(30) % 2
    once, again, other = (bootstrap_group_means(values, groups, 2, 20, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(once, again)
    assert (once != other).all()


def test_groups_are_drawn_independently():
    values = np.repeat(np.random.default_rng(0).normal(size=30), 2)[None]
    means = bootstrap_group_means(values, np.arange(60) % 2, 2, draws=500)[:, 0]
    assert abs(np.corrcoef(means.T)[0, 1]) < 0.2


def test_samples_that_are_not_defined_are_left_out():
    values = np.array([[1.0, np.nan, 3.0, np.nan]])
    groups = np.array([0, 0, 0, 1])
    means = bootstrap_group_means(values, groups, 3, draws=500)
    defined = means[~np.isnan(means[:, 0, 0]), 0, 0]
    assert len(defined) > 400
    assert ((defined >= 1) & (defined <= 3)).all()
    assert np.isnan(means[:, :, 1:]).all()
    assert means.shape == (500, 1, 3)
    assert oracles.group_means(values[0], groups, 3)[0] == 2


def test_means_of_many_images_have_the_limit_of_the_slow_bootstrap():
    rng = np.random.default_rng(0)
    base = rng.exponential(size=2100)
    values = np.stack([base, base + rng.normal(size=2100), base, rng.random(2100) ** 4])
    # Undefined more often where the value is large, as null logits may be.
    values[1, (rng.random(2100) < 0.3) & (base > 1)] = np.nan
    groups = np.repeat([0, 1], [1500, 600])
    fast, slow = bootstrap_group_means(values, groups, 2), oracles.bootstrap_means(values, groups, 2, 600)
    for group in range(2):
        own, other = fast[:, :, group], slow[:, :, group]
        np.testing.assert_allclose(own.mean(axis=0), other.mean(axis=0), atol=0.1 * own.std(axis=0).max())
        np.testing.assert_allclose(np.cov(own.T), np.cov(other.T), rtol=0.2, atol=5e-5)
    assert (fast[:, 2] == fast[:, 0]).all()


def test_the_limit_stays_in_the_range_of_the_values():
    values = np.zeros((2, 2000))
    values[:, 0] = 1
    values[1, 1:] = np.nan
    means = bootstrap_group_means(values, np.zeros(2000, int), 1)[:, :, 0]
    assert (means[:, 0] >= 0).all()
    assert (means[:, 1] == 1).all()


def test_an_interval_of_nothing_is_nan():
    low, high = percentile_interval(np.array([[np.nan, 1.0], [np.nan, 3.0]]), 0.5)
    np.testing.assert_array_equal(low, [np.nan, 1.5])
    np.testing.assert_array_equal(high, [np.nan, 2.5])
