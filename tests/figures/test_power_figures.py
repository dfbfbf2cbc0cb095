"""The figure of verdicts on made experiments shows the table that it is given."""

import numpy as np
import pytest

from quantskew.claims.verdicts import verdict_rates
from quantskew.figures.comparisons import seeds_legend, verdict_share
from quantskew.figures.style import compare


@pytest.fixture(scope="module")
def rates():
    return verdict_rates([0.0, 0.3], [2, 3, 5], trials=8, images=50)


def test_a_line_a_number_of_seeds(rates):
    own = rates[rates["verdict"] == "holds"]
    figure = compare(verdict_share, {"holds": own}, legend=seeds_legend)
    (axes,) = figure.axes
    drawn = [container.lines[0].get_ydata() for container in axes.containers]
    expected = [own[own["seeds"] == seeds]["value"].to_numpy() for seeds in (2, 3, 5)]
    np.testing.assert_array_equal(drawn, expected)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["2", "3", "5"]
    assert "accuracy" in axes.get_xlabel()


def test_lines_differ_without_colour(rates):
    figure = compare(verdict_share, {"all": rates[rates["verdict"] == "fails"]}, legend=False)
    markers = [container.lines[0].get_marker() for container in figure.axes[0].containers]
    assert len(set(markers)) == 3
