"""Figures of a sweep: every run and group has its line, and the front is the oracle's."""

import pandas as pd
import pytest

import samples
from quantskew.figures.style import compare
from quantskew.measures.measure import audit_rows
from quantskew.sweeps.figures import (
    fvo,
    group_accuracy,
    on_the_front,
    shown,
    small_multiples,
    tradeoff,
)


def runs(**accuracies):
    """A table of runs out of accuracies of their groups at int4."""
    parts = []
    for run, groups in accuracies.items():
        names = {"fp32": [0.9] * len(groups), "int4": groups}
        parts.append(audit_rows(samples.exact_audit(names, count=50)).assign(run=run))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def table():
    return runs(fair=[0.5, 0.5], good=[0.9, 0.7], worse=[0.9, 0.5], wide=[0.9, 0.8, 0.7])


@pytest.mark.parametrize(("draw", "lines"), [(group_accuracy, 2), (fvo, 2)])
def test_each_run_has_a_panel_with_its_lines(draw, lines, table):
    figure = small_multiples(draw, table)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == ["fair", "good", "worse", "wide"]
    drawn = panels[0].containers[0].lines[0]
    expected = [0.9, 0.5] if draw is group_accuracy else [0.0, 0.0]
    assert drawn.get_ydata().tolist() == pytest.approx(expected)
    assert len(panels[0].containers) == lines
    assert {axes.get_ylabel() for axes in panels} <= {"accuracy", "FVO, accuracy", ""}
    assert "precision of the weights" in {axes.get_xlabel() for axes in panels}


def test_runs_with_other_groups_have_a_legend_of_their_own(table):
    figure = small_multiples(group_accuracy, table)
    texts = [[text.get_text() for text in part.legends[0].get_texts()] for part in figure.subfigs]
    assert [len(words) for words in texts] == [2, 3]


def test_the_front_is_what_no_run_beats(table):
    front = on_the_front(table)
    by_hand = front[front["precision"] == "int4"]
    # Of wide the mean of three groups is as good as that of good, with the same gap.
    assert by_hand["run"].tolist() == ["fair", "good"]
    assert by_hand["alike"].tolist() == [0, 1]
    assert by_hand["fvo"].tolist() == pytest.approx([0.0, 0.2])
    figure = compare(tradeoff, {"all": table}, legend=False)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "FVO (left is fairer)"
    # Of each precision all runs, the front, and the rings on it.
    assert len(axes.lines) == 2 * 3


def test_of_many_runs_those_on_a_front_are_shown_first(table):
    assert shown(table) == ["fair", "good", "worse", "wide"]
    assert shown(table, most=2) == ["fair", "good"]
    assert shown(table, most=3) == ["fair", "good", "worse"]
    assert len([axes for axes in small_multiples(fvo, table, most=2).axes if axes.axison]) == 2
