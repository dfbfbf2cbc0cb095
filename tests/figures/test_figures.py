"""Figures show the numbers of the tables: what is drawn is compared with what is computed."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import samples
from quantskew.figures import lines
from quantskew.figures.style import compare
from quantskew.measures import forward, surface, weights
from quantskew.measures.measure import MEASURES

OF_LOGITS = [measure for measure in MEASURES.values() if measure.applies(samples.random_audit())]
ALL = {
    **{measure.name: lines.of(measure) for measure in OF_LOGITS},
    "fvo": lines.fvo,
    "absolute_difference": lines.absolute_difference,
    "sparsity": lines.sparsity,
    "weight_distribution": lines.weight_distribution,
    "dtdb_distribution": lines.dtdb_distribution,
    "loss against variance": lines.against(forward.group_loss, forward.softmax_variance),
}


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


@pytest.mark.parametrize("draw", ALL.values(), ids=ALL)
def test_every_figure_labels_its_axes_and_gives_them_back(draw, digits_audit, axes):
    assert draw(digits_audit, axes) is axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()


@pytest.mark.parametrize("measure", OF_LOGITS, ids=lambda measure: measure.name)
def test_lines_are_the_values_of_the_table(measure, digits_audit, axes):
    lines.of(measure)(digits_audit, axes)
    if measure.from_reference:
        assert not axes.containers
        return
    table = measure(digits_audit).set_index(["group", "precision"])["value"]
    # The first line drawn is the group with most training images.
    largest = digits_audit.group_names[int(np.argmax(digits_audit.train_counts))]
    drawn = axes.containers[0].lines[0].get_ydata()
    assert drawn == pytest.approx(table[largest].to_numpy())


def test_sparsity_line_is_the_total(digits_audit, axes):
    lines.sparsity(digits_audit, axes)
    total = next(line for line in axes.lines if line.get_label() == "all weights")
    assert total.get_ydata() == pytest.approx(weights.sparsity(digits_audit)["value"].to_numpy())


def test_cells_of_a_distance_map_print_the_distances(digits_audit, axes):
    lines.of(forward.cosine_distance)(digits_audit, axes)
    shown = len(axes.get_xticks()) * len(digits_audit.group_names)
    assert len(axes.texts) == shown
    assert all(float(text.get_text()) >= 0 for text in axes.texts)


def test_null_logits_are_shown_as_such(digits_audit, axes):
    logits = digits_audit.logits.copy()
    logits[-1][digits_audit.groups == 3] = 0
    audit = type(digits_audit)(**{**vars(digits_audit), "logits": logits})
    lines.of(forward.cosine_distance)(audit, axes)
    assert sum(text.get_text() == "null" for text in axes.texts) == 1


def test_figures_of_an_empty_group_do_not_fail(digits_audit):
    keep = digits_audit.groups != 2
    audit = type(digits_audit)(
        **{
            **vars(digits_audit),
            "logits": digits_audit.logits[:, keep],
            "labels": digits_audit.labels[keep],
            "groups": digits_audit.groups[keep],
        }
    )
    for draw in ALL.values():
        assert compare(draw, {"digits": audit}).axes


SURFACE = [
    lines.gradient_against_size,
    lines.gradient_against_accuracy,
    lines.lambda_against_accuracy,
    lines.lambda_against_confidence,
    lines.gradient_against_lambda,
    *(lines.of(measure) for measure in MEASURES.values() if measure not in OF_LOGITS),
    lines.loss_profile,
    lines.excess_loss,
    lines.taylor,
]


@pytest.mark.parametrize("draw", SURFACE, ids=lambda draw: draw.__qualname__)
def test_every_figure_of_the_loss_surface_labels_its_axes(draw, curved_audit, axes):
    assert draw(curved_audit, axes) is axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()


def test_markers_are_the_values_at_the_lowest_precision(curved_audit, axes):
    lines.gradient_against_size(curved_audit, axes)
    table = surface.gradient_norm(curved_audit).query("precision == 'int2'")["value"]
    drawn = [line.get_ydata()[0] for line in axes.lines]
    assert sorted(drawn) == pytest.approx(sorted(table))
