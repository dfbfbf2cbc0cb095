"""Claims on methods: Audits that are as claimed, and the opposite."""

import numpy as np
import pytest

import samples
from quantskew.claims import methods
from quantskew.claims.register import claims_in
from quantskew.claims.verdicts import judge
from quantskew.experiments.difficulty import BALANCED
from quantskew.experiments.runs import ACTIVATIONS

METHOD_CLAIMS = claims_in(methods)
OTHERS = ("ptq", "u-o", "wcr", "u-o+wcr", "mpqat")


def gap(size, accuracy=0.7):
    """Accuracies of two groups with this mean and difference."""
    return (accuracy + size / 2, accuracy - size / 2)


# Twelve that agree to the last digit are unlikely to do so by chance, ten comparisons at once included.
def audits(accuracies, history=None, seeds=12):
    shares = {precision: gap(0.2) for precision in ("fp32", "int8", "int4", "int2")} | accuracies
    return [
        samples.exact_audit(shares, count=300, train_counts=[900, 100], history=history) for _ in range(seeds)
    ]


def at(precision, **methods):
    """Sets in which each method has these accuracies at one precision."""
    return {key: audits({precision: shares}) for key, shares in methods.items()}


def trained(*curves):
    """A balanced set with these training accuracies of both groups in each epoch."""
    history = [samples.epoch_entry(epoch, shares) for epoch, shares in enumerate(curves)]
    return {BALANCED: audits({}, history)}


def steep(**norms):
    """Sets whose groups have these gradient norms in each of two epochs."""
    return {
        key: audits({}, [samples.epoch_entry(epoch, (0.5, 0.5), own) for epoch in range(2)])
        for key, own in norms.items()
    }


def leader(own, others):
    return {"fair-qat": audits({"int4": own}), **{key: audits({"int4": others}) for key in OTHERS}}


WIDE, NARROW = gap(0.5), gap(0.1)
LATE = [(0.5, 0.2), (0.7, 0.4), (0.9, 0.9), (0.9, 0.9)]
CASES = {
    "difficult_late": (trained(*LATE), trained(*(pair[::-1] for pair in LATE))),
    "difficult_equal": (trained((0.5, 0.2), (0.98, 0.98)), trained((0.5, 0.5), (0.98, 0.6))),
    "difficult_test": ({BALANCED: audits({"fp32": WIDE})}, {BALANCED: audits({"fp32": WIDE[::-1]})}),
    "sampling_gradients": (
        steep(**{"ptq": (1.0, 9.0), "u-o": (2.0, 3.0)}),
        steep(**{"ptq": (3.0, 2.0), "u-o": (9.0, 1.0)}),
    ),
    "fair_base": (
        at("fp32", **{"ptq": WIDE, "u-o+wcr": NARROW}),
        at("fp32", **{"ptq": NARROW, "u-o+wcr": WIDE}),
    ),
    "fair_sampling": (
        at("fp32", **{"ptq": WIDE, "u-o": NARROW}),
        at("fp32", **{"ptq": NARROW, "u-o": WIDE}),
    ),
    "fair_weighting": (at("fp32", ptq=WIDE, wcr=NARROW), at("fp32", ptq=NARROW, wcr=WIDE)),
    "fair_qat_fairer": (
        at("int4", **{"ptq": WIDE, "fair-qat": NARROW}),
        at("int4", **{"ptq": NARROW, "fair-qat": WIDE}),
    ),
    "qat_alone": (at("int4", ptq=WIDE, mpqat=NARROW), at("int4", ptq=NARROW, mpqat=WIDE)),
    "fair_ptq_high": (
        {"u-o+wcr": audits({"fp32": NARROW, "int8": NARROW})},
        {"u-o+wcr": audits({"fp32": NARROW, "int8": WIDE})},
    ),
    "fair_ptq_low": (
        {"u-o+wcr": audits({"fp32": NARROW, "int2": WIDE})},
        {"u-o+wcr": audits({"fp32": WIDE, "int2": NARROW})},
    ),
    "fair_qat_fairest": (leader(NARROW, WIDE), leader(WIDE, NARROW)),
    "fair_qat_accurate": (leader(gap(0.1, 0.9), gap(0.1, 0.5)), leader(gap(0.1, 0.5), gap(0.1, 0.9))),
    "fair_qat_best": (leader(gap(0.1, 0.9), gap(0.5, 0.5)), leader(gap(0.1, 0.5), gap(0.1, 0.9))),
    "qat_fairer_often": (
        {"mpqat": audits({"int8": NARROW, "int2": NARROW}), "fair-qat": audits({})},
        {"mpqat": audits({}), "fair-qat": audits({"int8": NARROW, "int2": NARROW})},
    ),
    "activations_cost": (
        {ACTIVATIONS: audits({"int4": gap(0.1, 0.8), "W4A4": gap(0.1, 0.7)})},
        {ACTIVATIONS: audits({"int4": gap(0.1, 0.7), "W4A4": gap(0.1, 0.8)})},
    ),
    "activations_alike": (
        {ACTIVATIONS: audits({"int4": NARROW, "W4A4": WIDE})},
        {ACTIVATIONS: audits({"int4": WIDE, "W4A4": NARROW})},
    ),
}


def test_every_claim_has_its_two_cases():
    assert set(CASES) == set(METHOD_CLAIMS)


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize(("case", "expected"), [(0, "holds"), (1, "fails")])
def test_a_known_effect_is_judged_right(key, case, expected):
    result = judge(METHOD_CLAIMS[key], CASES[key][case])
    assert result["verdict"] == expected
    # Seeds that all agree may have an interval without a width, equal to the effect but for rounding.
    assert result["low"] - 1e-12 <= result["effect"] <= result["high"] + 1e-12


@pytest.mark.parametrize("key", METHOD_CLAIMS)
def test_no_claim_is_decided_without_all_of_its_methods(key):
    whole = CASES[key][0]
    for missing in METHOD_CLAIMS[key].needs:
        result = judge(METHOD_CLAIMS[key], {k: own for k, own in whole.items() if k != missing})
        assert result["verdict"] == "not judged"
        assert np.isnan([result["effect"], result["low"], result["high"]]).all()


@pytest.mark.parametrize(("seeds", "verdict"), [(1, "one seed"), (2, "undecided"), (3, "undecided")])
@pytest.mark.parametrize("key", METHOD_CLAIMS)
def test_few_seeds_that_agree_decide_nothing(key, seeds, verdict):
    whole = CASES[key][0]
    result = judge(METHOD_CLAIMS[key], {method: own[:seeds] for method, own in whole.items()})
    assert result["verdict"] == verdict
    assert result["effect"] == pytest.approx(judge(METHOD_CLAIMS[key], whole)["effect"])


def test_equal_training_accuracy_is_not_tested_before_training_has_ended():
    early = trained((0.5, 0.2), (0.9, 0.9))
    result = judge(METHOD_CLAIMS["difficult_equal"], early)
    assert result["verdict"] == "not tested"
    assert result["lacks"] == "training ended early, with an accuracy of 0.90 of the other groups"
    assert np.isnan(result["effect"])
    # What does not ask for the end of training is judged.
    assert judge(METHOD_CLAIMS["difficult_late"], early)["verdict"] == "holds"


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("difficult_late", 0.3),
        ("difficult_equal", 0.02),
        ("difficult_test", 0.5),
        ("sampling_gradients", np.log(9) - np.log(1.5)),
        ("fair_base", 0.4),
        ("fair_qat_fairest", 0.4),
        ("fair_qat_accurate", 0.4),
        ("fair_qat_best", 0.4),
        ("fair_ptq_high", 0.02),
        ("qat_fairer_often", 2 / 3 - 1 / 2),
        ("activations_cost", 0.1),
    ],
)
def test_effects_by_hand(key, effect):
    assert judge(METHOD_CLAIMS[key], CASES[key][0])["effect"] == pytest.approx(effect, abs=0.005)


def test_the_lead_is_over_the_best_of_the_others():
    sets = leader(gap(0.1, 0.9), gap(0.1, 0.5)) | {"wcr": audits({"int4": gap(0.04, 0.95)})}
    fairest, accurate = (
        judge(METHOD_CLAIMS[key], sets)["effect"] for key in ("fair_qat_fairest", "fair_qat_accurate")
    )
    assert fairest == pytest.approx(0.04 - 0.1, abs=0.005)
    assert accurate == pytest.approx(0.9 - 0.95, abs=0.005)


def test_learned_later_is_later_than_every_other_group():
    curves = [(0.9, 0.3, 0.5), (0.9, 0.4, 0.6), (0.9, 0.9, 0.9), (0.9, 0.9, 0.9)]
    history = [samples.epoch_entry(epoch, shares) for epoch, shares in enumerate(curves)]
    shares = {"fp32": [0.5] * 3}
    audit = samples.exact_audit(shares, train_counts=[9, 5, 1], history=history)
    effect = judge(METHOD_CLAIMS["difficult_late"], {BALANCED: [audit]})["effect"]
    assert effect == pytest.approx(0.35 - 0.55)


def test_seeds_that_disagree_leave_a_claim_open():
    good, bad = CASES["sampling_gradients"]
    mixed = {key: [good[key][0], bad[key][0], good[key][0]] for key in good}
    assert judge(METHOD_CLAIMS["sampling_gradients"], mixed)["verdict"] == "undecided"
