import numpy as np
import pytest
import torch
from torch.nn import functional

import curvature_oracles as oracles
from quantskew.derivatives.gradients import (
    excess_loss_bound,
    group_gradient_norms,
    loss_along,
    parameter_vector,
)
from quantskew.derivatives.hessian import top_eigenvalues
from quantskew.quantization.ptq import quantize_model


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


def test_the_loss_along_the_quantization_direction_ends_at_the_quantized_models():
    model, (images, labels, _) = oracles.networks()["residual"], oracles.problem()
    quantized = quantize_model(model, "int3")
    change = parameter_vector(quantized) - parameter_vector(model)
    before = parameter_vector(model).clone()
    losses = loss_along(model, images, labels, change, [0.0, 0.5, 1.0], batch_size=5)
    for loss, reference in ((losses[0], model), (losses[2], quantized)):
        assert loss == pytest.approx(functional.cross_entropy(reference(images), labels).item())
    assert torch.equal(parameter_vector(model), before)


def test_the_curvature_along_the_top_eigenvector_is_lambda_max():
    model, (images, labels, groups) = oracles.networks()["mlp"], oracles.problem()
    top = top_eigenvalues(model, images, labels, groups * 0, rtol=1e-6)
    h = 1e-3
    left, middle, right = loss_along(model, images, labels, top.vectors[0], [-h, 0, h])
    assert (left - 2 * middle + right) / h**2 == pytest.approx(top.values[0], rel=1e-4)


def test_what_does_not_fit_is_refused():
    model, (images, labels, _) = oracles.networks()["mlp"], oracles.problem()
    with pytest.raises(ValueError, match="the model has 163 parameters"):
        loss_along(model, images, labels, torch.ones(3), [0])
    with pytest.raises(ValueError, match="no images"):
        loss_along(model, images[:0], labels[:0], parameter_vector(model), [0])
