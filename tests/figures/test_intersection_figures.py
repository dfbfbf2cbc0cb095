"""The figures where group and class differ show the numbers of their table."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import samples
from quantskew.audits.audit import Audit
from quantskew.figures import lines
from quantskew.figures.style import compare, group_looks
from quantskew.measures import fairness

# Largest in training first.
ORDER = [1, 0, 2]


def made(classes=2, **changes):
    audit = samples.random_audit(classes=classes)
    return Audit(**{**vars(audit), "train_counts": np.array([500, 9000, 10]), **changes})


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_lines_and_bars_are_the_values_of_the_table(axes):
    audit = made()
    assert lines.class_accuracy(audit, axes) is axes
    table = fairness.class_accuracy(audit)
    cells = [(group, number) for group in ORDER for number in range(2)]
    for (group, number), container in zip(cells, axes.containers, strict=True):
        own = table[
            (table["group"] == audit.group_names[group]) & (table["class"] == audit.class_names[number])
        ]
        line = container.lines[0]
        assert line.get_ydata() == pytest.approx(own["value"].to_numpy())
        assert np.round(line.get_xdata()).tolist() == [0, 1, 2]
        segments = np.array(container.lines[2][0].get_segments())
        assert segments[:, :, 1] == pytest.approx(own[["low", "high"]].to_numpy())
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(audit.precisions)
    assert axes.get_xlabel() == "precision of the weights"
    assert "accuracy" in axes.get_ylabel()


def test_colour_and_marker_are_the_group_s_line_and_face_the_class_s(axes):
    audit = made(classes=4)
    lines.class_accuracy(audit, axes)
    drawn = [container.lines[0] for container in axes.containers]
    cells = [(group, number) for group in ORDER for number in range(4)]
    looks = set()
    of_group = {look.group: look for look in group_looks(audit)}
    for (group, number), line in zip(cells, drawn, strict=True):
        color = of_group[group].color
        assert (line.get_color(), line.get_marker()) == (color, of_group[group].marker)
        style = lines.class_looks(number, color)
        assert line.get_linestyle() == style["linestyle"]
        assert line.get_markerfacecolor() == style["markerfacecolor"]
        assert style["markerfacecolor"] in ("white", color)
        looks.add((group, style["linestyle"], style["markerfacecolor"] == color))
    # Without its colour, each line still differs from every other one.
    assert len(looks) == len(drawn) == 12


def test_a_cell_without_samples_has_no_line(axes):
    labels, groups = [0, 1, 0, 0], [0, 0, 1, 1]
    logits = {"fp32": np.eye(2)[labels], "int2": np.eye(2)[[0, 0, 0, 1]]}
    lines.class_accuracy(Audit.from_logits(logits, labels, groups), axes)
    drawn = [container.lines[0].get_ydata().tolist() for container in axes.containers]
    assert sorted(drawn) == [[1, 0], [1, 0.5], [1, 1]]


@pytest.mark.parametrize(
    "audit",
    [
        samples.uneven_audit(),
        samples.empty_audit(),
        Audit(
            np.ones((1, 3, 1), np.float32), np.zeros(3, int), np.zeros(3, int), ("fp32",), ("only",), ("all",)
        ),
        made(classes=6),
    ],
    ids=["one sample", "no samples", "one group and class", "more classes than lines"],
)
def test_odd_audits_are_drawn(audit):
    legend = lines.group_and_class_legend
    figure = compare(lines.class_accuracy, {"odd": audit}, legend=legend)
    figure.draw_without_rendering()
    cells = (fairness.class_accuracy(audit)["count"] > 0).sum() / len(audit.precisions)
    assert len(figure.axes[0].containers) == cells


def test_the_legend_has_the_groups_then_the_classes():
    audit = made()
    legend = lines.group_and_class_legend
    figure = compare(lines.class_accuracy, {"one": audit, "two": audit}, legend=legend)
    for axes in figure.axes:
        legend = axes.get_legend()
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == ["group 1 (9,000)", "group 0 (500)", "group 2 (10)", "class 0", "class 1"]
        assert [handle.get_linestyle() for handle in legend.legend_handles] == ["None"] * 3 + ["-", "--"]
        faces = [handle.get_markerfacecolor() for handle in legend.legend_handles[3:]]
        assert faces == ["black", "white"]
