"""Tables of the backward pass, on an Audit that has one and on one that has not."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

import curvature_oracles as oracles
import samples
from quantskew.derivatives.gradients import group_gradient_norms, loss_along
from quantskew.derivatives.hessian import top_eigenvalues
from quantskew.measures import surface
from quantskew.measures.forward import group_loss
from quantskew.measures.surface import excess_loss_bound

TABLES = [
    surface.gradient_norm,
    surface.lambda_max,
    surface.trace,
    surface.excess_loss,
    surface.loss_profile,
    surface.taylor,
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_an_audit_without_curvature_says_what_to_do(table):
    with pytest.raises(ValueError, match="--curvature"):
        table(samples.random_audit())


def test_lambda_max_lies_between_its_bounds(curved_audit):
    table = surface.lambda_max(curved_audit)
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert ((table["high"] - table["low"]) <= 0.0201 * table["value"].abs()).all()
    assert (table["matvecs"] > 0).all()


def test_gradient_norms_are_by_group_and_precision(curved_audit):
    table = surface.gradient_norm(curved_audit).set_index(["precision", "group"])["value"]
    row = curved_audit.index("int2")
    assert table["int2"]["4"] == curved_audit.curvature.gradient_norms[row, 4]


def test_excess_loss_is_the_paired_difference_and_its_bound(curved_audit):
    table = surface.excess_loss(curved_audit).set_index(["precision", "group"])
    loss = group_loss(curved_audit).set_index(["precision", "group"])["value"]
    assert table.loc[("int2", "9"), "value"] == pytest.approx(loss["int2"]["9"] - loss["fp32"]["9"])
    curvature = curved_audit.curvature
    bound = excess_loss_bound(
        curvature.gradient_norms[0],
        curvature.lambda_max[0],
        curvature.change_norms[curved_audit.index("int2")],
    )
    assert table.loc["int2", "bound"].to_numpy() == pytest.approx(bound)
    assert "fp32" not in table.index


def test_the_terms_explain_a_small_change_and_not_a_large_one(curved_audit):
    table = surface.taylor(curved_audit).set_index(["precision", "group"])
    assert (table["predicted"] == table["slope"] + table["bend"]).all()
    miss = (table["value"] - table["predicted"]).abs()
    assert miss["int8"].max() < 0.1 * table.loc["int2", "value"].abs().max()
    assert miss["int2"].max() > 10 * miss["int8"].max()


def test_an_audit_without_the_terms_says_so(curved_audit):
    older = dataclasses.replace(curved_audit.curvature, slopes=None, bends=None)
    with pytest.raises(ValueError, match="without the terms"):
        surface.taylor(dataclasses.replace(curved_audit, curvature=older))


def test_selected_precisions_keep_their_rows(curved_audit):
    few = curved_audit.select(["fp32", "int2"])
    row = curved_audit.index("int2")
    assert np.array_equal(few.curvature.lambda_max[1], curved_audit.curvature.lambda_max[row])
    assert few.curvature.profile_precision == curved_audit.curvature.profile_precision


def test_the_bound_holds_for_small_changes_of_any_direction():
    model, (images, labels, groups) = oracles.networks()["conv-bn-softplus"], oracles.problem(20)
    top = top_eigenvalues(model, images, labels, groups, rtol=1e-6)
    norms = group_gradient_norms(model, images, labels, groups)
    gradient = oracles.gradient(model, images[groups == 1], labels[groups == 1])
    for direction in (torch.randn_like(gradient), gradient, top.vectors[1]):
        change = 1e-3 * functional.normalize(direction, dim=0)
        before, after = loss_along(model, images[groups == 1], labels[groups == 1], change, [0, 1])
        assert after - before <= excess_loss_bound(norms, top.values, 1e-3)[1] * (1 + 1e-3)
    assert np.isnan(excess_loss_bound(norms, top.values, 1e-3)[2])


def test_a_negative_norm_is_refused():
    with pytest.raises(ValueError, match="change_norm is a norm"):
        excess_loss_bound([1.0], [1.0], -1.0)
