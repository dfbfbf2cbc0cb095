import pickle
import struct

import numpy as np
import pytest
import torch
import torchvision.datasets as tv
from scipy.io import savemat

from quantskew import datasets

TRAIN, TEST = 80, 30


def pixels(count, *shape, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count):
    return np.arange(count) % 10


def write_fashion_mnist(root):
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate((("train", TRAIN), ("t10k", TEST))):
        images = pixels(count, 28, 28, seed=seed)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes()
        )
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 0x801, count) + labels(count).astype(np.uint8).tobytes()
        )
        yield images[:, None]


def write_cifar10(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = [pixels(TRAIN, 3, 32, 32, seed=0), pixels(TEST, 3, 32, 32, seed=1)]
    files = {"test_batch": (parts[1], labels(TEST))}
    for number in range(5):
        rows = slice(number * TRAIN // 5, (number + 1) * TRAIN // 5)
        files[f"data_batch_{number + 1}"] = (parts[0][rows], labels(TRAIN)[rows])
    for name, (images, own) in files.items():
        content = {"data": images.reshape(len(images), -1), "labels": own.tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"kind {n}" for n in range(10)]}))
    yield from parts


def write_svhn(root):
    root.mkdir(parents=True)
    for seed, (part, count) in enumerate((("train", TRAIN), ("test", TEST))):
        images = pixels(count, 3, 32, 32, seed=seed)
        # The files call the digit 0 ten.
        own = np.where(labels(count) == 0, 10, labels(count))
        savemat(root / f"{part}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": own[:, None]})
        yield images


WRITERS = {"fashion_mnist": write_fashion_mnist, "cifar10": write_cifar10, "svhn": write_svhn}


@pytest.fixture
def unchecked(monkeypatch):
    """torchvision accepts files whose checksum is not that of the real ones."""
    monkeypatch.setattr(tv.CIFAR10, "_check_integrity", lambda self: True)
    for module in (tv.cifar, tv.svhn):
        monkeypatch.setattr(module, "check_integrity", lambda *_: True)


@pytest.mark.parametrize("name", WRITERS)
def test_files_are_read_as_they_are_written(tmp_path, unchecked, name):
    train, test = WRITERS[name](tmp_path / "files")
    data = datasets.load(name, tmp_path / "files")
    assert torch.equal(data.test.images, torch.from_numpy(test))
    assert data.test.labels.tolist() == data.test.groups.tolist() == labels(TEST).tolist()
    known = {image.tobytes(): label for image, label in zip(train, labels(TRAIN), strict=True)}
    seen = [
        (image.tobytes(), int(label))
        for split in (data.train, data.validation)
        for image, label in zip(split.images.numpy(), split.labels, strict=True)
    ]
    assert dict(seen) == known
    assert len(seen) == TRAIN
    assert data.validation.group_counts.tolist() == [1] * 10
    assert len(data.class_names) == 10


@pytest.mark.parametrize("name", WRITERS)
def test_size_and_seed(tmp_path, unchecked, name):
    list(WRITERS[name](tmp_path / "files"))
    small = datasets.load(name, tmp_path / "files", size=12)
    assert small.train.images.shape[2:] == (12, 12)
    assert small.train.images.is_contiguous()
    again, other = (datasets.load(name, tmp_path / "files", size=12, seed=seed) for seed in (0, 1))
    assert again.digest == small.digest != other.digest


def test_class_names_are_the_set_s_own(tmp_path, unchecked):
    for name, writer in WRITERS.items():
        list(writer(tmp_path / name))
    names = {name: datasets.load(name, tmp_path / name).class_names for name in WRITERS}
    assert names["fashion_mnist"][0] == "T-shirt/top"
    assert names["cifar10"] == tuple(f"kind {n}" for n in range(10))
    assert names["svhn"] == tuple("0123456789")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("given", [True, False])
def test_nothing_is_downloaded_unless_asked(tmp_path, fresh_cache, name, given):
    place = tmp_path / "nothing" if given else None
    with pytest.raises(FileNotFoundError, match=rf"{name} is not below .*download=True .*--download"):
        datasets.load(name, place)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_with_a_wrong_checksum_are_not_unpickled(tmp_path):
    list(write_cifar10(tmp_path / "files"))
    with pytest.raises(FileNotFoundError, match=r"cifar10 is not below .*corrupted"):
        datasets.load("cifar10", tmp_path / "files")
