"""Test images of the user's own: files with labels and groupings, decoded as they are needed."""

import concurrent.futures
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantskew.checks import check_known, shortened, some
from quantskew.datasets.decode import SHARE, decode_image, folder_files
from quantskew.datasets.folder import SPLITS, depth_of, groups_of, rows, table_of
from quantskew.groups import MISSING, MOST

_READERS = 4


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

        def read(sample):
            return decode_image(self.paths[sample].read_bytes(), how.pixels, str)

        with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(index), size):
                chunk = index[start : start + size]
                found = dict(zip(chunk, pool.map(read, chunk), strict=True))
                left_out |= {self.names[s]: why for s, why in found.items() if isinstance(why, str)}
                if len(left_out) > SHARE * len(self.names):
                    why = [f"{shortened(name)} ({reason})" for name, reason in left_out.items()]
                    raise ValueError(f"{len(left_out)} images cannot be used: {some(why)}; mend them")
                kept = {sample: image for sample, image in found.items() if not isinstance(image, str)}
                if kept:
                    yield list(kept), np.stack(list(kept.values()))


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
        wrong = None
        if label.casefold() in MISSING:
            wrong = "has no label; write one, or remove the row"
        elif empty:
            wrong = f"has no {empty[0]}: write one, 'unknown' for instance, or remove the row"
        elif name in paths:
            wrong = "is listed twice; remove one row"
        elif images and not (root / name).is_file():
            wrong = f"is not in {root}; name its folder with --image-root"
        if wrong:
            raise ValueError(f"{test}, row {line}: {shortened(name)} {wrong}")
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
