"""The register of claims and its scorecards."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import false_discovery_control

import samples
from quantskew.claims.effects import BASE, claim
from quantskew.claims.register import CLAIMS, get, judged, needs, scorecard
from quantskew.claims.verdicts import VERDICTS, judge
from quantskew.experiments import difficulty, experiment, runs
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
    "section 4.4",
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
    assert len(CLAIMS) >= 50
    assert len({claim.statement for claim in CLAIMS.values()}) == len(CLAIMS)


def test_a_claim_has_our_words_the_papers_and_what_is_measured():
    for own in CLAIMS.values():
        assert own.statement.endswith(".")
        assert 10 < len(own.quote) < 120
        assert own.effect
        assert not own.effect.endswith(".")
    with pytest.raises(ValueError, match="expected 3"):

        @claim("1", "00_problem#fig-fvo")
        def said(run):
            """A statement alone."""


def test_the_register_is_in_the_order_of_the_paper():
    assert next(iter(CLAIMS)) == "fvo_grows"
    assert list(CLAIMS)[-1] == "activations_alike"
    assert [claim.key for claim in CLAIMS.values()] == list(CLAIMS)


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
    words = [text.partition(":")[0] for text in table["digits, one seed"]]
    assert words == ["one seed", "not judged", "one seed", "not judged"]


def test_a_scorecard_has_each_claim_at_its_own_precision(digits_audit):
    evidence = {"alone": digits_audit, "seeds": [digits_audit] * 2, "as evidence": {BASE: [digits_audit]}}
    table = scorecard(evidence, ["fvo_grows", "softmax_variance_falls", "qat_alone"])
    assert list(table["at"]) == ["int4", "int2", "int4"]
    assert (table["alone, one seed"] == table["as evidence, one seed"]).all()
    assert "of 2 (by chance" in table["seeds, 2 seeds"][0]
    assert table["alone, one seed"][2] == "not judged"


def spread(count):
    """Seeds whose gap widens by about as much in each."""
    return [
        samples.exact_audit(
            {"fp32": [0.9, 0.8], "int8": [0.9, 0.8], "int4": [0.9, 0.4 + 0.01 * seed], "int2": [0.9, 0.3]},
            count=200,
            train_counts=[9, 1],
        )
        for seed in range(count)
    ]


def test_a_verdict_is_the_same_whoever_asks_and_for_however_many():
    base = spread(4)
    everything = {BASE: base, "ptq": base, "mpqat": base[::-1], "balanced": base}
    whole = judged(everything).set_index("key")
    for keys in (["fvo_grows"], ["loss_order", "fvo_grows", "minority_loses_accuracy"]):
        for evidence in ({BASE: base}, everything):
            some = judged(evidence, keys).set_index("key")
            assert (some == whole.loc[keys]).where(some.notna(), True).all(axis=None)
        cells = scorecard({"base alone": base}, keys)["base alone, 4 seeds"]
        assert [text.partition(":")[0] for text in cells] == list(whole.loc[keys, "verdict"])


def test_a_claim_at_another_precision_takes_its_own_place_in_the_correction():
    base = {BASE: spread(4)}
    own, other = judged(base, ["fvo_grows"], ["int4", "int2"]).to_dict("records")
    assert own["q"] == judged(base).set_index("key").loc["fvo_grows", "q"]
    family = [c for c in CLAIMS.values() if c.needs == (BASE,) and not c.curvature and c.key != "fvo_grows"]
    p = np.array([judge(c, base)["p"] for c in family] + [other["p"]])
    assert other["q"] == pytest.approx(false_discovery_control(p[~np.isnan(p)])[-1])
    assert other["q"] > other["p"]


def test_the_record_has_the_same_verdicts_in_a_chapter_and_on_the_scorecard():
    kept = runs.read("utkface", [BASE, *needs(CLAIMS.values())])
    whole = judged(kept).set_index("key")
    for curved in (False, True):
        keys = [key for key, own in CLAIMS.items() if own.needs == (BASE,) and own.curvature == curved]
        # As a chapter reads it: the base alone, without fp16 where it is not asked for.
        page = runs.read("utkface", [BASE], ["fp32", "fp16", "int8", "int4", "int3", "int2"])
        (column,) = (name for name in scorecard({"record": page}, keys) if name.startswith("record"))
        cells = scorecard({"record": page}, keys)[column]
        assert [text.partition(":")[0] for text in cells] == list(whole.loc[keys, "verdict"])
    assert set(whole["verdict"]) <= set(VERDICTS)


def test_live_digits_have_the_same_verdicts_in_a_chapter_and_on_the_scorecard():
    digits, keys = experiment.get("digits", epochs=1), ["fvo_grows", "minority_loses_accuracy", "loss_order"]
    page = runs.make(digits, [BASE], range(3), device="cpu")
    more = runs.make(digits, [BASE, runs.ACTIVATIONS], range(3), device="cpu")
    whole = judged(more).set_index("key")
    cells = scorecard({"live": page}, keys)["live, 3 seeds"]
    assert [text.partition(":")[0] for text in cells] == list(whole.loc[keys, "verdict"])
    assert set(scorecard({"live": {BASE: page[BASE][:1]}}, keys)["live, one seed"].str[:8]) == {"one seed"}


def test_all_claims_are_judged_together(curved_audit):
    table = judged({BASE: [curved_audit] * 2})
    assert list(table["key"]) == list(CLAIMS)
    tested = table[table["p"].notna()]
    assert (tested["q"] >= tested["p"]).all()
    assert set(table["verdict"]) <= set(VERDICTS)
    without = table.set_index("key").loc["qat_alone"]
    assert without["lacks"] == "no Audits of ptq"
    assert np.isnan(without["q"])


def test_controls_stand_beside_the_effects():
    wide = samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=200)
    table = judged({BASE: [wide]}, ["fvo_grows", "sparsity_grows"]).set_index("key")
    own = table.loc["fvo_grows"]
    assert own["control_low"] <= own["control"] <= own["control_high"] < own["effect"]
    assert np.isnan(table.loc["sparsity_grows", "control"])


def test_an_unknown_claim_is_refused(digits_audit):
    with pytest.raises(ValueError, match="unknown claim 'fvo_shrinks'; known: fvo_grows"):
        scorecard({"digits": digits_audit}, ["fvo_shrinks"])
    with pytest.raises(ValueError, match="unknown claim 'x'"):
        judged({BASE: [digits_audit]}, ["x"])
    with pytest.raises(ValueError, match="unknown claim 'x'"):
        get("x")
