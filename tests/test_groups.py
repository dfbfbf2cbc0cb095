import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from quantskew.groups import check_group_ids, group_counts, group_means, largest_gap

VALUES = st.one_of(st.floats(-100, 100), st.just(math.nan))
GROUPED = st.lists(st.tuples(VALUES, st.integers(0, 3)), max_size=30)


@given(GROUPED)
def test_means_equal_plain_masks(pairs):
    values, groups = np.array([v for v, _ in pairs]), np.array([g for _, g in pairs], dtype=np.int64)
    expected = oracles.group_means(values, groups, 4)
    np.testing.assert_allclose(group_means(values, groups, 4), expected, rtol=1e-12, atol=1e-12)


@given(GROUPED.filter(len))
def test_means_weighted_by_counts_give_the_overall_mean(pairs):
    values = np.nan_to_num([v for v, _ in pairs])
    groups = np.array([g for _, g in pairs])
    means, counts = group_means(values, groups, 4), group_counts(groups, 4)
    assert counts.sum() == len(pairs)
    assert np.nansum(means * counts) / counts.sum() == pytest.approx(values.mean(), abs=1e-9)


def test_means_of_many_rows_are_the_means_of_each():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=(2, 3, 20)), rng.integers(0, 4, 20)
    together = group_means(values, groups, 4)
    assert together.shape == (2, 3, 4)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(together[index], group_means(values[index], groups, 4))


def test_an_absent_group_is_nan_and_counted():
    groups = np.array([0, 2])
    np.testing.assert_array_equal(group_means(np.array([1.0, 5.0]), groups, 4), [1, np.nan, 5, np.nan])
    np.testing.assert_array_equal(group_counts(groups, 4), [1, 0, 1, 0])


@given(st.lists(VALUES, max_size=8))
def test_the_largest_gap_is_that_of_all_pairs(values):
    assert largest_gap(np.array(values)) == pytest.approx(oracles.largest_gap(values), nan_ok=True)


def test_the_gap_of_rows_is_the_gap_of_each():
    values = np.array([[0.2, 0.9, np.nan], [np.nan, np.nan, 0.5], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(largest_gap(values), [0.7, np.nan, 0.0])


@pytest.mark.parametrize(
    ("ids", "num_groups", "message"),
    [
        ([[0, 1]], None, "one-dimensional"),
        ([0.0, 1.0], None, "must be integers"),
        ([True, False], None, "must be integers"),
        (["a"], None, "must be integers"),
        ([0, -1], None, "sample 1 has -1"),
        ([0, 5, 1], 3, "sample 1 has group 5, but only 3"),
    ],
)
def test_wrong_ids_are_refused(ids, num_groups, message):
    with pytest.raises(ValueError, match=message):
        check_group_ids(ids, num_groups)


def test_messages_say_what_the_ids_are():
    with pytest.raises(ValueError, match="labels must be integers"):
        check_group_ids([0.5], what="label")


@pytest.mark.parametrize(
    ("ids", "given", "expected"), [([], None, 0), ([], 3, 3), ([2, 0], None, 3), ([0], 2, 2)]
)
def test_number_of_groups(ids, given, expected):
    checked, num_groups = check_group_ids(ids, given)
    assert checked.dtype == np.int64
    assert num_groups == expected
