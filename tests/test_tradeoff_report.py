import pandas as pd
import pytest

import samples
from quantskew.measures.seeds import comparison
from quantskew.report import write_comparison


@pytest.fixture
def audits():
    return {name: [samples.random_audit(seed=seed)] for seed, name in enumerate(("plain", "trained"))}


def test_the_folder_holds_the_comparison(audits, tmp_path):
    folder = tmp_path / "new" / "out"
    table = write_comparison(audits, folder)
    pd.testing.assert_frame_equal(table, comparison(audits))
    pd.testing.assert_frame_equal(pd.read_csv(folder / "comparison.csv"), table)
    figures = {"fvo.png", "accuracy.png", "tradeoff-int8.png", "tradeoff-int2.png"}
    assert {path.name for path in folder.iterdir()} == {"comparison.csv", *figures}
    for name in figures:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_files_are_replaced(audits, tmp_path):
    write_comparison(audits, tmp_path)
    write_comparison({"plain": audits["plain"]}, tmp_path)
    assert set(pd.read_csv(tmp_path / "comparison.csv")["method"]) == {"plain"}
    assert len(list(tmp_path.iterdir())) == 5
