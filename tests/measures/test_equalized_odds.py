"""Equalized odds and its kin against fairlearn, plain loops, and Audits whose rates are known."""

import itertools
import math

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import recall_score

import oracles
import samples
from quantskew.audits.audit import Audit
from quantskew.measures import fairness, forward
from quantskew.measures import fairness as odds
from quantskew.measures.fairness import intersections
from quantskew.measures.intervals import wilson


def audit_of_predictions(labels, groups, *predictions, classes=2, group_names=None):
    """An Audit that predicts just these classes, a row a precision."""
    logits = {f"p{n}": np.eye(classes)[list(row)].reshape(-1, classes) for n, row in enumerate(predictions)}
    if classes > 1:
        return Audit.from_logits(logits, labels, groups, group_names)
    names = tuple(f"group {group}" for group in range(max(groups) + 1))
    arrays = np.stack(list(logits.values())).astype(np.float32), np.array(labels), np.array(groups)
    return Audit(*arrays, tuple(logits), ("only",), names)


def audit_of_rates(*rates, count=100):
    """Two classes; in group g, this share of `count` samples of each class is predicted right."""
    groups, labels = (ids.ravel() for ids in np.mgrid[: len(rates[0]), :2])
    groups, labels = groups.repeat(count), labels.repeat(count)
    rows = []
    for shares in rates:
        right = np.concatenate([np.arange(count) < round(share * count) for share in np.ravel(shares)])
        rows.append(np.where(right, labels, 1 - labels))
    return audit_of_predictions(labels, groups, *rows)


def by_hand(labels, groups, predictions, classes):
    """The largest gap of P(prediction | label) over pairs of groups, counted one sample at a time."""
    gaps = []
    for given_class, predicted in itertools.product(range(classes), repeat=2):
        rates = []
        for group in set(groups):
            own = [
                p
                for y, g, p in zip(labels, groups, predictions, strict=True)
                if (y, g) == (given_class, group)
            ]
            rates.append(own.count(predicted) / len(own) if own else math.nan)
        gaps.append(oracles.largest_gap(rates))
    return max((gap for gap in gaps if not math.isnan(gap)), default=math.nan)


def test_two_classes_are_as_fairlearn_says():
    audit = samples.random_audit(classes=2, groups=5, samples=300)
    tables = odds.equalized_odds(audit), odds.demographic_parity(audit)
    peers = equalized_odds_difference, demographic_parity_difference
    for table, peer in zip(tables, peers, strict=True):
        expected = [peer(audit.labels, row, sensitive_features=audit.groups) for row in audit.predictions]
        assert table["value"].tolist() == pytest.approx(expected)
        assert table["precision"].tolist() == list(audit.precisions)
        assert (table["count"].tolist(), table["empty"].tolist()) == ([5] * 3, [0] * 3)


@given(
    st.integers(1, 4).flatmap(
        lambda classes: st.tuples(
            st.just(classes),
            st.lists(
                st.tuples(st.integers(0, classes - 1), st.integers(0, 2), st.integers(0, classes - 1)),
                min_size=1,
                max_size=20,
            ),
        )
    )
)
def test_several_classes_are_the_largest_gap_of_all_rates(made):
    classes, triples = made
    labels, groups, predictions = (list(column) for column in zip(*triples, strict=True))
    audit = audit_of_predictions(labels, groups, predictions, classes=classes)
    expected = by_hand(labels, groups, predictions, classes)
    table = odds.equalized_odds(audit)
    assert table["value"][0] == pytest.approx(expected, nan_ok=True)
    cells = len(audit.group_names) * classes
    assert table["empty"][0] == cells - len(set(zip(labels, groups, strict=True)))
    # Parity is the same question to samples whose labels are all alike.
    expected = by_hand([0] * len(groups), groups, predictions, classes)
    assert odds.demographic_parity(audit)["value"][0] == pytest.approx(expected, nan_ok=True)


def test_class_accuracy_is_the_recall_in_each_group():
    audit = samples.random_audit()
    table = odds.class_accuracy(audit)
    assert len(table) == 3 * 3 * 4
    assert list(table) == ["group", "class", "precision", "value", "low", "high", "count"]
    for group, precision in itertools.product(range(3), range(3)):
        own = audit.groups == group
        rows = table[
            (table["group"] == audit.group_names[group]) & (table["precision"] == audit.precisions[precision])
        ]
        assert rows["class"].tolist() == list(audit.class_names)
        expected = recall_score(audit.labels[own], audit.predictions[precision][own], average=None)
        assert rows["value"].tolist() == pytest.approx(expected)
        assert rows["count"].tolist() == np.bincount(audit.labels[own], minlength=4).tolist()
    for row in table.itertuples():
        expected = binomtest(round(row.value * row.count), row.count).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))


def test_class_accuracy_is_the_accuracy_of_the_intersections():
    audit = samples.random_audit()
    own, crossed = odds.class_accuracy(audit), forward.group_accuracy(intersections(audit))
    assert (own["group"] + ", " + own["class"]).tolist() == crossed["group"].tolist()
    columns = ["precision", "value", "low", "high", "count"]
    assert own[columns].equals(crossed[columns])


def test_groups_of_one_accuracy_can_be_far_apart_on_each_class():
    audit = audit_of_rates([[0.9, 0.5], [0.5, 0.9]])
    assert fairness.fvo(audit)["value"].item() == 0
    assert odds.equalized_odds(audit)["value"].item() == pytest.approx(0.4)
    # Class 0 is predicted for (0.9 + 0.5) / 2 of the one group and (0.5 + 0.1) / 2 of the other.
    assert odds.demographic_parity(audit)["value"].item() == pytest.approx(0.4)


def test_a_model_without_errors_has_equal_odds_and_yet_no_parity():
    labels, groups = [0] * 30 + [1] * 10 + [0] * 10 + [1] * 30, [0] * 40 + [1] * 40
    audit = audit_of_predictions(labels, groups, labels)
    # No error in cells of ten to thirty images does not say that there never is one.
    table = odds.equalized_odds(audit)
    assert (table[["value", "low"]] == 0).all(axis=None)
    assert 0.1 < table["high"].item() < 0.4
    assert (odds.equalized_odds.of_chance(audit, draws=20)[["value", "low", "high"]] == 0).all(axis=None)
    assert odds.demographic_parity(audit)["value"].item() == pytest.approx(0.5)


def test_the_interval_is_that_of_a_difference_of_proportions():
    # Only the rates of class 0 differ, by far more than chance can turn around.
    table = odds.equalized_odds(audit_of_rates([[0.9, 1.0], [0.4, 1.0]], count=400))
    spread = 1.96 * math.sqrt((0.9 * 0.1 + 0.4 * 0.6) / 400)
    assert table["low"].item() == pytest.approx(0.5 - spread, abs=0.006)
    assert table["high"].item() == pytest.approx(0.5 + spread, abs=0.006)


def test_images_are_drawn_within_group_and_label():
    # One image of class 0 in the first group makes the gap; a draw of the group alone would often miss it and
    # have no gap at all.  What one image says is little, but no less than that it can be misread.
    labels, groups = [0] + [1] * 30 + [0, 1] * 15, [0] * 31 + [1] * 30
    wrong = [1, *labels[1:]]
    table = odds.equalized_odds(audit_of_predictions(labels, groups, wrong))
    assert table[["value", "high"]].to_numpy().tolist() == [[1, 1]]
    low, _ = wilson(1, 1)
    assert 0 < table["low"].item() < low


@pytest.mark.parametrize(
    ("change_of", "measure"),
    [
        (odds.equalized_odds.change, odds.equalized_odds),
        (odds.demographic_parity.change, odds.demographic_parity),
    ],
)
def test_a_change_is_the_difference_on_the_same_images(change_of, measure):
    audit = samples.random_audit()
    change, table = change_of(audit), measure(audit)
    assert change["precision"].tolist() == ["int8", "int2"]
    np.testing.assert_allclose(change["value"], table["value"][1:] - table["value"][0])
    assert (change["low"] < change["high"]).all()
    # Paired: the interval of a precision that predicts as the reference does has no width.
    same = Audit.from_logits({"a": audit.logits[0], "b": 2 * audit.logits[0]}, audit.labels, audit.groups)
    assert change_of(same)[["value", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]


def test_a_change_of_known_rates_is_covered():
    audit = audit_of_rates([[0.9, 0.9], [0.8, 0.9]], [[0.9, 0.9], [0.5, 0.9]], count=400)
    change = odds.equalized_odds.change(audit).iloc[0]
    assert change["value"] == pytest.approx(0.3)
    assert 0.2 < change["low"] < 0.3 < change["high"] < 0.4


def test_shuffled_groups_tell_a_disparity_from_chance():
    rng = np.random.default_rng(0)
    groups, labels = np.arange(800) % 2, np.arange(800) // 2 % 2
    alike = np.where(rng.random(800) < 0.7, labels, 1 - labels)
    apart = np.where(rng.random(800) < np.where(groups & labels, 0.4, 0.9), labels, 1 - labels)
    audit = audit_of_predictions(labels, groups, alike, apart)
    table, chance = odds.equalized_odds(audit), odds.equalized_odds.of_chance(audit)
    assert chance["low"][0] <= table["value"][0] <= chance["high"][0]
    assert table["value"][1] > 2 * chance["high"][1]
    # The larger of two |differences| of proportions of 200 and 200: 2 / sqrt(pi) of their deviation.
    p = (alike == labels).mean()
    assert chance["value"][0] == pytest.approx(2 * np.sqrt(p * (1 - p) / 100 / np.pi), rel=0.15)


def test_shuffled_cells_keep_their_sizes():
    # Two samples of 200 in the smaller cells: a gap of chance is wide there, whatever the groups' sizes are.
    labels, groups = np.repeat([0, 0, 1, 1], [198, 2, 2, 198]), np.repeat([0, 1, 0, 1], [198, 2, 2, 198])
    audit = audit_of_predictions(labels, groups, np.arange(400) % 2)
    chance = odds.equalized_odds.of_chance(audit)["value"].item()
    # Of two samples one is right in half of the shuffles (no gap), else both or none (a gap of a half); the
    # larger gap of two classes is a half three times in four.
    assert chance == pytest.approx(0.5 * 3 / 4, abs=0.03)


def test_the_control_is_decided_by_its_seed_and_leaves_the_audit_alone():
    audit = samples.random_audit()
    groups = audit.groups.copy()
    once, again, other = (odds.equalized_odds.of_chance(audit, draws=20, seed=seed) for seed in (1, 1, 2))
    assert once.equals(again)
    assert not once.equals(other)
    assert audit.groups.tolist() == groups.tolist()


def test_a_group_without_a_class_is_left_out_and_counted():
    # The second of three groups has no class 1; of class 1, the others are half right and all right.
    labels, groups = [0, 0, 1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 2, 2]
    predictions = [0, 0, 0, 1, 0, 0, 0, 1]
    audit = audit_of_predictions(labels, groups, predictions)
    table = odds.equalized_odds(audit).iloc[0]
    assert (table["value"], table["count"], table["empty"]) == (0.5, 3, 1)
    assert odds.equalized_odds.of_chance(audit, draws=5)["empty"].item() == 1
    # fairlearn takes a rate that is not defined for 0 and finds a gap where there is nothing to compare.
    assert equalized_odds_difference(labels, predictions, sensitive_features=groups) == 1
    cells = odds.class_accuracy(audit).set_index(["group", "class"])
    empty = cells.loc[("group 1", "class 1")]
    assert empty["count"] == 0
    assert empty[["value", "low", "high"]].isna().all()
    assert cells["value"].isna().sum() == 1


ALL = [
    odds.equalized_odds,
    odds.equalized_odds.change,
    odds.equalized_odds.of_chance,
    odds.demographic_parity,
    odds.demographic_parity.change,
]


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_one_group_has_no_gap(measure):
    table = measure(audit_of_predictions([0, 1, 1], [1, 1, 1], [0, 1, 0], [1, 1, 0], group_names=["a", "b"]))
    assert table[["value", "low", "high"]].isna().to_numpy().all()
    assert set(table["count"]) == {1}
    # The group that is named and absent has neither class.
    assert set(table["empty"]) == {2}


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_no_samples_give_no_values(measure):
    table = measure(samples.empty_audit())
    assert table[["value", "low", "high"]].isna().to_numpy().all()
    assert (set(table["count"]), set(table["empty"])) == ({0}, {6})


@pytest.mark.parametrize("measure", ALL, ids=str)
def test_a_single_class_is_always_right(measure):
    table = measure(audit_of_predictions([0] * 4, [0, 0, 1, 1], [0] * 4, [0] * 4, classes=1))
    assert (table[["value", "low", "high"]] == 0).all(axis=None)


def test_labels_of_a_single_class_have_the_gap_of_that_class():
    audit = audit_of_predictions([1] * 8, [0] * 4 + [1] * 4, [1, 1, 1, 1, 1, 0, 0, 0])
    assert odds.equalized_odds(audit)["value"].item() == 0.75
    assert odds.equalized_odds(audit)["empty"].item() == 2
    assert odds.class_accuracy(audit)["count"].tolist() == [0, 4, 0, 4]


def test_groups_that_are_the_classes_have_nothing_to_compare():
    audit = audit_of_predictions([0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1])
    table = odds.equalized_odds(audit)
    assert table[["value", "low", "high"]].isna().to_numpy().all()
    assert (table["count"].item(), table["empty"].item()) == (2, 2)
    assert odds.demographic_parity(audit)["value"].item() == 0.5
