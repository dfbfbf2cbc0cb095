import ast
import graphlib
import importlib.util
from pathlib import Path

import pytest

import quantskew

# Each package stands on a floor, and imports only from floors below: nothing flows back.
FLOORS = (
    ("checks", "files"),
    ("cache", "groups"),
    ("datasets",),
    ("training",),
    ("quantization",),
    ("derivatives",),
    ("audits",),
    ("measures",),
    ("experiments",),
    ("claims", "figures"),
    ("book", "interactive", "report"),
    ("sweeps",),
    ("chapter",),
    # The public names, which only users import.
    ("", "cli"),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
ROOT = Path(quantskew.__file__).parent


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def package_of(name):
    return name.partition(".")[2].partition(".")[0]


def imported_modules(tree):
    """Names of the quantskew modules that a parsed module imports, sorted."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if is_module(name) else node.module for name in names}
    return sorted(name for name in found if name.split(".")[0] == "quantskew")


def is_module(name):
    if name.split(".")[0] != "quantskew":
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def violations(name, source):
    """What is wrong with the imports of a module, in words."""
    tree = ast.parse(source)
    own = package_of(name)
    unlisted = "{} is on no floor; add its package to FLOORS in tests/test_layers.py"
    if own not in FLOOR_OF:
        return [unlisted.format(name)]
    found = [
        f"{name} imports relatively; name the module in full"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    for other in imported_modules(tree):
        package = package_of(other)
        if package not in FLOOR_OF:
            found.append(unlisted.format(other))
        elif package != own and FLOOR_OF[package] >= FLOOR_OF[own]:
            found.append(
                f"{name} (floor {FLOOR_OF[own]}) imports {other} (floor {FLOOR_OF[package]}), not below it"
            )
    return found


def circle(sources):
    """Modules that import each other in a circle, or an empty list."""
    graph = {name: imported_modules(ast.parse(source)) for name, source in sources.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_lower_floors(name):
    assert violations(name, MODULES[name].read_text(encoding="utf-8")) == []


def test_no_modules_import_each_other():
    assert circle({name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}) == []


def test_every_package_that_is_listed_exists():
    assert sorted(FLOOR_OF) == sorted({package_of(name) for name in MODULES})
    assert len(FLOOR_OF) == sum(map(len, FLOORS))


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        (
            "groups",
            "from quantskew.measures.fairness import fvo",
            "fairness (floor 7), not below",
        ),
        ("datasets.split", "from quantskew.derivatives import hessian", "hessian (floor 5), not below"),
        ("groups", "import quantskew.audits.audit as a", "quantskew.audits.audit (floor 6), not below"),
        ("measures.forward", "def f():\n    from quantskew import cli", "quantskew.cli"),
        ("measures.forward", "from . import weights", "imports relatively"),
        (
            "tools.sampler",
            "import numpy",
            "sampler is on no floor; add its package to FLOORS",
        ),
    ],
)
def test_a_violation_is_found(name, source, message):
    assert [message in violation for violation in violations(f"quantskew.{name}", source)] == [True]


def test_a_circle_is_found():
    one, two = "quantskew.measures.forward", "quantskew.measures.forward"
    assert {one, two} == set(circle({one: f"import {two}", two: f"import {one}"}))


def test_imports_from_below_and_beside_are_no_violation():
    source = "import numpy\nfrom quantskew.groups import group_means\nfrom quantskew.measures import tables"
    assert violations("quantskew.measures.fairness", source) == []
