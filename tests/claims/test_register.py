"""The register of claims and its scorecards."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

import samples
from quantskew.claims import backward, forward, methods
from quantskew.claims.register import CLAIMS, get, judged, needs, scorecard
from quantskew.claims.verdicts import BASE
from quantskew.experiments import difficulty, runs
from quantskew.experiments.methods import METHODS

ROOT = Path(__file__).parents[2]
# Section and figures of every claim that the paper makes of its data.
PAPER = {
    "section 1, Fig. 1",
    "section 4.1, Fig. 3",
    "section 4.1, Fig. 4",
    "section 4.2, Fig. 5a",
    "section 4.2, Fig. 5b",
    "section 4.2, Fig. 5c",
    "section 4.2, Fig. 5d",
    "section 4.2, Fig. 6a",
    "section 4.2, Fig. 6b",
    "section 4.3, Fig. 7",
    "section 4.4, Fig. 8a",
    "section 4.4, Fig. 8b",
    "section 4.5, Fig. 9a",
    "section 4.5, Fig. 9b",
    "section 4.5.1, Fig. 10",
    "section 4.6",
    "section 5.1",
    "section 5.3",
    "section 5.3, Fig. 12",
    "section 6",
}


def test_the_register_covers_the_paper():
    assert {claim.source for claim in CLAIMS.values()} == PAPER
    assert len(CLAIMS) >= 21
    assert len({claim.statement for claim in CLAIMS.values()}) == len(CLAIMS)


def test_the_register_is_in_the_order_of_the_paper():
    assert next(iter(CLAIMS)) == "fvo_grows"
    assert list(CLAIMS)[-1] == "activations_alike"
    assert [claim.key for claim in CLAIMS.values()] == list(CLAIMS)


def test_no_claim_is_begun_and_not_completed():
    # A function with an effect but without `claim` would be in no register.
    begun = [own for module in (forward, backward, methods) for own in vars(module).values()]
    assert not any(isinstance(own, functools.partial) for own in begun)


def test_claims_need_runs_that_can_be_made():
    known = {runs.BASE, runs.ACTIVATIONS, difficulty.BALANCED, *METHODS}
    assert runs.BASE == BASE
    assert set(needs(CLAIMS.values())) <= known
    assert needs([get("qat_alone"), get("fvo_grows"), get("fair_base")]) == ["ptq", "mpqat", BASE, "u-o+wcr"]


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.key)
def test_every_claim_names_a_figure_that_shows_it(claim):
    chapter, _, figure = claim.shown.partition("#")
    source = (ROOT / "notebooks" / f"{chapter}.md").read_text()
    assert re.search(rf"name: {figure}$", source, re.MULTILINE)


def test_a_scorecard_has_a_row_a_claim_and_precision(digits_audit):
    table = scorecard({"digits": digits_audit}, ["fvo_grows", "sparsity_grows"], ["int4", "int6"])
    assert list(table["at"]) == ["int4", "int6", "int4", "int6"]
    assert list(table["digits"] == "") == [False, True, False, True]


def test_a_scorecard_has_each_claim_at_its_own_precision(digits_audit):
    evidence = {"alone": digits_audit, "seeds": [digits_audit] * 2, "as evidence": {BASE: [digits_audit]}}
    table = scorecard(evidence, ["fvo_grows", "softmax_variance_falls", "qat_alone"])
    assert list(table["at"]) == ["int4", "int2", "int4"]
    assert (table["alone"] == table["as evidence"]).all()
    assert table["alone"][2] == ""


def test_all_claims_are_judged_together(curved_audit):
    table = judged({BASE: [curved_audit] * 2})
    assert list(table["key"]) == list(CLAIMS)
    tested = table[table["p"].notna()]
    assert (tested["q"] >= tested["p"]).all()
    assert set(table["verdict"]) <= {"holds", "fails", "undecided"}
    without = table.set_index("key").loc["qat_alone"]
    assert without["lacks"] == "no Audits of ptq"
    assert np.isnan(without["q"])


def test_controls_stand_beside_the_effects():
    wide = samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=200)
    table = judged({BASE: [wide]}, ["fvo_grows", "sparsity_grows"]).set_index("key")
    own = table.loc["fvo_grows"]
    assert own["control_low"] <= own["control"] <= own["control_high"] < own["low"]
    assert np.isnan(table.loc["sparsity_grows", "control"])


def test_an_unknown_claim_is_refused(digits_audit):
    with pytest.raises(ValueError, match="unknown claim 'fvo_shrinks'; known: fvo_grows"):
        scorecard({"digits": digits_audit}, ["fvo_shrinks"])
    with pytest.raises(ValueError, match="unknown claim 'x'"):
        judged({BASE: [digits_audit]}, ["x"])
    with pytest.raises(ValueError, match="unknown claim 'x'"):
        get("x")
