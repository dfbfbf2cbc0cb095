"""Figures of example difficulty show the numbers of its tables."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import samples
from quantskew.experiments import difficulty
from quantskew.experiments.difficulty import BALANCED, CUT
from quantskew.figures import comparisons
from quantskew.figures.style import compare

NAMES = ["group 0", "group 1", "group 2"]
# The order of the training counts below, largest first.
ORDER = ["group 1", "group 0", "group 2"]
HISTORY = [
    samples.epoch_entry(0, (0.3, 0.4, 0.2), (2.0, 4.0, 8.0)),
    samples.epoch_entry(1, (0.6, 0.5, 0.7)),
    samples.epoch_entry(2, (0.9, 0.8, 0.75), (1.0, 0.5, 3.0)),
]


def made(shares):
    return [samples.exact_audit({"fp32": shares}, train_counts=[50, 90, 10], history=HISTORY)]


@pytest.fixture
def runs():
    cut = {"group 0": (0.4, 0.8, 0.75), "group 1": (0.9, 0.7, 0.7), "group 2": (0.95, 0.8, 0.1)}
    return {BALANCED: made((0.9, 0.8, 0.7)), **{f"{CUT}{name}": made(shares) for name, shares in cut.items()}}


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_learning_curves_are_training_accuracies_and_end_in_test_accuracies(runs, axes):
    assert comparisons.learning_curves(runs, axes) is axes
    for name, line in zip(ORDER, axes.lines, strict=False):
        group = NAMES.index(name)
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata() == pytest.approx([entry["train"]["accuracy"][group] for entry in HISTORY])
    _, end = difficulty.learning_curves(runs[BALANCED])
    for name, container in zip(ORDER, axes.containers, strict=True):
        row = end[end["group"] == name].iloc[0]
        assert container.lines[0].get_ydata() == pytest.approx([row["value"]])
        assert container.lines[0].get_xdata()[0] > 3
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel()


def test_gradient_norms_are_drawn_where_they_were_measured(runs, axes):
    assert comparisons.gradient_curves(runs[BALANCED], axes) is axes
    assert len(axes.lines) == len(NAMES)
    for name, line in zip(ORDER, axes.lines, strict=True):
        group = NAMES.index(name)
        assert line.get_xdata().tolist() == [1, 3]
        assert line.get_ydata() == pytest.approx([HISTORY[e]["measured"][group] for e in (0, 2)])
    assert axes.get_yscale() == "log"
    assert not axes.collections


def test_seeds_that_differ_get_a_band(runs, axes):
    other = samples.exact_audit(
        {"fp32": (0.9, 0.8, 0.7)},
        train_counts=[50, 90, 10],
        history=[samples.epoch_entry(e, (0.1, 0.1, 0.1)) for e in range(3)],
    )
    comparisons.learning_curves({BALANCED: [*runs[BALANCED], other]}, axes)
    # Besides the bands there are the error bars of the markers.
    assert len(axes.collections) == 2 * len(NAMES)


def test_the_map_prints_changes_in_points_of_accuracy(runs, axes):
    assert comparisons.rotation_map(runs, axes) is axes
    table = difficulty.rotation_table(runs).pivot(index="cut", columns="group", values="value")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ORDER
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ORDER
    printed = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(printed) == 9
    for row, cut in enumerate(ORDER):
        for column, group in enumerate(ORDER):
            change = 100 * (table.loc[cut, group] - table.loc[BALANCED, group])
            assert axes.images[0].get_array()[row, column] == pytest.approx(change)
            assert printed[column, row] == f"{change:+.0f}"
    low, high = axes.images[0].get_clim()
    assert high == -low == pytest.approx(60)


def test_the_legend_is_of_the_groups(runs):
    for draw, what in (
        (comparisons.learning_curves, runs),
        (comparisons.gradient_curves, runs[BALANCED]),
    ):
        # Balanced runs have as many images of each group.
        counts = ["", "", ""] if what is runs else [" (90)", " (50)", " (10)"]
        figure = compare(draw, {"made": what}, legend=comparisons.runs_legend)
        texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert texts == [f"group {own}{count}" for own, count in zip((1, 0, 2), counts, strict=True)]


def test_a_map_without_a_change_has_a_scale(axes):
    same = {key: made((0.9, 0.8, 0.7)) for key in (BALANCED, *(f"{CUT}{name}" for name in NAMES))}
    comparisons.rotation_map(same, axes)
    assert {text.get_text() for text in axes.texts} == {"+0"}
    assert np.array_equal(axes.images[0].get_clim(), (-1, 1))
