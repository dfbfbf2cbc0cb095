import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

import oracles
import samples
from quantskew import datasets
from quantskew.datasets.split import (
    Dataset,
    Split,
    normalise,
    resize,
    split_arrays,
    stratified_indices,
)

SHARES = (0.65, 0.15, 0.2)


@given(st.lists(st.integers(0, 4), max_size=80), st.integers(0, 5))
def test_parts_are_disjoint_complete_and_stratified(strata, seed):
    parts = stratified_indices(strata, SHARES, seed)
    assert oracles.split_exactly_once(parts, len(strata))
    for stratum in set(strata):
        members = strata.count(stratum)
        for part, share in zip(parts, SHARES, strict=True):
            own = sum(strata[index] == stratum for index in part)
            assert abs(own - share * members) <= 1


def test_the_seed_decides_the_parts():
    strata = np.arange(200) % 3
    once, again, other = (stratified_indices(strata, SHARES, seed) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(once, again, strict=True))
    assert not (once[0] == other[0]).all()


def test_images_keep_their_labels_and_groups():
    labels, groups = np.arange(100) % 2, np.arange(100) % 5
    images = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 1, 2, 2))
    data = split_arrays("x", images, labels, groups, "ab", "vwxyz", 0, shares=SHARES)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [60, 20, 20]
    seen = []
    for part in (data.train, data.validation, data.test):
        numbers = part.images[:, 0, 0, 0].tolist()
        assert part.labels.tolist() == [n % 2 for n in numbers]
        assert part.groups.tolist() == [n % 5 for n in numbers]
        seen += numbers
    assert sorted(seen) == list(range(100))
    assert (data.class_names, data.group_names) == (tuple("ab"), tuple("vwxyz"))


@pytest.mark.parametrize(
    ("channels", "mean", "std"), [(3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), (1, [0.5], [0.5])]
)
def test_normalise_equals_torchvision(channels, mean, std):
    images = torch.randint(0, 256, (4, channels, 5, 6), dtype=torch.uint8)
    before = images.clone()
    expected = v2.Normalize(mean, std)(v2.ToDtype(torch.float32, scale=True)(images))
    torch.testing.assert_close(normalise(images), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(images, before)
    assert normalise(images).is_contiguous(memory_format=torch.channels_last)


def test_resize():
    images = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    assert resize(images, None) is images
    assert resize(images, 8) is images
    assert torch.equal(resize(images, 5), torch.full((2, 3, 5, 5), 77, dtype=torch.uint8))


def test_counts_and_subset():
    split = samples.tiny_split(50)
    assert split.group_counts.tolist() == [int((split.groups == g).sum()) for g in range(3)]
    part = split.subset([7, 3])
    assert torch.equal(part.images, split.images[[7, 3]])
    assert part.labels.tolist() == split.labels[[7, 3]].tolist()
    assert len(split.subset([])) == 0
    assert split.subset([]).group_counts.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 1, 2, 2)}, "must be uint8 .* got torch.float32"),
        ({"images": torch.zeros(2, 2, 2, dtype=torch.uint8)}, "must be uint8 of shape"),
        ({"images": torch.zeros(2, 4, 2, 2, dtype=torch.uint8)}, "1 or 3 channels; got 4"),
        ({"labels": torch.tensor([0])}, "2 images but 1 labels"),
        ({"groups": torch.tensor([0])}, "2 images but 1 groups"),
        ({"labels": torch.tensor([0, 2])}, "sample 1 has label 2, but only 2"),
        ({"groups": torch.tensor([1, 0])}, "sample 0 has group 1, but only 1"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, message):
    good = {
        "images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
        "labels": torch.tensor([0, 1]),
        "groups": torch.tensor([0, 0]),
    }
    with pytest.raises(ValueError, match=message):
        Split(**{**good, **change}, class_names=("a", "b"), group_names=("c",))


def test_the_digest_sees_every_byte():
    def digest(change=None):
        data = samples.tiny_data()
        if change == "pixel":
            data.test.images[3, 0, 0, 0] ^= 1
        elif change == "label":
            data.train.labels[0] ^= 1
        elif change == "group":
            data.validation.groups[0] = 1
        elif change == "split":
            data = Dataset("tiny", data.train, data.test, data.validation)
        elif change == "names":
            test = data.test
            test = Split(test.images, test.labels, test.groups, ("x", "y"), test.group_names)
            data = Dataset("tiny", data.train, data.validation, test)
        return data.digest

    assert digest() == digest()
    assert len({digest(change) for change in (None, "pixel", "label", "group", "split", "names")}) == 6


@pytest.mark.parametrize(
    ("call", "known"),
    [
        (lambda: datasets.load("mnist"), datasets.MODULES),
        (lambda: datasets.load("digits", label="colour"), ["digit"]),
        (lambda: datasets.load("utkface", group="hair"), ["ethnicity", "gender", "age"]),
        (lambda: datasets.load("cifar10", label="hair"), ["class"]),
        (lambda: datasets.load("folder", label="hair"), ["class"]),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(call, known):
    with pytest.raises(ValueError, match="unknown") as error:
        call()
    assert all(name in str(error.value) for name in known)


def test_an_impossible_size_is_refused():
    with pytest.raises(ValueError, match=r"size \(pixels a side\) must be at least 1; got 0"):
        datasets.load("digits", size=0)
