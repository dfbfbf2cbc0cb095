import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import oracles
from quantskew.quantization import grids
from quantskew.quantization.grids import (
    choose_qparams,
    dequantize,
    fake_quantize,
    quantize,
    quantize_dequantize,
)
from quantskew.quantization.quantizer import (
    DEFAULT_PRECISIONS,
    INTEGER_PRECISIONS,
    PRECISIONS,
    SCHEMES,
    Quantizer,
    integer_bits,
)

WEIGHTS = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30).map(torch.tensor)
BITS = st.integers(1, 16)
TINY = torch.finfo(torch.float32).tiny

EDGES = {
    "one positive": [0.7],
    "one negative": [-0.7],
    "one zero": [0.0],
    "zeros of both signs": [0.0, -0.0, 0.0],
    "a positive constant": [0.3] * 4,
    "a negative constant": [-0.3] * 4,
    "a subnormal constant": [1e-40] * 3,
    "subnormals": [-1e-41, 2e-42, 3e-40, 0.0],
    "the smallest range": [1.0, math.nextafter(1.0, 2.0)],
    "all positive": [0.1, 0.5, 3.0],
    "all negative": [-0.1, -0.5, -3.0],
    "up to zero": [-3.0, -1.0, 0.0],
    "from zero": [0.0, 1.0, 3.0],
    "far apart": [1e-30, -1e30, 5.0],
}


def representable(weight, grid):
    """Whether neighbouring grid points are different floating-point numbers."""
    largest = max(float(weight.abs().max()), float(grid.scale))
    return float(grid.scale) > 8 * torch.finfo(weight.dtype).eps * largest


@given(WEIGHTS, BITS)
def test_banner_equals_the_scalar_loop_exactly(weight, bits):
    codes, values = oracles.banner(weight.tolist(), bits)
    grid = choose_qparams(weight, f"int{bits}")
    np.testing.assert_array_equal(dequantize(quantize(weight, grid), grid), values)
    if codes is not None:
        assert quantize(weight, grid).tolist() == codes


@given(st.lists(WEIGHTS, min_size=1, max_size=4), BITS)
def test_banner_by_channel_rounds_half_to_even(rows, bits):
    length = min(len(row) for row in rows)
    weight = torch.stack([row[:length] for row in rows])
    quantized = fake_quantize(weight, f"int{bits}:per-channel")
    for row, result in zip(weight, quantized, strict=True):
        np.testing.assert_array_equal(result, oracles.banner(row.tolist(), bits, oracles.half_even)[1])


@given(WEIGHTS, BITS)
def test_symmetric_equals_the_scalar_loop_exactly(weight, bits):
    codes, values = oracles.symmetric(weight.tolist(), bits)
    grid = choose_qparams(weight, f"int{bits}:symmetric")
    assert quantize(weight, grid).tolist() == codes
    np.testing.assert_array_equal(dequantize(quantize(weight, grid), grid), values)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_mse_takes_the_best_of_a_hundred_steps(bits, seed):
    weight = torch.randn(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    whole = choose_qparams(weight, f"int{bits}:mse")
    assert float(whole.scale) == pytest.approx(oracles.best_step(weight.flatten().tolist(), bits), rel=1e-12)
    channels = choose_qparams(weight, f"int{bits}:mse,per-channel")
    best = [oracles.best_step(row.tolist(), bits) for row in weight]
    np.testing.assert_allclose(channels.scale.flatten(), best, rtol=1e-12)


def torch_fake_quantize(weight, scale, bits):
    return torch.fake_quantize_per_tensor_affine(weight, scale, 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


# torch multiplies by the reciprocal of the step, which is exact where the step is a power of two: ties too.
@given(st.data(), st.integers(2, 16), st.integers(-20, 20))
def test_symmetric_is_torch_fake_quantize_bit_for_bit(data, bits, exponent):
    largest = 2 ** (bits - 1) - 1
    halves = data.draw(st.lists(st.integers(-4 * largest, 4 * largest), max_size=30))
    weight = torch.tensor([largest, *(half / 4 for half in halves)]) * 2.0**exponent
    weight = weight.clamp(-largest * 2.0**exponent, largest * 2.0**exponent)
    assert torch.equal(
        fake_quantize(weight, f"int{bits}:symmetric"), torch_fake_quantize(weight, 2.0**exponent, bits)
    )


@pytest.mark.parametrize("bits", range(2, 13))
def test_symmetric_is_torch_fake_quantize_on_random_weights(bits):
    weight = torch.randn(2000, generator=torch.Generator().manual_seed(bits))
    grid = choose_qparams(weight, f"int{bits}:symmetric")
    expected = torch_fake_quantize(weight, float(grid.scale), bits)
    assert torch.equal(fake_quantize(weight, f"int{bits}:symmetric"), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_symmetric_is_brevitas_bit_for_bit():
    pytest.importorskip("brevitas", reason="brevitas is in the optional extra 'bench'")
    from brevitas.nn import QuantLinear
    from brevitas.quant import Int8WeightPerTensorFloat

    for bits in range(2, 9):
        layer = QuantLinear(40, 50, bias=False, weight_bit_width=bits, weight_quant=Int8WeightPerTensorFloat)
        expected = layer.quant_weight().value.detach()
        assert torch.equal(fake_quantize(layer.weight, f"int{bits}:symmetric"), expected)


@given(WEIGHTS, BITS, st.sampled_from(SCHEMES))
def test_every_code_survives_the_round_trip(weight, bits, scheme):
    grid = choose_qparams(weight, f"int{bits}:{scheme}")
    assume(representable(weight, grid))
    codes = torch.arange(grid.low, grid.high + 1)
    assert torch.equal(quantize(dequantize(codes, grid), grid).long(), codes)


@given(
    WEIGHTS,
    st.sampled_from([("banner", bits) for bits in range(1, 17)] + [("symmetric", 2), ("symmetric", 8)]),
)
def test_the_error_is_at_most_half_a_step(weight, case):
    scheme, bits = case
    grid = choose_qparams(weight, f"int{bits}:{scheme}")
    error = (dequantize(quantize(weight, grid), grid).double() - weight.double()).abs().max()
    # fp32 cannot tell codes apart more finely than 2^-22 of the largest, nor weights than their spacing.
    rounding = 2**bits * 2**-22 * float(grid.scale) + 2**-23 * float(weight.abs().max())
    assert float(error) <= float(grid.scale) / 2 + rounding


@given(WEIGHTS, BITS, st.sampled_from(SCHEMES))
def test_quantizing_again_on_the_same_grid_changes_nothing(weight, bits, scheme):
    grid = choose_qparams(weight, f"int{bits}:{scheme}")
    once = dequantize(quantize(weight, grid), grid)
    assert torch.equal(dequantize(quantize(once, grid), grid), once)


@given(WEIGHTS, BITS)
def test_symmetric_chooses_the_same_grid_again(weight, bits):
    once = fake_quantize(weight, f"int{bits}:symmetric")
    torch.testing.assert_close(fake_quantize(once, f"int{bits}:symmetric"), once, rtol=1e-6, atol=TINY)


@given(WEIGHTS, BITS, st.sampled_from(["banner", "symmetric"]), st.randoms(use_true_random=False))
def test_the_order_of_the_weights_is_irrelevant(weight, bits, scheme, random):
    order = list(range(len(weight)))
    random.shuffle(order)
    quantized = fake_quantize(weight, f"int{bits}:{scheme}")
    assert torch.equal(fake_quantize(weight[order], f"int{bits}:{scheme}"), quantized[order])


@given(WEIGHTS, st.integers(2, 16))
def test_mse_is_no_worse_than_symmetric(weight, bits):
    def error(scheme):
        return float((fake_quantize(weight.double(), f"int{bits}:{scheme}") - weight.double()).square().sum())

    assert error("mse") <= error("symmetric")


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_codes_stay_within_bounds(name, scheme, per_channel):
    for dtype in (torch.float32, torch.float64):
        weight = torch.tensor([EDGES[name]], dtype=dtype)
        for precision in INTEGER_PRECISIONS:
            grid = choose_qparams(weight, Quantizer(precision, scheme, per_channel))
            codes, values = quantize_dequantize(weight, grid)
            assert grid.high - grid.low == 2 ** integer_bits(precision) - 1
            assert (grid.scale > 0).all()
            assert grid.low <= int(codes.min()) <= int(codes.max()) <= grid.high
            assert torch.equal(codes, quantize(weight, grid))
            assert torch.equal(values, dequantize(codes, grid))
            assert torch.isfinite(values).all()
            assert values.dtype == dtype


@pytest.mark.parametrize("value", [0.0, 0.3, -0.3, 1e-40, -1e-40, 3e38])
@pytest.mark.parametrize("precision", INTEGER_PRECISIONS)
def test_banner_leaves_a_zero_range_as_it_is(value, precision):
    weight = torch.full((5,), value)
    assert torch.equal(fake_quantize(weight, precision), weight)


def test_banner_keeps_true_zero_where_the_range_crosses_it():
    weight = torch.tensor([-0.37, 0.0, 0.91])
    for precision in INTEGER_PRECISIONS:
        assert fake_quantize(weight, precision)[1] == 0


def test_the_zero_point_is_rounded_like_the_codes():
    # -min / step is 2.5: away from zero it is 3, to even it is 2.
    weight = torch.tensor([[-2.5, 0.5]])
    assert choose_qparams(weight, "int2").zero_point == 3
    assert choose_qparams(weight, "int2:per-channel").zero_point == 2


def test_just_below_a_half_is_rounded_down():
    grid = choose_qparams(torch.tensor([0.0, 15.0]), "int4")
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert quantize(torch.tensor([below, 0.5, 1.5, 2.5]), grid).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("precision", "share"), [("int2", 0.90), ("int3", 0.52), ("int4", 0.26), ("int8", 0.016)]
)
def test_share_of_zeros_of_gaussian_weights(precision, share):
    normal = NormalDist()
    weight = torch.tensor([-5.0, 5.0, *(normal.inv_cdf((i + 0.5) / 20_000) for i in range(20_000))])
    assert float((fake_quantize(weight, precision) == 0).double().mean()) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shape_and_format_are_kept_and_no_memory_is_shared(precision, dtype):
    weight = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    before = weight.detach().clone()
    quantized = fake_quantize(weight, precision)
    assert quantized.shape == weight.shape
    assert quantized.dtype == dtype
    assert not quantized.requires_grad
    quantized.add_(1)
    assert torch.equal(weight.detach(), before)


def test_the_layout_in_memory_is_irrelevant():
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    spread = weight.to(memory_format=torch.channels_last)
    for scheme in ("banner", "symmetric"):
        assert torch.equal(fake_quantize(weight, f"int3:{scheme}"), fake_quantize(spread, f"int3:{scheme}"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_channel_is_quantized_as_a_tensor_of_its_own(scheme):
    weight = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_channel = fake_quantize(weight, f"int3:{scheme},per-channel", channel_axis=1)
    assert torch.equal(by_channel, fake_quantize(weight, f"int3:{scheme},per-channel", channel_axis=-2))
    for channel in range(5):
        alone = fake_quantize(weight[:, channel], f"int3:{scheme}")
        torch.testing.assert_close(by_channel[:, channel], alone, rtol=1e-12, atol=0)


def test_fp16_rounds_to_half_precision():
    values = np.random.default_rng(0).normal(size=500).astype(np.float32)
    expected = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(fake_quantize(torch.from_numpy(values), "fp16"), expected)
    assert torch.equal(fake_quantize(torch.from_numpy(values), "fp32"), torch.from_numpy(values))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_empty_tensor_stays_empty(precision):
    assert fake_quantize(torch.empty(0, 3), precision).shape == (0, 3)


def test_an_empty_tensor_has_no_grid():
    with pytest.raises(ValueError, match="empty"):
        choose_qparams(torch.empty(0), "int8")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_that_are_not_finite_are_refused(bad, scheme, per_channel):
    with pytest.raises(ValueError, match="not finite"):
        fake_quantize(torch.tensor([[1.0, -1.0], [2.0, bad]]), Quantizer("int4", scheme, per_channel))
    with pytest.raises(ValueError, match="not finite"):
        fake_quantize(torch.tensor([1.0, bad]), "fp16")


def test_ranges_beyond_the_format_are_refused():
    with pytest.raises(ValueError, match="range beyond"):
        fake_quantize(torch.tensor([-3e38, 3e38]), "int4")
    with pytest.raises(ValueError, match="65504"):
        fake_quantize(torch.tensor([70000.0]), "fp16")


@pytest.mark.parametrize("precision", ["int0", "int17", "INT8", "fp8", "", "int", 8])
def test_an_unknown_precision_is_refused_with_the_known_ones(precision):
    with pytest.raises(ValueError, match="unknown precision") as error:
        integer_bits(precision)
    assert all(known in str(error.value) for known in PRECISIONS)
    for function in (fake_quantize, choose_qparams):
        with pytest.raises(
            ValueError, match=r"known: fp32, fp16, int16|begins with one of fp32, fp16|its name"
        ):
            function(torch.ones(2), precision)


@pytest.mark.parametrize("function", [fake_quantize, choose_qparams])
def test_an_unknown_scheme_is_refused_with_the_known_ones(function):
    with pytest.raises(ValueError, match=r"unknown option 'minmax'.*banner, symmetric, mse"):
        function(torch.ones(2), "int8:minmax")


def test_a_precision_without_a_grid_and_a_wrong_axis_are_refused():
    with pytest.raises(ValueError, match="no integer grid"):
        choose_qparams(torch.ones(2), "fp16")
    for axis in (2, -3):
        with pytest.raises(ValueError, match="channel_axis"):
            fake_quantize(torch.ones(2, 2), "int8:per-channel", channel_axis=axis)


def test_the_default_precisions_are_known():
    assert set(DEFAULT_PRECISIONS) <= set(PRECISIONS)
    assert [integer_bits(p) for p in PRECISIONS] == [None, None, *range(16, 0, -1)]


def exhaustive_mse(weight, bits, axis):
    """The step of least squared error, where each of a hundred is tried on all weights."""
    widest = choose_qparams(weight, Quantizer(f"int{bits}", "symmetric", axis is not None), axis or 0).scale
    others = () if axis is None else [other for other in range(weight.ndim) if other != axis]
    best, least = widest, torch.full_like(widest, torch.inf)
    for share in range(100, 0, -1):
        scale = (widest * (share / 100)).clamp(min=torch.finfo(weight.dtype).tiny)
        codes = (weight / scale).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()
        error = (codes * scale - weight).square().sum(others, keepdim=axis is not None)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "make",
    [
        lambda normal: normal * 0.05,
        lambda normal: normal.to(memory_format=torch.channels_last),
        lambda normal: normal.double().exp(),
        lambda normal: (2 * normal).round() * 0.1,
        lambda normal: torch.full_like(normal, 0.3),
        torch.zeros_like,
        lambda normal: (0.01 * normal).index_fill(0, torch.tensor(2), 5.0),
        lambda normal: torch.zeros_like(normal).index_fill(3, torch.tensor(1), -2.0),
        lambda normal: 1e-20 * normal,
        lambda normal: normal[:, :5, 0, 0],
    ],
)
def test_the_search_for_the_least_squared_error_finds_what_trying_all_steps_finds(make, bits):
    weight = make(torch.randn(4, 64, 10, 10, generator=torch.Generator().manual_seed(bits)))
    for axis in (None, 0, 1):
        found = choose_qparams(weight, Quantizer(f"int{bits}", "mse", axis is not None), axis or 0).scale
        assert torch.equal(found, exhaustive_mse(weight, bits, axis))


def test_pieces_of_a_weight_are_quantized_as_the_whole(monkeypatch):
    weight = torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    weights = [weight, weight.to(memory_format=torch.channels_last), weight.abs() + 1, weight[0, 0, 0, 0]]
    for own in weights:
        for name in ("int4", "int4:symmetric") + ("int3:per-channel",) * (own.ndim > 0):
            grid = choose_qparams(own, name)
            whole = quantize_dequantize(own, grid)
            monkeypatch.setattr(grids, "_PIECE", 50)
            for part, expected in zip(quantize_dequantize(own, grid), whole, strict=True):
                assert torch.equal(part, expected)
                assert part.stride() == own.stride()
            monkeypatch.undo()
