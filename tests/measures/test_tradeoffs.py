import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import samples
from quantskew.measures.seeds import (
    MEASURES,
    comparison,
    difference,
    fairness_over_seeds,
    interval,
    pareto_front,
)

FEW = st.integers(0, 4).map(lambda value: value / 4)
POINTS = st.lists(st.tuples(FEW, FEW), min_size=1, max_size=8)


def made(seeds=2):
    return {
        "a": [samples.random_audit(seed=seed) for seed in range(seeds)],
        "b": [samples.random_audit(seed=seed + 10) for seed in range(seeds)],
        "short": [samples.random_audit(precisions=("fp32", "int2"), seed=seed) for seed in range(seeds)],
    }


def test_the_table_has_a_row_a_method_precision_and_measure():
    audits = made()
    table = comparison(audits)
    assert len(table) == (3 + 3 + 2) * len(MEASURES)
    assert set(table["precision"][table["method"] == "short"]) == {"fp32", "int2"}
    assert set(table["seeds"]) == {2}
    for row in table.to_dict("records"):
        value, drawn = fairness_over_seeds(audits[row["method"]], row["precision"])[row["measure"]]
        # Neither an accuracy nor an FVO is beyond 1.
        bounds = interval(value, np.clip(drawn, 0, 1))
        assert {name: row[name] for name in ("value", "low", "high")} == bounds
    assert list(dict.fromkeys(comparison(audits, ["int2"])["precision"])) == ["int2"]


def test_a_set_does_not_differ_from_itself():
    audits = made()
    table = difference({"a": audits["a"], "again": made()["a"]}, "again", "a")
    assert (table[["value", "low", "high"]] == 0).all(axis=None)


def test_differences_are_those_of_the_values():
    audits = made()
    table = difference(audits, "b", "short").set_index(["precision", "measure"])
    values = comparison(audits).set_index(["method", "precision", "measure"])["value"]
    assert set(table["method"]) == {"b minus short"}
    assert {precision for precision, _ in table.index} == {"fp32", "int2"}
    for key in table.index:
        assert table.loc[key, "value"] == pytest.approx(values["b", *key] - values["short", *key])
        assert table.loc[key, "low"] < table.loc[key, "high"]


def test_pairs_are_narrower_than_methods_on_their_own():
    # The second method is right where the first is, and on a few more images.
    first, second = ([samples.exact_audit({"fp32": [0.6, s]}, count=100)] for s in (0.5, 0.55))
    audits = {"first": first, "second": second}
    (pair,) = difference(audits, "second", "first").query("measure == 'least'").to_dict("records")
    single = comparison(audits).query("measure == 'least'")
    assert pair["high"] - pair["low"] < (single["high"] - single["low"]).min()


def test_pairs_are_of_the_seeds_that_both_have():
    audits = made(3)
    table = difference({"a": audits["a"][:1], "b": audits["b"]}, "a", "b")
    alone = difference({"a": audits["a"][:1], "b": audits["b"][:1]}, "a", "b")
    pd.testing.assert_frame_equal(table, alone)
    assert set(table["seeds"]) == {1}


def test_methods_without_a_common_seed_are_no_pair():
    first, second = (
        dataclasses.replace(samples.random_audit(), provenance={"experiment": {"recipe": {"seed": seed}}})
        for seed in (1, 2)
    )
    with pytest.raises(ValueError, match="a and b have no seed in common"):
        difference({"a": [first], "b": [second]}, "a", "b")


def beaten(point, others):
    return any(o[0] >= point[0] and o[1] <= point[1] and (o[0] > point[0] or o[1] < point[1]) for o in others)


@given(POINTS)
def test_the_front_is_what_no_other_method_beats(points):
    accuracy, gap = np.array(points).T
    front = pareto_front(accuracy, gap)
    assert front.tolist() == [not beaten(point, points) for point in points]
    assert front.any()
    assert pareto_front(accuracy[::-1], gap[::-1])[::-1].tolist() == front.tolist()
