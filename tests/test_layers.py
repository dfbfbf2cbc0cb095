import ast
from pathlib import Path

import pytest

import quantskew
from quantskew.provenance import imported_modules

# A module imports only from layers strictly below its own: nothing flows back.
LAYERS = (
    (
        "",
        "statistics",
        "files",
        "locks",
        "groups",
        "quantizers",
        "models",
        "lanczos",
        "hutchinson",
        "lean_convolution",
        "weighted_loss",
        "oscillation",
        "launch",
    ),
    (
        "intervals",
        "provenance",
        "audit",
        "activations",
        "learned_step",
        "datasets.split",
        "datasets.decode",
        "sampling",
        "rendering",
        "recipe",
        "model_cache",
        "one_gpu",
        "checkpoint",
    ),
    ("ptq", "augmentation", "methods", "qat_options", "intersections", "audit_cache"),
    (
        "differentiation",
        "tables",
        "datasets.digits",
        "datasets.utkface",
        "datasets.folder",
        "datasets.benchmarks",
    ),
    (
        "datasets",
        "weights",
        "logits",
        "softmax",
        "losses",
        "fairness",
        "gradients",
        "folding",
        "loss_surface",
    ),
    (
        "training",
        "batchnorm",
        "batchnorm_drift",
        "hessian_operator",
        "style",
        "seeds",
        "equalized_odds",
        "audit_rows",
    ),
    (
        "hessian",
        "qat",
        "verdicts",
        "steepness",
        "figures",
        "intersection_figures",
        "flow",
        "pictures",
        "radio_page",
        "prose",
        "text_notebooks",
        "executed_chapters",
        "tradeoffs",
    ),
    (
        "curvature",
        "surface_figures",
        "tradeoff_figures",
        "precision_figures",
        "panels",
        "sweep_figures",
        "forward_claims",
        "backward_claims",
        "controls",
    ),
    ("power", "power_figures", "views", "chain"),
    ("measure", "widgets"),
    ("experiments",),
    ("report", "records", "chapters", "mitigation", "difficulty", "activation_audit", "live_model"),
    (
        "playground",
        "record_sets",
        "reproduction",
        "difficulty_figures",
        "tradeoff_report",
        "claims_report",
        "cells",
    ),
    ("method_claims", "grid_cells", "sweep_table"),
    ("claims", "evidence", "grid", "sweep_plan"),
    ("scorecard_page", "sweep"),
    ("sweep_page",),
    ("cli",),
)
LAYER_OF = {f"quantskew.{name}".rstrip("."): layer for layer, names in enumerate(LAYERS) for name in names}
ROOT = Path(quantskew.__file__).parent


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def violations(name, source):
    """What is wrong with the imports of a module, in words."""
    tree = ast.parse(source)
    unlisted = "{} is in no layer; add it to LAYERS in tests/test_layers.py"
    if name not in LAYER_OF:
        return [unlisted.format(name)]
    found = [
        f"{name} imports relatively; name the module in full"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    for other in imported_modules(tree):
        if other not in LAYER_OF:
            found.append(unlisted.format(other))
        elif LAYER_OF[other] >= LAYER_OF[name]:
            found.append(
                f"{name} (layer {LAYER_OF[name]}) imports {other} (layer {LAYER_OF[other]}), not below it"
            )
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_lower_layers(name):
    assert violations(name, MODULES[name].read_text(encoding="utf-8")) == []


def test_every_listed_module_exists_once():
    assert sorted(set(LAYER_OF) - set(MODULES)) == []
    assert len(LAYER_OF) == sum(map(len, LAYERS))


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("quantskew.groups", "from quantskew.fairness import fvo", "quantskew.fairness (layer 4), not below"),
        ("quantskew.groups", "from quantskew import files", "quantskew.files (layer 0), not below"),
        ("quantskew.groups", "import quantskew.audit as a", "quantskew.audit (layer 1), not below"),
        ("quantskew.logits", "def f():\n    from quantskew import cli", "quantskew.cli"),
        ("quantskew.datasets.split", "from quantskew.datasets import load", "quantskew.datasets (layer 4)"),
        ("quantskew.logits", "from . import softmax", "imports relatively"),
        ("quantskew.sampler", "import numpy", "quantskew.sampler is in no layer; add it to LAYERS"),
    ],
)
def test_a_violation_is_found(name, source, message):
    assert [message in violation for violation in violations(name, source)] == [True]


def test_imports_from_below_are_no_violation():
    assert violations("quantskew.fairness", "import numpy\nfrom quantskew.groups import group_means") == []
