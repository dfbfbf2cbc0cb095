"""A measure, a scheme, a data set and a chapter are added to a copy of the repository, as a newcomer would.

Only files that the table of CONTRIBUTING.md names are touched; what is added is then wherever it belongs.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import yaml

PACKAGE = "src/quantskew/"
MEASURE = '''

@per_sample("margin", "mean margin of the logits", chain=True)
def margin(audit):
    """Largest logit minus the second largest."""
    ordered = np.sort(audit.logits.astype(np.float64), axis=2)
    return ordered[:, :, -1] - ordered[:, :, -2]
'''
CLAIM = '''

@claim("new", "10_margins#fig-margin")
def margin_falls(run):
    """Quantization narrows the margin.

    the margin narrows

    fall of the mean margin
    """
    return run.fall(forward.margin).mean(axis=-1)
'''
SCHEME = '''@_scheme
def wide(weight, bits, channel_axis):
    """Signed grid of half the largest weight's step."""
    return _signed(_symmetric_scale(weight, bits, channel_axis) / 2, bits)


'''
DATA = '''"""Bright and dark tiles, on the left and on the right."""

import numpy as np

from quantskew.datasets.split import split_arrays

LABELS, GROUPS = ("brightness",), ("side",)


def load(seed=0):
    """The tiles, which no file is needed for."""
    labels, groups = np.arange(160) % 2, np.arange(160) // 2 % 2
    noise = np.random.default_rng(0).integers(0, 100, (160, 1, 8, 8))
    images = (noise + 100 * labels[:, None, None, None]).astype(np.uint8)
    return split_arrays("tiles", images, labels, groups, ("dark", "bright"), ("left", "right"), seed)
'''
ROW = 'Experiment("tiles", "tiles", "small_resnet", Recipe(epochs=1, batch_size=32, compute="fp32")),\n'
CHAPTER = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# The margin falls

```{code-cell} ipython3
:tags: [parameters]

experiment: str = "tiles"
scheme: str = "wide"
```

```{code-cell} ipython3
import quantskew as qs
from quantskew.chapter import CHAIN, Chapter

page = Chapter(experiment, experiment, ["fp32", "int4"], scheme)
qs.margin.change(page.live)
```

```{code-cell} ipython3
page.draw(qs.margin)
```

```{code-cell} ipython3
CHAIN.table(CHAIN.numbers(page.live), "int4")
```

```{code-cell} ipython3
page.scorecard(["margin_falls"], ["int4"])
```
"""
# What is done to each file: text that is appended, text before which more is put, or the whole file.
END, WHOLE = "end", "whole"
ADDITIONS = {
    "a measure": {
        "measures/forward.py": (END, MEASURE),
        "claims/forward.py": (END, CLAIM),
        "notebooks/10_margins.md": (WHOLE, CHAPTER),
    },
    "a scheme": {
        "quantization/grids.py": ("if tuple(_SCHEMES)", SCHEME),
        "quantization/quantizer.py": (")\nINTEGER_PRECISIONS", ', "wide"'),
    },
    "a data set": {
        "datasets/tiles.py": (WHOLE, DATA),
        "datasets/__init__.py": ('    "utkface":', '    "tiles": "tiles",\n'),
        "experiments/experiment.py": (")\nEXPERIMENTS =", f"    {ROW}"),
    },
    "a chapter": {
        "notebooks/10_margins.md": (WHOLE, CHAPTER),
        "_toc.yml": ("      - file: book/chapters/playground", "      - file: book/chapters/10_margins\n"),
    },
}
AUDIT = ["audit", "tiles", "--precisions", "fp32,int4,int4:wide", "--output", "runs/tiles"]
GRID = "audit: {cells: [{experiment: tiles, precisions: [fp32, 'int4:wide']}]}"
# Everything in one process, since imports take most of the time.
SCRIPT = f"""
import json
from quantskew.audits.audit import Audit
from quantskew.book import chapters
from quantskew.cli import main

assert main(["experiments"]) == 0
assert main({AUDIT}) == 0
assert main(["sweep", "grid.yml", "--output", "runs/sweep"]) == 0
Audit.load("runs/tiles/audit.safetensors").save("book/records/tiles.safetensors")
json.dump([str(path) for path in chapters.build(".")], open("pages.json", "w"))
"""


def apply(root, path, place, text):
    file = root / path if (root / path).exists() or path.startswith("notebooks/") else root / PACKAGE / path
    if place == WHOLE:
        file.write_text(text)
        return
    before = file.read_text()
    if place == END:
        file.write_text(before.rstrip("\n") + "\n" + text)
        return
    assert before.count(place) == 1, (path, place)
    file.write_text(before.replace(place, text + place))


@pytest.fixture(scope="module")
def added(tmp_path_factory, repository):
    """The copy after the additions, with what came of one audit, one sweep and the book."""
    root = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(
        repository / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    shutil.copy(repository / "_toc.yml", root)
    # The other chapters take minutes.
    (root / "notebooks").mkdir()
    (root / "grid.yml").write_text(GRID)
    for files in ADDITIONS.values():
        for path, (place, text) in files.items():
            apply(root, path, place, text)
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "QUANTSKEW_CACHE": str(root / "cache")}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return root, done.stdout


def test_only_files_that_the_table_names_are_touched(repository):
    text = (repository / "CONTRIBUTING.md").read_text()
    rows = dict(re.findall(r"^\| (an? [a-z ]+) \| (.*?) \|", text, re.MULTILINE))
    assert rows.keys() == ADDITIONS.keys()
    for what, files in ADDITIONS.items():
        named = re.findall(r"`([\w/]+(?:\.\w+|/))`", rows[what])
        # A folder stands for a new file in it.
        assert all(path in named or f"{os.path.dirname(path)}/" in named for path in files), what


def test_it_is_in_tables_and_figures(added):
    root, printed = added
    assert "tiles " in printed
    table = pd.read_csv(root / "runs" / "tiles" / "tables" / "margin.csv")
    assert set(table["group"]) == {"left", "right"}
    assert list(dict.fromkeys(table["precision"])) == ["fp32", "int4", "int4:wide"]
    assert table["value"].notna().all()
    value = table.set_index(["precision", "group"])["value"]
    assert (value["int4"] != value["int4:wide"]).all()
    assert (root / "runs" / "tiles" / "tables" / "margin_change.csv").exists()
    assert (root / "runs" / "tiles" / "figures" / "margin.png").stat().st_size > 10_000


def test_it_is_in_a_sweep(added):
    table = pd.read_csv(added[0] / "runs" / "sweep" / "table.csv")
    assert set(table["experiment"]) == {"tiles"}
    rows = table[table["measure"] == "margin"]
    assert set(rows["group"]) == {"left", "right"}
    assert len(rows) == 4


def test_it_is_on_a_page_of_the_book(added):
    root, _ = added
    (page,) = json.loads((root / "pages.json").read_text())
    parts = yaml.safe_load((root / "_toc.yml").read_text())["parts"]
    listed = [own["file"] for part in parts for own in part["chapters"]]
    assert page.removesuffix(".ipynb") in listed
    cells = nbformat.read(root / page, as_version=4).cells
    outputs = [output["data"] for cell in cells for output in cell.get("outputs", [])]
    shown = " ".join(str(data.get("text/html", data.get("text/plain"))) for data in outputs)
    for word in ("left", "right", ">margin<", "Quantization narrows the margin.", "record: tiles"):
        assert word in shown
    assert any("image/png" in data for data in outputs)
