"""UTKFace (Zhang et al., 2017): faces whose file names carry age, gender and ethnicity.

The labels are labels in a data set: ethnicity and gender were guessed by software and checked by
annotators, with the codes below.  The images are for non-commercial research only.
"""

import re
from pathlib import Path

import numpy as np

from quantskew.datasets.decode import cached_decode, folder_files, is_image_name
from quantskew.datasets.split import split_arrays

ETHNICITIES = ("White", "Black", "Asian", "Indian", "Others")
GENDERS = ("male", "female")
# Lower bound of each age band, in years.
AGE_BANDS = {"0-17": 0, "18-29": 18, "30-44": 30, "45-59": 45, "60 and over": 60}
LABELS = GROUPS = ("ethnicity", "gender", "age")

# Some real names lack the dot before "jpg" or have a space there; both still carry every label.
_NAME = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<ethnicity>[0-4])_\d+ ?\.?jpe?g", re.IGNORECASE)
_ARCHIVES = (".tar.gz", ".tgz", ".tar")


def parse_name(name):
    """Age in years, gender id and ethnicity id in a file name, or None where the name is broken."""
    match = _NAME.match(name.rsplit("/", 1)[-1])
    if match is None or int(match["age"]) > 120:
        return None
    return int(match["age"]), int(match["gender"]), int(match["ethnicity"])


def _source(data_dir):
    """The archive or the folder of images that `data_dir` names."""
    if data_dir is None:
        archive = "the official UTKFace.tar.gz (https://susanqq.github.io/UTKFace/)"
        raise ValueError(f"utkface needs data_dir: {archive} or the folder it unpacks to")
    path = Path(data_dir).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the UTKFace.tar.gz or its unpacked folder")
    if path.is_file():
        if not path.name.endswith(_ARCHIVES):
            raise ValueError(f"{path} is neither a folder nor a tar archive ({', '.join(_ARCHIVES)})")
        return path
    path = path / "UTKFace" if (path / "UTKFace").is_dir() else path
    if any(is_image_name(file.name) for file in path.iterdir()):
        return path
    archives = sorted(path.glob("UTKFace.t*"))
    if not archives:
        raise ValueError(f"{path} holds no images and no UTKFace.tar.gz; give the folder with the .jpg files")
    return archives[0]


def load(data_dir, size=None, label=None, group=None, seed=0):
    """UTKFace, split 65/15/20 by `seed`, stratified by label and group.

    Parameters
    ----------
    data_dir : path
        The official ``UTKFace.tar.gz``, a folder that holds it, the unpacked folder, or its parent.
    size : int, optional
        Pixels a side, 64 by default (the files have 200).
    label, group : {"ethnicity", "gender", "age"}, optional
        What the model predicts (ethnicity by default) and what the groups are (the label by default).
    seed : int
    """
    source = _source(data_dir)
    size = 64 if size is None else size
    files = folder_files(source) if source.is_dir() else None
    # Names without the folder, so that the archive and its unpacked folder give the same data set.
    images, names, skipped = cached_decode("utkface", source, files, size, _reject, bare=True)
    values = np.array([parse_name(name) for name in names])
    columns = {
        "age": (np.searchsorted(list(AGE_BANDS.values()), values[:, 0], side="right") - 1, AGE_BANDS),
        "gender": (values[:, 1], GENDERS),
        "ethnicity": (values[:, 2], ETHNICITIES),
    }
    labels, class_names = columns[label or "ethnicity"]
    groups, group_names = columns[group or label or "ethnicity"]
    return split_arrays("utkface", images, labels, groups, class_names, group_names, seed, skipped)


def _reject(name):
    return None if parse_name(name) else "the name does not give age, gender and ethnicity"
