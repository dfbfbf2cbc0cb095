"""Claims of the backward pass: orders of groups, growth, and what one seed cannot say."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from quantskew.claims import backward
from quantskew.claims.backward import _ranks
from quantskew.claims.register import claims_in
from quantskew.claims.verdicts import BASE, judge
from quantskew.measures.forward import group_accuracy

CLAIMS = claims_in(backward)


def bent(audit, **arrays):
    """The Audit with other values of its loss surface."""
    return dataclasses.replace(audit, curvature=dataclasses.replace(audit.curvature, **arrays))


@pytest.mark.parametrize("key", CLAIMS)
def test_every_claim_is_judged_on_real_audits(key, curved_audit):
    # The same model three times stands for seeds that agree.
    result = judge(CLAIMS[key], {BASE: [curved_audit] * 3}, "int2")
    assert np.isfinite(result["effect"])
    assert result["verdict"] == ("holds" if result["effect"] > 0 else "fails")


@pytest.mark.parametrize("key", CLAIMS)
def test_one_seed_gives_a_number_and_no_verdict(key, curved_audit):
    result = judge(CLAIMS[key], {BASE: [curved_audit]}, "int2")
    assert np.isfinite(result["effect"])
    assert np.isnan([result["low"], result["p"]]).all()
    assert result["verdict"] == "undecided"
    assert "varies over seeds" in result["lacks"]


@pytest.mark.parametrize("key", CLAIMS)
def test_audits_without_curvature_are_not_judged(key, digits_audit):
    result = judge(CLAIMS[key], {BASE: [digits_audit] * 3}, "int2")
    assert result["verdict"] == "undecided"
    assert result["lacks"] == "no curvature in base"


def test_orders_by_hand(curved_audit):
    row = curved_audit.index("int2")
    norms = curved_audit.curvature.gradient_norms[row]
    accuracy = group_accuracy(curved_audit).query("precision == 'int2'")["value"]
    expected = {
        "gradient_size": -spearmanr(norms, curved_audit.train_counts).statistic,
        "gradient_accuracy": -spearmanr(norms, accuracy).statistic,
        "lambda_accuracy": -spearmanr(curved_audit.curvature.lambda_max[row], accuracy).statistic,
        "lambda_gradient": spearmanr(curved_audit.curvature.lambda_max[row], norms).statistic,
    }
    for key, value in expected.items():
        assert judge(CLAIMS[key], {BASE: [curved_audit]}, "int2")["effect"] == pytest.approx(value)


@pytest.mark.parametrize(("sign", "verdict"), [(-1, "holds"), (1, "fails")])
def test_a_known_order_is_judged_right(sign, verdict, curved_audit):
    norms = np.exp(sign * curved_audit.train_counts / 100.0)
    ordered = bent(curved_audit, gradient_norms=np.tile(norms, (len(curved_audit.precisions), 1)))
    assert judge(CLAIMS["gradient_size"], {BASE: [ordered] * 3}, "int2")["verdict"] == verdict


def test_seeds_with_other_orders_leave_a_claim_open(curved_audit):
    rng = np.random.default_rng(0)
    seeds = []
    for _ in range(5):
        values = rng.random(curved_audit.curvature.gradient_norms.shape)
        seeds.append(bent(curved_audit, gradient_norms=values))
    assert judge(CLAIMS["gradient_size"], {BASE: seeds}, "int2")["verdict"] == "undecided"


@pytest.mark.parametrize(("factor", "verdict"), [(1.01, "holds"), (1.2, "fails"), (0.8, "fails")])
def test_almost_equal_is_five_per_cent(factor, verdict, curved_audit):
    values = np.ones_like(curved_audit.curvature.lambda_max)
    values[curved_audit.index("int2")] = factor
    result = judge(CLAIMS["lambda_half"], {BASE: [bent(curved_audit, lambda_max=values)] * 3}, "int2")
    assert result["verdict"] == verdict
    assert result["effect"] == pytest.approx(0.05 - abs(factor - 1))


def test_growth_is_a_mean_logarithm(curved_audit):
    values = np.ones_like(curved_audit.curvature.lambda_max)
    values[curved_audit.index("int2")] = np.exp(2.0)
    result = judge(CLAIMS["lambda_grows"], {BASE: [bent(curved_audit, lambda_max=values)] * 3}, "int2")
    assert result["effect"] == pytest.approx(2.0)


def test_orders_of_two_groups_say_nothing():
    assert np.isnan(_ranks(np.array([1.0, 2.0, np.nan]), np.array([1, 2, 3])))
