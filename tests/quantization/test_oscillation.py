import numpy as np
import pytest
import torch

from quantskew.quantization.learned_step import LearnedStep, Oscillations, cosine, dampening_strength

STEP = torch.tensor(0.25)


def layer(low, high, shape=(3, 2, 2, 2), seed=0):
    """A weight with clipped and inner values, some in the half step between the last code and clipping."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.25 * high
    weight.view(-1)[:4] = torch.tensor([high + 0.3, high + 0.6, low - 0.3, low - 0.6]) * 0.25
    step = STEP.double()
    return weight, (weight / step).round().clamp(low, high) * step, step


def loss_by_hand(weight, quantized, step, low, high):
    total = 0.0
    for channel, target in zip(weight.tolist(), quantized.tolist(), strict=True):
        pairs = zip(np.ravel(channel), np.ravel(target), strict=True)
        squares = [(q - min(max(w, low * step), high * step)) ** 2 for w, q in pairs]
        total += sum(squares) / len(squares)
    return total


def added(weight, quantized, step, low, high, strength):
    """What dampening adds to the gradient of a weight."""
    quantizer = LearnedStep(weight, "int2")
    quantizer.low, quantizer.high, quantizer.quantized = low, high, quantized
    quantizer.step.data = step
    weight = weight.clone()
    weight.grad = torch.ones_like(weight)
    quantizer.dampen(weight, len(weight), strength)
    return weight.grad - 1


@pytest.mark.parametrize(("low", "high"), [(-2, 1), (-8, 7)])
@pytest.mark.parametrize("shape", [(3, 2, 2, 2), (4, 5)])
def test_the_gradient_of_the_dampening_loss(low, high, shape):
    weight, quantized, step = layer(low, high, shape)
    variable, learned = weight.clone().requires_grad_(), step.clone().requires_grad_()
    clipped = torch.minimum(torch.maximum(variable, learned * low), learned * high)
    loss = ((quantized - clipped) ** 2).mean(list(range(1, weight.ndim))).sum()
    assert loss.item() == pytest.approx(loss_by_hand(weight, quantized, float(step), low, high), rel=1e-12)
    (0.3 * loss).backward()
    gradient = added(weight, quantized, step, low, high, 0.3)
    torch.testing.assert_close(gradient, variable.grad, rtol=1e-12, atol=1e-15)
    assert variable.grad.abs().max() > 0
    assert float(learned.grad) == 0


def test_weights_in_the_middle_of_their_bins_are_left_alone():
    quantized = torch.tensor([[-0.5, 0.0, 0.25]])
    assert torch.equal(added(quantized.clone(), quantized, STEP, -2, 1, 1.0), torch.zeros(1, 3))


def test_the_ramp_starts_late_and_never_falls():
    strengths = [dampening_strength(0.1, 0.25, progress) for progress in np.linspace(0, 1, 41)]
    assert strengths[:11] == [0.0] * 11
    assert np.all(np.diff(strengths[10:]) > 0)
    assert dampening_strength(0.1, 0.25, 0.625) == pytest.approx(0.05)
    assert dampening_strength(0.1, 0.0, 1.0) == pytest.approx(0.1)
    assert cosine(0.1, 0.01, 1.0) == pytest.approx(0.01)


class ByHand:
    """The counters of one weight, as the definition has them."""

    def __init__(self, code, momentum):
        self.code, self.direction, self.frequency, self.mean, self.momentum = code, 0, 0.0, code, momentum

    def observe(self, code):
        oscillated = 0
        if code != self.code:
            direction = 1 if code > self.code else -1
            oscillated = int(direction == -self.direction)
            self.direction = direction
        self.frequency = (1 - self.momentum) * self.frequency + self.momentum * oscillated
        self.mean = (1 - self.momentum) * self.mean + self.momentum * code
        self.code = code
        return oscillated


@pytest.mark.parametrize(
    ("codes", "oscillations"),
    [
        ([0, 0, 0, 0, 0], [0, 0, 0, 0]),
        ([0, 1, 2, 3, 4], [0, 0, 0, 0]),
        ([0, 1, 0, 1, 0], [0, 1, 1, 1]),
        ([0, 1, 1, 1, 0], [0, 0, 0, 1]),  # a rest does not make the last direction forgotten
        ([0, 3, -3, -3, -4], [0, 1, 0, 0]),
        ([127, -128, 127, -128, 127], [0, 1, 1, 1]),  # differences that int8 cannot hold
    ],
)
def test_sequences_by_hand(codes, oscillations):
    step = torch.tensor(0.125)
    kept = Oscillations(torch.tensor([codes[0] * 0.125]), step, -128, 127, momentum=0.25)
    hand, frequency = ByHand(codes[0], 0.25), 0.0
    for code, oscillated in zip(codes[1:], oscillations, strict=True):
        kept.observe(torch.tensor([code * 0.125]), step)
        assert hand.observe(code) == oscillated
        frequency = 0.75 * frequency + 0.25 * oscillated
        assert float(kept.frequency) == pytest.approx(frequency) == hand.frequency
        assert float(kept.mean) == pytest.approx(hand.mean)
        assert (int(kept.codes), int(kept.direction)) == (code, hand.direction)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("low", "high"), [(-2, 1), (-128, 127), (-2048, 2047)])
def test_counters_of_a_whole_tensor(monkeypatch, layout, low, high):
    # Pieces of one row: where they meet must not show.
    monkeypatch.setattr("quantskew.quantization.learned_step._PIECE", 1)
    rng = np.random.default_rng(0)
    sequence = rng.integers(low, high + 1, (20, 3, 2, 2, 2))
    tensors = [
        (torch.tensor(codes, dtype=torch.float32) * STEP).to(memory_format=layout) for codes in sequence
    ]
    kept = Oscillations(tensors[0], STEP, low, high)
    hands = [ByHand(int(code), 0.01) for code in sequence[0].ravel()]
    for codes, tensor in zip(sequence[1:], tensors[1:], strict=True):
        kept.observe(tensor, STEP)
        for hand, code in zip(hands, codes.ravel(), strict=True):
            hand.observe(int(code))
    assert kept.codes.flatten().tolist() == [hand.code for hand in hands]
    assert kept.direction.flatten().tolist() == [hand.direction for hand in hands]
    np.testing.assert_allclose(kept.frequency.flatten(), [h.frequency for h in hands], rtol=1e-4)
    np.testing.assert_allclose(kept.mean.flatten(), [h.mean for h in hands], rtol=1e-4, atol=1e-3)
    assert kept.codes.element_size() == (1 if high < 128 else 2)


def test_weights_that_oscillate_are_pinned_at_their_mean_code():
    kept = Oscillations(torch.tensor([0.0, 0.0, 0.75]), STEP, -8, 7, momentum=0.2)
    for codes in ([0, 1, 3], [0, 0, 3], [0, 1, 3], [0, 1, 3], [0, 1, 3], [0, 0, 3], [0, 1, 3]):
        kept.observe(torch.tensor(codes) * STEP, STEP)
    kept.freeze(0.9)
    assert not kept.frozen.any()
    weight = torch.tensor([0.1, 0.11, 0.7])
    kept.pin(weight, STEP)
    assert weight.tolist() == pytest.approx([0.1, 0.11, 0.7])
    assert float(kept.mean[1]) > 0.5
    kept.freeze(0.2)
    assert kept.frozen.tolist() == [False, True, False]
    for step in (STEP, STEP / 2):  # where the pin is moves with the step
        kept.pin(weight, step)
        assert weight.tolist() == pytest.approx([0.1, float(step), 0.7])


def test_a_frozen_weight_stays_frozen_and_no_longer_counts():
    kept = Oscillations(torch.tensor([0.0]), STEP, -2, 1, momentum=0.5)
    for code in (1, 0, 1, 0):
        kept.observe(torch.tensor([code]) * STEP, STEP)
    kept.freeze(0.5)
    pinned = int(kept.codes)
    for _ in range(30):
        kept.observe(kept.codes * STEP, STEP)
        kept.freeze(0.5)
    assert kept.frozen.all()
    assert (int(kept.codes), float(kept.mean), float(kept.frequency)) == (pinned, pinned, 0)


def test_everything_kept_is_in_the_state():
    names = ["codes", "direction", "frequency", "mean", "frozen"]
    assert list(Oscillations(torch.zeros(2), STEP, -2, 1).state_dict()) == names
