"""A cell of a grid: one chapter or one audit with its parameters, checked before anything runs."""

import dataclasses
import inspect
import re
import typing
from dataclasses import dataclass
from pathlib import Path

from quantskew.audits.measure import check_audit
from quantskew.base.files import digest
from quantskew.pages.parameters import check_declared, check_parameters, declared_parameters
from quantskew.pages.text_notebooks import read_text_notebook
from quantskew.quantization.quantizers import DEFAULT_PRECISIONS
from quantskew.studies import experiments
from quantskew.sweeps.cells import AUDIT

_OPTIONS = {
    name: option.default
    for name, option in inspect.signature(experiments.audit).parameters.items()
    if name not in ("experiment", "download")
}
_OPTIONS["precisions"] = list(DEFAULT_PRECISIONS)
# The type of an option that is empty by default, where it is no name or path.
_KINDS = {"curvature_images": int}


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
        names = [name for name in self.given if name not in self.defaults]
        names += [name for name in self.defaults if name in self.given]
        return {
            k: self.given[k] for k in names if k not in self.defaults or self.given[k] != self.defaults[k]
        }

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
    """What makes the cells of a chapter out of parameters and the root.

    Parameters
    ----------
    task : str
        The chapter's name.
    root : path
        The repository.
    path : path
        Of the grid, for the message.

    Raises
    ------
    ValueError
        If there is no such chapter; the message lists those that there are.
    """
    source = Path(root) / "notebooks" / f"{task}.md"
    if not source.exists():
        known = ", ".join(sorted(known.stem for known in source.parent.glob("*.md")))
        raise ValueError(
            f"{path}: there is no chapter {task!r} in {source.parent}; known: {AUDIT}, "
            f"{known or 'no chapter, since this is not the repository: name it with --root'}"
        )
    notebook = read_text_notebook(source)
    defaults = declared_parameters(notebook)

    def make(given, root):
        check_parameters(notebook, given, task)
        cell = Cell(task, _exact(given, defaults), defaults)
        values = {**defaults, **given}
        if "experiment" in values:
            experiments.get(values["experiment"])
        if "precisions" in values:
            check_audit(values["precisions"], values.get("scheme", "banner"), None)
        _check_data_dir(given, root)
        return cell

    return make


def audit_cell(given, root):
    """A plain audit; what it leaves out is as its experiment has it.

    Raises
    ------
    ValueError
        If a parameter is not one of an audit's, or its type or value does not fit.
    """
    if not isinstance(given.get("experiment"), str):
        raise ValueError(f"an audit names its experiment, one of {', '.join(experiments.EXPERIMENTS)}")
    experiment = experiments.get(given["experiment"])
    defaults, kinds = {}, {}
    for part in (experiment, experiment.recipe):
        for field in dataclasses.fields(part):
            kind = _plain_kind(field.type)
            if kind and field.name not in ("name", "dataset", "whole"):
                defaults[field.name], kinds[field.name] = getattr(part, field.name), kind
    for name, default in _OPTIONS.items():
        defaults[name] = default
        kinds[name] = _KINDS.get(name, str if default is None else type(default))
    named = {name: value for name, value in given.items() if name != "experiment"}
    check_declared(defaults, kinds, named, "an audit")
    cell = Cell(AUDIT, {"experiment": experiment.name, **_exact(named, defaults)}, defaults)
    own, options = split_audit(cell.given)
    experiments.get(**own)
    values = {**_OPTIONS, **options}
    check_audit(
        values["precisions"],
        values["scheme"],
        values["boundary_precision"],
        values["activation_precision"],
        values["curvature"],
    )
    _check_data_dir(given, root)
    return cell


def split_audit(parameters):
    """What of an audit's parameters is for `quantskew.studies.experiments.get`, and what for ``audit`` there.

    Examples
    --------
    >>> split_audit({"experiment": "digits", "seed": 1, "scheme": "mse"})
    ({'name': 'digits', 'seed': 1}, {'scheme': 'mse'})
    """
    own = {"name": parameters["experiment"]}
    own |= {name: value for name, value in parameters.items() if name not in ("experiment", *_OPTIONS)}
    return own, {name: value for name, value in parameters.items() if name in _OPTIONS}


def _plain_kind(annotation):
    """The type of a field that takes one plain type, beside None or not; None for any other field."""
    kinds = set(typing.get_args(annotation) or [annotation]) - {type(None)}
    return kinds.pop() if len(kinds) == 1 and kinds <= {int, float, str, bool} else None


def _exact(given, defaults):
    """The parameters in the types of their defaults, so that 1 and 1.0 are the same learning rate."""
    return {k: float(v) if isinstance(defaults[k], float) else v for k, v in given.items()}


def _check_data_dir(given, root):
    if given.get("data_dir") and not (root / Path(given["data_dir"]).expanduser()).exists():
        raise ValueError(f"data_dir: {root / given['data_dir']} does not exist; name the folder or archive")
