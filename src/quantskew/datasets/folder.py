"""A data set of the user's own: one folder of images per class, and an optional table of groups."""

from pathlib import Path

import numpy as np
import pandas as pd

from quantskew.datasets.decode import cached_decode, folder_members, is_image_name
from quantskew.datasets.split import split_arrays

LABELS = ("class",)
# Or any table.
GROUPS = None
_GROUPS_FILE = "groups.csv"


def load(data_dir, size=None, group=None, seed=0):
    """A folder with one folder of images per class; what is no image is left out and listed.

    Parameters
    ----------
    data_dir : path
    size : int, optional
        Pixels a side, 64 by default.
    group : str, optional
        ``class``, or the path of a CSV file with the columns ``file`` (relative to `data_dir`) and
        ``group``.  By default ``groups.csv`` in `data_dir` where there is one, else the class.
    seed : int
        Of the split, 65/15/20, stratified by class and group.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder or the table is missing or incomplete.
    """
    if data_dir is None:
        raise ValueError("the data set 'folder' needs data_dir: a folder with one folder of images per class")
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give one that holds a folder of images per class")
    size = 64 if size is None else size
    images, names, skipped = cached_decode(root.name, root, lambda: folder_members(root), size, _reject)
    classes = [name.split("/", 1)[0] for name in names]
    class_names, labels = np.unique(classes, return_inverse=True)
    group_names, groups = np.unique(_groups(root, names, classes, group), return_inverse=True)
    named = class_names.tolist(), group_names.tolist()
    return split_arrays(root.name, images, labels, groups, *named, seed, skipped)


def _reject(name):
    if not is_image_name(name):
        return "not an image"
    return None if "/" in name else "not in a class folder"


def _groups(root, names, classes, group):
    if group == "class" or (group is None and not (root / _GROUPS_FILE).exists()):
        return classes
    path = root / _GROUPS_FILE if group is None else Path(group).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give 'class' or a CSV file with columns file,group")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"file", "group"} <= set(table.columns):
        raise ValueError(f"{path} needs the columns file and group; it has {', '.join(table.columns)}")
    by_file = dict(zip(table["file"], table["group"], strict=True))
    missing = [name for name in names if name not in by_file]
    if missing:
        raise ValueError(f"{path} names no group for {len(missing)} images, the first {missing[0]}")
    return [by_file[name] for name in names]
