"""The chain: its numbers are those of the measures; what is drawn over a figure leaves nothing of it."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from quantskew.interactive.chain import by_group, chain, chain_figure, in_words
from quantskew.interactive.pictures import png
from quantskew.measures import fairness, forward, weights
from quantskew.measures.measure import MEASURES


def value(table, measure, group, precision):
    return table.query("measure == @measure and group == @group and precision == @precision")["value"].item()


def test_it_has_every_measure_of_every_group(digits_audit):
    table = chain(digits_audit)
    groups = table.groupby("measure")["group"].agg(set)
    assert all(
        {*digits_audit.group_names} <= groups[name] for name in (m.key for m in MEASURES.values() if m.chain)
    )
    assert groups["sparsity"] == groups["fvo"] == {"all"}
    loss = forward.group_loss(digits_audit).query("group == '9' and precision == 'int4'")
    assert value(table, "loss", "9", "int4") == loss["value"].item()
    near = forward.dtdb(digits_audit).query("group == '0' and precision == 'int2'")
    assert value(table, "dtdb", "0", "int2") == near["value"].item()
    gap = fairness.fvo(digits_audit).set_index("precision")["value"]
    assert value(table, "fvo", "all", "int2") == gap["int2"]
    zeros = weights.sparsity(digits_audit).set_index("precision")["value"]
    assert value(table, "sparsity", "all", "int2") == zeros["int2"]


def test_for_reading_it_has_groups_down_and_measures_across(digits_audit):
    table = chain(digits_audit)
    shown = by_group(table, "int4")
    assert shown.index.tolist() == list(digits_audit.group_names)
    assert shown.columns.tolist() == [
        *("cosine distance", "variance of logits", "variance of probabilities"),
        *("DTDB", "loss", "accuracy"),
    ]
    assert shown.loc["9", "accuracy"] == f"{value(table, 'accuracy', '9', 'int4'):.2f}"
    assert in_words(table, "int4").startswith("share of zeros 0.")
    assert f"; FVO {value(table, 'fvo', 'all', 'int4'):.2f} [" in in_words(table, "int4")


def test_a_group_without_samples_is_not_defined(digits_audit):
    kept = digits_audit.labels != 9
    partial = replace(
        digits_audit,
        logits=digits_audit.logits[:, kept],
        labels=digits_audit.labels[kept],
        groups=digits_audit.groups[kept],
    )
    shown = by_group(chain(partial), "int2")
    assert set(shown.loc["9"]) == {"not defined"}
    assert "not defined" not in set(shown.loc["0"])


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(png(figure))).convert("L"), float)


@pytest.mark.parametrize("precision", ["int8", "int3"])
def test_a_figure_that_is_drawn_over_shows_only_the_new_one(digits_audit, precision):
    own = digits_audit.select(["fp32", precision])
    fresh, used = chain_figure(own), chain_figure(digits_audit.select(["fp32", "int2"]))
    assert np.abs(pixels(used) - pixels(fresh)).mean() > 1
    # Lengths on a logarithmic axis are rounded anew.
    assert np.abs(pixels(chain_figure(own, used)) - pixels(fresh)).mean() < 0.01


def test_every_panel_has_a_label_and_every_group_a_name(digits_audit):
    figure = chain_figure(digits_audit.select(["fp32", "int4"]))
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert len(set(labels)) == 6
    assert all(labels)
    named = [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes]
    assert set(named[0]) == set(named[3]) == set(digits_audit.group_names)
    assert named[1] == []
