"""torchvision's FashionMNIST, CIFAR10 and SVHN: the group of an image is its class.

CIFAR10's files are pickles; torchvision opens them only where their checksums are those it knows.
"""

import numpy as np
import torch

from quantskew.cache import cache_dir
from quantskew.datasets.split import Dataset, Split, resize, stratified_indices

ATTRIBUTES = ("class",)
_SETS = {
    "fashion_mnist": ("FashionMNIST", {"train": True}, {"train": False}),
    "cifar10": ("CIFAR10", {"train": True}, {"train": False}),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}),
}


def load(name, data_dir=None, size=None, seed=0, download=False):
    """Load a torchvision data set with its own test split; validation is 15 % of its training split.

    Parameters
    ----------
    name : {"fashion_mnist", "cifar10", "svhn"}
    data_dir : path, optional
        Where the files are, or go; by default below the cache folder.
    size : int, optional
        Pixels a side; as they come by default.
    seed : int
        Seed of the split.
    download : bool
        Whether to fetch files that are not there.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        If the files are not there and `download` is off.
    """
    # Its import takes a second, which other data sets need not wait for.
    from torchvision import datasets

    class_name, train_options, test_options = _SETS[name]
    factory = getattr(datasets, class_name)
    root = data_dir if data_dir is not None else cache_dir() / "torchvision"
    try:
        train = factory(str(root), download=download, **train_options)
        test = factory(str(root), download=download, **test_options)
    except RuntimeError as error:
        raise FileNotFoundError(
            f"{name} is not below {root} ({error}); put its files there or ask for them with download=True "
            "(--download on the command line)"
        ) from error
    class_names = getattr(train, "classes", [str(digit) for digit in range(10)])
    fitting, validation = stratified_indices(_labels(train), (0.85, 0.15), seed)
    whole = _split(train, class_names, size)
    return Dataset(name, whole.subset(fitting), whole.subset(validation), _split(test, class_names, size))


def _labels(dataset):
    # SVHN calls them labels, the others targets.
    return np.asarray(getattr(dataset, "targets", None) if hasattr(dataset, "targets") else dataset.labels)


def _split(dataset, class_names, size):
    images = torch.as_tensor(dataset.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(_labels(dataset), dtype=torch.int64)
    names = tuple(class_names)
    return Split(resize(images, size).contiguous(), labels, labels, names, names)
