"""Figures of one precision show its numbers, and those of the reference as hollow markers."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import samples
from quantskew.figures import rows
from quantskew.measures import fairness, forward, weights
from quantskew.measures.measure import MEASURES

OF_LOGITS = [measure for measure in MEASURES.values() if measure.applies(samples.random_audit())]
OF_THE_SURFACE = [measure for measure in MEASURES.values() if measure not in OF_LOGITS]
DRAWN_OF_LOGITS = {measure.name: rows.of(measure) for measure in OF_LOGITS}
DRAWN_OF_LOGITS["dtdb_distribution"] = rows.dtdb_distribution
DRAWN_OF_THE_MODEL = {measure.name: rows.of(measure) for measure in OF_THE_SURFACE}
DRAWN_OF_THE_MODEL["weight_distribution"] = rows.weight_distribution


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


@pytest.fixture
def pair():
    """Three groups, by name from 0 to 2, of which group 1 has most training images and group 2 fewest."""
    shares = {"fp32": (0.9, 0.8, 0.5), "int2": (0.6, 0.85, 0.1)}
    return samples.exact_audit(shares, train_counts=[50, 90, 10])


def drawn(axes):
    """Values of the filled and of the hollow markers, from the lowest row to the highest."""
    marks = {False: [], True: []}
    for line in axes.lines:
        marks[line.get_markerfacecolor() == "white"].append(line.get_xdata()[0])
    return marks[False], marks[True]


def spans(axes):
    """Left and right ends of the lines through the markers, the lowest row first: intervals, then changes."""
    return [[tuple(ends[:, 0]) for ends in lines.get_segments()] for lines in axes.collections]


@pytest.mark.parametrize("draw", DRAWN_OF_LOGITS.values(), ids=DRAWN_OF_LOGITS)
@pytest.mark.parametrize("precisions", [["fp32"], ["fp32", "int2"]], ids=len)
def test_every_figure_labels_its_axes_and_gives_them_back(draw, precisions, pair, axes):
    assert draw(pair.select(precisions), axes) is axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()


@pytest.mark.parametrize("draw", DRAWN_OF_THE_MODEL.values(), ids=DRAWN_OF_THE_MODEL)
@pytest.mark.parametrize("precisions", [["fp32"], ["fp32", "int2"]], ids=len)
def test_every_figure_of_the_model_does_too(draw, precisions, curved_audit, axes):
    assert draw(curved_audit.select(precisions), axes) is axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()


@pytest.mark.parametrize("measure", [m for m in OF_LOGITS if not m.from_reference], ids=lambda m: m.name)
def test_markers_are_the_values_of_both_precisions(measure, pair, axes):
    rows.of(measure)(pair, axes)
    filled, hollow = drawn(axes)
    table = measure(pair).set_index(["precision", "group"])["value"]
    # From the group with fewest training images, in the lowest row, to the one with most.
    for precision, values in (("int2", filled), ("fp32", hollow)):
        expected = [table[precision, f"group {group}"] for group in (2, 0, 1)]
        assert values == pytest.approx(expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["group 2", "group 0", "group 1"]


@pytest.mark.parametrize("measure", OF_THE_SURFACE, ids=lambda measure: measure.name)
def test_markers_of_the_loss_surface_are_its_values(measure, curved_audit, axes):
    rows.of(measure)(curved_audit.select(["fp32", "int2"]), axes)
    filled, hollow = drawn(axes)
    table = measure(curved_audit).groupby("precision")["value"].agg(list)
    assert sorted(filled) == pytest.approx(sorted(table["int2"]))
    assert sorted(hollow) == pytest.approx(sorted(table["fp32"]))


def test_the_band_is_as_wide_as_fvo(pair, axes):
    rows.of(forward.group_accuracy)(pair, axes)
    (band,) = axes.patches
    assert band.get_width() == pytest.approx(fairness.fvo(pair)["value"].iloc[-1])
    assert band.get_x() == pytest.approx(0.1)


def test_the_reference_has_no_hollow_markers_and_no_distance_from_itself(pair, axes):
    rows.of(forward.group_loss)(pair.select(["fp32"]), axes)
    assert drawn(axes)[1] == []
    axes.clear()
    rows.of(forward.cosine_distance)(pair.select(["fp32"]), axes)
    assert drawn(axes) == ([], [])
    assert "no value above zero" in [text.get_text() for text in axes.texts]


def test_distances_have_no_hollow_markers(axes):
    audit = samples.random_audit()
    rows.of(forward.cosine_distance)(audit.select(["fp32", "int2"]), axes)
    filled, hollow = drawn(axes)
    assert hollow == []
    table = forward.cosine_distance(audit).query("precision == 'int2'")["value"]
    assert sorted(filled) == pytest.approx(sorted(table))


def test_a_group_without_samples_is_said_to_be_undefined(axes):
    rows.of(forward.group_accuracy)(samples.uneven_audit(), axes)
    assert [text.get_text() for text in axes.texts] == ["not defined"]
    assert len(drawn(axes)[0]) == 2


def test_lines_are_the_intervals_and_the_ways_from_the_reference(pair, axes):
    rows.of(forward.group_accuracy)(pair, axes)
    table = forward.group_accuracy(pair).set_index(["precision", "group"])
    of_groups = [f"group {group}" for group in (2, 0, 1)]
    intervals = [tuple(table.loc[("int2", name), ["low", "high"]]) for name in of_groups]
    ways = [tuple(table.loc[[("fp32", name), ("int2", name)], "value"]) for name in of_groups]
    assert np.allclose(spans(axes), [intervals, ways])


def test_ridges_are_filled_for_the_precision_and_outlined_for_the_reference(pair, axes):
    rows.dtdb_distribution(pair, axes)
    filled = [patch for patch in axes.patches if patch.get_fill()]
    assert len(filled) == len(axes.patches) - len(filled) == 3
    table = forward.dtdb_histogram(pair)
    own = table[(table["precision"] == "int2") & (table["group"] == "group 2")]["value"]
    # The lowest row is the smallest group's, and heights are roots of shares.
    assert filled[0].get_data().values == pytest.approx(0.9 * np.sqrt(own.to_numpy()))


def test_the_share_of_zeros_stands_beside_the_weights(curved_audit, axes):
    rows.weight_distribution(curved_audit.select(["fp32", "int2"]), axes)
    share = weights.sparsity(curved_audit)["value"].iloc[-1]
    assert [text.get_text() for text in axes.texts] == [f"{share:.1%} are zero"]
    assert [patch.get_fill() for patch in axes.patches] == [True, False]
