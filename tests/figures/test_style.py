"""Colours and layout: the same group looks the same everywhere, and differs in grey."""

import matplotlib.pyplot as plt
import numpy as np

import samples
from quantskew.figures import lines
from quantskew.figures.style import compare, group_looks, log_scale, path, wide
from quantskew.measures import forward


def luminance(color):
    return float(np.dot(color[:3], (0.2126, 0.7152, 0.0722)))


def test_lightness_alone_tells_the_order_of_the_groups(digits_audit):
    shades = [luminance(look.color) for look in group_looks(digits_audit)]
    assert np.all(np.diff(shades) > 0.01)


def test_colours_and_markers_do_not_depend_on_the_precisions(digits_audit):
    few = digits_audit.select(["fp32", "int2"])
    assert group_looks(few) == group_looks(digits_audit)


def test_order_is_by_training_images_ties_by_id(digits_audit):
    audit = type(digits_audit)(
        **{**vars(digits_audit), "train_counts": np.array([5, 9, 5, 1, 1, 1, 1, 1, 1, 2])}
    )
    assert [look.group for look in group_looks(audit)][:4] == [1, 0, 2, 9]


def test_compare_has_a_column_an_audit_and_leaves_no_figure_open(digits_audit):
    before = plt.get_fignums()
    figure = compare(
        [lines.of(forward.group_accuracy), lines.of(forward.group_loss)],
        {"one": digits_audit, "two": digits_audit},
    )
    assert len(figure.axes) == 4
    assert figure.axes[0].get_title(loc="left") == "one"
    assert plt.get_fignums() == before
    legend = figure.axes[2].get_legend().get_texts()
    assert legend[0].get_text() == f"0 ({digits_audit.train_counts[0]})"


def test_ticks_of_a_logarithmic_axis_never_crowd():
    for decades, expected in ((1.5, ["1", "2", "5", "10", "20"]), (6, ["1", "100", "10000"])):
        figure, axes = plt.subplots(figsize=(3, 2))
        axes.set_xlim(1, 10**decades)
        log_scale(axes, "x")
        shown = [f"{tick:g}" for tick in axes.get_xticks() if 1 <= tick <= 10**decades]
        plt.close(figure)
        assert shown[: len(expected)] == expected


def test_a_figure_may_have_another_width(digits_audit):
    assert compare(lines.fvo, {"one": digits_audit}, legend=False, width=3.7).get_size_inches()[0] == 3.7


def test_log_axes_say_so_and_no_others(digits_audit):
    for measure, ending in ((forward.group_loss, ", log scale"), (forward.group_accuracy, "accuracy")):
        (axes,) = compare(lines.of(measure), {"digits": digits_audit}).axes
        assert axes.get_ylabel().endswith(ending)


def test_figures_may_stand_below_each_other(digits_audit):
    figure = compare(lines.of(forward.group_accuracy), dict.fromkeys("ab", digits_audit), below=True)
    assert [axes.get_title("left") for axes in figure.axes] == ["a", "b"]
    first, second = (axes.get_subplotspec() for axes in figure.axes)
    assert (first.rowspan.start, second.rowspan.start, second.colspan.start) == (0, 1, 0)


def test_a_path_marks_its_start_and_its_end():
    figure, axes = plt.subplots()
    path(axes, [1, 2, 3], [4, 5, 6], {"color": "blue", "marker": "s"})
    whole, start, end = axes.lines
    plt.close(figure)
    assert (start.get_xydata().tolist(), end.get_xydata().tolist()) == ([[1, 4]], [[3, 6]])
    assert start.get_markerfacecolor() == "white"
    assert end.get_markersize() > start.get_markersize() > whole.get_markersize()


def test_tables_have_the_order_of_groups_that_figures_have():
    audit = samples.exact_audit({"fp32": (0.9, 0.8, 0.7)}, train_counts=[5, 90, 30])
    table = forward.group_accuracy(audit)
    assert wide(table).index.tolist() == list(audit.group_names)
    assert wide(table, like=audit).index.tolist() == [look.name for look in group_looks(audit)]
    assert wide(table.replace({"group": {"group 0": "all"}}), like=audit).index[0] == "all"
