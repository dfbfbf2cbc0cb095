"""The claims of an experiment as text, CSV and JSON."""

import io
import json

import numpy as np
import pandas as pd
import pytest

import samples
from quantskew.claims.effects import BASE
from quantskew.claims.register import CLAIMS, judged
from quantskew.report import written


@pytest.fixture(scope="module")
def table():
    seeds = [
        samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, after]}, count=200, train_counts=[9, 1])
        for after in (0.38, 0.39, 0.4, 0.41, 0.42)
    ]
    return judged({BASE: seeds})


def test_text_has_a_line_a_claim_and_a_count(table):
    *lines, empty, count = written(table).splitlines()
    assert len(lines) == len(CLAIMS)
    assert empty == ""
    assert lines[0].startswith("holds      0.4 [0.3")
    assert "5 of 5 (by chance" in lines[0]
    assert "Quantization widens the gap between the groups. (section 1, Fig. 1)" in lines[0]
    missing = [line for line in lines if line.startswith("not judged")]
    assert any("section 5.3; no Audits of ptq" in line for line in missing)
    for name in ("holds", "not judged"):
        assert f"{(table['verdict'] == name).sum()} {name}" in count
    assert f"{len(missing)} not judged. Seeds: 5." in count
    assert "another training run" in count


def test_text_of_one_seed_has_no_verdict():
    alone = samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=200, train_counts=[9, 1])
    first, *_, count = written(judged({BASE: [alone]})).splitlines()
    assert first.startswith("one seed   0.4 (by chance")
    assert "holds" not in count
    assert written(judged({}, ["fvo_grows"])).endswith("verdicts are corrected for the number of claims.")


def test_csv_reads_back(table):
    again = pd.read_csv(io.StringIO(written(table, "csv")))
    assert list(again.columns) == list(table.columns)
    np.testing.assert_allclose(again["effect"], table["effect"])
    assert list(again["verdict"]) == list(table["verdict"])


def test_json_has_no_nan(table):
    rows = json.loads(written(table, "json"), parse_constant=lambda name: pytest.fail(name))
    assert [row["key"] for row in rows] == list(CLAIMS)
    assert rows[0]["effect"] == pytest.approx(0.4)
    assert rows[-1]["effect"] is None
    assert rows[-1]["lacks"] == "no Audits of activations"


def test_an_unknown_format_is_refused(table):
    with pytest.raises(ValueError, match="unknown format 'xml'; known: text, csv, json"):
        written(table, "xml")
