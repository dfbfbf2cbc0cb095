"""Claims of the forward pass on Audits whose truth is known: an effect, none, and a reversed one."""

import dataclasses

import numpy as np
import pytest

import samples
from quantskew.audits.audit import Audit
from quantskew.claims import forward as claims_forward
from quantskew.claims.register import claims_in
from quantskew.claims.verdicts import BASE, judge
from quantskew.measures import forward, weights

CLAIMS = claims_in(claims_forward)


def audit_of_accuracies(before, after, count=400, seed=0):
    """Two precisions with these accuracies of a large and a small group in training."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([0, 1], count)
    logits = {}
    for name, accuracies in (("fp32", before), ("int2", after)):
        right = rng.random(2 * count) < np.repeat(accuracies, count)
        logits[name] = np.stack([right, ~right], axis=1) * 2.0
    return Audit.from_logits(logits, np.zeros(2 * count, int), groups, train_counts=[900, 100])


def judged(key, audit, precision="int2"):
    return judge(CLAIMS[key], {BASE: [audit]}, precision)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0.9, 0.8), (0.9, 0.4), "holds"),
        ((0.9, 0.4), (0.8, 0.7), "fails"),
        ((0.9, 0.7), (0.9, 0.7), "undecided"),
    ],
)
def test_a_known_effect_is_judged_right(before, after, expected):
    result = judged("fvo_grows", audit_of_accuracies(before, after))
    assert result["verdict"] == expected
    assert result["low"] <= result["effect"] <= result["high"]


def test_false_alarms_are_rare_where_nothing_happens():
    verdicts = [
        judged("minority_loses_accuracy", audit_of_accuracies((0.8, 0.7), (0.8, 0.7), seed=seed))["verdict"]
        for seed in range(200)
    ]
    # 10 of 200 are expected; 20 or more have a probability of 0.3 %.
    assert sum(v != "undecided" for v in verdicts) < 20


def test_roles_go_by_training_counts_not_by_test_counts():
    audit = audit_of_accuracies((0.9, 0.9), (0.9, 0.3))
    swapped = Audit(**{**vars(audit), "train_counts": np.array([100, 900])})
    for key in ("minority_loses_accuracy", "dtdb_left", "loss_minority_grows"):
        assert judged(key, audit)["effect"] == pytest.approx(-judged(key, swapped)["effect"])


def test_an_absent_group_plays_no_role():
    audit = audit_of_accuracies((0.9, 0.8), (0.9, 0.4))
    wider = Audit(
        **{
            **vars(audit),
            "group_names": ("large", "small", "absent"),
            "train_counts": np.array([900, 100, 5]),
        }
    )
    for key in CLAIMS:
        assert judged(key, wider)["verdict"] == judged(key, audit)["verdict"], key


def test_an_extreme_gap_is_one_beyond_every_higher_precision():
    gaps = {"fp32": 0.1, "int4": 0.5, "int3": 0.3, "int2": 0.4}
    audit = samples.exact_audit({name: (0.5 + gap / 2, 0.5 - gap / 2) for name, gap in gaps.items()}, 200)
    assert judged("fvo_extreme", audit)["effect"] == pytest.approx(-0.1)
    assert judged("fvo_extreme", audit, "int4")["effect"] == pytest.approx(0.4)


def test_order_claims_need_both_ends():
    # Logits that turn by these angles in three groups.
    rng = np.random.default_rng(0)
    for angles, expected in (((0.1, 0.5, 0.9), 1), ((0.5, 0.1, 0.9), -1), ((0.1, 0.9, 0.5), -1)):
        turn = np.repeat(angles, 20) + rng.normal(0, 0.001, 60)
        logits = {
            "fp32": np.stack([np.ones(60), np.zeros(60)], 1),
            "int2": np.stack([np.cos(turn), np.sin(turn)], 1),
        }
        audit = Audit.from_logits(logits, np.zeros(60, int), np.repeat([0, 1, 2], 20), train_counts=[9, 5, 1])
        assert np.sign(judged("cosine_order", audit)["effect"]) == expected


@pytest.mark.parametrize(("key", "norm"), [("l1_separates_less", 1), ("l2_separates_less", 2)])
def test_norms_are_held_against_the_cosine_by_hand(key, norm):
    audit = dataclasses.replace(samples.random_audit(groups=2), train_counts=np.array([9, 1]))
    cosine = forward.cosine_distance.of_samples(audit)[2]
    distance = np.linalg.norm(audit.logits[2].astype(float) - audit.logits[0], ord=norm, axis=1)
    ratios = []
    for values in (cosine, distance):
        major, minor = (values[audit.groups == g].mean() for g in (0, 1))
        ratios.append(np.log(minor / major))
    assert judged(key, audit)["effect"] == pytest.approx(ratios[0] - ratios[1])


def test_claims_about_weights_are_undecided_without_weights():
    result = judged("sparsity_grows", audit_of_accuracies((0.9, 0.8), (0.9, 0.4)))
    assert result["verdict"] == "undecided"
    assert np.isnan(result["effect"])


def test_claims_about_weights_are_exact_for_a_model(digits_audit):
    result = judged("sparsity_grows", digits_audit)
    values = weights.sparsity(digits_audit)["value"]
    assert result["low"] == result["high"] == result["effect"]
    position = digits_audit.index("int2")
    assert result["effect"] == pytest.approx(values[position] - values[position - 1])
    assert result["verdict"] == "holds"


def test_seeds_that_disagree_leave_a_claim_open():
    good = audit_of_accuracies((0.9, 0.8), (0.9, 0.4))
    bad = audit_of_accuracies((0.9, 0.4), (0.8, 0.7))
    assert judge(CLAIMS["fvo_grows"], {BASE: [good, good, good]}, "int2")["verdict"] == "holds"
    assert judge(CLAIMS["fvo_grows"], {BASE: [good, bad, good]}, "int2")["verdict"] == "undecided"


@pytest.mark.parametrize("key", CLAIMS)
def test_every_claim_is_judged_on_a_real_audit(key, digits_audit):
    result = judged(key, digits_audit)
    assert result["verdict"] in ("holds", "fails", "undecided")
    assert np.isfinite(result["effect"])
