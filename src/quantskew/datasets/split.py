"""A data set in memory: images as bytes, a label and a group for each, in three splits."""

import functools
import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from quantskew.groups import check_group_ids, group_counts

# ImageNet's statistics for colour, plain centring for grey: constants, so that a model sees the same inputs
# whatever images are in the training split.
_NORMALISATION = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.5,), (0.5,))}
# Of images that nobody divided, in training, validation and test.
_SHARES = (0.65, 0.15, 0.2)


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels and groups.

    Attributes
    ----------
    images : Tensor of uint8, shape (N, C, H, W)
    labels : Tensor of int64, shape (N,)
        Class id of each image.
    groups : Tensor of int64, shape (N,)
        Group id of each image.
    class_names, group_names : tuple of str

    Raises
    ------
    ValueError
        If the arrays do not belong together or an id has no name.
    """

    images: torch.Tensor
    labels: torch.Tensor
    groups: torch.Tensor
    class_names: tuple
    group_names: tuple

    def __post_init__(self):
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            got = f"{self.images.dtype} of shape {tuple(self.images.shape)}"
            raise ValueError(f"images must be uint8 of shape (N, C, H, W); got {got}")
        if self.images.shape[1] not in _NORMALISATION:
            raise ValueError(f"images must have 1 or 3 channels; got {self.images.shape[1]}")
        labels, groups = (self.labels, self.class_names), (self.groups, self.group_names)
        for what, (ids, names) in {"label": labels, "group": groups}.items():
            if len(ids) != len(self.images):
                raise ValueError(f"{len(self.images)} images but {len(ids)} {what}s")
            check_group_ids(ids.numpy(), len(names), what)

    def __len__(self):
        return len(self.images)

    @property
    def group_counts(self):
        """Number of images in each group, ndarray of shape (G,)."""
        return group_counts(self.groups.numpy(), len(self.group_names))

    def subset(self, index):
        """The images at `index` (array of int), in that order."""
        # An empty list has no type, and torch takes it for floating point.
        index = torch.as_tensor(index) if len(index) else []
        arrays = (self.images[index], self.labels[index], self.groups[index])
        return Split(*arrays, self.class_names, self.group_names)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one data set.

    Attributes
    ----------
    name : str
    train, validation, test : Split
    skipped : dict of str to str
        Files that were left out and why.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    skipped: dict = field(default_factory=dict)

    @functools.cached_property
    def digest(self):
        """Digest of every byte that a result can depend on: images, labels, groups, names and split."""
        content = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            content.update(repr((split.class_names, split.group_names, tuple(split.images.shape))).encode())
            for array in (split.images, split.labels, split.groups):
                content.update(array.contiguous().numpy())
        return content.hexdigest()[:20]

    @property
    def class_names(self):
        """Names of the classes, tuple of str."""
        return self.train.class_names

    @property
    def group_names(self):
        """Names of the groups, tuple of str."""
        return self.train.group_names


def normalise(images):
    """Images as a model sees them: float32, channel by channel minus the mean over the deviation.

    Parameters
    ----------
    images : Tensor of uint8, shape (N, C, H, W), C in {1, 3}

    Returns
    -------
    Tensor of float32, same shape, channels-last

    Examples
    --------
    >>> normalise(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([[[[-1.,  1.]]]])
    """
    mean, std = (
        torch.tensor(constants, device=images.device).view(1, -1, 1, 1)
        for constants in _NORMALISATION[images.shape[1]]
    )
    inputs = images.to(torch.float32, memory_format=torch.channels_last)
    return inputs.sub_(255 * mean).div_(255 * std)


def resize(images, size):
    """Images of `size` pixels a side (uint8 in and out); unchanged where they have it or size is None."""
    if size is None or tuple(images.shape[2:]) == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True)


def stratified_indices(strata, shares, seed):
    """Indices of samples, sorted, in parts of such shares, which divide each stratum (equal value) alike."""
    strata = np.asarray(strata)
    rng = np.random.default_rng(seed)
    parts = [[] for _ in shares]
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, chunk in zip(parts, np.split(members, cuts), strict=True):
            part.append(chunk)
    return [np.sort(np.concatenate(part)) if part else np.empty(0, int) for part in parts]


def split_arrays(
    name, images, labels, groups, class_names, group_names, seed, skipped=None, shares=_SHARES, given=None
):
    """Divide whole arrays into a `Dataset`: as `given` (0, 1, 2), or at random by label and group."""
    labels, groups = np.asarray(labels, dtype=np.int64), np.asarray(groups, dtype=np.int64)
    strata = labels * len(group_names) + groups
    if given is None:
        parts = stratified_indices(strata, shares, seed)
    else:
        parts = [np.flatnonzero(np.asarray(given) == split) for split in range(3)]
        if not len(parts[1]):
            train = parts[0]
            parts[:2] = (train[own] for own in stratified_indices(strata[train], (0.85, 0.15), seed))
    if not all(map(len, parts)):
        counts = "/".join(str(len(part)) for part in parts)
        said = f"{len(images)} images give {counts} of training, validation and test"
        why = "each group of each class is divided alike; add images, or join small groups"
        raise ValueError(f"{name}: {said}, since {why}")
    splits = []
    for part in parts:
        arrays = np.ascontiguousarray(images[part]), labels[part], groups[part]
        splits.append(Split(*map(torch.from_numpy, arrays), tuple(class_names), tuple(group_names)))
    return Dataset(name, *splits, skipped=skipped or {})
