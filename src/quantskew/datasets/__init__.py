"""Data sets by name: real images as bytes, with a label and a group for each."""

from quantskew.datasets import benchmarks, digits, folder, utkface
from quantskew.datasets.split import Dataset, Split, normalise

__all__ = ["NAMES", "Dataset", "Split", "load", "normalise"]

NAMES = ("digits", "balanced_digits", "utkface", "fashion_mnist", "cifar10", "svhn", "folder")


def load(name, data_dir=None, size=None, label=None, group=None, seed=0, download=False):
    """Load a data set by name.

    Parameters
    ----------
    name : {"digits", "balanced_digits", "utkface", "fashion_mnist", "cifar10", "svhn", "folder"}
        ``digits`` are made imbalanced (see `quantskew.datasets.digits`), ``balanced_digits`` are not;
        ``folder`` is a data set of your own: one folder of images per class.
    data_dir : path, optional
        Where its files are; `digits` needs none.
    size : int, optional
        Pixels a side of the images; each data set has its own default.
    label, group : str, optional
        The attribute to predict and the one that makes the groups, where the data set has several;
        for ``folder``, `group` may be the path of a CSV file (see `quantskew.datasets.folder.load`).
    seed : int
        Seed of the split.
    download : bool
        Whether torchvision's sets may be fetched.

    Returns
    -------
    Dataset
        With ``train``, ``validation`` and ``test``, each with ``images`` (uint8, N x C x H x W),
        ``labels``, ``groups``, ``class_names`` and ``group_names``.

    Raises
    ------
    ValueError
        If a name or attribute is not known (the message lists the known ones), or the data are corrupt.
    FileNotFoundError
        If the files are not there; the message says what to do.

    Examples
    --------
    >>> data = load("digits")
    >>> data.test.images.shape
    torch.Size([719, 1, 8, 8])
    >>> data.train.group_counts
    array([89, 73, 57, 46, 36, 29, 23, 18, 14, 11])
    """
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(NAMES)}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel; got {size}")
    own = {"digits": digits, "balanced_digits": digits, "utkface": utkface, "folder": folder}
    attributes = own.get(name, benchmarks).ATTRIBUTES
    for role, attribute in (("label", label), ("group", group)):
        is_table = name == "folder" and role == "group"
        if attribute is not None and attribute not in attributes and not is_table:
            raise ValueError(f"unknown {role} {attribute!r} of {name}; known: {', '.join(attributes)}")
    if name == "digits":
        return digits.load(size, seed)
    if name == "balanced_digits":
        return digits.load(size, seed, dict.fromkeys(digits.TRAINING_SHARE, 1.0))
    if name == "utkface":
        return utkface.load(data_dir, size, label, group, seed)
    if name == "folder":
        return folder.load(data_dir, size, group, seed)
    return benchmarks.load(name, data_dir, size, seed, download)
