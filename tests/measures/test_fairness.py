import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score

import oracles
import samples
from quantskew.audits.audit import Audit
from quantskew.measures import fairness, forward, harm


def audit_of_correct(*rows, groups):
    """An Audit with two classes whose samples are right where a row says 1, one row a precision."""
    logits = {f"p{n}": [[float(right), 1.0 - right] for right in row] for n, row in enumerate(rows)}
    return Audit.from_logits(logits, [0] * len(groups), groups)


def test_group_values_equal_fairlearn_s():
    audit = samples.random_audit()
    accuracy, fvo, overall = (
        f(audit) for f in (forward.group_accuracy, fairness.fvo, fairness.overall_accuracy)
    )
    for row, precision in enumerate(audit.precisions):
        frame = MetricFrame(
            metrics=accuracy_score,
            y_true=audit.labels,
            y_pred=audit.predictions[row],
            sensitive_features=audit.groups,
        )
        np.testing.assert_allclose(accuracy[accuracy["precision"] == precision]["value"], frame.by_group)
        assert fvo["value"][row] == pytest.approx(frame.difference("between_groups"))
        assert overall["value"][row] == pytest.approx(frame.overall)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=20))
def test_fvo_is_the_largest_difference_of_all_pairs(samples_of_groups):
    correct, groups = zip(*samples_of_groups, strict=True)
    audit = audit_of_correct(correct, groups=list(groups))
    means = oracles.group_means(correct, audit.groups, len(audit.group_names))
    table = fairness.fvo(audit)
    assert table["value"][0] == pytest.approx(oracles.largest_gap(means), nan_ok=True)
    assert table["count"][0] == len(set(groups))


def test_accuracies_have_wilson_s_interval():
    audit = samples.random_audit()
    group, overall = forward.group_accuracy(audit), fairness.overall_accuracy(audit)
    for row in [*group.itertuples(), *overall.itertuples()]:
        expected = binomtest(round(row.value * row.count), row.count).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    assert group["count"].tolist() == [40] * 9
    assert overall["count"].tolist() == [120] * 3


def test_one_group_has_no_difference():
    table = fairness.fvo(audit_of_correct([1, 0, 1], groups=[1, 1, 1]))
    assert table[["value", "low", "high"]].isna().to_numpy().all()
    assert table["count"].tolist() == [1]
    assert fairness.fvo.of_chance(audit_of_correct([1, 0], groups=[0, 0]))["value"].isna().all()


@pytest.mark.parametrize("right", [0, 1])
def test_groups_that_are_served_alike_have_no_violation(right):
    # Of seven images each: none of them is wrong, which says that few would be, not that none ever is.  So an
    # FVO of 0 has an interval, as the accuracies have; it is the change between equal predictions that is 0.
    audit = audit_of_correct([right] * 21, [right] * 21, groups=[0, 1, 2] * 7)
    table = fairness.fvo(audit)
    assert (table[["value", "low"]] == 0).all(axis=None)
    assert table["high"].between(0.15, 0.55).all()
    assert (fairness.fvo.change(audit)[["value", "low", "high"]] == 0).all(axis=None)
    assert (fairness.fvo.of_chance(audit)[["value", "low", "high"]] == 0).all(axis=None)


def test_fvo_change_is_the_difference_on_the_same_images():
    audit = samples.random_audit()
    change, fvo = fairness.fvo.change(audit), fairness.fvo(audit)
    np.testing.assert_allclose(change["value"], fvo["value"][1:] - fvo["value"][0])
    assert change["precision"].tolist() == ["int8", "int2"]
    assert ((change["low"] <= change["value"]) & (change["value"] <= change["high"])).all()


def test_shuffled_groups_tell_a_disparity_from_chance():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 200)
    alike = (rng.random(400) < 0.7).astype(int)
    apart = (rng.random(400) < np.where(groups, 0.5, 0.9)).astype(int)
    audit = audit_of_correct(alike, apart, groups=groups)
    fvo, chance = fairness.fvo(audit)["value"], fairness.fvo.of_chance(audit)
    assert chance["low"][0] <= fvo[0] <= chance["high"][0]
    assert fvo[1] > 2 * chance["high"][1]
    # Two groups of 200: the mean of |difference| of two proportions of p is sqrt(2/pi) of its deviation.
    for row, correct in enumerate((alike, apart)):
        p = correct.mean()
        assert chance["value"][row] == pytest.approx(np.sqrt(2 / np.pi * p * (1 - p) / 100), rel=0.15)


def test_the_control_is_decided_by_its_seed():
    audit = samples.random_audit()
    once, again, other = (fairness.fvo.of_chance(audit, draws=50, seed=seed) for seed in (1, 1, 2))
    assert once.equals(again)
    assert not once.equals(other)


def test_flipped_lists_what_was_forgotten():
    logits = {"fp32": np.eye(3)[[0, 1, 2, 0]], "int2": np.eye(3)[[0, 2, 0, 0]]}
    audit = Audit.from_logits(logits, [0, 1, 2, 1], ["a", "b", "a", "b"], class_names=["x", "y", "z"])
    table = harm.flipped(audit, "int2")
    assert table.to_dict("list") == {
        "sample": [1, 2],
        "group": ["b", "a"],
        "label": ["y", "z"],
        "prediction": ["z", "x"],
    }
    assert len(harm.flipped(audit, "fp32")) == 0
    with pytest.raises(ValueError, match=r"no 'int3'; it has fp32, int2"):
        harm.flipped(audit, "int3")
