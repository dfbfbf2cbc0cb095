"""Views: every one can be drawn, and its numbers are those of the tables."""

import pytest

import samples
from quantskew.figures.style import compare
from quantskew.interactive import views
from quantskew.interactive.views import View
from quantskew.measures import fairness, forward, surface, weights

ALL = [view for view in vars(views).values() if isinstance(view, View)]


@pytest.mark.parametrize("view", ALL, ids=lambda view: view.title)
def test_every_view_can_be_drawn_and_says_its_headline(view, curved_audit):
    pair = curved_audit.select(["fp32", "int2"])
    assert len(compare(view.draw, {"digits": pair}, legend=False).axes) == len(view.draw)
    table = view.table(view.numbers(pair))
    assert list(table.columns) == ["fp32", "int2"]
    for row in view.headline(pair).values():
        assert table.loc[row, "int2"]


def test_the_first_view_has_overall_accuracy_fvo_and_every_group():
    audit = samples.random_audit()
    numbers = views.ACCURACY.numbers(audit).set_index(["group", "precision"])["value"]
    assert numbers["FVO", "int2"] == fairness.fvo(audit)["value"].iloc[2]
    assert numbers["overall accuracy", "int8"] == fairness.overall_accuracy(audit)["value"].iloc[1]
    assert numbers["group 1", "fp32"] == forward.group_accuracy(audit)["value"].iloc[1]


def test_the_headline_of_groups_names_the_largest_and_the_smallest():
    audit = samples.exact_audit({"fp32": (0.5, 0.6, 0.7)}, train_counts=[5, 90, 10])
    assert list(views.LOSS.headline(audit).values()) == ["group 1", "group 0"]
    alone = samples.exact_audit({"fp32": (0.5,)})
    assert list(views.LOSS.headline(alone).values()) == ["group 0"]


def test_numbers_of_the_weights_and_of_the_loss_surface(curved_audit):
    table = views.WEIGHTS.table(views.WEIGHTS.numbers(curved_audit))
    share = weights.sparsity(curved_audit)["value"].iloc[-1]
    assert table.loc["share of zeros", "int2"] == f"{share:.4f}"
    norms = views.GRADIENTS.table(views.GRADIENTS.numbers(curved_audit))
    expected = surface.gradient_norm(curved_audit).query("precision == 'int2' and group == '3'")["value"]
    assert norms.loc["3", "int2"] == f"{expected.item():.2f}"
    assert "[" in views.HESSIAN.table(views.HESSIAN.numbers(curved_audit)).loc["3", "int2"]


def test_the_loss_is_in_nats_with_its_interval():
    audit = samples.random_audit()
    row = forward.group_loss(audit).iloc[0]
    cell = views.LOSS.table(views.LOSS.numbers(audit)).loc["group 0", "fp32"]
    assert cell == f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
