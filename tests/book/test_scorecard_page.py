"""The scorecard of a page: links, the paper's words, verdicts as words, counts, and other data sets."""

import re

import pytest

import samples
from quantskew.book.prose import counts, elsewhere, linked
from quantskew.claims.effects import BASE
from quantskew.claims.register import CLAIMS, judged
from quantskew.claims.verdicts import VERDICTS


def seeds(before, after, count=4):
    """Seeds with about these accuracies of two groups."""
    return [
        samples.exact_audit(
            {"fp32": before, "int4": [after[0], after[1] + 0.01 * seed]}, count=200, train_counts=[9, 1]
        )
        for seed in range(count)
    ]


@pytest.fixture(scope="module")
def tables():
    keys = ["fvo_grows", "fvo_extreme", "sparsity_grows", "dtdb_left"]
    pairs = {"widens": ([0.9, 0.8], [0.9, 0.4]), "narrows": ([0.9, 0.4], [0.8, 0.7])}
    found = {title: judged({BASE: seeds(*pair)}, keys) for title, pair in pairs.items()}
    return found | {"one": judged({BASE: seeds(*pairs["widens"], count=1)}, keys)}


def test_every_claim_leads_to_its_figure_and_has_the_papers_words(tables):
    page = linked(tables).to_html()
    for key in tables["widens"]["key"]:
        chapter, _, figure = CLAIMS[key].shown.partition("#")
        assert f'<a href="{chapter}.md#{figure}">' in page
        assert f"<q>{CLAIMS[key].quote}</q>" in page


def test_a_row_has_a_cell_an_experiment(tables):
    page = linked(tables).to_html()
    assert re.findall(r'verdict-([\w-]+)"', page)[:3] == ["holds", "fails", "one-seed"]
    # int2 and weights are not in the made Audits.
    assert page.count(">not judged<") == 6
    assert "0.39 [0.3" in page
    assert ", 4\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}4 (by chance" in page
    for title in ("widens, 4 seeds", "narrows, 4 seeds", "one, one seed"):
        assert title in page


def test_verdicts_are_counted_by_experiment(tables):
    table = counts(tables).set_index("experiment")
    assert tuple(table.columns) == VERDICTS
    assert table.loc["widens", "not judged"] == 2
    assert table.loc["one", "one seed"] == 2
    for title, own in tables.items():
        assert table.loc[title].sum() == len(own)
        assert table.loc[title, "holds"] == (own["verdict"] == "holds").sum()


def test_verdicts_that_another_data_set_would_change_are_shown():
    # Four seeds that differ by a few points: not much for these images, and more for others.
    table = judged({BASE: seeds([0.9, 0.8], [0.9, 0.77])}, ["minority_loses_accuracy", "fvo_grows"])
    own = elsewhere(table)
    assert (own["another training run"] != own["another data set"]).all()
    assert len(own) == (table["verdict"] != table["elsewhere_verdict"]).sum()
