"""A grid: which chapters and audits are to be run, with which parameters.

It is a YAML file.  Each of its entries is a chapter's name, or ``audit`` for plain audits, and gives the
cells as a product of lists, one by one, or both::

    audit:
      product: {experiment: [digits], seed: [0, 1, 2], scheme: [banner, mse]}
    04_loss:
      cells:
        - {seed: 3}
        - {seed: 3, precisions: [fp32, int6, int5]}

Everything is checked before the first cell runs.
"""

import itertools
from pathlib import Path

import yaml

from quantskew.sweeps.cells import AUDIT
from quantskew.sweeps.grid_cells import audit_cell, chapter_cells


def read_grid(path, root="."):
    """The cells of a grid, in the order of the file.

    Parameters
    ----------
    path : path
        A YAML file, see above.
    root : path
        The repository, whose ``notebooks`` are the chapters; a relative `data_dir` begins here too.

    Returns
    -------
    list of Cell

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a grid, names a chapter or a parameter that there is not, gives a parameter another type
        or an unknown value, or the same cell twice; the message names the file, the entry and what is known.
    """
    content = _load(path)
    if not content or not isinstance(content, dict):
        raise ValueError(f"{path} holds no grid: write `{AUDIT}:` or a chapter's name, `product:` below it")
    cells, places = [], {}
    for task, block in content.items():
        make = audit_cell if task == AUDIT else chapter_cells(task, root, path)
        for where, given in _combinations(block, f"{path}, {task}"):
            try:
                cell = make(given, Path(root))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            if cell.id in places:
                raise ValueError(f"{where} is the same cell as {places[cell.id]}; leave one of them out")
            places[cell.id] = where
            cells.append(cell)
    return cells


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (named, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                problem = f"{key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, named.start_mark)
        return super().construct_mapping(node, deep)


def _load(path):
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no grid at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text ({error}); name a YAML file") from None
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: {getattr(error, 'problem', None) or error}; mend the YAML") from None


def _combinations(block, where):
    """Each cell's parameters, with the words that say where they stand."""
    if not isinstance(block, dict) or not block or block.keys() - {"product", "cells"}:
        found = ", ".join(map(str, block)) if isinstance(block, dict) and block else repr(block)
        raise ValueError(f"{where}: write `product:`, `cells:` or both below it; got {found}")
    product, cells = block.get("product", {}), block.get("cells", [])
    if not isinstance(product, dict) or not isinstance(cells, list):
        raise ValueError(f"{where}: `product` maps parameters to lists, and `cells` is a list of mappings")
    for name, values in product.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{where}: in a product {name} needs a list of values, as [{values!r}]")
    found = []
    if product:
        for values in itertools.product(*product.values()):
            given = dict(zip(product, values, strict=True))
            words = ", ".join(f"{name}: {value}" for name, value in given.items())
            found.append((f"{where}, product ({words})", given))
    for number, given in enumerate(cells, 1):
        if not isinstance(given, dict):
            raise ValueError(f"{where}, cell {number} is no mapping of parameters: {given!r}")
        found.append((f"{where}, cell {number}", given))
    if not found:
        raise ValueError(f"{where}: there are no cells; write `product:` or `cells:` below it")
    return found
