"""Calibrated rounding against exhaustive search, the layer's Hessian by hand, and another library."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

import samples
from quantskew.audits.model import audit_model, calibration_images
from quantskew.datasets import normalise
from quantskew.quantization import rounding
from quantskew.quantization.grids import choose_qparams, dequantize, fake_quantize, quantize
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.quantization.quantizer import Quantizer
from quantskew.quantization.rounding import adaround, gptq, layer_hessian

CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(2, 3, 3),
    "grouped": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(3, 3, (3, 2), padding=(1, 0), groups=3),
    "dilated": lambda: nn.Conv2d(2, 2, 2, dilation=2, padding="same"),
    "reflected": lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    "of one axis": lambda: nn.Conv1d(2, 3, 3, stride=2),
    "linear": lambda: nn.Linear(5, 3),
}


def correlated(count, size, seed=0):
    """Inputs of which each is much like the others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator) / size**0.5
    return torch.randn(count, size, generator=generator) @ mixing + torch.randn(count, 1, generator=generator)


def output_error(layer, fed, values):
    return float((fed @ (values - layer.weight.detach()).T).square().sum())


@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=list(CONVOLUTIONS))
def test_the_hessian_of_a_layer_is_that_of_autograd(make):
    torch.manual_seed(0)
    layer = make().double()
    shape = {nn.Linear: (5, 4, 5), nn.Conv1d: (5, 2, 7)}.get(type(layer), (5, layer.weight.shape[1], 6, 5))
    if isinstance(layer, nn.Conv2d):
        shape = (5, layer.in_channels, 6, 5)
    fed = torch.randn(shape, dtype=torch.float64)
    hessian, target = layer_hessian(layer, fed), layer(fed)

    def error(weight):
        given = torch.func.functional_call(layer, {"weight": weight}, (fed,))
        return (given - target).square().sum()

    whole = torch.autograd.functional.hessian(error, layer.weight.detach())
    outputs = len(layer.weight)
    size = layer.weight[0].numel()
    whole = whole.reshape(outputs, size, outputs, size)
    for one, other in itertools.product(range(outputs), repeat=2):
        group = one * len(hessian) // outputs
        expected = hessian[group] if one == other else torch.zeros(size, size)
        torch.testing.assert_close(whole[one, :, other], expected.double())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("precision", ["int2", "int3", "int8"])
def test_gptq_is_rounding_to_nearest_where_inputs_are_white(precision, per_channel):
    torch.manual_seed(0)
    weight = torch.randn(6, 300)
    grid = choose_qparams(weight, Quantizer(precision, "mse", per_channel))
    white = 7 * torch.eye(300, dtype=torch.float64)[None]
    assert torch.equal(gptq(weight, grid, white), quantize(weight, grid))
    assert torch.equal(gptq(weight, grid, 0 * white), quantize(weight, grid))


def slow_gptq(row, scale, low, high, hessian):
    """One weight after the other, each with the inverse Hessian of those that are left."""
    row, hessian = row.astype(np.float64), hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))
    codes, left = np.empty(len(row)), list(range(len(row)))
    while left:
        inverse = np.linalg.inv(hessian[np.ix_(left, left)])
        i, *rest = left
        codes[i] = np.clip(np.round(row[i] / scale), low, high)
        row[rest] -= (row[i] - codes[i] * scale) / inverse[0, 0] * inverse[0, 1:]
        left = rest
    return codes


@pytest.mark.parametrize("per_channel", [False, True])
def test_gptq_is_optimal_brain_quantization_in_order(per_channel, monkeypatch):
    monkeypatch.setattr(rounding, "_BLOCK", 4)
    torch.manual_seed(0)
    layer, fed = nn.Linear(11, 5).double(), correlated(40, 11).double()
    grid = choose_qparams(layer.weight.detach(), Quantizer("int3", "mse", per_channel))
    hessian = layer_hessian(layer, fed)
    codes = gptq(layer.weight.detach(), grid, hessian)
    for row, weight in enumerate(layer.weight.detach().numpy()):
        scale = float(grid.scale[row] if per_channel else grid.scale)
        expected = slow_gptq(weight, scale, grid.low, grid.high, hessian[0].numpy())
        np.testing.assert_array_equal(codes[row].numpy(), expected)


def best_codes(layer, fed, grid, choices):
    """Of all codes that `choices` has for each weight those of least output error."""
    best = torch.empty_like(layer.weight)
    for row, weight in enumerate(layer.weight.detach()):
        every = torch.tensor(list(itertools.product(*choices(weight))), dtype=weight.dtype)
        errors = ((every * grid.scale - weight) @ fed.T).square().sum(1)
        best[row] = every[errors.argmin()]
    return best.detach()


def test_no_rounding_is_better_than_the_best_and_calibrated_ones_come_close():
    errors = {"best": 0.0, "best of two": 0.0, "nearest": 0.0, "gptq": 0.0, "adaround": 0.0}
    for seed in range(4):
        torch.manual_seed(seed)
        layer, fed = nn.Linear(6, 8, bias=False), correlated(64, 6, seed)
        weight = layer.weight.detach()
        grid = choose_qparams(weight, "int2:mse")

        def any_code(row, grid=grid):
            return [range(grid.low, grid.high + 1)] * len(row)

        def up_or_down(row, grid=grid):
            below = (row / grid.scale).floor()
            ends = zip(below.clamp(grid.low, grid.high), (below + 1).clamp(grid.low, grid.high), strict=True)
            return [sorted({int(a), int(b)}) for a, b in ends]

        found = {
            "best": best_codes(layer, fed, grid, any_code),
            "best of two": best_codes(layer, fed, grid, up_or_down),
            "nearest": quantize(weight, grid),
            "gptq": gptq(weight, grid, layer_hessian(layer, fed).double()),
            "adaround": adaround(weight, grid, [(layer, fed)], [layer(fed).detach()]),
        }
        own = {name: output_error(layer, fed, dequantize(codes, grid)) for name, codes in found.items()}
        assert all(own["best"] <= error * 1.0001 for error in own.values())
        assert own["best of two"] <= own["adaround"] * 1.0001
        assert own["adaround"] < own["nearest"]
        errors = {name: errors[name] + error for name, error in own.items()}
    assert errors["gptq"] < 0.75 * errors["nearest"]
    assert errors["adaround"] < 1.2 * errors["best of two"]


@pytest.mark.parametrize(
    "name", ["int3:gptq", "int2:adaround", "int4:gptq,per-channel,bias-corrected,ends-int8"]
)
def test_codes_lie_on_the_grid_of_least_squared_error(model, name, monkeypatch):
    monkeypatch.setattr(rounding, "_STEPS", 20)
    quantizer = Quantizer.parse(name)
    images, before = samples.random_images(12), copy.deepcopy(model.state_dict())
    model.train()
    quantized = quantize_model(model, quantizer, images)
    again = quantize_model(model, quantizer, images)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    plain = quantize_model(model, name.replace(quantizer.scheme, "mse"))
    assert list(quantized.quantized) == list(plain.quantized)
    differing = 0
    for key, weight in weight_parameters(quantized).items():
        own, nearest = quantized.quantized[key], plain.quantized[key]
        assert own.precision == nearest.precision
        assert torch.equal(own.grid.scale, nearest.grid.scale)
        assert own.codes.dtype == nearest.codes.dtype
        assert own.grid.low <= int(own.codes.min()) <= int(own.codes.max()) <= own.grid.high
        assert torch.equal(dequantize(own.codes, own.grid), weight)
        assert torch.equal(weight, weight_parameters(again)[key])
        differing += int((own.codes != nearest.codes).sum())
        if quantizer.bias_correction:
            means = weight_parameters(model)[key].flatten(1).mean(1)
            torch.testing.assert_close(weight.flatten(1).mean(1), means, rtol=0, atol=1e-6)
    assert differing > 100
    assert not any(module._forward_pre_hooks for module in [*model.modules(), *quantized.modules()])


def test_each_layer_is_rounded_by_what_the_rounded_ones_before_it_give():
    torch.manual_seed(0)

    # Called in another order than they are registered in, and the last one twice.
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early, self.twice = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.late(torch.relu(self.early(x)))
            return self.twice(torch.relu(self.twice(x)))

    model, images = Crossed(), torch.randn(70, 4)
    quantized = quantize_model(model, "int2:gptq", images)
    assert list(quantized.quantized) == ["late.weight", "early.weight", "twice.weight"]
    fed, by_hand = images, {}
    for name in ("early", "late"):
        layer = getattr(model, name)
        grid = choose_qparams(layer.weight.detach(), "int2:mse")
        by_hand[name] = gptq(layer.weight.detach(), grid, layer_hessian(layer, fed).detach().double())
        fed = torch.nn.functional.linear(fed, dequantize(by_hand[name], grid), layer.bias)
        fed = torch.relu(fed) if name == "early" else fed
        assert torch.equal(quantized.quantized[f"{name}.weight"].codes, by_hand[name])
    first = layer_hessian(model.twice, fed)
    # The second call is fed by the float layer, which is not rounded yet.
    second = layer_hessian(model.twice, torch.relu(model.twice(fed)))
    grid = choose_qparams(model.twice.weight.detach(), "int2:mse")
    expected = gptq(model.twice.weight.detach(), grid, (first + second).detach().double())
    assert torch.equal(quantized.quantized["twice.weight"].codes, expected)


def test_shared_weights_and_quantized_activations(monkeypatch):
    monkeypatch.setattr(rounding, "_STEPS", 5)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    images = torch.randn(30, 4)
    for scheme in ("gptq", "adaround"):
        quantized = quantize_model(model, f"W3A8:{scheme}", images)
        assert quantized[2].weight is quantized[0].weight
        assert list(quantized.activation_grids) == ["0", "2"]
        weights = quantize_model(model, f"int3:{scheme}", images)
        assert torch.equal(quantized[0].weight, weights[0].weight)


def test_the_output_of_layers_is_kept_better_than_by_rounding_to_nearest(digits_model, digits, monkeypatch):
    monkeypatch.setattr(rounding, "_STEPS", 60)
    calibration, unseen = calibration_images(digits), normalise(digits.test.images[:200])
    with torch.no_grad():
        logits = digits_model(unseen)
        given = {
            scheme: quantize_model(digits_model, f"int3:{scheme}", calibration)(unseen)
            for scheme in ("mse", "gptq", "adaround")
        }
    errors = {scheme: float((own - logits).square().mean()) for scheme, own in given.items()}
    assert errors["gptq"] < 0.7 * errors["mse"]
    assert errors["adaround"] < 0.7 * errors["mse"]


@pytest.mark.parametrize(
    ("make", "images", "message"),
    [
        (lambda: nn.Linear(4, 2), None, "need images: give a float tensor"),
        (lambda: nn.Linear(4, 2), torch.randn(0, 4), "need images: give a float tensor"),
        (
            lambda: nn.Linear(4, 2),
            torch.full((3, 4), torch.nan),
            "weight: its layer is fed what is not finite",
        ),
        (
            lambda: nn.ConvTranspose2d(1, 1, 2),
            torch.randn(2, 1, 4, 4),
            "weight: GPTQ cannot round a transposed",
        ),
    ],
)
def test_what_cannot_be_rounded_is_refused(make, images, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(make(), "int4:gptq", images)


def test_layers_that_are_never_called_are_refused():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    with pytest.raises(ValueError, match=r"attention\.in_proj_weight: no layer with it is called"):
        quantize_model(Attending(), "int4:gptq", torch.randn(3, 2, 4))


def test_a_weight_alone_cannot_be_rounded_by_what_it_is_fed():
    with pytest.raises(ValueError, match="int4:gptq rounds by what a layer is fed; use quantize_model"):
        fake_quantize(torch.ones(3), "int4:gptq")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_gptq_keeps_the_output_of_a_layer_as_well_as_that_of_brevitas():
    pytest.importorskip("brevitas", reason="brevitas is in the optional extra 'bench'")
    from brevitas.graph.gptq import gptq_mode
    from brevitas.inject.enum import ScalingImplType
    from brevitas.nn import QuantConv2d
    from brevitas.quant import Int8WeightPerTensorFloat

    torch.manual_seed(0)
    theirs = QuantConv2d(
        6, 16, 3, padding=1, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=3,
        weight_scaling_impl_type=ScalingImplType.PARAMETER_FROM_STATS,
    ).eval()  # fmt: skip
    layer = nn.Conv2d(6, 16, 3, padding=1, bias=False)
    layer.load_state_dict({"weight": theirs.weight.detach().clone()})
    # Neighbouring pixels and channels are alike, as in images.
    images = torch.randn(40, 1, 12, 12) + nn.functional.avg_pool2d(torch.randn(40, 6, 16, 16), 5, 1)
    with torch.no_grad():
        weight, target = layer.weight.detach(), layer(images)
        grid = choose_qparams(weight, "int3:symmetric")
        assert torch.equal(theirs.quant_weight().value, dequantize(quantize(weight, grid), grid))
        errors = {"nearest": theirs(images)}
        codes = gptq(weight, grid, layer_hessian(layer, images).double())
        layer.weight.copy_(dequantize(codes, grid))
        errors["ours"] = layer(images)
        model = nn.Sequential(theirs)
        with gptq_mode(model, use_quant_activations=False) as mode:
            for _ in range(mode.num_layers):
                mode.model(images)
                mode.update()
        errors["theirs"] = model(images)
    errors = {name: float((given - target).square().mean()) for name, given in errors.items()}
    assert errors["ours"] == pytest.approx(errors["theirs"], rel=0.02)
    assert errors["ours"] < 0.6 * errors["nearest"]


def test_the_curvature_of_an_audit_is_at_the_rounded_weights():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval(), samples.tiny_data()
    audit = audit_model(model, data, ["fp32", "int2:mse", "int2:gptq"], curvature=3)
    rounded = quantize_model(model, "int2:gptq", calibration_images(data))
    moved = float((rounded[1].weight - model[1].weight).detach().norm())
    assert audit.curvature.change_norms[2] == pytest.approx(moved, rel=1e-5)
    assert audit.curvature.change_norms[2] > audit.curvature.change_norms[1]
