"""The scorecard of a page: links, the paper's words, verdicts as words, counts, and other data sets."""

import re
from pathlib import Path

import pandas as pd
import pytest

import samples
from browser import needs_browser
from quantskew.book import prose
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


def test_a_finding_has_its_verdict_and_a_dot_for_each_seed(monkeypatch):
    glued = {}
    monkeypatch.setattr(prose, "glue", lambda key, value, display: glued.update({key: value}))
    for count in (4, 1):
        evidence = {BASE: seeds([0.9, 0.8], [0.9, 0.4], count=count)}
        prose.glue_finding(judged(evidence, ["fvo_grows"]).iloc[0], evidence)
        found = glued["finding-fvo-grows"]
        assert found._repr_html_().count("<circle") == (count if count > 1 else 0)
        assert repr(found) == {4: "holds, 4 seeds", 1: "one seed"}[count]
        if count > 1:
            nothing = float(re.search(r'd="M([\d.]+) 0V20"', found._repr_html_())[1])
            assert all(float(dot) > nothing for dot in re.findall(r'cx="([\d.]+)"', found._repr_html_()))


def compared():
    values = {"PTQ": (0.6, 0.9), "MPQAT": (0.8, 0.5), "batch norm re-estimated": (0.7, 0.95)}
    rows = []
    for bits, gain in (("int4", 0.1), ("int2", 0.0)):
        for method, (accuracy, fvo) in values.items():
            for measure, value in {"accuracy": accuracy + gain, "fvo": fvo - gain, "least": 0.25}.items():
                own = {"value": value, "low": value - 0.01, "high": value + 0.01, "seeds": 3}
                rows.append({"method": method, "precision": bits, "measure": measure, **own})
    return pd.DataFrame(rows)


def test_methods_to_choose_from_stand_by_bits_and_by_what_they_take():
    lines = prose.chooser(compared())._repr_markdown_().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:5] == ["bits", "it takes", "method", "overall accuracy", "FVO"]
    assert [row[0] for row in cells[2:]] == ["int4"] * 3 + ["int2"] * 3
    assert [row[2] for row in cells[2:5]] == ["PTQ", "batch norm re-estimated", "MPQAT"]
    assert cells[2][3:5] == ["0.70 [0.69, 0.71]", "0.80 [0.79, 0.81]"]


@needs_browser
def test_a_reader_chooses_by_bits_and_means(tmp_path, open_in_browser):
    script = Path(__file__).parents[2] / "book" / "_static" / "chooser.js"
    head = '<!doctype html><html lang="en"><title>Methods</title>'
    page = tmp_path / "page.html"
    page.write_text(
        f"{head}<main>{prose.chooser(compared()).to_html()}<script src='{script.as_uri()}'></script>"
    )
    shown = open_in_browser(page)
    methods = "tbody tr:visible td:nth-child(3)"
    bits, means = (shown.get_by_label(label) for label in ("Bits:", "Beside the model you have:"))
    bits.select_option("int2")
    assert shown.locator(methods).all_inner_texts() == ["PTQ", "batch norm re-estimated"]
    means.select_option(label="labels, some more training")
    assert shown.locator(methods).count() == 3
    # Better in both than every other one.
    assert shown.locator("tr.unbeaten:visible td:nth-child(3)").all_inner_texts() == ["MPQAT"]
    assert "not beaten in both accuracy and FVO: MPQAT" in shown.get_by_role("status").inner_text()
    means.select_option("nothing")
    assert shown.locator(methods).all_inner_texts() == ["PTQ"]
    assert shown.seen == []
