"""The bootstrap over seeds and images, against loops over every draw."""

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
    over_seeds_alone,
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
    """The first so many draws: the images of each group of each seed, and a movement between the seeds."""
    own = [statistic(right_by_group(audit, precision)) for audit in audits]
    mean = sum(own) / len(own)
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((DRAWS, len(audits)))
    square = rng.chisquare(len(audits) - 1, (DRAWS, 1))
    result = []
    for draw in range(draws):
        values = []
        for audit in audits:
            resampled = []
            for group, right in enumerate(right_by_group(audit, precision)):
                images = np.random.default_rng([0, group])
                images = images.integers(0, len(right), (DRAWS, len(right)), dtype=np.int32)[draw]
                resampled.append([right[image] for image in images])
            values.append(statistic(resampled))
        moved = sum(normal[draw, s] * (value - mean) for s, value in enumerate(own))
        result.append(sum(values) / len(values) + moved / np.sqrt(len(own) * square[draw, 0]))
    return result


@pytest.mark.parametrize("name", STATISTICS)
def test_draws_are_of_seeds_and_then_of_images(name):
    audits = [samples.random_audit(samples=size, seed=seed) for seed, size in enumerate((60, 75, 64))]
    value, draws = fairness_over_seeds(audits, "int8")[name]
    by_hand = [STATISTICS[name](right_by_group(audit, "int8")) for audit in audits]
    assert value == pytest.approx(np.mean(by_hand))
    assert draws.shape == (DRAWS,)
    assert draws[:40] == pytest.approx(by_loops(audits, "int8", STATISTICS[name], 40))


def test_one_seed_is_the_bootstrap_of_its_images():
    audit = samples.random_audit()
    table = fvo(audit).set_index("precision")
    for precision in audit.precisions:
        bounds = interval(*fairness_over_seeds([audit], precision)["fvo"])
        assert bounds == pytest.approx(table.loc[precision, ["value", "low", "high"]].to_dict())
    accuracy, _ = fairness_over_seeds([audit], "fp32")["accuracy"]
    assert accuracy == pytest.approx(overall_accuracy(audit)["value"][0])


def width(audits):
    bounds = interval(*fairness_over_seeds(audits, "fp32")["accuracy"])
    return bounds["high"] - bounds["low"]


def test_seeds_that_differ_widen_the_interval():
    good, bad = (samples.exact_audit({"fp32": [share, share]}, count=200) for share in (0.9, 0.4))
    assert width([good, bad]) > 3 * max(width([good]), width([bad]))
    # The same seed twice adds nothing.
    assert width([good, good]) == pytest.approx(width([good]))


def test_shapes_and_group_values():
    audits = [samples.exact_audit({"fp32": [0.5, 0.25], "int2": [1.0, 0.0]}) for _ in range(3)]
    value, draws = group_accuracies(audits, "int2")
    assert value.tolist() == [[1.0, 0.0]] * 3
    assert draws.shape == (DRAWS, 3, 2)
    # No resampling changes a group that is always right.
    assert (draws == [1.0, 0.0]).all()


@pytest.mark.parametrize("values", [(0.1, 0.4, 0.2), (1.0, 2.0, 4.0, 4.5, 7.0)])
def test_the_interval_over_seeds_is_students(values):
    value, draws = over_seeds_alone(values, draws=200_000)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert value == pytest.approx(np.mean(values))
    assert np.quantile(draws, [0.025, 0.975]) == pytest.approx([low, high], rel=0.03, abs=0.01)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5]])
def test_one_or_two_seeds_alone_have_no_interval(values):
    value, draws = over_seeds_alone(values, draws=7)
    assert value == 0.5
    assert draws.shape == (7,)
    assert np.isnan(draws).all()


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
