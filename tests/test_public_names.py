"""`import quantskew as qs`: what it gives, and what it does not import."""

import inspect
import re
import subprocess
import sys

import pytest

import quantskew as qs
from quantskew.datasets import load
from quantskew.measures.measure import MEASURES, MODEL_MEASURES


def heavy_after(code):
    """Which slow packages a new process has imported after a line of code."""
    slow = {"torch", "pandas", "scipy", "matplotlib", "sklearn"}
    script = f"import sys\n{code}\nprint(*{slow} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import quantskew",
        "import quantskew as qs; qs.Quantizer('int4', scheme='mse')",
        "from quantskew import cache",
        "import quantskew as qs; hasattr(qs, '__wrapped__')",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    assert heavy_after(code) == set()


def test_measures_need_no_torch():
    assert "torch" not in heavy_after("import quantskew as qs; qs.group_accuracy")


def test_every_name_leads_somewhere():
    for name in qs.__all__:
        assert getattr(qs, name) is not None
    assert {"audit", "Audit", "Quantizer", "load_data", "fake_quantize", "quantize_model"} <= set(qs.__all__)
    assert {"group_gradient_norms", "top_eigenvalues", "group_accuracy", "fvo", "sparsity"} <= set(dir(qs))
    assert qs.load_data is load


def test_every_measure_is_there_by_its_name():
    for name, measure in {**MEASURES, **MODEL_MEASURES}.items():
        assert getattr(qs, name) is measure


def test_every_name_says_what_it_is():
    for name in qs.__all__:
        assert len(inspect.getdoc(getattr(qs, name))) > 20, name


def test_names_are_imported_as_from_any_module():
    given = {}
    exec("from quantskew import *", given)
    assert given["fvo"] is qs.fvo
    assert given["Quantizer"].parse("int4:mse") == qs.Quantizer("int4", scheme="mse")


def test_a_name_that_is_not_there_is_refused():
    for name in ("accuracy_of_groups", "__version_of_nothing__"):
        with pytest.raises(AttributeError, match=name):
            getattr(qs, name)


def test_examples_of_the_hand_written_pages_run(repository, digits_model, digits, capsys):
    pages = [repository / "README.md", *(repository / "book").glob("*.md")]
    examples = [
        code for path in pages for code in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)
    ]
    assert len(examples) >= 2
    for code in examples:
        exec(code, {"model": digits_model, "data": digits})
        shown = capsys.readouterr().out
        assert "int8" in shown
        assert "group" in shown
