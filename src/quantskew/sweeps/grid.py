"""A cell of a grid: one chapter or one audit with its parameters, checked before anything runs."""

import contextlib
import dataclasses
import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from quantskew.audits.model import check_audit
from quantskew.book import execution
from quantskew.checks import check_whole, shortened
from quantskew.experiments import catalogue
from quantskew.experiments.experiment import OWN
from quantskew.experiments.runs import record_folders
from quantskew.files import digest
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, Quantizer
from quantskew.sweeps.cells import AUDIT

_QUANTIZER = {own.name: own.default for own in dataclasses.fields(Quantizer) if own.name != "precision"}
_OPTIONS = {"precisions": list(DEFAULT_PRECISIONS), **_QUANTIZER, "data_dir": None, "device": "auto"}
_OPTIONS |= {"curvature": False, "curvature_images": None}
# Types of parameters that are empty by default and are no names or paths.
_KINDS = {"size": int, "resize": int, "accuracy": float, "curvature_images": int}
# Fields of an experiment that are said in another way, or have no plain value.
_NOT_GIVEN = {"name", "dataset", "whole", "start", "own", "recipe", "targets", "class_weights"}
# Of a grid: bytes, and cells, each of which is at least a second of work.
_LONGEST, _MOST_CELLS = 500_000, 10_000


@dataclass(frozen=True)
class Cell:
    """One run of a chapter, or one audit.

    Attributes
    ----------
    task : str
        A chapter's name, or `AUDIT`.
    given : dict
        Parameters as the grid gives them, JSON-able.
    defaults : dict
        Of every parameter that the task declares.

    Examples
    --------
    >>> cell = Cell("audit", {"experiment": "digits", "seed": 1, "scheme": "banner"}, {"scheme": "banner"})
    >>> cell.parameters
    {'experiment': 'digits', 'seed': 1}
    >>> cell.id
    'audit-digits-seed-1-d965a03eb0'
    """

    task: str
    given: dict
    defaults: dict

    @property
    def parameters(self):
        """The given parameters that differ from their defaults, in the order in which they are declared."""
        undeclared = {name: value for name, value in self.given.items() if name not in self.defaults}
        declared = {name: self.given[name] for name in self.defaults if name in self.given}
        return undeclared | {k: v for k, v in declared.items() if v != self.defaults[k]}

    @property
    def id(self):
        """Name of the cell's folder: the same for the same parameters, whatever else is in the grid."""
        words = [self.task]
        for name, value in self.parameters.items():
            words += [value] if isinstance(value, str) else [name, str(value)]
        readable = re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(words))[:60].strip("-.")
        return f"{readable}-{digest([self.task, self.parameters])[:10]}"

    @property
    def model(self):
        """Digest of what is trained: audits that differ in their quantization alone share it."""
        return digest([self.task, {k: v for k, v in self.parameters.items() if k not in _OPTIONS}])


def chapter_cells(task, root, path):
    """What makes a cell of a chapter out of its parameters; `path` is that of the grid, for messages."""
    folder = Path(root) / "notebooks"
    sources = {known.stem: known for known in sorted(folder.glob("*.md"))}
    if task not in sources:
        rest = ", ".join(sources) or "no chapter, since this is not the repository: name it with --root"
        raise ValueError(f"{path}: there is no chapter {shortened(task)} in {folder}; known: {AUDIT}, {rest}")
    notebook = execution.read_text_notebook(sources[task])
    defaults = execution.declared_parameters(notebook)
    records = record_folders(root)

    def make(given, root, here):
        execution.check_parameters(notebook, given, task)
        cell = Cell(task, _exact(given, defaults), defaults)
        # Defaults are the chapter's own affair.
        chosen = _with_data_dir({**defaults, **given}, root)
        known = {name for name in chosen if name in given or name in ("scheme", "data_dir")}
        known |= {"experiment"} & chosen.keys() if {"device", "data_dir"} & given.keys() else set()
        execution.check_values({k: v for k, v in chosen.items() if k in known}, task, records, here=here)
        return cell

    return make


def audit_cell(given, root, here=True):
    """A plain audit out of its parameters; what they leave out is as the experiment has it."""
    if not isinstance(given.get("experiment"), str):
        raise ValueError(f"an audit names its experiment, one of {', '.join(catalogue.EXPERIMENTS)}")
    of_file = {name: given[name] for name in OWN if name in given}
    with contextlib.chdir(root):
        experiment = catalogue.get(given["experiment"], **of_file)
    # What is given of a model in a file has no default.
    of_own = dict.fromkeys(OWN if experiment.own else ())
    known = {**vars(experiment), **vars(experiment.recipe), **of_own, **_OPTIONS}
    defaults = {name: value for name, value in known.items() if name not in _NOT_GIVEN}
    named = {name: value for name, value in given.items() if name != "experiment"}
    execution.check_declared(defaults, named, "an audit", _KINDS)
    cell = Cell(AUDIT, {"experiment": given["experiment"], **_exact(named, defaults)}, defaults)
    own, options = split_audit(cell.given)
    place = _with_data_dir(cell.given, root)
    with contextlib.chdir(root):
        catalogue.check(catalogue.get(**own), place.get("data_dir"), place.get("device", "auto"), here=here)
    images = cell.given.get("curvature_images")
    if images is not None:
        check_whole("curvature_images", images, 1)
    check_audit(options["quantizers"], options.get("curvature", False))
    return cell


def split_audit(parameters):
    """What of an audit's parameters is for `experiments.catalogue.get`, and what for ``audit`` there.

    Examples
    --------
    >>> split_audit({"experiment": "digits", "seed": 1, "precisions": ["fp32", "int4"], "scheme": "mse"})
    ({'name': 'digits', 'seed': 1}, {'quantizers': ['fp32', 'int4:mse']})
    """
    own = {"name": parameters["experiment"]}
    own |= {name: value for name, value in parameters.items() if name not in ("experiment", *_OPTIONS)}
    template = {name: value for name, value in parameters.items() if name in _QUANTIZER}
    chosen = Quantizer.each(parameters.get("precisions", DEFAULT_PRECISIONS), **template)
    options = {name: parameters[name] for name in ("data_dir", "device") if name in parameters}
    if parameters.get("curvature"):
        options["curvature"] = parameters.get("curvature_images") or True
    return own, {"quantizers": [quantizer.name for quantizer in chosen], **options}


def _exact(given, defaults):
    """The parameters in the types of their defaults, so that 1 and 1.0 are the same learning rate."""
    return {k: float(v) if isinstance(defaults[k], float) else v for k, v in given.items()}


def _with_data_dir(given, root):
    """The parameters with the place of the images, which begins at the repository where it is relative."""
    place = given.get("data_dir")
    return {**given, "data_dir": str(Path(root) / Path(place).expanduser())} if place else given


def read_grid(path, root=".", here=True):
    """The cells of a grid, in the order of the file.

    Parameters
    ----------
    path : path
        A YAML file, see above.
    root : path
        The repository, whose ``notebooks`` are the chapters; a relative `data_dir` begins here too.
    here : bool
        Whether the cells run on this machine, which then has to have their devices.

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
    cells, places, found = [], {}, {}
    for task, block in content.items():
        found[task] = _combinations(block, f"{path}, {task}", sum(map(len, found.values())))
    for task, own in found.items():
        make = audit_cell if task == AUDIT else chapter_cells(task, root, path)
        for where, given in own:
            try:
                cell = make(given, Path(root), here)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            if cell.id in places:
                raise ValueError(f"{where} is the same cell as {places[cell.id]}; leave one of them out")
            places[cell.id] = where
            cells.append(cell)
    return cells


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML keeps the last, and one that is no plain text.

    So are references, since a few of them stand for more values than fit into memory.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            problem = "a reference stands for a value: write it out"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            plain = isinstance(key, yaml.ScalarNode)
            if not plain or key.value in seen:
                problem = f"{shortened(key.value)} is given twice" if plain else "a name is plain text"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load(path):
    try:
        # A device has no end.
        with open(path, "rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise ValueError(f"{path} is no grid: it has more than {_LONGEST:,} bytes; split it in several")
        text = content.decode()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no grid at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text ({error}); name a YAML file") from None
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply; mend the YAML") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).splitlines()[0][:200]
        raise ValueError(f"{path}{line}: {problem}; mend the YAML") from None


def _word(value):
    """A value as it stands in a list of values."""
    return value if isinstance(value, str) and len(value) <= 80 else shortened(value)


def _combinations(block, where, before):
    """Each cell's parameters, with the words that say where they stand; `before` it are so many cells."""
    if not isinstance(block, dict) or not block or block.keys() - {"product", "cells"}:
        found = ", ".join(map(_word, block)) if isinstance(block, dict) and block else shortened(block)
        raise ValueError(f"{where}: write `product:`, `cells:` or both below it; got {found}")
    product, cells = block.get("product", {}), block.get("cells", [])
    if not isinstance(product, dict) or not isinstance(cells, list):
        raise ValueError(f"{where}: `product` maps parameters to lists, and `cells` is a list of mappings")
    for name, values in product.items():
        if not isinstance(values, list) or not values:
            shown = f"[{shortened(values)}]"
            raise ValueError(f"{where}: in a product {name} needs a list of values, as {shown}")
    count = math.prod(map(len, product.values())) * bool(product) + len(cells)
    if before + count > _MOST_CELLS:
        raise ValueError(
            f"{where}: {before + count:.3g} cells, but a grid has at most {_MOST_CELLS:,}; split it"
        )
    if not count:
        raise ValueError(f"{where}: there are no cells; write `product:` or `cells:` below it")
    found = []
    for values in itertools.product(*product.values()) if product else ():
        given = dict(zip(product, values, strict=True))
        words = ", ".join(f"{name}: {_word(value)}" for name, value in given.items())
        found.append((f"{where}, product ({words})", given))
    for number, given in enumerate(cells, 1):
        if not isinstance(given, dict):
            raise ValueError(f"{where}, cell {number} is no mapping of parameters: {shortened(given)}")
        found.append((f"{where}, cell {number}", given))
    return found
