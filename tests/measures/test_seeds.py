"""Draws over seeds, or over the images of a single one, against loops over every draw."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

import samples
from quantskew.measures.fairness import fvo, overall_accuracy
from quantskew.measures.intervals import DRAWS
from quantskew.measures.seeds import (
    comparison,
    each_seed,
    fairness_over_seeds,
    group_accuracies,
    interval,
    mean_over_seeds,
    overall,
    paired,
)

STATISTICS = {
    "accuracy": lambda right: sum(map(sum, right)) / sum(map(len, right)),
    "fvo": lambda right: max(map(np.mean, right)) - min(map(np.mean, right)),
    "least": lambda right: min(map(np.mean, right)),
}


def right_by_group(audit, precision):
    right = audit.predictions[audit.index(precision)] == audit.labels
    return [right[audit.groups == g].astype(float) for g in range(len(audit.group_names))]


def by_loops(audits, precision, statistic, draws):
    """The first so many draws: a movement between the seeds."""
    own = [statistic(right_by_group(audit, precision)) for audit in audits]
    mean = sum(own) / len(own)
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((DRAWS, len(audits)))
    square = rng.chisquare(len(audits) - 1, (DRAWS, 1))
    result = []
    for draw in range(draws):
        moved = sum(normal[draw, s] * (value - mean) for s, value in enumerate(own))
        result.append(mean + moved / np.sqrt(len(own) * square[draw, 0]))
    return result


@pytest.mark.parametrize("name", STATISTICS)
def test_draws_are_of_seeds_whose_differences_contain_the_images(name):
    audits = [samples.random_audit(samples=size, seed=seed) for seed, size in enumerate((60, 75, 64))]
    value, draws = fairness_over_seeds(audits, "int8")[name]
    by_hand = [STATISTICS[name](right_by_group(audit, "int8")) for audit in audits]
    assert value == pytest.approx(np.mean(by_hand))
    assert draws.shape == (DRAWS,)
    assert draws[:40] == pytest.approx(by_loops(audits, "int8", STATISTICS[name], 40))


def test_a_draw_of_one_seed_weighs_each_image_and_one_more():
    audit = samples.random_audit(samples=60)
    _, draws = group_accuracies([audit], "int8")
    rng = np.random.default_rng(0)
    order = np.argsort(audit.groups, kind="stable")
    weights, more = rng.standard_gamma(1, (60, DRAWS)), rng.standard_gamma(0.25, (4, 3, DRAWS))
    right = (audit.predictions[1] == audit.labels)[order]
    for group in range(3):
        own = audit.groups[order] == group
        for draw in range(20):
            pairs = [*zip(weights[own, draw], right[own], strict=True)]
            pairs += zip(more[:, group, draw], (0, 0, 1, 1), strict=True)
            expected = sum(w * r for w, r in pairs) / sum(w for w, _ in pairs)
            assert draws[draw, 0, group] == pytest.approx(expected)


def test_one_seed_has_the_interval_of_its_images():
    audit = samples.exact_audit({"fp32": [0.9, 0.5, 0.8], "int2": [0.7, 0.2, 0.6]}, count=200)
    table = fvo(audit).set_index("precision")
    for precision in audit.precisions:
        bounds = interval(*fairness_over_seeds([audit], precision)["fvo"])
        assert bounds == pytest.approx(table.loc[precision, ["value", "low", "high"]].to_dict(), abs=0.01)
    accuracy, _ = fairness_over_seeds([audit], "fp32")["accuracy"]
    assert accuracy == pytest.approx(overall_accuracy(audit)["value"][0])


def test_methods_of_one_seed_share_their_images():
    # Two methods that are wrong on the same images differ by less than their intervals say.
    audit = samples.random_audit(samples=300, precisions=("fp32", "int8"))
    right = audit.predictions[0] == audit.labels
    logits = audit.logits.copy()
    logits[0, np.flatnonzero(right)[:5]] = 0
    other = dataclasses.replace(audit, logits=logits)
    (own, first), (value, second) = (fairness_over_seeds([a], "fp32")["accuracy"] for a in (audit, other))
    apart = interval(own - value, first - second)
    # Images whose logits are all alike go to class 0.
    lost = sum(audit.labels[np.flatnonzero(right)[:5]] != 0)
    assert apart["value"] == pytest.approx(lost / 300)
    assert apart["high"] - apart["low"] < 0.05 < np.ptp(np.quantile(first, [0.025, 0.975]))


def width(audits):
    bounds = interval(*fairness_over_seeds(audits, "fp32")["accuracy"])
    return bounds["high"] - bounds["low"]


def test_seeds_that_differ_widen_the_interval():
    good, bad = (samples.exact_audit({"fp32": [share, share]}, count=200) for share in (0.9, 0.4))
    assert width([good, bad]) > 3 * max(width([good]), width([bad]))
    # Seeds that do not differ at all vary by nothing that the images could add.
    assert width([good] * 3) == 0


def test_shapes_and_group_values():
    audits = [samples.exact_audit({"fp32": [0.5, 0.25], "int2": [1.0, 0.0]}) for _ in range(3)]
    value, draws = group_accuracies(audits, "int2")
    assert value.tolist() == [[1.0, 0.0]] * 3
    assert draws.shape == (DRAWS, 3, 2)
    # Seeds that agree have no draws of their images.
    assert (draws == [1.0, 0.0]).all()
    # A single one has: 40 of 40 images say that a group is nearly always right, not that it always is.
    _, draws = group_accuracies(audits[:1], "int2")
    assert (draws[:, 0].min(axis=0) > [0.7, 0]).all()
    assert (draws[:, 0].max(axis=0) < [1, 0.3]).all()
    assert stats.kstest(draws[:, 0, 0], stats.beta(40.5, 0.5).cdf).pvalue > 0.01


def test_intervals_of_levels_are_possible():
    audits = [samples.exact_audit({"fp32": [share, 0.9]}, count=100) for share in (0.9, 0.2, 0.5)]
    table = comparison({"method": audits})
    assert table[["low", "high"]].stack().between(0, 1).all()


@pytest.mark.parametrize("values", [(0.1, 0.4, 0.2), (1.0, 2.0, 4.0, 4.5, 7.0)])
def test_the_interval_over_seeds_is_students(values):
    value, draws = mean_over_seeds(np.array(values), np.tile(values, (200_000, 1)))
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert value == pytest.approx(np.mean(values))
    assert np.quantile(draws, [0.025, 0.975]) == pytest.approx([low, high], rel=0.03, abs=0.01)


def test_every_statistic_draws_the_same_seeds():
    per_seed = np.tile([1.0, 5.0, 7.0], (50, 1))
    _, once = mean_over_seeds(per_seed[0], per_seed)
    _, shifted = mean_over_seeds(per_seed[0] + 2, per_seed + 2)
    assert shifted - once == pytest.approx(np.full(50, 2.0))


def test_a_group_without_samples_is_left_out():
    audit = samples.uneven_audit()
    statistics = fairness_over_seeds([audit, audit], "int2")
    right = right_by_group(audit, "int2")[:2]
    for name, statistic in STATISTICS.items():
        value, draws = statistics[name]
        assert value == pytest.approx(statistic(right))
        assert np.isfinite(draws).all()


def test_overall_accuracy_weighs_groups_by_their_images():
    accuracies, counts = np.array([[0.5, 1.0, np.nan]]), np.array([[30, 10, 0]])
    assert overall(accuracies, counts) == pytest.approx([25 / 40])


def with_seed(seed):
    provenance = {"experiment": {"recipe": {"seed": seed}}}
    return dataclasses.replace(samples.random_audit(seed=seed), provenance=provenance)


def test_methods_are_paired_by_the_seeds_that_all_have():
    audits = {seed: with_seed(seed) for seed in range(4)}
    given = {"a": [audits[3], audits[0], audits[2]], "b": [audits[2], audits[1], audits[3]], "none": []}
    own = paired(given)
    assert own["none"] == []
    for key in ("a", "b"):
        assert [audit is audits[seed] for audit, seed in zip(own[key], (2, 3), strict=True)] == [True] * 2


def test_audits_without_a_seed_are_paired_by_their_position():
    own = paired({"a": [samples.random_audit()] * 3, "b": [samples.random_audit()] * 2})
    assert [len(audits) for audits in own.values()] == [2, 2]


def test_every_seed_by_itself_has_the_values_of_its_images():
    audits = {"a": [with_seed(3), with_seed(1)], "b": [with_seed(0)]}
    table = each_seed(audits, ["int8", "int2"])
    assert list(zip(table["method"], table["seed"], strict=True))[::6] == [("a", 3), ("a", 1), ("b", 0)]
    for row in table.itertuples():
        audit = with_seed(row.seed)
        assert row.value == pytest.approx(STATISTICS[row.measure](right_by_group(audit, row.precision)))
    assert each_seed(audits, ["int16"]).empty


def test_a_seed_that_lacks_a_precision_is_left_out_there():
    audits = [with_seed(0), with_seed(1).select(["fp32", "int2"])]
    table = comparison({"a": audits}, ["int8", "int2", "int4"]).query("measure == 'fvo'")
    assert table.set_index("precision")["seeds"].to_dict() == {"int8": 1, "int2": 2}
    assert table["value"].iloc[0] == pytest.approx(STATISTICS["fvo"](right_by_group(audits[0], "int8")))
