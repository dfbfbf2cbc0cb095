"""Claims of the backward pass: orders of groups, growth, and what one seed cannot say."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

import samples
from quantskew.claims import backward
from quantskew.claims.backward import ranks
from quantskew.claims.effects import BASE
from quantskew.claims.register import claims_in
from quantskew.claims.verdicts import judge
from quantskew.measures.forward import group_accuracy

CLAIMS = claims_in(backward)
CURVED = [key for key, claim in CLAIMS.items() if claim.curvature]
# Those that ask for int4 too, which the Audit of the tests does not have.
DOWN_TO = {"lambda_grows", "lambda_same_order"}


def bent(audit, **arrays):
    """The Audit with other values of its loss surface."""
    return dataclasses.replace(audit, curvature=dataclasses.replace(audit.curvature, **arrays))


def by_precision(audit, *rows):
    """The Audit with these values of lambda_max at fp32, int8, int4 and int2."""
    shares = dict.fromkeys(("fp32", "int8", "int4", "int2"), [0.5] * len(rows[0]))
    curvature = audit.curvature.select([0] * 4)
    values = np.array(rows, dtype=float)
    others = {"gradient_norms": values, "residuals": values, "traces": values, "trace_errors": values}
    return dataclasses.replace(
        samples.exact_audit(shares), curvature=dataclasses.replace(curvature, lambda_max=values, **others)
    )


@pytest.mark.parametrize("key", CURVED)
def test_every_claim_is_judged_on_real_audits(key, curved_audit):
    # The same model six times stands for seeds that agree.
    result = judge(CLAIMS[key], {BASE: [curved_audit] * 6}, "int8" if key in DOWN_TO else "int2")
    if key == "lambda_grows":
        assert result["lacks"] == "a higher precision to compare with"
        return
    assert np.isfinite(result["effect"])
    # That one of several groups fails is corrected for their number.
    possible = {"holds"} if result["effect"] > 0 else {"fails", "undecided"}
    assert result["verdict"] in possible


@pytest.mark.parametrize("key", CURVED)
def test_one_seed_gives_a_number_and_no_verdict(key, curved_audit):
    result = judge(CLAIMS[key], {BASE: [curved_audit]}, "int8" if key in DOWN_TO else "int2")
    if key == "lambda_grows":
        return
    assert np.isfinite(result["effect"])
    assert np.isnan([result["low"], result["p"]]).all()
    assert result["verdict"] == "one seed"


@pytest.mark.parametrize("key", CURVED)
def test_audits_without_curvature_are_not_judged(key, digits_audit):
    result = judge(CLAIMS[key], {BASE: [digits_audit] * 3}, "int2")
    assert result["verdict"] == "not judged"
    assert result["lacks"] == "no curvature in base"


def test_orders_by_hand(curved_audit):
    row = curved_audit.index("int2")
    norms = curved_audit.curvature.gradient_norms[row]
    eigenvalues = curved_audit.curvature.lambda_max[row]
    accuracy = group_accuracy(curved_audit).query("precision == 'int2'")["value"]
    expected = {
        "gradient_size": -spearmanr(norms, curved_audit.train_counts).statistic,
        "gradient_accuracy": -spearmanr(norms, accuracy).statistic,
        "lambda_accuracy": -spearmanr(eigenvalues, accuracy).statistic,
        "lambda_gradient": spearmanr(eigenvalues, norms).statistic,
    }
    for key, value in expected.items():
        assert judge(CLAIMS[key], {BASE: [curved_audit]}, "int2")["effect"] == pytest.approx(value)
    minority = curved_audit.train_counts.argmin()
    others = np.delete(eigenvalues, minority)
    least = np.log(eigenvalues[minority]) - np.log(others.max())
    assert judge(CLAIMS["lambda_minority"], {BASE: [curved_audit]}, "int2")["effect"] == pytest.approx(least)


@pytest.mark.parametrize(("sign", "verdict"), [(-1, "holds"), (1, "fails")])
def test_a_known_order_is_judged_right(sign, verdict, curved_audit):
    norms = np.exp(sign * curved_audit.train_counts / 100.0)
    ordered = bent(curved_audit, gradient_norms=np.tile(norms, (len(curved_audit.precisions), 1)))
    assert judge(CLAIMS["gradient_size"], {BASE: [ordered] * 6}, "int2")["verdict"] == verdict
    # Three that agree to the last digit are three coins on the same side.
    assert judge(CLAIMS["gradient_size"], {BASE: [ordered] * 3}, "int2")["p"] == 0.25


def test_seeds_with_other_orders_leave_a_claim_open(curved_audit):
    rng = np.random.default_rng(0)
    seeds = []
    for _ in range(5):
        values = rng.random(curved_audit.curvature.gradient_norms.shape)
        seeds.append(bent(curved_audit, gradient_norms=values))
    assert judge(CLAIMS["gradient_size"], {BASE: seeds}, "int2")["verdict"] == "undecided"


@pytest.mark.parametrize(("factor", "effect"), [(1.01, 0.04), (1.2, -0.15), (0.8, -0.15)])
def test_almost_equal_is_five_per_cent(factor, effect, curved_audit):
    values = np.ones_like(curved_audit.curvature.lambda_max)
    values[curved_audit.index("int2")] = factor
    result = judge(CLAIMS["lambda_half"], {BASE: [bent(curved_audit, lambda_max=values)] * 9}, "int2")
    assert result["verdict"] == ("holds" if effect > 0 else "fails")
    assert result["effect"] == pytest.approx(effect)


def test_one_group_out_of_five_per_cent_is_not_almost_equal(curved_audit):
    values = np.ones_like(curved_audit.curvature.lambda_max)
    values[curved_audit.index("int2"), 0] = 1.2
    result = judge(CLAIMS["lambda_half"], {BASE: [bent(curved_audit, lambda_max=values)] * 12}, "int2")
    assert result["effect"] == pytest.approx(-0.15)
    assert result["verdict"] == "fails"


def test_growth_counts_groups_in_order(curved_audit):
    # Two of four groups grow from int8 to int4 to int2; what the reference has plays no role.
    rows = [9, 9, 9, 9], [1, 1, 1, 1], [2, 2, 0.5, 2], [3, 4, 1, 1]
    result = judge(CLAIMS["lambda_grows"], {BASE: [by_precision(curved_audit, *rows)]})
    assert result["effect"] == pytest.approx(2 / 4 - 1 / 2)
    rows = rows[0], rows[1], [2, 2, 2, 2], [3, 3, 3, 1]
    assert judge(CLAIMS["lambda_grows"], {BASE: [by_precision(curved_audit, *rows)]})["effect"] == 0.25


def test_the_same_order_must_be_at_every_precision(curved_audit):
    rows = [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 4, 3], [2, 1, 4, 3]
    effect = judge(CLAIMS["lambda_same_order"], {BASE: [by_precision(curved_audit, *rows)]})["effect"]
    assert effect == pytest.approx(min(spearmanr(rows[0], own).statistic for own in rows[1:]))


def trained(*norms):
    """Three groups of 60, 30 and 10 training images whose gradients have these norms by epoch."""
    history = [samples.epoch_entry(epoch, [0.5] * 3, own) for epoch, own in enumerate(norms)]
    return samples.exact_audit({"fp32": [0.5] * 3}, train_counts=[60, 30, 10], history=history)


def test_dominance_of_the_gradient_and_its_inversion_by_hand():
    evidence = {BASE: [trained([1, 1, 1], [2, 2, 2], [1, 2, 9])]}
    effects = {
        key: judge(CLAIMS[key], evidence)["effect"] for key in ("gradient_dominated", "gradient_inverted")
    }
    assert effects["gradient_dominated"] == pytest.approx(np.log(60 / 30))
    assert effects["gradient_inverted"] == pytest.approx(np.log(10 * 9 / (60 * 1)))
    reversed_ = {BASE: [trained([1, 9, 1], [1, 1, 1])]}
    assert judge(CLAIMS["gradient_dominated"], reversed_)["effect"] == pytest.approx(np.log(60 / 270))
    assert judge(CLAIMS["gradient_inverted"], reversed_)["effect"] == pytest.approx(np.log(10 / 60))


def test_orders_of_two_groups_say_nothing():
    assert np.isnan(ranks(np.array([1.0, 2.0]), np.array([1, 2])))
    assert np.isnan(ranks(np.array([1.0, 2.0, np.nan]), np.array([1, 2, 3])))
