"""The harm table against loops over images, exact sums over all outcomes and scipy's own test."""

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

import samples
from quantskew.audits.audit import Audit
from quantskew.measures import harm as harms
from quantskew.measures.forward import cosine_distance, group_accuracy
from quantskew.measures.harm import agreement, flips, harm, plan, power, smallest_drop, verdict


@pytest.fixture(scope="module")
def audit():
    return samples.random_audit(samples=300, groups=4)


def test_the_table_is_that_of_a_loop_over_images(audit):
    rows = harm(audit).to_dict("records")
    expected = []
    for column, name in list(enumerate(audit.precisions))[1:]:
        for group, title in enumerate(audit.group_names):
            harmed = helped = right = total = 0
            for sample in np.flatnonzero(audit.groups == group):
                first, now = (audit.logits[c, sample].argmax() == audit.labels[sample] for c in (0, column))
                harmed, helped = harmed + (first and not now), helped + (now and not first)
                right, total = right + first, total + 1
            p = binomtest(int(harmed), int(harmed + helped)).pvalue
            expected.append((title, name, harmed, helped, total, right / total, (helped - harmed) / total, p))
    names = ("group", "precision", "harmed", "helped", "count", "reference", "value", "p")
    assert len(rows) == len(expected) == 8
    for row, own in zip(rows, expected, strict=True):
        assert [row[name] for name in names[:5]] == list(own[:5])
        assert [row[name] for name in names[5:]] == pytest.approx(own[5:])
        assert row["low"] < row["value"] < row["high"]


def test_p_is_corrected_as_holm_says(audit):
    table = harm(audit).sort_values("p")
    so_far = 0
    for rank, (p, q) in enumerate(zip(table["p"], table["q"], strict=True)):
        so_far = max(so_far, min(1, p * (len(table) - rank)))
        assert q == pytest.approx(so_far)


def test_groups_without_images_are_not_tested_and_not_counted():
    table = harm(samples.uneven_audit()).set_index("group")
    assert np.isnan(table.loc["none", ["p", "q", "detectable"]].astype(float)).all()
    assert table.loc["one", "p"] == 1
    assert table["q"].max() <= 1
    nothing = harm(samples.empty_audit())
    assert verdict(nothing) == "There is nothing to compare with the reference."
    assert verdict(harm(samples.random_audit().select(["fp32"]))).startswith("There is nothing")


@pytest.mark.parametrize(("drop", "helped"), [(0.3, 0.05), (0.6, 0), (0.2, 0.2), (0, 0.1)])
def test_power_is_the_sum_over_all_outcomes(drop, helped):
    count, level, total = 14, 0.05, 0.0
    for harmed, other in itertools.product(range(count + 1), repeat=2):
        rest = count - harmed - other
        if rest >= 0 and harmed > other and binomtest(harmed, harmed + other).pvalue <= level:
            ways = math.factorial(count) // math.prod(map(math.factorial, (harmed, other, rest)))
            total += ways * (drop + helped) ** harmed * helped**other * (1 - drop - 2 * helped) ** rest
    assert power(count, drop, helped, level) == pytest.approx(total, abs=1e-9)


def test_power_is_that_of_drawn_images():
    rng, drop, helped, level = np.random.default_rng(0), 0.02, 0.02, 0.01
    drawn = rng.multinomial(1500, [drop + helped, helped, 1 - drop - 2 * helped], 300)
    shown = [a > b and binomtest(int(a), int(a + b)).pvalue <= level for a, b, _ in drawn]
    assert power(1500, drop, helped, level) == pytest.approx(np.mean(shown), abs=0.08)


@pytest.mark.parametrize(("count", "helped"), [(40, 0.01), (900, 0.02), (125_000, 0.01)])
def test_the_smallest_drop_is_shown_and_a_smaller_one_is_not(count, helped):
    drop = smallest_drop(count, helped, 0.005)
    assert power(count, drop + 1e-4, helped, 0.005) >= harms.POWER > power(count, drop - 1e-4, helped, 0.005)
    assert smallest_drop(4, helped, 0.005) is np.nan


def test_a_plan_is_enough_and_no_larger():
    table = plan([900, 120, 40], 0.03, columns=2, helped=0.02)
    needed, level = table["needed"][0], 0.05 / 6
    assert power(needed, 0.03, 0.02, level) >= harms.POWER > power(needed - 1, 0.03, 0.02, level)
    assert table["power"].tolist() == [power(n, 0.03, 0.02, level) for n in (900, 120, 40)]
    assert plan([needed], 0.03, 6, 0.02)["detectable"][0] <= 0.03 + 1e-4
    for detect, helped in ((0, 0.01), (1.5, 0.01), (0.5, 0.3)):
        with pytest.raises(ValueError, match="must be"):
            plan([10], detect, 1, helped)


def test_a_verdict_names_who_loses_how_much():
    audit = samples.exact_audit({"fp32": [0.9, 0.9], "int8": [0.9, 0.7], "int2": [0.4, 0.5]}, count=100)
    said = verdict(harm(audit))
    assert said.startswith("Harm is shown: group 0 loses 50.0 points at int2 (95 % interval ")
    assert "group 1 loses 20.0 points at int8" in said
    assert "group 0 loses 0" not in said
    assert said.endswith("(McNemar's exact test, p corrected for 4 comparisons)")


def test_a_verdict_says_what_was_not_shown_and_what_could_not_be():
    fine = verdict(harm(samples.exact_audit({"fp32": [0.9, 0.9], "int8": [0.89, 0.9]}, count=100)))
    assert fine.startswith("No harm larger than ")
    assert " of group 0 (100 images) at int8" in fine
    few = verdict(harm(samples.exact_audit({"fp32": [1, 1], "int8": [0, 0]}, count=4)))
    assert "group 0 (4 images) at int8 these images could have shown none" in few


def test_flips_are_listed_in_both_directions(audit):
    table, counts = flips(audit), harm(audit).set_index(["group", "precision"])
    for (group, precision, flip), own in table.groupby(["group", "precision", "flip"]):
        assert len(own) == counts.loc[(group, precision), flip]
    assert len(table) == counts[["harmed", "helped"]].to_numpy().sum()
    for row in table.head(40).to_dict("records"):
        label = audit.class_names[audit.labels[row["sample"]]]
        assert row["label"] == label
        assert (row["reference"] == label) == (row["flip"] == "harmed") != (row["prediction"] == label)


def test_flips_have_the_names_of_samples_where_there_are_any(audit):
    named = replace(audit, provenance={"samples": [f"{place}.png" for place in range(300)]})
    table = flips(named)
    assert (table["id"] == table["sample"].astype(str) + ".png").all()
    assert "id" not in flips(audit)


def test_agreement_of_two_columns(audit):
    table = agreement(audit, "int8", "int2")
    one, other = (audit.predictions[audit.index(name)] for name in ("int8", "int2"))
    distances = cosine_distance.of_samples(audit.select(["int8", "int2"]))[1]
    for group, row in enumerate(table.to_dict("records")):
        own = audit.groups == group
        assert row["same"] == pytest.approx((one == other)[own].mean())
        assert row["cosine"] == pytest.approx(distances[own].mean())
    accuracy = group_accuracy(audit).query("precision == 'int8'")["value"].to_numpy()
    assert table["reference"].to_numpy() == pytest.approx(accuracy)


def test_hundreds_of_groups_take_seconds():
    rng, count = np.random.default_rng(0), 8_000
    logits = rng.normal(size=(count, 3))
    columns = {name: logits + i * 0.1 * rng.normal(size=(count, 3)) for i, name in enumerate(("a", "b"))}
    groups = np.append(np.arange(400), rng.integers(0, 400, count - 400))
    start = time.monotonic()
    assert len(harm(Audit.from_logits(columns, rng.integers(0, 3, count), groups))) == 400
    assert time.monotonic() - start < 10
