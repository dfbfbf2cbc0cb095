"""Panels: numbers of what is chosen, words for every picture, and nothing computed twice."""

import re

import pytest

import samples
from quantskew.interactive import views
from quantskew.interactive.panels import Panels
from quantskew.measures import fairness, forward


class MadeModel:
    """Stands for a trained model: a random Audit a scheme, and a list of what was asked."""

    def __init__(self):
        self.asked = []

    def audit(self, precision, scheme, surface, reference):
        self.asked.append((precision, scheme, surface))
        seed = ("banner", "symmetric", "mse").index(scheme)
        precisions = (reference, precision) if precision != reference else (reference,)
        return samples.random_audit(precisions=precisions, seed=seed)


@pytest.fixture
def audits():
    return {
        "live": samples.random_audit(),
        "record": samples.random_audit(precisions=("fp32", "int2"), seed=5, groups=4),
    }


@pytest.fixture
def panels(audits):
    return Panels(views.ACCURACY, audits, ("fp32", "int8", "int2"), MadeModel())


def value(table, row, precision):
    own = table[(table["group"] == row) & (table["precision"] == precision)]
    return own["value"].item()


def test_what_is_read_are_the_numbers_of_the_audits(panels, audits):
    for title, table in panels.numbers("int2").items():
        expected = fairness.fvo(audits[title].select(["fp32", "int2"]))
        assert value(table, "FVO", "int2") == expected["value"].iloc[1]
        assert value(table, "group 1", "fp32") == forward.group_accuracy(audits[title])["value"].iloc[1]
    assert panels.model.asked == []


def test_with_a_scheme_the_first_column_is_computed_and_the_second_is_read(panels, audits):
    numbers = panels.numbers("int2", "mse")
    made = samples.random_audit(precisions=("fp32", "int2"), seed=2)
    assert value(numbers["live"], "FVO", "int2") == fairness.fvo(made)["value"].iloc[1]
    assert value(numbers["record"], "FVO", "int2") == fairness.fvo(audits["record"])["value"].iloc[1]


def test_what_was_computed_is_not_computed_again(panels):
    first = panels.html("int2", "mse")
    assert panels.html("int2", "mse") == first
    panels.numbers("int2", "mse")
    panels.html("int2", "banner")
    assert panels.model.asked == [("int2", "mse", None), ("int2", "banner", None)]


def test_a_precision_that_a_record_lacks_is_said(panels):
    assert "record has no int8" in panels.html("int8")
    assert list(panels.numbers("int8")) == ["live"]


def test_a_precision_that_no_audit_has_comes_from_the_model(audits):
    panels = Panels(views.ACCURACY, audits, ("fp32", "int3"), MadeModel(), "symmetric")
    panels.html("int3")
    assert set(panels.model.asked) == {("int3", "symmetric", None)}


def test_a_picture_is_described_by_its_numbers(panels):
    alts = re.findall(r'alt="([^"]+)"', panels.html("int2", "mse"))
    numbers = panels.numbers("int2", "mse")
    assert alts[0].startswith("Accuracy of each group, live, int2, mse: overall accuracy 0.")
    assert alts[1].startswith("Accuracy of each group, record, int2: overall accuracy 0.")
    for alt, table in zip(alts, numbers.values(), strict=True):
        for row in ("FVO", "group 0", "group 1", "group 2"):
            assert f"{row} {value(table, row, 'int2'):.2f}" in alt


def test_floating_point_has_no_scheme(panels):
    assert "live, fp32:" in panels.html("fp32", "mse")


def test_the_headline_and_the_table_have_intervals(panels):
    html = panels.html("int2")
    fvo = fairness.fvo(panels.audits["record"].select(["fp32", "int2"])).iloc[1]
    cell = f"{fvo['value']:.2f} [{fvo['low']:.2f}, {fvo['high']:.2f}]"
    assert f"FVO: {cell}</figcaption>" in html
    assert f"<td>{cell}</td>" in html


def test_markup_in_a_title_is_text(audits):
    panels = Panels(views.LOSS, {"<b>live": audits["live"]}, ("fp32", "int2"))
    assert "<b>live" not in panels.html("int2")
    assert "&lt;b&gt;live" in panels.html("int2")


def test_every_panel_of_a_view_is_another_picture_of_the_same_size(panels):
    tags = [re.search(r'<img [^>]+src="([^"]+)"', panels.html(p)) for p in panels.precisions]
    sizes = {re.sub(r'(alt|src)="[^"]*"', "", tag[0]) for tag in tags}
    assert len({tag[1] for tag in tags}) == 3
    assert len(sizes) == 1
