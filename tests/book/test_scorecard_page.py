"""The scorecard of a page: links, verdicts as words, counts, and effects beside their controls."""

import re

import numpy as np
import pytest

import samples
from quantskew.book.prose import beside_control, counts, linked
from quantskew.claims.register import CLAIMS, judged
from quantskew.claims.verdicts import BASE


@pytest.fixture(scope="module")
def tables():
    pairs = {"widens": ([0.9, 0.8], [0.9, 0.4]), "narrows": ([0.9, 0.4], [0.8, 0.7])}
    return {
        title: judged(
            {BASE: [samples.exact_audit({"fp32": a, "int4": b}, count=200, train_counts=[9, 1])] * 2},
            ["fvo_grows", "fvo_extreme", "sparsity_grows", "dtdb_left"],
        )
        for title, (a, b) in pairs.items()
    }


def test_every_claim_leads_to_its_figure(tables):
    page = linked(tables).to_html()
    for key in tables["widens"]["key"]:
        chapter, _, figure = CLAIMS[key].shown.partition("#")
        assert f'<a href="{chapter}.md#{figure}">' in page


def test_a_row_has_a_cell_an_experiment(tables):
    page = linked(tables).to_html()
    assert re.findall(r"verdict-(\w+)", page)[:2] == ["holds", "fails"]
    # int2 and weights are not in the made Audits.
    assert page.count("not judged") == 4
    assert "0.4 [0.3" in page
    assert ", 2\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}2" in page


def test_verdicts_are_counted_by_experiment(tables):
    table = counts(tables).set_index("experiment")
    assert table.loc["widens", "not judged"] == 2
    for title, own in tables.items():
        assert table.loc[title].sum() == len(own)
        assert table.loc[title, "holds"] == (own["verdict"] == "holds").sum()


def test_controls_stand_beside_effects_about_groups(tables):
    table = beside_control(tables["widens"])
    assert list(table["claim"]) == [CLAIMS[key].statement for key in ("fvo_grows", "dtdb_left")]
    low, high = map(float, table["groups shuffled"][0].split(" to "))
    assert low <= high < float(table["effect"][0]) == pytest.approx(0.4)
    assert np.isfinite([low, high]).all()
