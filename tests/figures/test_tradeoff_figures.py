"""Fig. 11 and 12 and the ladder show the numbers of the comparison."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import samples
from quantskew.experiments.runs import Runs
from quantskew.figures import comparisons
from quantskew.figures.style import compare, shaded
from quantskew.measures.seeds import MEASURES, comparison, each_seed, pareto_front

METHODS = ("plain", "sampled", "weighted", "trained")


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


@pytest.fixture(scope="module")
def table():
    audits = {
        method: [samples.random_audit(seed=10 * number + seed) for seed in range(2)]
        for number, method in enumerate(METHODS)
    }
    # One method has not every precision.
    audits["trained"] = [audit.select(["fp32", "int2"]) for audit in audits["trained"]]
    return comparison(audits)


@pytest.mark.parametrize("measure", ["fvo", "accuracy", "least"])
def test_lines_are_the_values_of_each_method(table, axes, measure):
    assert comparisons.by_method(measure)(table, axes) is axes
    assert len(axes.containers) == len(METHODS)
    precisions = [tick.get_text() for tick in axes.get_xticklabels()]
    assert precisions == ["fp32", "int8", "int2"]
    for method, container in zip(METHODS, axes.containers, strict=True):
        own = table[(table["method"] == method) & (table["measure"] == measure)]
        line = container.lines[0]
        assert line.get_ydata() == pytest.approx(own["value"].to_numpy())
        assert [precisions[round(x)] for x in line.get_xdata()] == own["precision"].tolist()
        (bars,) = container.lines[2]
        # A resampled FVO is larger than the measured one more often than not: the bar still begins there.
        bounds = own[["value", "low", "high"]]
        for segment, low, high in zip(
            bars.get_segments(), bounds.min(axis=1), bounds.max(axis=1), strict=True
        ):
            assert segment[:, 1] == pytest.approx([low, high])
    assert axes.get_ylabel()


@pytest.mark.parametrize("precision", ["fp32", "int8", "int2"])
def test_markers_are_at_fvo_and_accuracy(table, axes, precision):
    assert comparisons.accuracy_against_fvo(precision)(table, axes) is axes
    own = table[table["precision"] == precision].pivot(index="method", columns="measure", values="value")
    shown = [method for method in METHODS if method in own.index]
    assert len(shown) == (3 if precision == "int8" else 4)
    for method, container in zip(shown, axes.containers, strict=True):
        assert container.lines[0].get_xdata() == pytest.approx([own.loc[method, "fvo"]])
        assert container.lines[0].get_ydata() == pytest.approx([own.loc[method, "accuracy"]])
    (front,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    best = own[pareto_front(own["accuracy"], own["fvo"])].sort_values("fvo")
    assert front.get_xdata() == pytest.approx(best["fvo"].to_numpy())
    assert front.get_ydata() == pytest.approx(best["accuracy"].to_numpy())
    assert precision in axes.get_xlabel()
    assert precision in axes.get_ylabel()


def test_a_method_looks_the_same_in_both_figures(table):
    _, (left, right) = plt.subplots(1, 2)
    comparisons.by_method("fvo")(table, left)
    comparisons.accuracy_against_fvo("int2")(table, right)
    looks = [
        [(c.lines[0].get_color(), c.lines[0].get_marker()) for c in axes.containers] for axes in (left, right)
    ]
    plt.close(left.figure)
    styles = [(style["color"], style["marker"]) for style in shaded(METHODS).values()]
    assert looks[0] == looks[1] == styles


def test_the_legend_has_every_method(table):
    figure = compare(comparisons.by_method("fvo"), {"made": table}, legend=comparisons.method_legend)
    (legend,) = [axes.get_legend() for axes in figure.axes]
    assert [text.get_text() for text in legend.get_texts()] == list(METHODS)


def test_shades_run_from_light_to_dark():
    styles = shaded([str(number) for number in range(17)])
    lightness = [np.dot(style["color"][:3], (0.299, 0.587, 0.114)) for style in styles.values()]
    assert lightness == sorted(lightness, reverse=True)
    assert len({style["marker"] for style in styles.values()}) == 17


def test_one_method_alone_is_drawn(table, axes):
    single = table[table["method"] == "plain"]
    comparisons.by_method("fvo")(single, axes)
    assert axes.containers[0].lines[0].get_xdata().tolist() == [0, 1, 2]


def test_a_ladder_has_a_row_a_rung_and_a_dot_a_seed():
    audits = {"mpqat": 1, "ptq": 2, "boundary": 3, "u-o": 1}
    audits = {key: [samples.random_audit(seed=s) for s in range(count)] for key, count in audits.items()}
    # One seed of a rung may have fewer precisions, and then no dot.
    audits["boundary"][0] = audits["boundary"][0].select(["fp32", "int8"])
    runs = Runs("mine", "record: mine", audits)
    panels = {precision: precision for precision in ("int8", "int2")}
    figure = compare(comparisons.ladder(runs), panels, legend=comparisons.ladder_legend)
    rungs = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert rungs == ["min-max PTQ (2)", "+ int8 ends (3)", "+ dampening: MPQAT (1)"]
    assert figure.axes[0].get_ylabel() == "record: mine"
    for precision, axes in zip(panels, figure.axes, strict=True):
        table = each_seed({key: audits[key] for key in ("ptq", "boundary", "mpqat")}, [precision])
        for name, dots, line in zip(("fvo", "least"), axes.collections, axes.lines, strict=True):
            own = table[table["measure"] == name]
            places = own["method"].map(["ptq", "boundary", "mpqat"].index)
            assert np.asarray(dots.get_offsets()) == pytest.approx(np.column_stack([own["value"], places]))
            assert line.get_xdata() == pytest.approx(own.groupby("method", sort=False)["value"].mean())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [MEASURES["fvo"], MEASURES["least"]]
