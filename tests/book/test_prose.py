"""Glued numbers: their keys and their text."""

import pandas as pd
import pytest

from quantskew.book import prose


@pytest.fixture
def glued(monkeypatch):
    store = {}
    monkeypatch.setattr(prose, "glue", lambda key, value, display: store.update({key: value}))
    return store


def test_keys_name_group_and_precision(glued):
    row = {"group": "Others", "precision": "int2", "value": 0.5, "low": 0.25, "high": 0.75, "count": 8}
    prose.glue_table("record-accuracy", pd.DataFrame([row]))
    assert glued == {
        "record-accuracy-others-int2": "0.50 [0.25, 0.75]",
        "record-accuracy-others-int2-value": "0.50",
    }


def test_a_table_without_groups_or_intervals(glued):
    prose.glue_table("live-moved", pd.DataFrame([{"precision": "int4", "value": 0.012345}]), digits=4)
    assert glued["live-moved-int4"] == glued["live-moved-int4-value"] == "0.0123"


def test_roles_are_the_largest_and_the_smallest_in_training(glued, digits_audit):
    prose.glue_roles("live", digits_audit)
    assert glued["live-majority"] == "0"
    assert glued["live-minority"] == "9"
    assert glued["live-minority-count"] == str(digits_audit.train_counts.min())
    table = pd.DataFrame({"group": ["0", "9"], "precision": "fp32", "value": [1.0, 0.5]})
    assert prose.of_role(digits_audit, table, "minority")["value"].tolist() == [0.5]


def test_a_table_has_a_form_without_html():
    table = pd.DataFrame({"claim": ["a|b"], "value": [0.25]}, index=pd.Index(["x"], name="row"))
    assert prose.show(table, digits=1)._repr_markdown_().splitlines()[2] == r"| a\|b | 0.2 |"
    table.columns.name = "column"
    lines = prose.captioned("A title", table)._repr_markdown_().splitlines()
    assert lines[:2] == ["A title", ""]
    assert lines[2] == "| column | claim | value |"
    assert [line.split()[1] for line in lines[4:]] == ["x"]
