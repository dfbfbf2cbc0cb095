"""Claims on Audits whose truth is known: an effect, none, and a reversed one."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from quantskew.audit import Audit
from quantskew.claims import CLAIMS, _ranks, scorecard
from quantskew.verdicts import judge, verdict


def audit_of_accuracies(before, after, count=400, seed=0):
    """Two precisions with these accuracies of a large and a small group in training."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([0, 1], count)
    logits = {}
    for name, accuracies in (("fp32", before), ("int2", after)):
        right = rng.random(2 * count) < np.repeat(accuracies, count)
        logits[name] = np.stack([right, ~right], axis=1) * 2.0
    return Audit.from_logits(logits, np.zeros(2 * count, int), groups, train_counts=[900, 100])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0.9, 0.8), (0.9, 0.4), "holds"),
        ((0.9, 0.4), (0.8, 0.7), "fails"),
        ((0.9, 0.7), (0.9, 0.7), "undecided"),
    ],
)
def test_a_known_effect_is_judged_right(before, after, expected):
    result = judge(CLAIMS["fvo_grows"], audit_of_accuracies(before, after), "int2")
    assert result["verdict"] == expected
    assert result["low"] <= result["effect"] <= result["high"]


def test_false_alarms_are_rare_where_nothing_happens():
    claim = CLAIMS["minority_loses_accuracy"]
    verdicts = [
        judge(claim, audit_of_accuracies((0.8, 0.7), (0.8, 0.7), seed=seed), "int2")["verdict"]
        for seed in range(200)
    ]
    # 10 of 200 are expected; 20 or more have a probability of 0.3 %.
    assert sum(v != "undecided" for v in verdicts) < 20


def test_roles_go_by_training_counts_not_by_test_counts():
    audit = audit_of_accuracies((0.9, 0.9), (0.9, 0.3))
    swapped = Audit(**{**vars(audit), "train_counts": np.array([100, 900])})
    claim = CLAIMS["minority_loses_accuracy"]
    assert judge(claim, audit, "int2")["effect"] == pytest.approx(-judge(claim, swapped, "int2")["effect"])


def test_an_absent_group_plays_no_role():
    audit = audit_of_accuracies((0.9, 0.8), (0.9, 0.4))
    wider = Audit(
        **{
            **vars(audit),
            "group_names": ("large", "small", "absent"),
            "train_counts": np.array([900, 100, 5]),
        }
    )
    for key, claim in CLAIMS.items():
        assert judge(claim, wider, "int2")["verdict"] == judge(claim, audit, "int2")["verdict"], key


def test_order_claims_need_both_ends():
    claim = CLAIMS["loss_order"]
    means = np.array([[[0.1, 0.2, 0.9]]])
    assert claim.measure(means, 0, 0, 2)[0] == pytest.approx(0.1)
    assert claim.measure(means, 0, 1, 2)[0] == pytest.approx(-0.1)


def test_claims_about_weights_are_undecided_without_weights():
    result = judge(CLAIMS["sparsity_grows"], audit_of_accuracies((0.9, 0.8), (0.9, 0.4)), "int2")
    assert result["verdict"] == "undecided"
    assert np.isnan(result["effect"])


def test_every_claim_is_judged_on_a_real_audit(curved_audit):
    for key, claim in CLAIMS.items():
        result = judge(claim, curved_audit, "int2")
        assert result["verdict"] in ("holds", "fails", "undecided"), key
        assert np.isfinite(result["effect"]), key


def test_claims_about_curvature_are_undecided_without_it(digits_audit):
    assert judge(CLAIMS["lambda_grows"], digits_audit, "int2")["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("norms", "expected"),
    [([1, 2, 3, 4, 5], "holds"), ([5, 4, 3, 2, 1], "fails"), ([2, 1, 5, 3, 4], "undecided")],
)
def test_orders_of_five_groups_are_held_against_chance(norms, expected):
    effect, low, high = _ranks(np.array(norms, float), np.arange(5))
    assert verdict(low, high) == expected
    assert effect == pytest.approx(spearmanr(norms, np.arange(5)).statistic)


def test_orders_of_two_groups_say_nothing():
    assert np.isnan(_ranks(np.array([1.0, 2.0, np.nan]), np.array([1, 2, 3]))).all()


def test_scorecard_has_a_row_a_claim_and_precision(digits_audit):
    table = scorecard({"digits": digits_audit}, ["fvo_grows", "sparsity_grows"], ["int4", "int6"])
    assert list(table["at"]) == ["int4", "int6", "int4", "int6"]
    assert list(table["digits"] == "") == [False, True, False, True]


def test_refusals(digits_audit):
    with pytest.raises(ValueError, match="known: fvo_grows"):
        scorecard({"digits": digits_audit}, ["fvo_shrinks"])
    with pytest.raises(ValueError, match="is the reference"):
        judge(CLAIMS["fvo_grows"], digits_audit, "fp32")


def test_verdict_of_a_zero_effect_is_open():
    assert verdict(0.0, 0.0) == "undecided"
