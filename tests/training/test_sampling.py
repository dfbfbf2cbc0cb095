"""Sampling to target counts: every image is counted."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import samples
from quantskew.training.sampling import (
    MOST_COPIES,
    resample,
    rotated_counts,
    sample_indices,
    target_counts,
)

SIZES = st.lists(st.tuples(st.integers(1, 12), st.integers(0, MOST_COPIES)), min_size=1, max_size=4)


def grouped(counts):
    """Group ids with these counts, in a mixed order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@given(SIZES, st.integers(0, 5))
def test_images_of_a_group_are_taken_equally_often_or_once_more(sizes, seed):
    counts, targets = zip(*sizes, strict=True)
    assume(any(targets))
    groups = grouped(counts)
    index = sample_indices(groups, targets, seed).tolist()
    assert index == sorted(index)
    for group, (count, target) in enumerate(sizes):
        times = [index.count(image) for image in np.flatnonzero(groups == group)]
        assert sum(times) == target
        assert set(times) <= {target // count, -(-target // count)}


def test_the_draws_of_a_group_are_its_own():
    groups = grouped([30, 8, 20])

    def drawn(targets, seed=0):
        index = sample_indices(groups, targets, seed)
        return index[groups[index] == 0].tolist()

    assert drawn([10, 3, 5]) == drawn([10, 3, 5])
    assert drawn([10, 3, 5]) == drawn([10, 40, 0])
    assert drawn([10, 3, 5]) != drawn([10, 3, 5], seed=1)


def test_resampled_data_keep_validation_and_test():
    data = samples.tiny_data()
    sampled = resample(data, [40, 0, 5])
    assert sampled.train.group_counts.tolist() == [40, 0, 5]
    assert sampled.validation is data.validation
    assert sampled.test is data.test
    assert sampled.digest == resample(data, [40, 0, 5]).digest
    assert sampled.digest != resample(data, [40, 0, 5], seed=1).digest


def test_resampled_images_keep_their_label_and_group():
    def rows(split):
        images = [image.tobytes() for image in split.images.numpy()]
        return set(zip(images, split.labels.tolist(), split.groups.tolist(), strict=True))

    data = samples.tiny_data()
    assert rows(resample(data, [40, 0, 5]).train) <= rows(data.train)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [("mean", (40,) * 3), ("minority", (10,) * 3), (15, (15,) * 3), ([90, 0, 200], (90, 0, 200))],
)
def test_targets_by_name_and_by_number(targets, expected):
    assert target_counts([90, 20, 10], targets) == expected


@pytest.mark.parametrize(
    ("counts", "targets", "message"),
    [
        ([5, 5], [1], "1 target counts for 2 groups; give one a group"),
        ([5, 5], [-1, 3], r"must not be negative, and not all 0; got \[-1, 3\]"),
        ([5, 5], [0, 0], "not all 0"),
        ([5, 0], "minority", "not all 0"),
        ([5, 5], [3, 101], r"group 1 has 5 images; .*101 .*20 copies of each \(at most 100 "),
        ([5, 0], "mean", "group 1 has 0 images"),
        ([5, 5], "median", "unknown targets 'median'; known: mean, minority"),
    ],
)
def test_targets_that_cannot_be_met_are_refused(counts, targets, message):
    with pytest.raises(ValueError, match=message):
        target_counts(counts, targets)


def test_sampling_checks_its_targets():
    with pytest.raises(ValueError, match="give one a group"):
        resample(samples.tiny_data(), [2])
    with pytest.raises(ValueError, match="group 1 has 0 images"):
        resample(samples.tiny_data(), "mean")


def test_one_group_alone_is_cut():
    assert [rotated_counts(100, 0.2, g, 3) for g in range(3)] == [
        (20, 100, 100),
        (100, 20, 100),
        (100, 100, 20),
    ]
    assert rotated_counts(3, 0.01, 0, 2) == (1, 3)
