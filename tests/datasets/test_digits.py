import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from quantskew import datasets
from quantskew.datasets.digits import TRAINING_SHARE


def rows(split):
    return {image.tobytes() for image in split.images.numpy()}


def test_training_images_follow_the_table(digits):
    whole = datasets.load("balanced_digits")
    expected = [round(TRAINING_SHARE[d] * count) for d, count in enumerate(whole.train.group_counts)]
    assert digits.train.group_counts.tolist() == expected
    assert rows(digits.train) <= rows(whole.train)
    assert rows(digits.test) == rows(whole.test)


def test_balanced_digits_keep_every_training_image(digits):
    balanced = datasets.load("balanced_digits")
    splits = (balanced.train, balanced.validation, balanced.test)
    assert sum(map(len, splits)) == len(load_digits().images)
    assert balanced.train.group_counts.min() >= 0.9 * balanced.train.group_counts.max()
    assert rows(digits.train) < rows(balanced.train)
    for own, other in ((balanced.test, digits.test), (balanced.validation, digits.validation)):
        assert torch.equal(own.images, other.images)
        assert torch.equal(own.labels, other.labels)


def test_every_digit_is_tested_on_about_as_many_images(digits):
    counts = digits.test.group_counts
    assert counts.sum() == 719
    assert counts.min() >= 0.9 * counts.max()


def test_images_are_scikit_learn_s(digits):
    bundle = load_digits()
    known = {
        np.round(image * 255 / 16).astype(np.uint8).tobytes(): d
        for image, d in zip(bundle.images, bundle.target, strict=True)
    }
    for split in (digits.train, digits.validation, digits.test):
        assert [known[image.tobytes()] for image in split.images.numpy()] == split.labels.tolist()
        assert split.labels.tolist() == split.groups.tolist()
    assert not rows(digits.train) & rows(digits.test)


@pytest.mark.parametrize("size", [4, 8, 32])
def test_sizes(size):
    assert datasets.load("digits", size=size).train.images.shape[1:] == (1, size, size)


def test_the_seed_decides_the_split(digits):
    assert datasets.load("digits").digest == digits.digest
    assert datasets.load("digits", seed=1).digest != digits.digest
