"""A data set of the user's own: one folder of images per class, and an optional table of groups."""

import csv
import io
import itertools
import os
import unicodedata
from pathlib import Path

import numpy as np

from quantskew.checks import shortened, some
from quantskew.datasets.decode import as_text, cached_decode, folder_files
from quantskew.datasets.split import split_arrays
from quantskew.groups import MISSING, group_counts

LABELS = ("class",)
# Or any table.
GROUPS = None
_GROUPS_FILE = "groups.csv"
SPLITS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}


def load(data_dir, size=None, group=None, seed=0):
    """A folder with one folder of images per class; what is left out is counted and listed.

    Where there are folders ``train`` and ``test``, and perhaps one of ``val``, ``valid`` and ``validation``,
    above those of the classes, these are the splits; without validation, 15 % of the training images are it.
    Hidden files and folders are passed over, links are followed.  Images are turned upright, transparent
    parts are white, and more than 8 bits are scaled to 8.

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
        If the folder or the table is missing, incomplete or contradicts itself, if there are not two classes
        with images in every split, or if more than a fifth of the files of a class cannot be used.
    """
    if data_dir is None:
        raise ValueError("the data set 'folder' needs data_dir: a folder with one folder of images per class")
    # Without "..", so that the last part is the folder's own name.
    root = Path(os.path.abspath(os.path.expanduser(data_dir)))
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give one that holds a folder of images per class")
    table = table_of(root, group)
    files = [file for file in folder_files(root) if file[1] != table]
    depth = depth_of(root, [name for name, _, reason in files if reason is None])

    def class_of(name):
        return "/".join(name.split("/")[:depth]) if name.count("/") >= depth else ""

    def reject(name):
        return None if class_of(name) else "not in a class folder"

    title, size = as_text(root.name), 64 if size is None else size
    images, names, skipped = cached_decode(title, root, files, size, reject, class_of)
    # As in torchvision's ImageFolder: numbers, too, are sorted as text.
    class_names, labels = _ids([_text(name.split("/")[depth - 1]) for name in names], None)
    group_names, groups = class_names, labels
    if table is not None:
        groups = groups_of(table, root, names, skipped)
        group_names, groups = _ids(groups, _order(groups))
    given = None if depth == 1 else [SPLITS[name.split("/")[0].casefold()] for name in names]
    data = split_arrays(title, images, labels, groups, class_names, group_names, seed, skipped, given=given)
    _check_classes(root, data, given)
    return data


def _text(name):
    """A name as text is compared: one form of each letter, no spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def _ids(values, order):
    """The distinct values, sorted, and the place of each value among them."""
    names = sorted(set(values), key=order)
    places = {name: place for place, name in enumerate(names)}
    return names, [places[value] for value in values]


def _order(names):
    """Numbers are sorted as numbers, if all are."""
    try:
        return {name: (float(name), name) for name in names}.get
    except ValueError:
        return None


def _differ_in_case(names):
    """Two names that differ in nothing but upper and lower case, as text, or nothing."""
    folded = sorted((unicodedata.normalize("NFKC", name).casefold(), name) for name in names)
    pairs = ((own[1], other[1]) for own, other in itertools.pairwise(folded) if own[0] == other[0])
    return next((f"{shortened(own)} and {shortened(other)}" for own, other in pairs), None)


def depth_of(root, names):
    """How many folders lead to the images of a class: its own, or the split's and its own; else refused."""
    folders = {tuple(name.split("/")[:-1]) for name in names} - {()}
    tops = sorted({parts[0] for parts in folders})
    kinds = sorted(SPLITS.get(top.casefold(), 3) for top in tops)
    held = f"{root} holds {some([*map(shortened, tops)], 8)}"
    if names and not tops:
        raise ValueError(f"{root}: {len(names)} images are in no folder; make a folder for each class")
    if len({*kinds} - {3}) > 1 or (len(tops) > 1 and 3 not in kinds):
        if kinds not in ([0, 2], [0, 1, 2]) or len(max(folders, key=len)) < 2:
            known = "train, test and, if you like, one of val, valid and validation"
            remedy = "move what else there is, or give one of them, to be divided"
            raise ValueError(f"{held}: splits are {known}, each with a folder per class; {remedy}")
        return 2
    if len(tops) == 1:
        common = os.path.commonpath(["/".join(parts) for parts in folders])
        if tuple(common.split("/")) in folders:
            raise ValueError(f"{held}, a single class; give a folder with a folder of images for each class")
        raise ValueError(f"{held}, a single folder; the classes are in {root / common}: give that")
    inner = {top: {parts[1:2] for parts in folders if parts[0] == top} for top in tops}
    same = set.union(*inner.values()) if tops else set()
    if len(same) > 1 and () not in same and all(own == same for own in inner.values()):
        alike = f"each with the same folders, such as {shortened(min(same)[0])}; if those are classes"
        remedy = "give one of the outer folders; if not, put the images of a class into its folder"
        raise ValueError(f"{held}, {alike}, {remedy}")
    return 1


def _check_classes(root, data, given):
    """Refuse classes that are not in every split; say which are alike, and which images are in two splits."""
    parts = data.train, data.validation, data.test
    counts = np.stack([group_counts(part.labels.numpy(), len(data.class_names)) for part in parts], axis=1)
    for name, own in zip(data.class_names, counts.tolist(), strict=True):
        if not all(own):
            where = f"{own[0]}/{own[1]}/{own[2]} images in training, validation and test"
            remedy = "put some there" if given else "5 of one group are enough: add some, or join groups"
            said = f"{root}: of the class {shortened(name)} there are {where}"
            raise ValueError(f"{said}; {remedy}, or move the class elsewhere")
    alike = _differ_in_case(data.class_names)
    if alike:
        print(f"{data.name}: the classes {alike} differ in case only")
    seen, repeated = set(), 0
    for part in parts:
        own = [hash(image.numpy().tobytes()) for image in part.images]
        repeated += sum(image in seen for image in own)
        seen.update(own)
    if repeated:
        print(f"{data.name}: {repeated} images of validation and test are, pixel by pixel, in another split")


def table_of(root, group):
    """The path of the table that names the groups, or None where they are the classes."""
    if group == "class" or (group is None and not (root / _GROUPS_FILE).exists()):
        return None
    path = root / _GROUPS_FILE if group is None else Path(os.path.abspath(os.path.expanduser(group)))
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give 'class' or a CSV file with columns file,group")
    return path


def rows(path, needed):
    """(number of its line, values by column) of each row of a table that has the columns `needed`."""
    content = path.read_bytes()
    try:
        utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, row {line}: not UTF-8; save it as 'CSV UTF-8'") from error
    separator = max(",;\t", key=text.partition("\n")[0].count)
    options = {"delimiter": separator, "skipinitialspace": True, "strict": True}
    lines = csv.reader(io.StringIO(text, newline=""), **options)
    try:
        header = [_text(column) for column in next(lines, [])]
        header = [name.casefold() if name.casefold() in needed else name for name in header]
        if any(header.count(name) != 1 for name in {*needed, *filter(None, header)}):
            has = some([*map(shortened, header)]) or "none"
            raise ValueError(f"{path} needs the columns {' and '.join(needed)}; it has {has}")
        for row in lines:
            if any(map(str.strip, row[len(header) :])):
                raise csv.Error(f"{len(row)} values for {len(header)} columns")
            if any(map(str.strip, row)):
                values = dict(zip(header, map(_text, row), strict=False))
                yield lines.line_num, dict.fromkeys(header, "") | values
    except csv.Error as error:
        remedy = f"remove the row, or put values with {separator!r} in quotes"
        raise ValueError(f"{path}, row {lines.line_num}: {error}; {remedy}") from error


def groups_of(path, root, names, skipped):
    """The group of each image by the table at `path`."""
    known = {_text(name) for name in [*skipped, *names]}
    owners = {_text(root.name), _text(root.resolve().name)}
    found, gone = {}, 0
    for line, values in rows(path, ("file", "group")):
        file, group = values["file"], values["group"]
        name, where = _known_name(file, known, owners), f"{path}, row {line}: {shortened(file)}"
        if name is None:
            gone += 1
            continue
        other, before = found.setdefault(name, (group, line))
        if group.casefold() in MISSING:
            remedy = "write one, 'unknown' for instance, or move the image"
            raise ValueError(f"{where} has no group ({group!r}): {remedy}")
        if other != group:
            there = f"in row {before} in {shortened(other)}"
            raise ValueError(f"{where} is in {shortened(group)}, {there}: remove one row")
    missing = [name for name in names if _text(name) not in found]
    if missing:
        also = f" ({gone} rows name no file in {root})" if gone else ""
        example = f"{len(missing)} images, the first {shortened(missing[0])}"
        raise ValueError(f"{path} names no group for {example}; add their rows{also}")
    groups = [found[_text(name)][0] for name in names]
    alike = _differ_in_case(set(groups))
    if alike:
        raise ValueError(f"{path}: the groups {alike} differ in case only; write them alike")
    if gone:
        print(f"{as_text(root.name)}: {gone} rows of {path.name} name files that are not there")
    return groups


def _known_name(file, known, owners):
    """The file that a row means: as it stands, or below the folder's own name, with slashes of any kind."""
    text = _text(file)
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    starts = [start for start, part in enumerate(["", *parts]) if start == 0 or part in owners]
    candidates = [text, *("/".join(parts[start:]) for start in starts)]
    return next((name for name in candidates if name in known), None)
