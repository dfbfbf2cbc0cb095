import copy

import pytest
import torch
from torch import nn

import samples
from quantskew.datasets import normalise
from quantskew.quantization.grids import dequantize, fake_quantize
from quantskew.quantization.ptq import HalfPrecision, quantize_model, weight_parameters
from quantskew.quantization.quantizer import PRECISIONS, SCHEMES, Quantizer, integer_bits
from quantskew.training.models import build


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(module, expected):
    assert list(module.state_dict()) == list(expected)
    for name, value in module.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("fold", [False, True])
def test_the_original_is_never_changed(model, precision, fold):
    # A frozen batch norm inside a model that is being trained: each module has a mode of its own.
    model.train()
    model.bn.eval()
    before, modes = state(model), [module.training for module in model.modules()]
    quantized = quantize_model(model, Quantizer(precision, fold_batchnorm=fold))
    for parameter in quantized.parameters():
        parameter.data.add_(1)
    assert_same_state(model, before)
    assert [module.training for module in model.modules()] == modes
    assert not quantized.training


@pytest.mark.parametrize("precision", ["int8", "int3", "int1", "int16"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_codes_scale_and_zero_point_give_the_weights(model, precision, scheme, per_channel):
    quantizer = Quantizer(precision, scheme, per_channel)
    quantized = quantize_model(model, quantizer)
    weights, originals = weight_parameters(quantized), weight_parameters(model)
    assert list(quantized.quantized) == list(weights)
    for name, record in quantized.quantized.items():
        assert not record.codes.is_floating_point()
        assert torch.equal(dequantize(record.codes, record.grid), weights[name])
        assert torch.equal(fake_quantize(originals[name], quantizer), weights[name])
        assert record.grid.scale.numel() == (len(weights[name]) if per_channel else 1)
        assert record.zeros == int((weights[name] == 0).sum())


def test_every_convolution_and_linear_layer_is_quantized_and_nothing_else():
    model = build("resnet18", num_classes=3)
    quantized = quantize_model(model, "int4")
    layers = {n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert len(layers) == 21
    assert {name.removesuffix(".weight") for name in quantized.quantized} == layers
    for name, value in quantized.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]) != (name in quantized.quantized), name


@pytest.mark.parametrize("precision", ["int2", "int12"])
def test_boundary_precision_is_that_of_the_first_and_the_last_layer(model, precision):
    quantized = quantize_model(model, f"{precision}:ends-int8").quantized
    precisions = [record.precision for record in quantized.values()]
    assert precisions == ["int8", *[precision] * (len(precisions) - 2), "int8"]
    weights = weight_parameters(model)
    for name, record in quantized.items():
        expected = fake_quantize(weights[name], record.precision)
        assert torch.equal(dequantize(record.codes, record.grid), expected)


ENDS = Quantizer(boundary_precision="int8")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_boundary_precision_does_not_touch_floating_point(model, precision):
    images = samples.random_images(2)
    plain, bounded = (quantize_model(model, own.at(precision)) for own in (Quantizer(), ENDS))
    assert torch.equal(plain(images), bounded(images))
    assert bounded.quantized == {}


def test_folding_batch_norm_keeps_the_logits(model):
    images = samples.random_images(6)
    folded = quantize_model(model, "fp32:folded")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert list(weight_parameters(folded)) == list(weight_parameters(model))
    torch.testing.assert_close(folded(images), model(images), rtol=1e-4, atol=1e-4)


def test_folded_weights_are_what_is_quantized(model):
    folded = weight_parameters(quantize_model(model, "fp32:folded"))
    quantized = quantize_model(model, "int4:folded").quantized
    for name, record in quantized.items():
        assert torch.equal(dequantize(record.codes, record.grid), fake_quantize(folded[name], "int4"))


class _Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

    def forward(self, x):
        return self.bn(self.conv(x)) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("module", "message"),
    [(nn.Sequential(nn.Conv2d(1, 1, 1)), "no batch norm to fold"), (_Branching(), "cannot be traced")],
)
def test_what_cannot_be_folded_is_refused(module, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(module, "int8:folded")


def test_a_shared_weight_is_quantized_once_and_stays_shared():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    quantized = quantize_model(model, "int2")
    assert list(quantized.quantized) == ["0.weight"]
    assert quantized[2].weight is quantized[0].weight
    assert torch.equal(quantized[0].weight, fake_quantize(model[0].weight, "int2"))


@pytest.mark.parametrize(
    ("attention", "names"),
    [
        (nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
        (
            nn.MultiheadAttention(4, 2, kdim=3, vdim=3),
            ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
        ),
    ],
)
def test_attention_projections_are_linear_layers(attention, names):
    quantized = quantize_model(nn.Sequential(attention), "int3")
    assert list(quantized.quantized) == [f"0.{name}" for name in names]
    for name, weight in weight_parameters(quantized).items():
        assert torch.equal(weight, fake_quantize(weight_parameters(nn.Sequential(attention))[name], "int3"))


def test_channels_of_a_transposed_convolution_lie_on_its_second_axis():
    layer = nn.ConvTranspose2d(2, 5, 3)
    record = quantize_model(layer, "int4:per-channel").quantized["weight"]
    assert record.grid.scale.shape == (1, 5, 1, 1)
    assert torch.equal(
        dequantize(record.codes, record.grid), fake_quantize(layer.weight, "int4:per-channel", channel_axis=1)
    )


def channel_means(weight, axis):
    return weight.mean([other for other in range(weight.ndim) if other != axis])


@pytest.mark.parametrize(
    ("make", "axis"),
    [
        (lambda: nn.Conv2d(3, 5, 3), 0),
        (lambda: nn.Linear(7, 5), 0),
        (lambda: nn.ConvTranspose2d(2, 5, 3), 1),
    ],
    ids=["conv", "linear", "transposed"],
)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("one_sign", [False, True])
def test_bias_correction_gives_channels_their_means_back(make, axis, scheme, per_channel, one_sign):
    layer = make()
    if one_sign:
        layer.weight.data.abs_().add_(0.1)
    plain = quantize_model(layer, Quantizer("int2", scheme, per_channel))
    corrected = quantize_model(layer, Quantizer("int2", scheme, per_channel, bias_correction=True))
    record = corrected.quantized["weight"]
    means, corrected_means = channel_means(layer.weight, axis), channel_means(corrected.weight, axis)
    torch.testing.assert_close(corrected_means, means, rtol=0, atol=1e-6)
    assert not torch.allclose(channel_means(plain.weight, axis), means, rtol=0, atol=1e-6)
    assert torch.equal(record.codes, plain.quantized["weight"].codes)
    assert torch.equal(dequantize(record.codes, record.grid), corrected.weight)
    assert record.zeros == int((corrected.weight == 0).sum())


def test_bias_correction_leaves_fp32_and_biases_alone(model):
    corrected = Quantizer(bias_correction=True)
    assert_same_state(quantize_model(model, corrected.at("fp32")), state(model))
    plain, corrected = (quantize_model(model, own).state_dict() for own in ("int4", corrected.at("int4")))
    changed = {name for name, value in corrected.items() if not torch.equal(value, plain[name])}
    assert changed == set(weight_parameters(model))


@pytest.mark.parametrize(
    ("row", "zeros"),
    [
        ([-1.0, 0.2, 2.0], 1),  # step 1: -1, 0, 2
        ([-3.0, -1.0, 0.0], 1),  # all of one sign: step 1 from -3, its last code is 0
        ([0.0, 1.0, 3.0], 1),
        ([1.0, 2.0, 4.0], 0),
        ([0.0, 0.0, 0.0], 3),
        ([0.5, 0.5, 0.5], 0),
    ],
)
@pytest.mark.parametrize("per_channel", [False, True])
def test_zeros_counted_by_hand(row, zeros, per_channel):
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data[:] = torch.tensor(row)
    quantized = quantize_model(layer, Quantizer("int2", per_channel=per_channel))
    assert quantized.quantized["weight"].zeros == zeros
    assert int((quantized.weight == 0).sum()) == zeros


def test_bf16_models_stay_bf16(model):
    quantized = quantize_model(copy.deepcopy(model).bfloat16(), "int4")
    assert {p.dtype for p in quantized.parameters()} == {torch.bfloat16}
    assert quantized(samples.random_images(2).bfloat16()).isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_weight_that_is_not_finite_names_its_layer(model, bad, precision):
    model.stages[1].conv2.weight.data[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"stages\.1\.conv2\.weight .*not finite"):
        quantize_model(model, precision)


def test_a_range_beyond_the_format_names_its_layer(model):
    model.head.weight.data[0, :2] = torch.tensor([-3e38, 3e38])
    with pytest.raises(ValueError, match=r"head\.weight: .*range beyond"):
        quantize_model(model, "int4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int99"}, "unknown precision 'int99'.*fp32, fp16, int16"),
        ({"precision": "fp32", "scheme": "minmax"}, "unknown scheme 'minmax'.*banner, symmetric, mse"),
        ({"precision": "int4", "boundary_precision": "fp16"}, "must be an integer precision"),
        ({"precision": "int4", "boundary_precision": "int77"}, "unknown precision 'int77'"),
        ({"precision": "int4", "activation_precision": "int77"}, "unknown precision 'int77'"),
        ({"precision": "int4", "activation_precision": "fp16"}, "integer precision or fp32; got 'fp16'"),
        ({"precision": "fp16", "activation_precision": "int8"}, "fp16 computes with fp16 activations"),
    ],
)
def test_unknown_names_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(model, Quantizer(**options))


def test_activations_are_quantized_only_with_calibration_images(model):
    with pytest.raises(ValueError, match="give a float tensor"):
        quantize_model(model, "W4A8")


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        quantize_model(nn.ReLU(), "int8")


def test_fp16_agrees_with_torch_half(model):
    images = samples.random_images(8)
    ours = quantize_model(model, "fp16")(images)
    theirs = copy.deepcopy(model).half()(images.half()).float()
    scale = float(theirs.detach().abs().max())
    # Some ten layers, each off by at most 2^-11 of its value.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=10 * 2**-11 * scale)
    assert torch.equal(ours, ours.half().float())
    assert not torch.equal(ours, model(images))
    for parameter in weight_parameters(quantize_model(model, "fp16")).values():
        assert torch.equal(parameter, parameter.half().float())


def test_what_fp16_cannot_hold_is_refused(model):
    model.head.bias.data[0] = 1e6
    with pytest.raises(ValueError, match=r"head\.bias is not finite in half precision"):
        HalfPrecision(model)
    assert integer_bits("fp16") is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int4"])
@pytest.mark.parametrize("off", [{}, {"activation_precision": None}, {"activation_precision": "fp32"}])
def test_without_activation_precision_nothing_is_added(model, precision, off):
    images = samples.random_images(4)
    quantized = quantize_model(model, Quantizer(precision, **off), images)
    assert quantized.activation_grids == {}
    if precision == "fp32":
        assert_same_state(quantized, state(model))
        assert torch.equal(quantized(images), model(images))
    assert list(quantized.state_dict()) == [
        f"model.{name}" if precision == "fp16" else name for name in model.state_dict()
    ]
    assert not any(module._forward_pre_hooks for module in quantized.modules())
    for name, weight in weight_parameters(quantized).items():
        expected = fake_quantize(weight_parameters(model)[name.removeprefix("model.")], precision)
        assert torch.equal(weight, expected)


@pytest.mark.parametrize("precision", ["fp32", "int3"])
@pytest.mark.parametrize("fold", [False, True])
def test_every_layer_is_fed_values_on_a_grid(model, precision, fold):
    images = samples.random_images(6)
    before = state(model)
    quantizer = Quantizer(precision, fold_batchnorm=fold, activation_precision="int4")
    quantized = quantize_model(model, quantizer, images)
    names = [name.removesuffix(".weight") for name in weight_parameters(model)]
    assert list(quantized.activation_grids) == names
    assert [grid.high for grid in quantized.activation_grids.values()] == [15] * len(names)
    weights = quantize_model(model, Quantizer(precision, fold_batchnorm=fold))
    for name, value in weights.state_dict().items():
        assert torch.equal(quantized.state_dict()[name], value), name
    logits = quantized(images)
    assert torch.equal(copy.deepcopy(quantized)(images), logits)
    fed = fed_values(quantized, images)
    assert list(fed) == names
    assert all(len(torch.unique(values)) <= 16 for values in fed.values())
    assert not torch.equal(weights(images), logits)
    assert_same_state(model, before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def fed_values(model, images):
    """What each layer of a model is fed, by the layer's name."""
    fed = {}
    for name in weight_parameters(model):
        layer = name.removesuffix(".weight")
        model.get_submodule(layer).register_forward_pre_hook(
            lambda _, inputs, layer=layer: fed.update({layer: inputs[0].detach()})
        )
    model(images)
    return fed


def test_activations_are_calibrated_after_the_weights_are_quantized(model):
    images = samples.random_images(6)
    grids = quantize_model(model, "W2A8", images).activation_grids
    steps = {
        precision: {
            name: float(fed.max().clamp(min=0) - fed.min().clamp(max=0)) / 255
            for name, fed in fed_values(quantize_model(model, precision), images).items()
        }
        for precision in ("fp32", "int2")
    }
    measured = {name: float(grid.scale) for name, grid in grids.items()}
    assert measured == pytest.approx(steps["int2"], rel=1e-5)
    assert measured["head"] != pytest.approx(steps["fp32"]["head"], rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "int3"])
def test_boundary_precision_is_that_of_the_boundary_s_activations_too(model, precision):
    quantizer = Quantizer(precision, boundary_precision="int8", activation_precision="int4")
    quantized = quantize_model(model, quantizer, samples.random_images(2))
    highest = [grid.high for grid in quantized.activation_grids.values()]
    assert highest == [255, *[15] * (len(highest) - 2), 255]


def test_layers_that_share_a_weight_have_activations_of_their_own():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    grids = quantize_model(model, "A8", torch.randn(9, 3)).activation_grids
    assert list(grids) == ["0", "2"]
    assert float(grids["0"].scale) != float(grids["2"].scale)


@torch.no_grad()
def test_sixteen_bits_change_logits_hardly_and_two_a_lot(digits, digits_model):
    images = normalise(digits.test.images[:200])
    logits = digits_model(images)
    change = {}
    for precision in ("int16", "int8", "int4", "int2"):
        # Calibrated on the same images, so that nothing is beyond the range and cut off.
        quantized = quantize_model(digits_model, Quantizer("fp32", activation_precision=precision), images)
        change[precision] = float((quantized(images) - logits).norm() / logits.norm())
    assert 0 < change["int16"] < 1e-4
    assert change["int16"] < change["int8"] < 0.02 < change["int4"] < change["int2"]
    assert change["int2"] > 0.5


def test_activations_of_bf16_models_stay_bf16(model):
    images = samples.random_images(2).bfloat16()
    quantized = quantize_model(copy.deepcopy(model).bfloat16(), "W8A8", images)
    assert quantized(images).dtype == torch.bfloat16
    assert all(grid.scale.dtype == torch.float32 for grid in quantized.activation_grids.values())


def test_activations_inside_an_attention_layer_cannot_be_quantized():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.attention = nn.Linear(4, 4), nn.MultiheadAttention(4, 2)

        def forward(self, x):
            x = self.first(x)
            return self.attention(x, x, x)[0]

    with pytest.raises(ValueError, match=r"attention\.out_proj is not called .*inside an attention layer"):
        quantize_model(Attending(), "W8A8", torch.randn(5, 1, 4))
