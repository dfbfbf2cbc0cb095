"""Verdicts on evidence whose truth is known, held against scipy's tests, and what evidence lacks."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

import samples
from quantskew.claims.effects import BASE, POINTS, RANKS, Unit
from quantskew.claims.register import CLAIMS
from quantskew.claims.verdicts import VERDICTS, cell, corrected, judge, mean_test, verdict

FVO = CLAIMS["fvo_grows"]


def with_seed(audit, seed):
    return dataclasses.replace(audit, provenance={"experiment": {"recipe": {"seed": seed}}})


def widening(seed=0, after=0.4):
    return with_seed(samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, after]}, count=100), seed)


def seeds(*afters):
    return {BASE: [widening(seed, after) for seed, after in enumerate(afters)]}


def judgement(p, tie=False, effect=1.0):
    own = {"effect": effect, "low": 0.5, "high": 1.5, "p": p, "tie": tie, "verdict": "undecided"}
    return own | {"seeds": 1, "positive": 1, "lacks": None, "control": np.nan}


def parts_of(*columns):
    """A claim whose parts have these effects in each seed, whatever the Audits are."""
    values = iter(np.array(columns, dtype=float).T)
    return dataclasses.replace(FVO, of_seed=lambda run: next(values)[None], grouped=False)


def judged(*columns):
    return judge(parts_of(*columns), seeds(*[0.4] * len(columns[0])))


def test_verdict_of_a_zero_effect_is_open():
    assert verdict(0.0, 1.0) == "undecided"


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_effect_interval_and_p_are_those_of_the_t_test(count):
    rng = np.random.default_rng(count)
    values = rng.normal(0.05, 0.1, (count, 50))
    own, oracle = mean_test(values, Unit("any", -np.inf, np.inf, 0.02)), stats.ttest_1samp(values, 0)
    np.testing.assert_allclose(own["effect"], values.mean(axis=0))
    np.testing.assert_allclose(2 * np.minimum(own["above"], own["below"]), oracle.pvalue)
    ends = oracle.confidence_interval(0.95)
    np.testing.assert_allclose([own["low"], own["high"]], [ends.low, ends.high])


def test_a_tie_is_two_one_sided_tests():
    values = np.random.default_rng(0).normal(0, 0.02, (6, 200))
    larger = stats.ttest_1samp(values, -POINTS.tie, alternative="greater").pvalue
    smaller = stats.ttest_1samp(values, POINTS.tie, alternative="less").pvalue
    expected = np.maximum(larger, smaller) < 0.05
    assert 20 < expected.sum() < 180
    np.testing.assert_array_equal(mean_test(values, POINTS)["tie"], expected)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 10])
@pytest.mark.parametrize("value", [-0.5, 0.0, 0.5])
def test_seeds_that_are_exactly_equal_have_the_sign_test(value, count):
    expected = stats.binomtest(count, count).pvalue if value else 1.0
    result = judged([value] * count)
    assert result["p"] == pytest.approx(expected)
    name = "holds" if value > 0 else "fails"
    open_ = "tie" if value == 0 and count >= 5 else "undecided"
    assert result["verdict"] == (name if expected <= 0.05 else open_)
    assert result["low"] == result["effect"] == result["high"] == value


def test_an_interval_stays_inside_what_is_possible():
    values = np.array([[1.0, -0.9], [0.2, -1.0], [0.9, 0.3]])
    unclipped = mean_test(values, Unit("any", -np.inf, np.inf, 0.1))
    own = mean_test(values, RANKS)
    assert unclipped["high"][0] > 1
    assert unclipped["low"][1] < -1
    assert own["high"][0] == 1
    assert own["low"][1] == -1
    np.testing.assert_array_equal(
        [own["low"][0], own["high"][1]], np.clip([unclipped["low"][0], unclipped["high"][1]], -1, 1)
    )


def test_all_parts_must_hold_and_any_may_fail():
    rng = np.random.default_rng(1)
    for _ in range(50):
        parts = rng.normal(rng.choice([-0.1, 0.1, 0.3], (3, 1)), 0.1, (3, 6))
        above = [stats.ttest_1samp(own, 0, alternative="greater").pvalue for own in parts]
        below = [stats.ttest_1samp(own, 0, alternative="less").pvalue for own in parts]
        result, weakest = judged(*parts), int(np.argmax(above))
        assert result["effect"] == pytest.approx(parts[weakest].mean())
        assert result["p"] == pytest.approx(min(1, 2 * max(above), 2 * 3 * min(below)))
        if result["verdict"] == "holds":
            assert max(above) <= 0.025
        if result["verdict"] == "fails":
            assert min(below) <= 0.025 / 3
        assert result["positive"] == (parts > 0).all(axis=0).sum()


def test_chance_seldom_decides_a_claim_of_several_parts():
    rng = np.random.default_rng(0)
    verdicts = [judged(*rng.normal(0, 1, (4, 5)))["verdict"] for _ in range(600)]
    # 2.5 % at most are expected of each, 15 of 600; more than 28 have a probability of 0.1 %.
    assert verdicts.count("holds") <= 28
    assert verdicts.count("fails") <= 28


def test_another_data_set_has_the_interval_of_nadeau_and_bengio():
    evidence = {
        BASE: [dataclasses.replace(a, train_counts=np.array([300, 100])) for a in seeds(0.4, 0.5, 0.6)[BASE]]
    }
    here = judge(FVO, evidence)
    effects = np.array([0.4, 0.3, 0.2])
    error = effects.std(ddof=1) * np.sqrt(1 / 3 + 200 / 400)
    half = stats.t.ppf(0.975, 2) * error
    elsewhere = here["elsewhere"]
    assert (elsewhere["low"], elsewhere["high"]) == pytest.approx((0.3 - half, 0.3 + half))
    assert elsewhere["p"] == pytest.approx(2 * stats.t.sf(0.3 / error, 2))
    assert here["low"] > elsewhere["low"]


def test_correction_is_benjamini_and_hochbergs():
    given = [0.001, 0.02, 0.03, 0.06, 0.9]
    # By hand: p * 5 / rank, made monotone from the largest down.
    by_hand = [0.005, 0.05, 0.05, 0.075, 0.9]
    results = corrected([judgement(p) for p in given])
    assert [result["q"] for result in results] == pytest.approx(by_hand)
    assert [result["verdict"] for result in results] == ["holds"] * 3 + ["undecided"] * 2


def test_what_is_no_longer_decided_may_be_a_tie():
    results = corrected([judgement(0.04, tie=True), judgement(0.9)])
    assert [result["verdict"] for result in results] == ["tie", "undecided"]
    assert corrected([judgement(0.04, tie=True, effect=-1.0)])[0]["verdict"] == "fails"


def test_correction_counts_only_what_was_tested():
    results = corrected([judgement(0.04), judgement(np.nan) | {"verdict": "one seed"}])
    assert results[0]["q"] == pytest.approx(0.04)
    assert [result["verdict"] for result in results] == ["holds", "one seed"]
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
    result = judge(FVO, seeds(0.4, 0.41, 0.39))
    assert result["verdict"] == "holds"
    assert result["effect"] == pytest.approx(0.4)
    assert result["low"] < 0.4 < result["high"]
    assert result["seeds"] == 3
    assert result["lacks"] is None


def test_one_seed_is_an_effect_and_no_verdict():
    result = judge(FVO, seeds(0.4))
    assert result["effect"] == pytest.approx(0.4)
    assert result["verdict"] == "one seed"
    assert np.isnan([result["low"], result["high"], result["p"]]).all()


@pytest.mark.parametrize(
    ("column", "lacks"),
    [("int4:mse", None), ("int4", None), ("A4", "no int4 in base"), ("W4A4", "no int4 in base")],
)
def test_a_precision_is_that_of_the_only_column_with_these_bits(column, lacks):
    audit = samples.exact_audit({"fp32": [0.9, 0.8], column: [0.9, 0.4]}, count=100)
    result = judge(FVO, {BASE: [audit]})
    assert result["lacks"] == lacks
    assert result["verdict"] == ("not judged" if lacks else "one seed")


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
    assert result["verdict"] == "not judged"
    assert np.isnan([result["effect"], result["p"]]).all()


def test_missing_curvature_and_history_are_said():
    audits = {BASE: [samples.exact_audit({"fp32": [0.5, 0.5], "int8": [0.5, 0.5], "int4": [0.5, 0.5]})]}
    assert judge(CLAIMS["gradient_size"], audits)["lacks"] == "no curvature in base"
    assert judge(CLAIMS["gradient_dominated"], audits)["lacks"] == "no history in base"
    assert judge(CLAIMS["weights_centre"], audits)["lacks"] == "no weights in base"
    assert judge(CLAIMS["fvo_monotone"], audits, "int8")["lacks"] == "a higher precision to compare with"


def test_seeds_of_other_groups_are_not_judged_together():
    other = with_seed(samples.exact_audit({"fp32": [0.9, 0.8, 0.7], "int4": [0.9, 0.4, 0.1]}, count=50), 1)
    result = judge(CLAIMS["loss_minority"], {BASE: [widening(0), other]})
    assert (result["verdict"], result["lacks"]) == ("not judged", "the same groups in every seed")


def test_seeds_without_curvature_are_left_out_of_claims_about_it(curved_audit):
    plain = dataclasses.replace(curved_audit, curvature=None)
    evidence = {
        BASE: [with_seed(audit, seed) for seed, audit in enumerate([curved_audit, plain, curved_audit])]
    }
    assert judge(CLAIMS["gradient_size"], evidence, "int2")["seeds"] == 2
    assert judge(CLAIMS["fvo_grows"], evidence, "int2")["seeds"] == 3


def test_methods_are_compared_over_the_seeds_that_all_have():
    claim = CLAIMS["qat_alone"]
    audits = {seed: widening(seed) for seed in range(4)}
    evidence = {"ptq": [audits[0], audits[2], audits[3]], "mpqat": [audits[2], audits[1], audits[3]]}
    assert judge(claim, evidence)["seeds"] == 2
    assert judge(claim, {"ptq": [audits[0]], "mpqat": [audits[1]]})["lacks"] == "no Audits of ptq"


def test_every_state_is_a_verdict_of_the_list(curved_audit):
    states = {
        judge(claim, {BASE: [curved_audit] * count})["verdict"]
        for claim in CLAIMS.values()
        for count in (1, 6)
    }
    assert states <= set(VERDICTS)
    assert {"one seed", "not judged"} < states


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "holds: 1 [0.5, 1.5]"),
        ({"low": 1.0, "high": 1.0}, "holds: 1"),
        ({"low": np.nan, "high": np.nan, "verdict": "one seed"}, "one seed: 1"),
        ({"verdict": "not judged", "lacks": "no int4 in base"}, "not judged"),
        ({"verdict": "not tested", "lacks": "it ended early"}, "not tested: it ended early"),
        ({"seeds": 3, "positive": 2}, "holds: 1 [0.5, 1.5], 2 of 3"),
        ({"seeds": 3, "positive": 2, "control": -0.25}, "holds: 1 [0.5, 1.5], 2 of 3 (by chance -0.25)"),
    ],
)
def test_cells(change, text):
    assert cell({**judgement(0.01), "verdict": "holds", **change}) == text
