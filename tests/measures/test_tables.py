"""Laws of every table: those of the measures come from the registry, so that a new one keeps them too."""

import functools
import gc
import weakref

import numpy as np
import pandas as pd
import pytest

import oracles
import samples
from quantskew.figures.style import crossed, wide
from quantskew.measures import fairness, forward, harm
from quantskew.measures.measure import (
    MEASURES,
    MODEL_MEASURES,
    OVERALL,
    Measure,
    group_table,
    long_table,
    per_sample,
)

# What is measured of logits; the tables of the loss surface have a file of their own.
OF_LOGITS = [m for m in [*MEASURES.values(), *MODEL_MEASURES.values()] if m.applies(samples.random_audit())]
CHANGES = {f"{measure.name}_change": measure.change for measure in OF_LOGITS}
CHANCES = {f"{m.name}_of_chance": m.of_chance for m in OF_LOGITS if hasattr(m, "of_chance")}
OF_SAMPLES = [m for m in OF_LOGITS if m.name in MEASURES and m.of_samples]
TABLES = {measure.name: measure for measure in OF_LOGITS} | CHANGES | CHANCES
TABLES["dtdb_histogram"] = forward.dtdb_histogram
TABLES["flipped"] = functools.partial(harm.flipped, precision="int2")
BY_GROUP = [name for name in TABLES if name.removesuffix("_change") in MEASURES] + ["dtdb_histogram"]


def made(values):
    """A measure, in no registry, that has these values of the samples."""

    def measured(audit):
        return values

    return Measure(function=measured, of_samples=measured, title="made", label="made")


def sorted_rows(table):
    keys = [key for key in ("group", "precision", "left", "sample") if key in table]
    return table.sort_values(keys).reset_index(drop=True)


def test_the_list_of_tables_is_complete():
    expected = {"cosine_distance", "group_loss_change", "fvo_of_chance", "group_accuracy", "equalized_odds"}
    assert expected <= set(TABLES)
    assert [len(OF_LOGITS), len(CHANCES)] == [17, 3]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_tidy(name):
    table = TABLES[name](samples.random_audit())
    assert isinstance(table, pd.DataFrame)
    assert list(table.index) == list(range(len(table)))
    if name == "flipped":
        return
    assert {"precision", "value"} <= set(table.columns)
    expected = ["int8", "int2"] if name.endswith("_change") else ["fp32", "int8", "int2"]
    assert list(table["precision"].unique()) == expected
    assert not table.isna().to_numpy().any()
    if "low" in table:
        assert (table["low"] <= table["high"]).all()


@pytest.mark.parametrize("name", TABLES)
def test_the_order_of_the_samples_is_irrelevant(name):
    audit = samples.random_audit()
    order = np.random.default_rng(7).permutation(len(audit.labels))
    shuffled = type(audit).from_logits(
        dict(zip(audit.precisions, audit.logits[:, order], strict=True)),
        audit.labels[order],
        audit.groups[order],
    )
    table, other = TABLES[name](audit), TABLES[name](shuffled)
    if name == "flipped":
        other["sample"] = order[other["sample"]]
    # Resampled bounds depend on which images are drawn together, values do not.
    random_columns = ["low", "high", *(["value"] if name in CHANCES else [])]
    table, other = (sorted_rows(t.drop(columns=random_columns, errors="ignore")) for t in (table, other))
    pd.testing.assert_frame_equal(table, other, rtol=1e-9)


@pytest.mark.parametrize("name", BY_GROUP)
def test_empty_and_one_sample_groups(name):
    table = TABLES[name](samples.uneven_audit()).set_index("group")
    none, one, many = table.loc[["none"]], table.loc[["one"]], table.loc[["many"]]
    assert none["value"].isna().all()
    assert (none["count"] == 0).all()
    assert one["value"].notna().all()
    assert (one["count"] == 1).all()
    assert many["value"].notna().all()
    if "low" in table:
        assert none[["low", "high"]].isna().to_numpy().all()
        assert many[["low", "high"]].notna().to_numpy().all()
    if "low" in table and not (name in MEASURES and MEASURES[name].share):
        # One sample has no spread to resample; Wilson's interval has a width all the same.
        assert one[["low", "high"]].isna().to_numpy().all()


@pytest.mark.parametrize("name", TABLES)
def test_no_samples_at_all(name):
    table = TABLES[name](samples.empty_audit())
    if name == "flipped":
        assert len(table) == 0
        return
    assert len(table)
    assert table["value"].isna().all()
    assert (table["count"] == 0).all()


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_paired(name):
    audit = samples.random_audit()
    same = type(audit).from_logits(
        {"fp32": audit.logits[0], "copy": audit.logits[0]}, audit.labels, audit.groups
    )
    assert (TABLES[name](same)[["value", "low", "high"]] == 0).all(axis=None)


@pytest.mark.parametrize("measure", OF_LOGITS, ids=lambda measure: measure.name)
def test_changes_are_differences_of_the_table(measure):
    audit = samples.random_audit()
    change, table = (
        t if "group" in t else t.assign(group="") for t in (measure.change(audit), measure(audit))
    )
    values = table.set_index(["precision", "group"])["value"]
    assert change["precision"].unique().tolist() == ["int8", "int2"]
    for row in change.itertuples():
        expected = values[row.precision, row.group] - values["fp32", row.group]
        assert row.value == pytest.approx(expected, abs=1e-12)
        assert row.low <= row.value <= row.high


@pytest.mark.parametrize("measure", OF_SAMPLES, ids=lambda m: m.name)
def test_a_measure_is_the_mean_of_its_samples_by_plain_masks(measure):
    audit = samples.random_audit()
    of_samples, table = measure.of_samples(audit), measure(audit)
    assert (of_samples.shape, of_samples.dtype) == ((3, 120), np.float64)
    for row, precision in enumerate(audit.precisions):
        own = table[table["precision"] == precision]
        np.testing.assert_allclose(own["value"], oracles.group_means(of_samples[row], audit.groups, 3))
        assert own["count"].tolist() == audit.group_counts.tolist()


@pytest.mark.parametrize("measure", OF_SAMPLES, ids=lambda m: m.name)
def test_a_measure_of_parts_is_that_of_the_whole(measure, monkeypatch):
    audit = samples.random_audit()
    whole = measure.function(audit)
    # Seven samples at a time, of which the last are fewer.
    monkeypatch.setattr("quantskew.measures.measure._NUMBERS", 7 * 3 * 4)
    np.testing.assert_array_equal(measure.of_samples(audit), whole)


def test_what_is_made_of_an_audit_is_made_once_and_goes_with_it():
    calls = []

    def counted(audit):
        calls.append(audit.logits.shape)
        return audit.logits[:, :, 0].astype(float)

    measure = per_sample("counted", "counted")(counted)
    MEASURES.pop("counted")
    audit = samples.random_audit()
    measure(audit), measure.change(audit), measure.of_samples(audit)
    assert len(calls) == 1
    gone = weakref.ref(audit)
    calls.clear(), fairness.fvo(audit)
    del audit
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("measure", OF_LOGITS, ids=lambda measure: measure.name)
def test_a_measure_says_what_it_is(measure):
    assert measure.name == measure.__name__
    assert measure.__doc__
    assert all([measure.title, measure.label, measure.key])
    values = measure(samples.random_audit())["value"]
    if measure.limits:
        assert values.between(*measure.limits).all()
    if measure.from_reference:
        assert (values[:3] == 0).all()


def test_a_paired_interval_is_narrower_than_an_unpaired_one():
    audit = samples.random_audit(precisions=("fp32", "shifted"))
    base = np.random.default_rng(0).normal(size=len(audit.labels))
    measure = np.stack([base, base + 0.5])
    change, table = made(measure).change(audit), made(measure)(audit)
    np.testing.assert_allclose(change[["value", "low", "high"]], 0.5, rtol=1e-9)
    assert ((table["high"] - table["low"]) > 0.1).all()


def test_group_table_equals_plain_masks():
    audit = samples.random_audit()
    measure = np.random.default_rng(0).normal(size=(3, 120))
    measure[1, ::7] = np.nan
    table = group_table(audit, measure)
    for row, precision in enumerate(audit.precisions):
        own = table[table["precision"] == precision]
        np.testing.assert_allclose(own["value"], oracles.group_means(measure[row], audit.groups, 3))
        left_out = [int(np.isnan(measure[row][audit.groups == g]).sum()) for g in range(3)]
        assert own["undefined"].tolist() == left_out
        assert (own["count"] + own["undefined"]).tolist() == audit.group_counts.tolist()
        assert ((own["low"] < own["value"]) & (own["value"] < own["high"])).all()


def test_only_samples_defined_at_both_precisions_change():
    audit = samples.random_audit(samples=6, groups=1, precisions=("a", "b"))
    measure = np.array([[1.0, 2, 3, 4, 5, np.nan], [2.0, 3, np.nan, 5, 6, 7]])
    row = made(measure).change(audit).iloc[0]
    assert (row["value"], row["count"], row["undefined"]) == (1, 4, 2)


def test_long_table_goes_through_groups_within_precisions():
    audit = samples.random_audit(precisions=("a", "b"))
    table = long_table(audit, value=np.arange(6).reshape(2, 3))
    assert table["precision"].tolist() == ["a"] * 3 + ["b"] * 3
    assert table["group"].tolist() == ["group 0", "group 1", "group 2"] * 2
    assert table["value"].tolist() == list(range(6))


def test_wide_keeps_the_order_and_says_what_is_not_defined():
    table = wide(forward.group_accuracy(samples.uneven_audit()))
    assert table.index.tolist() == ["many", "one", "none"]
    assert table.columns.tolist() == ["fp32", "int2"]
    assert (table.loc["none"] == "not defined").all()
    overall = wide(fairness.fvo(samples.random_audit()), digits=1)
    assert overall.index.tolist() == [OVERALL]
    assert overall.columns.tolist() == ["fp32", "int8", "int2"]


def test_values_without_intervals_stand_alone():
    share = [-0.0000314, 0.25, np.nan, 0.0]
    table = pd.DataFrame({"group": list("abab"), "at": ["x", "x", "y", "y"], "share": share})
    scientific = crossed(table, "group", "at", "share", digits=1, scientific=True)
    assert scientific.to_dict() == {
        "x": {"a": "-3.1e-05", "b": "2.5e-01"},
        "y": {"a": "not defined", "b": "0.0e+00"},
    }
    bounded = table.assign(low=-1, high=0.5)
    assert crossed(bounded, "group", "at", "share", digits=1).loc["b", "x"] == "0.2 [-1.0, 0.5]"
