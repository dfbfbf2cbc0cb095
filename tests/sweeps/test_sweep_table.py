"""The table of a sweep: parameters in their types, runs told apart, cells that are not done left out."""

import json

import pandas as pd
import pytest

import samples
from quantskew.files import write_bytes
from quantskew.measures.measure import audit_rows
from quantskew.sweeps.cells import PLAN, write_result
from quantskew.sweeps.table import gather, named_runs, overview, write_table


@pytest.fixture
def folder(tmp_path):
    """A sweep of two audits, a chapter that took two Audits, and a cell that is not done."""
    rows = audit_rows(samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=50)).to_dict("list")
    cells = {}
    for name, task, given, audits in (
        ("first", "audit", {"experiment": "digits", "seed": 0, "precisions": ["fp32", "int4"]}, ["a"]),
        ("second", "audit", {"experiment": "digits", "seed": 1, "flip": True}, ["b"]),
        ("third", "04_loss", {"precisions": ["fp32"], "seed": 1}, ["b", "c"]),
        ("fourth", "audit", {"experiment": "digits", "seed": 2}, None),
    ):
        settings = {"experiment": "digits", "precisions": ["fp32", "int4"], **given}
        cells[name] = {"task": task, "given": given, "settings": settings, "key": "k"}
        if audits:
            made = [{"audit": audit, "audited": f"digits {audit}", "rows": rows} for audit in audits]
            write_result(tmp_path, name, "k", 1.5, made)
    write_bytes(tmp_path / PLAN, json.dumps({"cells": cells}).encode())
    return tmp_path


def test_rows_have_the_parameters_in_their_types(folder):
    table = gather(folder)
    assert list(table.columns[:8]) == [
        "cell", "task", "experiment", "seed", "precisions", "flip", "audit", "audited",
    ]  # fmt: skip
    assert list(table["cell"].unique()) == ["first", "second", "third"]
    assert not table.duplicated(["cell", "audit", "precision", "group", "measure"]).any()
    assert table["seed"].dtype == "Int64"
    assert table["flip"].dtype == "boolean"
    assert table.loc[table["cell"] == "first", "flip"].isna().all()
    assert set(table["precisions"]) == {"fp32,int4", "fp32"}


def test_files_hold_the_same_table_and_are_the_same_again(folder):
    table = write_table(folder)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "table.parquet"), table, check_dtype=False)
    read = pd.read_csv(folder / "table.csv")
    assert read["value"].tolist() == table["value"].tolist()
    first = [(folder / name).read_bytes() for name in ("table.csv", "table.parquet")]
    write_table(folder)
    assert [(folder / name).read_bytes() for name in ("table.csv", "table.parquet")] == first


def test_runs_are_named_by_what_varies(folder):
    runs = named_runs(gather(folder)).drop_duplicates("run")["run"].tolist()
    assert runs == [
        "audit, seed 0, digits a",
        "audit, seed 1, flip, digits b",
        "04_loss, seed 1, digits b",
        "04_loss, seed 1, digits c",
    ]


def test_runs_with_the_same_words_are_numbered(folder):
    table = gather(folder).assign(audited="digits")
    assert named_runs(table)["run"].iloc[-1] == "04_loss, seed 1, digits (2)"


def test_every_cell_is_in_the_overview(folder):
    table = overview(folder)
    assert table["audits"].tolist() == [1, 1, 2, 0]
    assert table["seconds"].isna().tolist() == [False, False, False, True]
    assert "experiment" not in table


def test_a_sweep_without_results_has_an_empty_table(folder):
    for result in folder.rglob("result.json"):
        result.unlink()
    assert len(write_table(folder)) == 0
    assert "seed" in pd.read_csv(folder / "table.csv").columns
