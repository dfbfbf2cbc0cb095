"""Eq. 12 in a scalar loop, the weights' two schemes, what dividing by the mean weight means, and checks."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

import oracles
import samples
from quantskew.datasets import normalise
from quantskew.training import loop
from quantskew.training.recipe import (
    Recipe,
    check_class_weights,
    difficulty_weights,
    paper_weights,
    weighted_cross_entropy,
)

LOSSES = st.lists(st.floats(0, 1e6), min_size=1, max_size=6)
WEIGHTS = (0.3, 3.0)
PLAIN = dataclasses.replace(samples.TINY_RECIPE, weight_decay=0.01)


def batch(seed=0, count=7, classes=3):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, classes)))
    weights = torch.from_numpy(rng.random(classes))
    return logits, torch.from_numpy(rng.integers(0, classes, count)), weights


def test_the_loss_is_eq_12():
    logits, labels, weights = batch()
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total -= weights[label].item() * math.log(oracles.probabilities(row)[label])
    assert weighted_cross_entropy(logits, labels, weights).item() == pytest.approx(total / len(labels))


@pytest.mark.parametrize("seed", range(3))
def test_torch_divides_by_the_weights_of_the_batch(seed):
    logits, labels, weights = batch(seed)
    torchs = functional.cross_entropy(logits, labels, weight=weights)
    expected = torchs * weights[labels].mean()
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, weights), expected)


def test_equal_weights_are_the_plain_loss():
    logits, labels, _ = batch()
    plain = functional.cross_entropy(logits, labels)
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, ones), plain)


BAD = [
    ((1.0, -0.5), "finite and not negative"),
    ((1.0, math.nan), "finite and not negative"),
    ((1.0, math.inf), "finite and not negative"),
    ((0.0, 0.0), "all class weights are 0"),
]


@pytest.mark.parametrize(("weights", "message"), BAD)
def test_weights_that_make_no_loss_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        check_class_weights(weights, 2)
    with pytest.raises(ValueError, match=message):
        Recipe(class_weights=weights)


@pytest.mark.parametrize(
    ("weights", "message"), [*BAD, ((1.0,), "1 class weights for 2 classes"), ((1.0,) * 3, "3 class weights")]
)
def test_training_refuses_bad_weights_before_its_first_step(monkeypatch, weights, message):
    monkeypatch.setattr(loop, "_train_epoch", lambda *_: pytest.fail("training started"))
    recipe = dataclasses.replace(PLAIN, class_weights=(1.0, 1.0))
    # The recipe itself refuses most of them.
    object.__setattr__(recipe, "class_weights", weights)
    with pytest.raises(ValueError, match=message):
        samples.fit_tiny(recipe=recipe)


def as_printed(recipe, split, device):
    """The criterion of Eq. 12 without the division by the mean weight."""
    return lambda logits, labels: weighted_cross_entropy(logits, labels, torch.tensor(recipe.class_weights))


def test_dividing_by_the_mean_weight_is_another_learning_rate(monkeypatch):
    scaled, _ = samples.fit_tiny(recipe=dataclasses.replace(PLAIN, class_weights=WEIGHTS), dropout=0)
    mean = np.mean([WEIGHTS[label] for label in samples.tiny_data().train.labels.tolist()])
    assert mean > 1.2
    monkeypatch.setattr(loop, "_criterion", as_printed)
    printed, same_rate = (
        samples.fit_tiny(
            recipe=dataclasses.replace(
                PLAIN,
                class_weights=WEIGHTS,
                learning_rate=PLAIN.learning_rate / c,
                weight_decay=PLAIN.weight_decay * c,
            ),
            dropout=0,
        )[0]
        for c in (mean, 1.0)
    )
    for (name, value), other in zip(scaled.state_dict().items(), printed.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5, msg=name)
    assert not torch.allclose(scaled[5].weight, same_rate[5].weight, rtol=1e-3, atol=1e-5)


def test_equal_weights_of_any_size_train_as_no_weights():
    plain, _ = samples.fit_tiny(recipe=PLAIN, dropout=0)
    weighted, _ = samples.fit_tiny(recipe=dataclasses.replace(PLAIN, class_weights=(7.0, 7.0)), dropout=0)
    for value, other in zip(plain.state_dict().values(), weighted.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5)


def test_the_weights_change_what_is_learned():
    # The whole weight on the first class: the second one is never worth a thing.
    recipe = dataclasses.replace(PLAIN, class_weights=(1.0, 0.0))
    model, _ = samples.fit_tiny(recipe=recipe, dropout=0)
    with torch.no_grad():
        predicted = model(normalise(samples.tiny_data().train.images)).argmax(1)
    assert (predicted == 0).float().mean() > 0.9


def test_the_paper_s_weights():
    assert paper_weights(5, 4) == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.6])
    assert paper_weights(4, 1, weight=0.7) == pytest.approx([0.1, 0.7, 0.1, 0.1])


def test_weights_by_difficulty_by_hand():
    assert difficulty_weights([0.1, 0.3]) == pytest.approx([0.375, 0.625])
    # A class without images counts as one of mean difficulty.
    assert difficulty_weights([1.0, math.nan, 3.0]) == pytest.approx([1 / 4, 1 / 3, 5 / 12])


@given(LOSSES)
def test_weights_by_difficulty_keep_the_order_and_forget_no_class(losses):
    assume(any(losses))
    weights = difficulty_weights(losses)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0.5 / len(losses) - 1e-12
    assert [weights[i] for i in np.argsort(losses)] == sorted(weights)


@pytest.mark.parametrize("losses", [[], [math.nan], [-1.0, 2.0], [math.inf, 1.0], [0.0, 0.0]])
def test_losses_that_measure_no_difficulty_are_refused(losses):
    with pytest.raises(ValueError, match="finite, non-negative losses, not all 0"):
        difficulty_weights(losses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; known: sgd, adamw"),
        ({"schedule": "step"}, "unknown schedule 'step'; known: one-cycle, cosine, constant"),
        ({"compute": "fp16"}, "unknown compute 'fp16'; known: auto, fp32, bf16"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"shift": -1}, "shift must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"learning_rate": 0.0}, "learning_rate must be larger than 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be larger than 0"),
    ],
)
def test_recipes_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)
