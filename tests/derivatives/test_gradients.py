import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import curvature_oracles as oracles
from quantskew.derivatives.gradients import (
    group_gradient_norms,
    group_gradients,
    loss_along,
    parameter_vector,
)
from quantskew.derivatives.hessian import top_eigenvalues
from quantskew.quantization.ptq import quantize_model
from quantskew.training import models


@pytest.mark.parametrize("name", oracles.networks())
@pytest.mark.parametrize("batch_size", [2, 128])
def test_norms_are_those_of_one_backward_pass_a_group(name, batch_size):
    model, (images, labels, groups) = oracles.networks()[name], oracles.problem()
    norms = group_gradient_norms(model, images, labels, groups, num_groups=5, batch_size=batch_size)
    assert norms.dtype == torch.float64
    assert norms.shape == (5,)
    for group in range(5):
        of_group = groups == group
        if group in (2, 4):
            assert norms[group].isnan()
        else:
            expected = oracles.gradient(model, images[of_group], labels[of_group]).norm()
            torch.testing.assert_close(norms[group], expected, rtol=1e-12, atol=0)


def test_softmax_regression_has_the_closed_form():
    model, (images, labels, _) = oracles.networks()["linear"], oracles.problem()
    flat = images.flatten(1)
    errors = torch.softmax(model(images), 1).detach() - torch.eye(3)[labels]
    weight, bias = errors.T @ flat / len(flat), errors.mean(0)
    ((group, gradient),) = group_gradients(model, images, labels, torch.zeros(len(images), dtype=int))
    assert group == 0
    torch.testing.assert_close(gradient, torch.cat([weight.reshape(-1), bias]))


def test_gradients_weighted_by_counts_add_up_to_the_full_gradient():
    model, (images, labels, groups) = oracles.networks()["residual"], oracles.problem(40)
    total = sum(
        (groups == group).sum() * gradient
        for group, gradient in group_gradients(model, images, labels, groups, batch_size=4)
    )
    torch.testing.assert_close(total / len(images), oracles.gradient(model, images, labels))


def test_the_order_of_the_images_does_not_matter():
    model, (images, labels, groups) = oracles.networks()["conv-bn-relu"], oracles.problem(30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        group_gradient_norms(model, images, labels, groups, batch_size=4),
        group_gradient_norms(model, images[order], labels[order], groups[order], batch_size=4),
        equal_nan=True,
    )


def test_lists_and_arrays_serve_as_ids():
    model, (images, labels, groups) = oracles.networks()["mlp"], oracles.problem()
    expected = group_gradient_norms(model, images, labels, groups)
    found = group_gradient_norms(model, images, labels.tolist(), groups.numpy())
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_sum_over_many_batches_keeps_its_precision():
    # 4,000 images in fp32 against float64: the accumulator must not lose digits.
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    images, labels, _ = oracles.problem(4000)
    groups = np.zeros(4000, dtype=int)
    found = group_gradient_norms(model, images.float(), labels, groups, batch_size=8)
    expected = oracles.gradient(model.double(), images, labels).norm()
    assert abs(found.item() / expected.item() - 1) < 2e-6


def test_the_model_is_left_as_it_was():
    model, (images, labels, groups) = oracles.networks()["residual"], oracles.problem()
    model.stem.weight.requires_grad_(False)
    model.head[2].bias.grad = torch.full((3,), 7.0, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    norms = group_gradient_norms(model, images, labels, groups)
    assert not model.stem.weight.requires_grad
    assert model.conv.weight.grad is None
    assert (model.head[2].bias.grad == 7).all()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.stem.weight.requires_grad_(True)
    assert (group_gradient_norms(model, images, labels, groups)[[0, 1, 3]] > norms[[0, 1, 3]]).all()


def test_gradients_are_computed_under_no_grad_and_autocast_too():
    model, (images, labels, groups) = oracles.networks()["mlp"], oracles.problem()
    expected = group_gradient_norms(model.float(), images.float(), labels, groups)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = group_gradient_norms(model, images.float(), labels, groups)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_half_precision_is_differentiated_at_its_rounded_weights_in_fp32():
    model, (images, labels, groups) = models.build("small_resnet", 3, 1).eval(), oracles.problem()
    half = quantize_model(model, "fp16")
    images = images.float()
    plain = models.build("small_resnet", 3, 1).eval()
    plain.load_state_dict(
        {n: t.half().float() if t.is_floating_point() else t for n, t in model.state_dict().items()}
    )
    found = group_gradient_norms(half, images, labels, groups)
    torch.testing.assert_close(found, group_gradient_norms(plain, images, labels, groups), equal_nan=True)
    assert any(module._forward_hooks for module in half.modules())


def test_a_layer_that_quantization_zeroes_gives_finite_norms():
    model, (images, labels, groups) = models.build("small_resnet", 3, 1).eval(), oracles.problem()
    nn.init.zeros_(model.stages[1].conv1.weight)
    norms = group_gradient_norms(quantize_model(model, "int2"), images.float(), labels, groups)
    assert torch.isfinite(norms[[0, 1, 3]]).all()


def test_parameter_vector_has_the_order_of_the_gradient():
    model = oracles.networks()["residual"]
    torch.testing.assert_close(
        parameter_vector(model), torch.nn.utils.parameters_to_vector(model.parameters())
    )


def test_quantized_activations_have_no_gradient_and_are_refused():
    model, (images, labels, groups) = oracles.networks()["linear"], oracles.problem()
    for quantizer in ("A8", "W8A8"):
        quantized = quantize_model(model, quantizer, images)
        with pytest.raises(ValueError, match="cannot be differentiated through rounded activations"):
            group_gradient_norms(quantized, images, labels, groups)


def test_bad_input_is_refused():
    model, (images, labels, groups) = oracles.networks()["residual"], oracles.problem()
    model.bn.train()
    with pytest.raises(ValueError, match=r"bn is in training mode; call model.eval\(\)"):
        group_gradient_norms(model, images, labels, groups)
    with pytest.raises(ValueError, match="the model is in training mode"):
        group_gradients(model.train(), images, labels, groups)
    model.eval()
    with pytest.raises(ValueError, match="12 images but labels of shape"):
        group_gradient_norms(model, images, labels[:3], groups)
    with pytest.raises(ValueError, match="12 images but groups of shape"):
        group_gradient_norms(model, images, labels, groups[:3])
    with pytest.raises(ValueError, match="normalised floats"):
        group_gradient_norms(model, images.byte(), labels, groups)
    with pytest.raises(ValueError, match="gradient of group 1 is not finite"):
        group_gradient_norms(
            model, torch.where(groups.view(-1, 1, 1, 1) == 1, torch.nan, images), labels, groups
        )
    with pytest.raises(ValueError, match="requires a gradient"):
        group_gradient_norms(model.requires_grad_(False), images, labels, groups)


def test_no_images_and_one_image():
    model, (images, labels, groups) = oracles.networks()["mlp"], oracles.problem()
    assert group_gradient_norms(model, images[:0], labels[:0], groups[:0]).shape == (0,)
    assert group_gradient_norms(model, images[:0], labels[:0], groups[:0], num_groups=2).isnan().all()
    found = group_gradient_norms(model, images[:1], labels[:1], groups[:1])
    torch.testing.assert_close(found[0], oracles.gradient(model, images[:1], labels[:1]).norm())


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
