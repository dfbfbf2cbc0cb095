"""Views: every one can be drawn, and its numbers are those of the measures; so is the chain of them all."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import samples
from quantskew.figures import style
from quantskew.interactive import views
from quantskew.interactive.pictures import png
from quantskew.interactive.views import CHAIN, VIEWS
from quantskew.measures import fairness, forward, surface, weights
from quantskew.measures.measure import MEASURES


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_every_view_can_be_drawn_and_says_its_headline(view, curved_audit):
    pair = curved_audit.select(["fp32", "int2"])
    assert len(view.figure(pair, "digits").axes) == len(view.draw)
    numbers = view.numbers(pair)
    alt, caption, table = view.words(pair, numbers, "digits, int2")
    assert list(table.columns) == ["fp32", "int2"]
    # The largest group first, as in every figure.
    shown = set(numbers["group"])
    groups = [look.name for look in style.group_looks(pair) if look.name in shown]
    assert [name for name in table.index if name in groups] == groups
    assert set(table.index) == shown
    assert alt.startswith(f"{view.title}, digits, int2: ")
    for words, row in view.headline(pair).items():
        assert f"{words}: {table.loc[row, 'int2']}" in caption


def test_the_first_view_has_overall_accuracy_fvo_and_every_group():
    audit = samples.random_audit()
    numbers = VIEWS["accuracy"].numbers(audit).set_index(["group", "precision"])["value"]
    assert numbers["FVO", "int2"] == fairness.fvo(audit)["value"].iloc[2]
    assert numbers["overall accuracy", "int8"] == fairness.overall_accuracy(audit)["value"].iloc[1]
    assert numbers["group 1", "fp32"] == forward.group_accuracy(audit)["value"].iloc[1]


def test_the_headline_of_groups_names_the_largest_and_the_smallest():
    audit = samples.exact_audit({"fp32": (0.5, 0.6, 0.7)}, train_counts=[5, 90, 10])
    assert list(VIEWS["loss"].headline(audit).values()) == ["group 1", "group 0"]
    alone = samples.exact_audit({"fp32": (0.5,)})
    assert list(VIEWS["loss"].headline(alone).values()) == ["group 0"]


def table(view, audit):
    return view.words(audit, view.numbers(audit), "digits")[2]


def test_numbers_of_the_weights_and_of_the_loss_surface(curved_audit):
    share = weights.sparsity(curved_audit)["value"].iloc[-1]
    assert table(VIEWS["weights"], curved_audit).loc["share of zeros", "int2"] == f"{share:.4f}"
    expected = surface.gradient_norm(curved_audit).query("precision == 'int2' and group == '3'")["value"]
    assert table(VIEWS["gradients"], curved_audit).loc["3", "int2"] == f"{expected.item():.2f}"
    assert "[" in table(VIEWS["hessian"], curved_audit).loc["3", "int2"]


def test_the_loss_is_in_nats_with_its_interval():
    audit = samples.random_audit()
    row = forward.group_loss(audit).iloc[0]
    cell = table(VIEWS["loss"], audit).loc["group 0", "fp32"]
    assert cell == f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def value(table, measure, group, precision):
    return table.query("measure == @measure and group == @group and precision == @precision")["value"].item()


def test_it_has_every_measure_of_every_group(digits_audit):
    table = CHAIN.numbers(digits_audit)
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
    table = CHAIN.numbers(digits_audit)
    _, caption, shown = CHAIN.words(digits_audit.select(["fp32", "int4"]), table, "digits, int4")
    assert shown.index.tolist() == list(digits_audit.group_names)
    assert shown.columns.tolist() == [
        *("cosine distance", "variance of logits", "variance of probabilities"),
        *("DTDB", "loss", "accuracy"),
    ]
    assert shown.loc["9", "accuracy"] == f"{value(table, 'accuracy', '9', 'int4'):.2f}"
    assert caption.startswith("digits, int4 (hollow markers: fp32): share of zeros 0.")
    assert f"; FVO {value(table, 'fvo', 'all', 'int4'):.2f} [" in caption


def test_a_group_without_samples_is_not_defined(digits_audit):
    kept = digits_audit.labels != 9
    partial = replace(
        digits_audit,
        logits=digits_audit.logits[:, kept],
        labels=digits_audit.labels[kept],
        groups=digits_audit.groups[kept],
    )
    shown = CHAIN.table(CHAIN.numbers(partial), "int2")
    assert set(shown.loc["9"]) == {"not defined"}
    assert "not defined" not in set(shown.loc["0"])


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(png(figure))).convert("L"), float)


@pytest.mark.parametrize("precision", ["int8", "int3"])
def test_a_figure_that_is_drawn_over_shows_only_the_new_one(digits_audit, precision):
    own = digits_audit.select(["fp32", precision])
    fresh, used = CHAIN.figure(own, ""), CHAIN.figure(digits_audit.select(["fp32", "int2"]), "")
    assert np.abs(pixels(used) - pixels(fresh)).mean() > 1
    # Lengths on a logarithmic axis are rounded anew.
    assert np.abs(pixels(CHAIN.figure(own, "", used)) - pixels(fresh)).mean() < 0.01


def test_every_panel_has_a_label_and_every_group_a_name(digits_audit):
    figure = CHAIN.figure(digits_audit.select(["fp32", "int4"]), "")
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert len(set(labels)) == 6
    assert all(labels)
    named = [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes]
    assert set(named[0]) == set(named[3]) == set(digits_audit.group_names)
    assert named[1] == []


@pytest.mark.parametrize("count", [1, 4, 8])
def test_the_chain_has_a_panel_a_measure_however_many_there_are(digits_audit, monkeypatch, count):
    chosen = [replace(own, chain=True) for own in MEASURES.values() if own.of_samples][:count]
    monkeypatch.setattr(views, "MEASURES", {own.name: own for own in chosen})
    assert len(chosen) == count
    audit = digits_audit.select(["fp32", "int4"])
    figure = CHAIN.figure(audit, "", CHAIN.figure(audit, ""))
    assert [axes.get_xlabel() != "" for axes in figure.axes] == [True] * count
    assert np.ptp(pixels(figure)) > 100
