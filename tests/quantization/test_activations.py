import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import samples
from quantskew.quantization.activations import InputQuantizer, quantize_activations
from quantskew.quantization.grids import quantize


def slow_quantized(values, low, high, bits):
    """Each value in turn on a grid of 2^bits points from `low` to `high`, of which 0 is one."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (2**bits - 1)
    zero = np.floor(-low / step + 0.5)
    result = np.empty_like(values)
    for index, value in np.ndenumerate(values):
        code = min(max(value / step + zero, 0), 2**bits - 1)
        result[index] = (np.floor(code + 0.5) - zero) * step
    return result


def slow_convolution(images, layer):
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    outputs, inputs, height, width = weight.shape
    rows, columns = images.shape[2] - height + 1, images.shape[3] - width + 1
    result = np.empty((len(images), outputs, rows, columns))
    for n, o, r, c in np.ndindex(result.shape):
        total = bias[o]
        for i, y, x in np.ndindex(inputs, height, width):
            total += weight[o, i, y, x] * images[n, i, r + y, c + x]
        result[n, o, r, c] = total
    return result


def slow_linear(values, layer):
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    result = np.empty((len(values), len(weight)))
    for n, o in np.ndindex(result.shape):
        result[n, o] = bias[o] + sum(weight[o, i] * values[n, i] for i in range(values.shape[1]))
    return result


def tiny():
    """A convolution and a linear layer, in double precision so that a slow loop rounds to the same codes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).double()


@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_logits_are_those_of_a_slow_loop(bits):
    model, images = tiny(), samples.random_images(5, 1, 4).double()
    calibration = samples.random_images(7, 1, 4, seed=1).double()
    calibrated = slow_convolution(calibration.numpy(), model[0]).clip(0)
    fed = slow_quantized(images.numpy(), float(calibration.min()), float(calibration.max()), bits)
    hidden = slow_convolution(fed, model[0]).clip(0).reshape(5, -1)
    fed_last = slow_quantized(hidden, 0.0, calibrated.max(), bits)
    expected = slow_linear(fed_last, model[3])
    grids = quantize_activations(model, {"0": f"int{bits}", "3": f"int{bits}"}, calibration)
    assert list(grids) == ["0", "3"]
    np.testing.assert_allclose(model(images).detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("sign", [None, 1, -1])
def test_values_are_those_of_torch_and_zero_stays_zero(bits, sign):
    values = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    if sign is not None:
        values = sign * values.abs()
    layer = nn.Linear(1, 1)
    (grid,) = quantize_activations(nn.Sequential(layer), {"0": f"int{bits}"}, values).values()
    (measured,) = layer.input_quantizer(layer, (values,))
    assert grid.offset is None
    expected = torch.fake_quantize_per_tensor_affine(
        values, float(grid.scale), int(grid.zero_point), grid.low, grid.high
    )
    # torch rounds ties to the even code and multiplies with 1 / scale.
    differing = (measured - expected).abs() > 1e-6
    assert differing.float().mean() < 1e-3
    assert len(torch.unique(measured)) <= 2**bits
    zero = torch.zeros(1, 1)
    assert float(layer.input_quantizer(layer, (zero,))[0]) == 0
    assert int(quantize(zero, grid)) == int(grid.zero_point)
    beyond = torch.tensor([[-1e3], [1e3]])
    clipped = layer.input_quantizer(layer, (beyond,))[0].flatten().tolist()
    assert clipped == pytest.approx(
        [min(float(values.min()), 0), max(float(values.max()), 0)], abs=float(grid.scale) / 2 + 1e-6
    )


class _Twice(nn.Module):
    """One layer that is called twice, and one that is never called."""

    def __init__(self, second=10.0):
        super().__init__()
        self.layer, self.idle, self.second = nn.Linear(2, 2), nn.Linear(2, 2), second

    def forward(self, x):
        return self.layer(x) + self.layer(self.second * x)


def test_the_range_is_over_all_calls_of_a_layer():
    images = torch.tensor([[-1.0, 0.5], [0.25, 2.0]])
    grid = quantize_activations(_Twice(), {"layer": "int8"}, images)["layer"]
    assert float(grid.scale) == pytest.approx(30 / 255)
    assert int(grid.zero_point) == round(10 / 30 * 255)


def test_the_range_is_over_all_batches():
    images = torch.rand(200, 1)
    images[3], images[-1] = -2.0, 4.0
    grid = quantize_activations(nn.Sequential(nn.Linear(1, 1)), {"0": "int4"}, images)["0"]
    assert (float(grid.scale), int(grid.zero_point)) == (pytest.approx(6 / 15), 5)


def test_a_layer_that_is_never_called_is_named():
    model = _Twice()
    with pytest.raises(ValueError, match="idle is not called on the calibration images"):
        quantize_activations(model, {"layer": "int8", "idle": "int8"}, torch.ones(1, 2))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(isinstance(module, InputQuantizer) for module in model.modules())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_activations_that_are_not_finite_name_the_layer(bad):
    model, images = tiny(), samples.random_images(70, 1, 4).double()
    precisions = {"0": "int8", "3": "int8"}
    model[0].bias.data[1] = bad
    # A ReLU would make a zero of minus infinity.
    model[1] = nn.Identity()
    with pytest.raises(ValueError, match="3 is fed activations that are not finite"):
        quantize_activations(model, precisions, images)
    images[-1, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="0 is fed activations that are not finite"):
        quantize_activations(tiny(), precisions, images)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_range_beyond_the_format_names_the_layer():
    with pytest.raises(ValueError, match=r"0 is fed .* range beyond"):
        quantize_activations(nn.Sequential(nn.Linear(1, 1)), {"0": "int8"}, torch.tensor([[-3e38], [3e38]]))


def test_a_layer_that_is_fed_zeros_is_left_as_it_is():
    model, images = tiny(), samples.random_images(5, 1, 4).double()
    model[0].bias.data[:] = -100.0
    grids = quantize_activations(model, {"0": "int8", "3": "int2"}, images)
    assert list(grids) == ["0"]
    assert torch.equal(model(images), model[3].bias.expand(5, 3))
    # Where the layer is fed something after all, it is not cut down to zero.
    fed = torch.randn(4, 8).double()
    assert torch.equal(model[3](fed), functional.linear(fed, model[3].weight, model[3].bias))


def test_a_constant_activation_is_kept():
    layer = nn.Linear(1, 1)
    quantize_activations(nn.Sequential(layer), {"0": "int2"}, torch.full((3, 1), 0.7))
    assert float(layer.input_quantizer(layer, (torch.tensor([[0.7]]),))[0]) == pytest.approx(0.7)


@pytest.mark.parametrize("images", [None, [[1.0]], torch.ones(2, 1, dtype=torch.uint8), torch.ones(0, 1)])
def test_what_is_no_calibration_is_refused(images):
    with pytest.raises(ValueError, match=r"give a float tensor \(B, C, H, W\) of normalised ones, not empty"):
        quantize_activations(nn.Sequential(nn.Linear(1, 1)), {"0": "int8"}, images)


def test_activations_are_quantized_once():
    model, images = tiny(), samples.random_images(5, 1, 4).double()
    quantize_activations(model, {"0": "int8"}, images)
    with pytest.raises(ValueError, match="quantized already"):
        quantize_activations(model, {"3": "int8"}, images)


def test_calibration_changes_no_weight_and_no_statistics():
    model = samples.tiny_model(dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize_activations(model, {"0": "int8", "5": "int8"}, samples.random_images(9, 1, 6))
    after = model.state_dict()
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    added = set(after) - set(before)
    assert added == {f"{layer}.input_quantizer.{what}" for layer in "05" for what in ("scale", "zero_point")}


def test_a_copy_has_quantizers_of_its_own():
    model, images = tiny(), samples.random_images(5, 1, 4).double()
    plain = model(images)
    quantize_activations(model, {"0": "int2", "3": "int2"}, images)
    expected = model(images)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(images), expected)
    assert not torch.equal(plain, expected)
    copied[0].input_quantizer.scale.mul_(3)
    assert not torch.equal(copied(images), expected)
    assert torch.equal(model(images), expected)


def test_quantizers_move_and_are_saved_with_the_model():
    model, images = tiny(), samples.random_images(5, 1, 4).double()
    quantize_activations(model, {"0": "int3", "3": "int3"}, images)
    moved = copy.deepcopy(model).to("meta")
    assert moved[0].input_quantizer.grid.scale.device.type == "meta"
    assert moved(images.to("meta")).shape == (5, 3)
    other = tiny()
    quantize_activations(other, {"0": "int3", "3": "int3"}, 2 * images)
    assert not torch.equal(other(images), model(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), model(images))


def test_what_a_layer_is_fed_is_not_changed_for_others():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return x + 0 * self.layer(x)

    model, images = Residual(), torch.randn(4, 3)
    before = images.clone()
    quantize_activations(model, {"layer": "int1"}, images)
    assert torch.equal(model(images), before)
    assert torch.equal(images, before)
