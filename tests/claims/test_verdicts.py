"""Verdicts on evidence whose truth is known, their correction, their control, and what evidence lacks."""

import dataclasses

import numpy as np
import pytest

import samples
from quantskew.claims.register import CLAIMS
from quantskew.claims.verdicts import BASE, cell, corrected, judge, missing, p_value, verdict

FVO = CLAIMS["fvo_grows"]


def with_seed(audit, seed):
    return dataclasses.replace(audit, provenance={"experiment": {"recipe": {"seed": seed}}})


def widening(seed=0):
    return with_seed(samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=100), seed)


def judgement(p, verdict="holds"):
    return {
        "effect": 1.0,
        "low": 0.5,
        "high": 1.5,
        "p": p,
        "verdict": verdict,
        "seeds": 1,
        "positive": 1,
        "lacks": None,
    }


def test_verdict_of_a_zero_effect_is_open():
    assert verdict(0.0, 0.0) == "undecided"


@pytest.mark.parametrize(
    ("draws", "expected"),
    [([1.0] * 99, 2 / 100), ([-1.0] * 99, 2 / 100), ([0.0] * 99, 1.0), ([-1.0, 1.0, np.nan] * 33, 1.0)],
)
def test_p_values_by_hand(draws, expected):
    assert p_value(np.array(draws)) == pytest.approx(expected)


def test_correction_is_benjamini_and_hochbergs():
    given = [0.001, 0.02, 0.03, 0.06, 0.9]
    # By hand: p * 5 / rank, made monotone from the largest down.
    by_hand = [0.005, 0.05, 0.05, 0.075, 0.9]
    results = corrected([judgement(p) for p in given])
    assert [result["q"] for result in results] == pytest.approx(by_hand)
    assert [result["verdict"] for result in results] == ["holds"] * 3 + ["undecided"] * 2


def test_correction_counts_only_what_was_tested():
    results = corrected([judgement(0.04), judgement(np.nan, "undecided")])
    assert results[0]["q"] == pytest.approx(0.04)
    assert [result["verdict"] for result in results] == ["holds", "undecided"]
    assert corrected([]) == []


def test_chance_decides_few_of_many_claims():
    rng = np.random.default_rng(0)
    decided = sum(
        any(result["verdict"] != "undecided" for result in corrected([judgement(p) for p in rng.random(30)]))
        for _ in range(400)
    )
    # 5 % are expected, 20 of 400; more than 33 have a probability of 0.2 %.
    assert decided <= 33


def test_the_effect_of_a_judgement_lies_in_its_interval():
    result = judge(FVO, {BASE: [widening()]})
    assert result["verdict"] == "holds"
    assert result["effect"] == pytest.approx(0.4)
    assert result["low"] < 0.4 < result["high"]
    assert result["seeds"] == 1
    assert result["lacks"] is None


@pytest.mark.parametrize(
    ("column", "lacks"),
    [("int4:mse", None), ("int4", None), ("A4", "no int4 in base"), ("W4A4", "no int4 in base")],
)
def test_a_precision_is_that_of_the_only_column_with_these_bits(column, lacks):
    audit = samples.exact_audit({"fp32": [0.9, 0.8], column: [0.9, 0.4]}, count=100)
    result = judge(FVO, {BASE: [audit]})
    assert result["lacks"] == lacks
    assert result["verdict"] == ("undecided" if lacks else "holds")


def test_a_precision_in_several_schemes_is_not_guessed():
    schemes = {"fp32": [0.9, 0.8], "int4:mse": [0.9, 0.4], "int4:banner,per-channel": [0.9, 0.6]}
    evidence = {BASE: [samples.exact_audit(schemes, count=100)]}
    assert judge(FVO, evidence)["lacks"] == "no int4 in base"
    assert judge(FVO, evidence, "int4:mse")["effect"] == pytest.approx(0.4)


def test_a_precision_that_one_seed_lacks_is_said():
    short = with_seed(samples.exact_audit({"fp32": [0.9, 0.8]}, count=100), 1)
    assert judge(FVO, {BASE: [widening(0), short]})["lacks"] == "no int4 in base"


def test_seeds_that_are_as_claimed_are_counted():
    reversed_seed = with_seed(samples.exact_audit({"fp32": [0.9, 0.5], "int4": [0.9, 0.8]}, count=100), 2)
    result = judge(FVO, {BASE: [widening(0), widening(1), reversed_seed]})
    assert (result["positive"], result["seeds"]) == (2, 3)


def test_the_reference_is_not_judged():
    with pytest.raises(ValueError, match="fp32 is the reference"):
        judge(FVO, {BASE: [widening()]}, "fp32")


@pytest.mark.parametrize(
    ("evidence", "precision", "lacks"),
    [
        ({}, "int4", "no Audits of base"),
        ({BASE: []}, "int4", "no Audits of base"),
        ({BASE: [widening()]}, "int3", "no int3 in base"),
        ({BASE: [samples.exact_audit({"fp32": [0.5], "int4": [0.5]})]}, "int4", "fewer than two groups"),
    ],
)
def test_what_the_evidence_lacks_is_said(evidence, precision, lacks):
    result = judge(FVO, evidence, precision)
    assert result["lacks"] == lacks
    assert result["verdict"] == "undecided"
    assert np.isnan([result["effect"], result["p"]]).all()


def test_missing_curvature_is_said():
    claim = CLAIMS["lambda_grows"]
    audits = [samples.exact_audit({"fp32": [0.5, 0.5], "int2": [0.5, 0.5]})]
    assert missing(claim, {BASE: audits}, "int2") == "no curvature in base"


def test_seeds_without_curvature_are_left_out_of_claims_about_it(curved_audit):
    plain = dataclasses.replace(curved_audit, curvature=None)
    evidence = {
        BASE: [with_seed(audit, seed) for seed, audit in enumerate([curved_audit, plain, curved_audit])]
    }
    assert judge(CLAIMS["lambda_grows"], evidence)["seeds"] == 2
    assert judge(CLAIMS["fvo_extreme"], evidence)["seeds"] == 3


def test_methods_are_compared_over_the_seeds_that_all_have():
    claim = CLAIMS["qat_alone"]
    audits = {seed: widening(seed) for seed in range(4)}
    evidence = {"ptq": [audits[0], audits[2], audits[3]], "mpqat": [audits[2], audits[1], audits[3]]}
    assert judge(claim, evidence)["seeds"] == 2
    assert judge(claim, {"ptq": [audits[0]], "mpqat": [audits[1]]})["lacks"] == "no Audits of ptq"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "holds: 1 [0.5, 1.5]"),
        ({"low": 1.0, "high": 1.0}, "holds: 1"),
        ({"low": np.nan, "high": np.nan, "verdict": "undecided"}, "undecided: 1"),
        ({"effect": np.nan}, ""),
        ({"seeds": 3, "positive": 2}, "holds: 1 [0.5, 1.5], 2 of 3"),
    ],
)
def test_cells(change, text):
    assert cell({**judgement(0.01), **change}) == text
