"""Data sets by name: real images as bytes, with a label and a group for each."""

import importlib
import inspect

from quantskew.checks import check_known, check_whole, shortened
from quantskew.datasets.split import Dataset, Split, normalise

__all__ = ["MODULES", "Dataset", "Split", "load", "normalise"]

# The module of each data set, imported when it is asked for.  It has `LABELS` and `GROUPS`, the attributes
# that can be predicted and that can make the groups (None where it checks them itself), and `load`, which
# takes those parameters of `load` below that it has a use for.
MODULES = {
    "digits": "digits",
    "balanced_digits": "digits",
    "utkface": "utkface",
    "fashion_mnist": "benchmarks",
    "cifar10": "benchmarks",
    "svhn": "benchmarks",
    "folder": "folder",
}


def load(name, data_dir=None, size=None, label=None, group=None, seed=0, download=False):
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of `MODULES`.  ``digits`` are made imbalanced (see `quantskew.datasets.digits`),
        ``balanced_digits`` are not; ``folder`` is a data set of your own: one folder of images per class.
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
    given = locals()
    module = check(name, size, label, group)
    return module.load(**{own: given[own] for own in inspect.signature(module.load).parameters})


def check(name, size=None, label=None, group=None):
    """The module of a data set, unless it is not known or cannot have these values."""
    check_known("data set", name, MODULES)
    if size is not None:
        check_whole("size (pixels a side)", size, 1, 2048)
    module = importlib.import_module(f"quantskew.datasets.{MODULES[name]}")
    for role, attribute, known in (("label", label, module.LABELS), ("group", group, module.GROUPS)):
        if None not in (attribute, known) and attribute not in known:
            raise ValueError(f"unknown {role} {shortened(attribute)} of {name}; known: {', '.join(known)}")
    return module
