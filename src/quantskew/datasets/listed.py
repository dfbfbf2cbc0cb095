"""Images of the user's own: files with labels and groupings, and how a model is fed them.

Size, colours and numbers that a model expects are one value, which is never assumed.
"""

import dataclasses
import itertools
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from quantskew.checks import check_known, check_number, check_whole, shortened, some
from quantskew.datasets.decode import SHARE, decode, folder_files
from quantskew.datasets.folder import SPLITS, depth_of, groups_of, rows, table_of
from quantskew.groups import MISSING, MOST

_KNOWN = {"channels": ("rgb", "bgr", "grey"), "range": ("0-1", "0-255")}
_KNOWN["interpolation"] = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# What models are often trained with: range, mean and deviation.
_USUAL = {
    "ImageNet's mean and deviation": ("0-1", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR's mean and deviation": ("0-1", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "MNIST's mean and deviation": ("0-1", 0.1307, 0.3081),
    "mean and deviation 0.5": ("0-1", 0.5, 0.5),
    "values from 0 to 1 as they are": ("0-1", 0.0, 1.0),
    "values from 0 to 255 as they are": ("0-255", 0.0, 1.0),
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what a model is fed; validated when it is made.

    Attributes
    ----------
    size : int or (int, int)
        Pixels a side, or height and width.
    mean, std : float or tuple of float
        Taken off and divided by, one or one for each channel, in the model's order of channels and range.
    resize : int, optional
        The shorter side is made so long first, and the middle of `size` is cut out.  By default both sides
        are made `size`, whatever the image's shape.
    interpolation : str
        Pillow's, with antialiasing.
    channels : {"rgb", "bgr", "grey"}
    range : {"0-1", "0-255"}
        The range of values before mean and deviation are applied.

    Raises
    ------
    ValueError
        If a value cannot be used; the message says which and why.

    Examples
    --------
    >>> how = Preprocessing(2, mean=0.5, std=0.5)
    >>> how.inputs(how.pixels(Image.new("RGB", (8, 4), "red"))[None])[0, :, 0, 0]
    tensor([ 1., -1., -1.])
    """

    size: int | tuple
    mean: float | tuple
    std: float | tuple
    resize: int | None = None
    interpolation: str = "bilinear"
    channels: str = "rgb"
    range: str = "0-1"

    def __post_init__(self):
        for what, names in _KNOWN.items():
            check_known(what, getattr(self, what), names)
        for what, most in (("size", 2), ("mean", self.width), ("std", self.width)):
            own = getattr(self, what)
            own = tuple(own) if isinstance(own, list | tuple) else (own,)
            if len(own) not in (1, most):
                raise ValueError(f"{what} is one number or {most}; got {shortened(own)}")
            for value in own:
                if what == "size":
                    check_whole(what, value, 1, 4096)
                else:
                    check_number(what, value, 0 if what == "std" else -1e6, above=what == "std")
            object.__setattr__(self, what, own * 2 if (what, len(own)) == ("size", 1) else own)
        if self.resize is not None:
            check_whole("resize (the shorter side before the crop)", self.resize, max(self.size), 8192)

    @property
    def width(self):
        """How many channels the model is fed, int."""
        return 1 if self.channels == "grey" else 3

    def pixels(self, image):
        """Pixels of an RGB image of Pillow in this size, ndarray of uint8, (C, H, W), red first."""
        (height, width), how = self.size, Image.Resampling[self.interpolation.upper()]
        sides, short = (width, height), min(image.size)
        if self.resize:
            # Rounded as torchvision does.
            sides = [self.resize if side == short else int(self.resize * side / short) for side in image.size]
        left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
        image = image.resize(sides, how).crop((left, top, left + width, top + height))
        image = image.convert("L" if self.channels == "grey" else "RGB")
        return np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)

    def inputs(self, pixels):
        """What the model is fed of such pixels (N, C, H, W): float32."""
        inputs = torch.from_numpy(np.ascontiguousarray(pixels)).float()
        inputs = inputs.flip(1) if self.channels == "bgr" else inputs
        mean, std = (torch.tensor(own).view(-1, 1, 1) for own in (self.mean, self.std))
        return inputs.div_(255 if self.range == "0-1" else 1).sub_(mean).div_(std)

    def __str__(self):
        crop = f"the middle of images with a shorter side of {self.resize}" if self.resize else 0
        numbers = [f"{n} {' '.join(f'{v:g}' for v in getattr(self, n))}" for n in ("mean", "std")]
        words = (crop or "the whole image", self.interpolation, self.channels, self.range, *numbers)
        return f"{self.size[0]} x {self.size[1]} pixels ({'; '.join(words)})"

    def alternatives(self, shapes=()):
        """Other usual ways by what names them; `shapes` are those of some of the images (height, width)."""
        usual = {name: own for name, own in _USUAL.items() if np.size(own[1]) <= self.width}
        found = {name: replace(self, range=of, mean=m, std=s) for name, (of, m, s) in usual.items()}
        if self.channels != "grey":
            other = "bgr" if self.channels == "rgb" else "rgb"
            found[f"channels {other}"] = replace(self, channels=other)
        side, native = max(self.size), {*itertools.chain(*shapes)}
        # Images that are all squares of one size are perhaps as the model wants them.
        for own in sorted({side // 2, 2 * side, *(native if len(native) == 1 else ())} - {0, side}):
            cut = self.resize and round(self.resize * own / side)
            found[f"size {own}"] = replace(self, size=own, resize=cut)
        if self.resize or any(height != width for height, width in shapes):
            for own in (None, side, side * 8 // 7):
                found[f"resize {own or 'without a crop'}"] = replace(self, resize=own)
        return {name: own for name, own in found.items() if own != self}


FIELDS = tuple(own.name for own in dataclasses.fields(Preprocessing))


def facts_of(said, source):
    """What a file says of a model's images: fields, ``classes`` and ``accuracy``, or timm's configuration.

    Examples
    --------
    >>> facts_of({"input_size": [3, 224, 224], "crop_pct": 0.875, "mean": [0.5], "std": [0.5]}, "config.json")
    {'size': (224, 224), 'resize': 256, 'mean': [0.5], 'std': [0.5]}
    """
    said = said.get("pretrained_cfg", said) if isinstance(said, dict) else said
    if isinstance(said, dict) and "input_size" in said:
        side, cut = said["input_size"][-1], said.get("crop_pct") or 1
        crop = {} if said.get("crop_mode") == "squash" and cut == 1 else {"resize": int(side / cut)}
        known = {name: said[name] for name in ("interpolation", "mean", "std") if name in said}
        return {"size": tuple(said["input_size"][-2:]), **crop, **known}
    known = (*FIELDS, "classes", "accuracy")
    if not isinstance(said, dict) or said.keys() - {*known}:
        raise ValueError(f"{source} is no table of {', '.join(known)}: {shortened(said)}")
    return said


@dataclass(frozen=True)
class Listed:
    """Samples by name, with the names of their labels and groups.

    Attributes
    ----------
    names : list of str
        The ids of the samples: their files as the table writes them.
    paths : list of Path
    labels : list of str
    columns : dict of str to list of str
        The group of each sample by the name of the grouping; intersections, "sex x age", are among them.
    """

    names: list
    paths: list
    labels: list
    columns: dict

    def batches(self, how, index, size, left_out):
        """Batches of `size` of these samples: which ones they are, and their pixels in a `Preprocessing`.

        What cannot be decoded goes into `left_out`, by name with the reason; more than a fifth is refused.
        """
        for start in range(0, len(index), size):
            members = ((sample, self.paths[sample].read_bytes()) for sample in index[start : start + size])
            found, reasons = decode(members, how.pixels)
            left_out |= {self.names[sample]: reason for sample, reason in reasons.items()}
            if len(left_out) > SHARE * len(self.names):
                why = [f"{shortened(name)} ({reason})" for name, reason in left_out.items()]
                raise ValueError(f"{len(left_out)} images cannot be used: {some(why)}; mend them")
            if found:
                yield list(found), np.stack(list(found.values()))


def read(test, image_root=None, chosen=None, images=True):
    """The test samples that a CSV file lists, or those of a folder of images.

    Parameters
    ----------
    test : path
        A CSV file with the columns ``file``, ``label`` and any number of group columns, or a folder with one
        folder per class (below ``test``, where there are splits) and perhaps ``groups.csv``.
    image_root : path, optional
        What the files are relative to; by default the folder of the CSV file.
    chosen : sequence of str, optional
        The group columns to use, all by default; without any the groups are the classes.
    images : bool
        Whether the files must be there.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file, a label or a group is missing, or a sample is listed twice; the message names its row.
    """
    test = Path(test).expanduser()
    if not test.exists():
        raise FileNotFoundError(f"there is no {test}; give a CSV file (file, label, groups) or a folder")
    listed = _of_folder(test) if test.is_dir() else _of_table(test, Path(image_root or test.parent), images)
    if not listed.names:
        raise ValueError(f"{test} lists no samples; give a row (file, label, groups) for each")
    for name in chosen or ():
        check_known("group column", name, listed.columns)
    columns = {name: listed.columns[name] for name in chosen or listed.columns}
    for name, own in list(columns.items()):
        # Such as a number of each image.
        if not chosen and len({*own}) > min(MOST, max(len(own) / 2, 2)):
            print(f"{test}: {name} has {len({*own}):,} values and makes no groups", file=sys.stderr)
            del columns[name]
    crossed = itertools.chain(*(itertools.combinations(columns, count) for count in (2, 3)))
    joined = ((of, zip(*map(columns.get, of), strict=True)) for of in crossed)
    both = {" x ".join(of): [*map(", ".join, own)] for of, own in joined}
    both = {name: own for name, own in both.items() if len({*own}) <= MOST}
    return Listed(listed.names, listed.paths, listed.labels, columns | both or {"class": listed.labels})


def _of_table(test, root, images):
    paths, labels, columns = {}, [], {}
    for line, values in rows(test, ("file", "label")):
        name, label = values.pop("file"), values.pop("label")
        empty = [column for column, value in values.items() if column and value.casefold() in MISSING]
        wrong = {
            "has no label; write one, or remove the row": label.casefold() in MISSING,
            f"has no {some(empty, 1)}: write one, 'unknown' for instance, or remove the row": empty,
            "is listed twice; remove one row": name in paths,
            f"is not in {root}; name its folder with --image-root": images and not (root / name).is_file(),
        }
        for why, is_so in wrong.items():
            if is_so:
                raise ValueError(f"{test}, row {line}: {shortened(name)} {why}")
        paths[name] = root / name
        labels.append(label)
        for column, value in values.items():
            columns.setdefault(column, []).append(value)
    columns.pop("", None)
    return Listed(list(paths), list(paths.values()), labels, columns)


def _of_folder(root):
    table = table_of(root, None)
    files = {name: path for name, path, reason in folder_files(root) if reason is None and path != table}
    depth = depth_of(root, files)
    if depth == 2:
        files = {name: own for name, own in files.items() if SPLITS[name.split("/")[0].casefold()] == 2}
    files = {name: path for name, path in files.items() if name.count("/") >= depth}
    groups = {"group": groups_of(table, root, list(files), {})} if table else {}
    return Listed(list(files), list(files.values()), [name.split("/")[depth - 1] for name in files], groups)
