"""Claims of the forward pass on Audits whose truth is known: an effect, none, and a reversed one."""

import dataclasses

import numpy as np
import pytest

import samples
from quantskew.audits.audit import Audit
from quantskew.claims import forward as claims_forward
from quantskew.claims.effects import BASE
from quantskew.claims.register import claims_in
from quantskew.claims.verdicts import judge
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


def over_seeds(key, audits, precision="int2"):
    return judge(CLAIMS[key], {BASE: audits}, precision)["verdict"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0.9, 0.8), (0.9, 0.4), {"holds"}),
        ((0.9, 0.4), (0.8, 0.7), {"fails"}),
        ((0.9, 0.7), (0.9, 0.7), {"undecided", "tie"}),
    ],
)
def test_a_known_effect_is_judged_right(before, after, expected):
    audits = [audit_of_accuracies(before, after, seed=seed) for seed in range(4)]
    result = judge(CLAIMS["fvo_grows"], {BASE: audits}, "int2")
    assert result["verdict"] in expected
    assert result["low"] <= result["effect"] <= result["high"]


def test_false_alarms_are_rare_where_nothing_happens():
    verdicts = []
    for seed in range(100):
        seeds = [audit_of_accuracies((0.8, 0.7), (0.8, 0.7), seed=3 * seed + own) for own in range(3)]
        verdicts.append(over_seeds("minority_loses_accuracy", seeds))
    # 5 of 100 are expected; 13 or more have a probability of 0.1 %.
    assert sum(v in ("holds", "fails") for v in verdicts) < 13


def test_roles_go_by_training_counts_not_by_test_counts():
    audit = audit_of_accuracies((0.9, 0.9), (0.9, 0.3))
    swapped = Audit(**{**vars(audit), "train_counts": np.array([100, 900])})
    for key in ("minority_loses_accuracy", "dtdb_left_more", "l1_separates_less"):
        assert judged(key, audit)["effect"] == pytest.approx(-judged(key, swapped)["effect"], nan_ok=True)


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
        own, other = judged(key, wider), judged(key, audit)
        assert own["effect"] == pytest.approx(other["effect"], nan_ok=True), key
        assert own["lacks"] == other["lacks"], key


def audit_of_gaps(**gaps):
    return samples.exact_audit({name: (0.5 + gap / 2, 0.5 - gap / 2) for name, gap in gaps.items()}, 200)


def test_an_extreme_gap_is_one_beyond_every_higher_precision_of_the_paper():
    # The gap at int3 is no rival: the paper has no int3.
    audit = audit_of_gaps(fp32=0.1, fp16=0.1, int8=0.2, int4=0.3, int3=0.5, int2=0.4)
    assert judged("fvo_extreme", audit)["effect"] == pytest.approx(0.1)
    assert judged("fvo_extreme", audit, "int4")["effect"] == pytest.approx(0.1)
    audit = audit_of_gaps(fp32=0.1, fp16=0.1, int8=0.5, int4=0.3, int3=0.0, int2=0.4)
    assert judged("fvo_extreme", audit)["effect"] == pytest.approx(-0.1)


def test_a_gap_grows_from_precision_to_precision_and_against_the_reference():
    audit = audit_of_gaps(fp32=0.2, fp16=0.2, int8=0.1, int4=0.3, int3=0.9, int2=0.4)
    # The weakest part counts: of int8 against fp32, and of int2 against int4.
    assert judged("fvo_grows_always", audit)["effect"] == pytest.approx(-0.1)
    assert judged("fvo_monotone", audit)["effect"] == pytest.approx(0.1)
    assert judged("fvo_monotone", audit, "int3")["effect"] == pytest.approx(0.2)


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
        ends = [judged(f"cosine_{end}", audit)["effect"] for end in ("minority", "majority")]
        assert min(ends) == pytest.approx(judged("cosine_order", audit)["effect"])
        # Which end is out of line.
        assert [np.sign(end) for end in ends] == [
            1 if angles[2] == 0.9 else -1,
            1 if angles[0] == 0.1 else -1,
        ]


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


def by_group(audit, values):
    return np.array([values[audit.groups == g].mean() for g in range(len(audit.group_names))])


def test_effects_on_real_groups_by_hand(digits_audit):
    """Every claim with parts, from the tables that the chapters show."""
    audit, row = digits_audit, digits_audit.index("int4")
    minority, majority = audit.train_counts.argmin(), audit.train_counts.argmax()
    loss = {
        p: by_group(audit, forward.group_loss.of_samples(audit)[audit.index(p)]) for p in audit.precisions
    }
    added = loss["int4"] - loss["fp32"]
    probability = by_group(audit, forward.dtdb.of_samples(audit)[0] - forward.dtdb.of_samples(audit)[row])
    variance = forward.logit_variance.of_samples(audit)
    means = [by_group(audit, variance[audit.index(p)]).mean() for p in ("fp32", "int8", "int4")]
    spread = forward.softmax_variance.of_samples(audit)
    before, after = (by_group(audit, spread[r]) for r in (0, row))
    expected = {
        "loss_minority": loss["int4"][minority] - np.delete(loss["int4"], minority).max(),
        "loss_majority": np.delete(loss["int4"], majority).min() - loss["int4"][majority],
        "loss_rises": added.min(),
        "loss_minority_most": added[minority] - np.delete(added, minority).max(),
        "dtdb_left": probability[minority],
        "dtdb_left_more": probability[minority] - probability[majority],
        "logit_variance_falls": 1 - means[2] / means[0],
        "logit_variance_monotone": min(means[0] - means[1], means[1] - means[2]) / means[0],
        "softmax_variance_falls": (before - after).min(),
        "softmax_minority_most": (before - after)[minority] - np.delete(before - after, minority).max(),
        "softmax_minority_share": (1 - after / before)[minority]
        - np.delete(1 - after / before, minority).max(),
    }
    for key, value in expected.items():
        assert judged(key, audit, "int4")["effect"] == pytest.approx(value), key


def test_the_order_of_the_norms_themselves():
    audit = dataclasses.replace(samples.random_audit(groups=2), train_counts=np.array([9, 1]))
    ratio = judged("l2_separates_less", audit)["effect"] - judged("l1_separates_less", audit)["effect"]
    assert judged("l2_separates_least", audit)["effect"] == pytest.approx(ratio)


def test_claims_about_weights_are_not_judged_without_weights():
    result = judged("weights_centre", audit_of_accuracies((0.9, 0.8), (0.9, 0.4)))
    assert (result["verdict"], result["lacks"]) == ("not judged", "no weights in base")
    assert np.isnan(result["effect"])


def test_claims_about_weights_are_exact_for_a_model(digits_audit):
    result = judged("sparsity_grows", digits_audit)
    values = weights.sparsity(digits_audit).set_index("precision")["value"]
    steps = np.diff(values[["fp32", "int8", "int4", "int2"]])
    assert result["effect"] == pytest.approx(steps.min())
    assert result["verdict"] == "one seed"
    difference = weights.absolute_difference(digits_audit, mean=True).set_index("precision")["value"]
    share = difference / weights.mean_magnitude(digits_audit)["value"][0]
    steps = np.diff(share[["fp32", "int8", "int4", "int2"]])
    assert judged("difference_grows", digits_audit)["effect"] == pytest.approx(steps.min())


def test_seeds_that_disagree_leave_a_claim_open():
    good = [audit_of_accuracies((0.9, 0.8), (0.9, 0.4), seed=seed) for seed in range(3)]
    bad = audit_of_accuracies((0.9, 0.4), (0.8, 0.7))
    assert over_seeds("fvo_grows", good) == "holds"
    assert over_seeds("fvo_grows", [good[0], bad, good[1]]) == "undecided"


@pytest.mark.parametrize("key", CLAIMS)
def test_every_claim_is_judged_on_a_real_audit(key, digits_audit):
    result = judged(key, digits_audit)
    assert result["verdict"] == "one seed"
    assert np.isfinite(result["effect"])
