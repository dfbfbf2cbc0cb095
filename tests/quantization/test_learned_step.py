import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from quantskew.quantization.grids import choose_qparams, fake_quantize
from quantskew.quantization.learned_step import LearnedStep, fake_quantize_learned, trainable_bits

BITS = (2, 3, 4, 8)


def bounds(bits):
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def weights_and_step(bits, seed=0):
    """Weights inside, clipped, and on every border of codes, exactly since the step is a power of two."""
    low, high = bounds(bits)
    generator = torch.Generator().manual_seed(seed)
    step = 2.0**-5
    ties = (torch.arange(low - 2, high + 3) + 0.5) * step
    noise = torch.randn(300, generator=generator) * step * high
    return torch.cat([ties, noise, torch.zeros(1)]), step


def by_hand(weight, step, low, high, upstream):
    """Values, gradient of the weight and of the step, one number at a time."""
    values, of_weight, of_step = [], [], 0.0
    for w, g in zip(weight.tolist(), upstream.tolist(), strict=True):
        code = round(w / step)  # Python rounds ties to even too
        if code < low or code > high:
            code = low if code < low else high
            of_weight.append(0.0)
            of_step += g * code
        else:
            of_weight.append(g)
            of_step += g * (code - w / step)
        values.append(code * step)
    return values, of_weight, of_step


def by_detach(weight, step, low, high):
    ratio = weight / step
    # In this order the sum is exact, and with it which codes are clipped.
    codes = ratio.round().detach() + (ratio - ratio.detach())
    # Not clamp, whose gradient is 0 at the bounds themselves in some versions of torch.
    clipped = torch.where((codes < low) | (codes > high), codes.detach().clamp(low, high), codes)
    return clipped * step


def gradients(function, weight, step, low, high, upstream):
    weight, step = weight.clone().requires_grad_(), torch.tensor(step, dtype=weight.dtype, requires_grad=True)
    values = function(weight, step, low, high)
    values.backward(upstream)
    return values.detach(), weight.grad, step.grad


@pytest.mark.parametrize("bits", BITS)
def test_values_and_gradients_by_hand(bits):
    weight, step = weights_and_step(bits)
    upstream = torch.randn(len(weight), generator=torch.Generator().manual_seed(1))
    values, of_weight, of_step = gradients(fake_quantize_learned, weight, step, *bounds(bits), upstream)
    expected = by_hand(weight, step, *bounds(bits), upstream)
    assert values.tolist() == expected[0]
    assert of_weight.tolist() == expected[1]
    assert of_step.item() == pytest.approx(expected[2], rel=1e-4)


@pytest.mark.parametrize("bits", BITS)
def test_gradients_are_those_of_rounding_by_detach(bits):
    weight, step = weights_and_step(bits, seed=2)
    weight = weight.double()
    upstream = torch.randn(len(weight), generator=torch.Generator().manual_seed(3)).double()
    ours = gradients(fake_quantize_learned, weight, step, *bounds(bits), upstream)
    theirs = gradients(by_detach, weight, step, *bounds(bits), upstream)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bits", BITS)
def test_gradients_are_those_of_torchs_kernel(bits):
    def kernel(weight, step, low, high):
        return torch._fake_quantize_learnable_per_tensor_affine(
            weight, step.view(1), torch.zeros(1), low, high, 1.0
        )

    weight, step = weights_and_step(bits, seed=4)
    upstream = torch.randn(len(weight), generator=torch.Generator().manual_seed(5))
    ours = gradients(fake_quantize_learned, weight, step, *bounds(bits), upstream)
    theirs = gradients(kernel, weight, step, *bounds(bits), upstream)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(ours[2], theirs[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient_layout", [torch.contiguous_format, torch.channels_last])
def test_layouts_do_not_matter(gradient_layout):
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    upstream = torch.randn(4, 3, 3, 3, generator=generator)
    expected = gradients(fake_quantize_learned, weight, 0.3, -2, 1, upstream)
    last = weight.to(memory_format=torch.channels_last)
    found = gradients(fake_quantize_learned, last, 0.3, -2, 1, upstream.to(memory_format=gradient_layout))
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for mine, other in zip(found[:2], expected[:2], strict=True):
        assert torch.equal(mine, other)
    torch.testing.assert_close(found[2], expected[2])


@pytest.mark.parametrize("precision", ["int2", "int4", "int8", "int16"])
def test_the_first_step_is_that_of_least_squared_error(precision):
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(7))
    learned = LearnedStep(weight, precision)
    assert learned.step == choose_qparams(weight, f"{precision}:mse").scale
    assert torch.equal(learned(weight), fake_quantize(weight, f"{precision}:mse"))


def parametrized(learn=True):
    layer = nn.Linear(6, 3)
    parametrize.register_parametrization(layer, "weight", LearnedStep(layer.weight, "int3", learn))
    return layer


def test_a_step_can_be_learned_or_not():
    for learn in (True, False):
        layer = parametrized(learn)
        layer(torch.ones(2, 6)).sum().backward()
        step = layer.parametrizations.weight[0].step
        assert (step.grad is not None) == learn
        assert layer.parametrizations.weight.original.grad is not None


def test_a_copy_is_independent_and_takes_its_state():
    layer = parametrized()
    layer(torch.ones(2, 6))
    other = copy.deepcopy(layer)
    with torch.no_grad():
        layer.parametrizations.weight[0].step.mul_(2)
    assert not torch.equal(other.weight, layer.weight)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)


def test_the_quantized_weight_is_kept_in_training_only():
    layer = parametrized()
    step = layer.parametrizations.weight[0]
    for training, grad, kept in ((True, True, True), (True, False, False), (False, True, False)):
        step.forget()
        layer.train(training)
        with torch.set_grad_enabled(grad):
            layer(torch.ones(1, 6))
        assert (step.quantized is not None) == kept
    layer.train()(torch.ones(1, 6))
    assert torch.equal(step.quantized, layer.weight)
    assert not step.quantized.requires_grad


def test_a_step_never_reaches_zero():
    learned = LearnedStep(torch.randn(9), "int4")
    first = learned.step.item()
    with torch.no_grad():
        learned.step.fill_(-1.0)
    learned.keep_positive()
    assert learned.step.item() == pytest.approx(first / 100)


def test_weights_that_are_all_zero_stay_zero():
    weight = torch.zeros(4)
    assert torch.equal(LearnedStep(weight, "int4")(weight), weight)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("int1", "int1 has no positive code.*at least int2"),
        ("fp32", "fp32 has no integer grid.*int2 to int16"),
        ("int99", "unknown precision 'int99'"),
    ],
)
def test_precisions_that_cannot_be_trained_are_refused(precision, message):
    with pytest.raises(ValueError, match=message):
        trainable_bits(precision)


def test_short_formats_are_refused():
    with pytest.raises(ValueError, match=r"float32 or float64; got torch\.bfloat16"):
        LearnedStep(torch.ones(3, dtype=torch.bfloat16), "int4")
