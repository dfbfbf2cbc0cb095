"""Grids: read as they are written, and refused with file, entry and remedy before anything runs."""

import re

import pytest

from quantskew.sweeps.grid import read_grid

GRID = """
audit:
  product: {experiment: [digits], seed: [0, 1], scheme: [banner, mse]}
  cells:
    - {experiment: digits, seed: 0, epochs: 2, learning_rate: 1}
00_small:
  product: {bits: [2, 3]}
"""
CHAPTER = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

```{code-cell} ipython3
:tags: [parameters]

experiment: str = "digits"
precisions: list = ["fp32", "int8"]
bits: int = 4
data_dir: str = None
```
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_small.md").write_text(CHAPTER)
    return tmp_path


def read(root, text=GRID):
    (root / "grid.yml").write_text(text)
    return read_grid(root / "grid.yml", root)


def test_products_and_cells_come_in_the_order_of_the_file(root):
    cells = read(root)
    assert [cell.task for cell in cells] == ["audit"] * 5 + ["00_small"] * 2
    assert [cell.parameters for cell in cells[:2]] == [
        {"experiment": "digits"},
        {"experiment": "digits", "scheme": "mse"},
    ]
    assert cells[4].given == {"experiment": "digits", "seed": 0, "epochs": 2, "learning_rate": 1.0}
    assert [cell.parameters for cell in cells[5:]] == [{"bits": 2}, {"bits": 3}]


def test_the_grid_of_the_book_is_read(repository):
    cells = read_grid(repository / "notebooks" / "grids" / "batch.yml", repository)
    assert len(cells) == 9
    assert len({cell.model for cell in cells}) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: [0, 1]", "sed: [0, 1]", "audit, product (experiment: digits, sed: 0, scheme: banner): an"
         " audit has no parameter 'sed'; it declares model='small_resnet'"),
        ("seed: [0, 1]", "seed: [0, one]", "seed must be of type int, not str ('one')"),
        ("seed: [0, 1]", "seed: 0", "in a product seed needs a list of values, as [0]"),
        ("seed: [0, 1]", "seed: []", "in a product seed needs a list of values, as [[]]"),
        ("seed: [0, 1]", "seed: [-1]", "seed must be at least 0; got -1"),
        ("experiment: [digits]", "experiment: [digit]", "unknown experiment 'digit'; known: digits"),
        ("experiment: [digits], ", "", "an audit names its experiment, one of digits"),
        ("[banner, mse]", "[banner, msr]", "unknown scheme 'msr'; known: banner, symmetric, mse"),
        ("epochs: 2", "precisions: [fp32, int99]", "audit, cell 1: unknown precision 'int99'; known: fp32"),
        ("epochs: 2", "precisions: fp32", "precisions must be of type list, not str"),
        ("epochs: 2", "data_dir: nowhere", "nowhere does not exist"),
        ("epochs: 2", "model: resnet17", "known: small_resnet"),
        ("epochs: 2, learning_rate: 1", "scheme: mse", "cell 1 is the same cell as"),
        ("epochs: 2, ", "epochs: 2, epochs: 3, ", "grid.yml, line 5: 'epochs' is given twice"),
        ("cells:", "cell:", "write `product:`, `cells:` or both below it; got product, cell"),
        ("    - {exp", "    - digits\n    - {exp", "cell 1 is no mapping of parameters: 'digits'"),
        ("bits: [2, 3]", "bits: [2, 2]", "00_small, product (bits: 2) is the same cell as"),
        ("bits: [2, 3]", "bit: [2, 3]", "00_small has no parameter 'bit'; it declares experiment='digits'"),
        ("bits: [2, 3]", "experiment: [digit]", "unknown experiment 'digit'"),
        ("bits: [2, 3]", "precisions: [[int99]]", "unknown precision 'int99'"),
        ("bits: [2, 3]", "data_dir: [nowhere]", "nowhere does not exist"),
        ("bits: [2, 3]}", "bits: [2, 3}", "grid.yml, line 7: "),
        ("  product: {bits: [2, 3]}", "", "write `product:`, `cells:` or both below it; got None"),
        ("product: {bits: [2, 3]}", "product: {}", "00_small: there are no cells"),
        ("00_small", "00_smal", "there is no chapter '00_smal' in"),
        (GRID, "", "holds no grid"),
        (GRID, "- audit", "holds no grid"),
    ],
)  # fmt: skip
def test_a_grid_is_refused_with_the_remedy(old, new, message, root):
    assert old in GRID
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        read(root, GRID.replace(old, new))
    assert str(root / "grid.yml") in str(refusal.value)


def test_a_file_that_is_none_is_refused(root):
    with pytest.raises(FileNotFoundError, match="there is no grid at"):
        read_grid(root / "nowhere.yml", root)
    (root / "grid.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as text"):
        read_grid(root / "grid.yml", root)
    with pytest.raises(ValueError, match="name it with --root"):
        read_grid_elsewhere(root)


def read_grid_elsewhere(root):
    (root / "grid.yml").write_text("00_small: {cells: [{}]}")
    return read_grid(root / "grid.yml", root / "elsewhere")
