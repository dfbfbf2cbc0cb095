"""torchvision's FashionMNIST, CIFAR10 and SVHN: the group of an image is its class.

CIFAR10's files are pickles; torchvision opens them only where their checksums are those it knows.
"""

import numpy as np
import torch
from torchvision import datasets

from quantskew.cache import cache_dir
from quantskew.datasets.split import Dataset, Split, resize, stratified_indices

LABELS = GROUPS = ("class",)
_SETS = {
    "fashion_mnist": (datasets.FashionMNIST, {"train": True}, {"train": False}),
    "cifar10": (datasets.CIFAR10, {"train": True}, {"train": False}),
    "svhn": (datasets.SVHN, {"split": "train"}, {"split": "test"}),
}


def load(name, data_dir=None, size=None, seed=0, download=False):
    """A torchvision data set with its own test split; validation is 15 % of its training split."""
    factory, train_options, test_options = _SETS[name]
    root = data_dir if data_dir is not None else cache_dir() / "torchvision"
    try:
        train = factory(str(root), download=download, **train_options)
        test = factory(str(root), download=download, **test_options)
    except RuntimeError as error:
        remedy = "put its files there or ask for them with download=True (--download on the command line)"
        raise FileNotFoundError(f"{name} is not below {root} ({error}); {remedy}") from error
    class_names = tuple(getattr(train, "classes", map(str, range(10))))
    whole = _split(train, class_names, size)
    fitting, validation = stratified_indices(whole.labels, (0.85, 0.15), seed)
    return Dataset(name, whole.subset(fitting), whole.subset(validation), _split(test, class_names, size))


def _split(dataset, names, size):
    images = torch.as_tensor(dataset.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    # SVHN calls them labels, the others targets.
    labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    labels = torch.as_tensor(np.asarray(labels), dtype=torch.int64)
    return Split(resize(images, size).contiguous(), labels, labels, names, names)
