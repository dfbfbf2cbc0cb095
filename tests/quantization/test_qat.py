import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

import samples
from quantskew.datasets import normalise
from quantskew.quantization import learned_step, qat
from quantskew.quantization.grids import dequantize
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.quantization.qat import QAT, QATOptions, convert, prepare
from quantskew.quantization.quantizer import Quantizer
from quantskew.training import loop
from quantskew.training.recipe import Recipe

TINY = QATOptions("int2", boundary_precision=None, freezing=0.005, step_learning_rate=1e-3, ramp_start=0.0)
KILLED = """
import os, signal, sys
import test_qat
from quantskew.training import checkpoint

save = checkpoint.save
def save_then_die(*arguments):
    save(*arguments)
    if len(arguments[-1]) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.save = save_then_die
test_qat.train_tiny(sys.argv[1])
"""


def train(model, data, recipe, options, checkpoint=None, measure=None):
    """A quantized copy of a model, trained, and its history."""
    prepared = prepare(model, options)
    return prepared, loop.fit(
        prepared, data, recipe, checkpoint, hooks=QAT(prepared, options), measure=measure
    )


def train_tiny(checkpoint=None, options=TINY, recipe=samples.TINY_RECIPE, start=0):
    return train(samples.tiny_model(0.3, start), samples.tiny_data(), recipe, options, checkpoint)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(module, expected):
    assert list(module.state_dict()) == list(expected)
    for name, value in module.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.fixture(scope="module")
def uninterrupted():
    return train_tiny()


@pytest.mark.parametrize("precision", ["int8", "int4", "int2"])
@pytest.mark.parametrize("boundary", ["int8", None])
def test_before_training_it_is_post_training_quantization(model, precision, boundary):
    prepared = prepare(model, QATOptions(precision, boundary, learn_steps=False))
    converted = convert(prepared)
    expected = quantize_model(model, Quantizer(precision, "mse", boundary_precision=boundary))
    assert_same_state(converted, state(expected))
    assert list(converted.quantized) == list(expected.quantized)
    for name, record in converted.quantized.items():
        assert torch.equal(record.codes, expected.quantized[name].codes)
        assert record.codes.dtype == expected.quantized[name].codes.dtype
        assert record.precision == expected.quantized[name].precision
        assert record.zeros == expected.quantized[name].zeros


def test_preparing_does_not_change_the_model(model):
    before = state(model)
    prepared = prepare(model.train(), QATOptions())
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.add_(1)
    assert_same_state(model, before)
    assert prepared.training


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_conversion_computes_what_was_trained(compute):
    recipe = dataclasses.replace(samples.TINY_RECIPE, compute=compute)
    prepared, _ = train_tiny(recipe=recipe)
    before, images = state(prepared), normalise(samples.tiny_data().test.images)
    converted = convert(prepared)
    with torch.no_grad():
        assert torch.equal(converted(images), prepared(images))
    assert not converted.training
    assert_same_state(prepared, before)
    # Neither the prepared model nor a second conversion knows of the first.
    assert len(prepared[0].weight.unique()) <= 4
    assert_same_state(convert(prepared), state(converted))
    assert list(converted.state_dict()) == list(samples.tiny_model().state_dict())
    assert [type(module) for module in converted.modules()] == [
        type(module) for module in samples.tiny_model(0.3).modules()
    ]
    for name, record in converted.quantized.items():
        weight = weight_parameters(converted)[name]
        assert torch.equal(dequantize(record.codes, record.grid), weight)
        assert (record.precision, weight.dtype) == ("int2", torch.float32)
        assert set(record.codes.unique().tolist()) <= {-2, -1, 0, 1}


def test_a_plan_goes_before_the_other_precisions(model):
    names = list(weight_parameters(model))
    plan = {names[0]: "int3", names[1]: "fp32", names[2]: "int8"}
    converted = convert(prepare(model, QATOptions("int4", plan=plan)))
    expected = ["int3", "int8", *["int4"] * (len(names) - 4), "int8"]
    assert [record.precision for record in converted.quantized.values()] == expected
    assert names[1] not in converted.quantized
    assert torch.equal(weight_parameters(converted)[names[1]], weight_parameters(model)[names[1]])


def test_a_layer_left_alone_is_still_trained():
    options = dataclasses.replace(TINY, plan={"5.weight": "fp32"})
    prepared, _ = train_tiny(options=options)
    assert list(convert(prepared).quantized) == ["0.weight"]
    assert not torch.equal(prepared[5].weight, samples.tiny_model()[5].weight)


def test_a_shared_weight_has_one_step_and_stays_shared():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    prepared = prepare(model, QATOptions("int2", None))
    assert prepared[0].parametrizations.weight[0] is prepared[2].parametrizations.weight[0]
    assert len(QAT(prepared, QATOptions("int2")).own_optimizers()[0].param_groups[0]["params"]) == 1
    converted = convert(prepared)
    assert list(converted.quantized) == ["0.weight"]
    assert converted[2].weight is converted[0].weight
    assert len(converted[0].weight.unique()) <= 4


def test_attention_projections_are_quantized():
    prepared = prepare(nn.MultiheadAttention(4, 2, kdim=3, vdim=3), QATOptions("int3", None))
    converted = convert(prepared)
    assert list(converted.quantized) == [
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
        "out_proj.weight",
    ]
    assert list(converted.state_dict()) == list(nn.MultiheadAttention(4, 2, kdim=3, vdim=3).state_dict())


def one_step(options, model=None, progress=0.6):
    """Gradients and weights around one step of SGD with a large learning rate."""
    prepared = prepare(model or samples.tiny_model(), options).train()
    hooks = QAT(prepared, options)
    images, labels = normalise(samples.tiny_data().train.images), samples.tiny_data().train.labels
    nn.functional.cross_entropy(prepared(images), labels).backward()
    hooks.after_backward(progress)
    return prepared, hooks


def test_dampening_is_the_only_difference_of_the_gradients():
    plain, _ = one_step(QATOptions("int3", dampening=0.0))
    damped, _ = one_step(QATOptions("int3", dampening=0.1, ramp_start=0.2))
    for index in (0, 5):
        chains = [model[index].parametrizations.weight for model in (plain, damped)]
        weight, step = chains[0].original.detach(), chains[0][0]
        assert step.quantized is None
        variable = weight.clone().requires_grad_()
        clipped = variable.clamp(step.step.item() * step.low, step.step.item() * step.high)
        loss = ((plain[index].weight.detach() - clipped) ** 2).flatten(1).mean(1).sum()
        (0.05 * loss).backward()  # half of the ramp
        torch.testing.assert_close(chains[1].original.grad - chains[0].original.grad, variable.grad)
        assert torch.equal(chains[0][0].step.grad, chains[1][0].step.grad)


def test_the_output_channels_of_a_transposed_convolution_are_on_its_second_axis():
    model = nn.Sequential(nn.ConvTranspose2d(1, 4, 1), nn.Flatten(), nn.Linear(144, 2))
    gradients = [one_step(QATOptions("int3", dampening=d), model)[0] for d in (0.0, 0.1)]
    weight, step = gradients[0][0].parametrizations.weight.original.detach(), gradients[0][0]
    added = (
        gradients[1][0].parametrizations.weight.original.grad
        - gradients[0][0].parametrizations.weight.original.grad
    )
    strength = learned_step.dampening_strength(0.1, 0.25, 0.6)
    grid = step.parametrizations.weight[0].grid
    distances = weight.clamp(grid.low * grid.scale, grid.high * grid.scale) - step.weight.detach()
    # Four channels of one weight each: no mean over anything else.
    torch.testing.assert_close(added, 2 * strength * distances)


def test_steps_move_by_their_own_optimizer_and_stay_positive():
    prepared, hooks = one_step(QATOptions("int4", step_learning_rate=100.0))
    (optimizer,) = hooks.own_optimizers()
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0}
    steps = [prepared[index].parametrizations.weight[0] for index in (0, 5)]
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(step.step) for step in steps}
    for sign in (1, -1):
        for step in steps:
            step.step.grad = torch.tensor(float(sign))
        optimizer.step()
        hooks.after_step(0.5)
        assert all(step.step >= step.least_step > 0 for step in steps)


def test_steps_that_are_not_learned_stay():
    options = dataclasses.replace(TINY, learn_steps=False)
    trained = train_tiny(options=options)[0]
    fresh = prepare(samples.tiny_model(), options)
    for index in (0, 5):
        before, after = (model[index].parametrizations.weight[0].step for model in (fresh, trained))
        assert torch.equal(before, after)
    learned = train_tiny()[0]
    assert not torch.equal(learned[0].parametrizations.weight[0].step, before)


def test_frozen_weights_lie_on_their_codes(uninterrupted):
    frozen = 0
    for index in (0, 5):
        chain = uninterrupted[0][index].parametrizations.weight
        kept = chain[0].oscillations
        pinned = (kept.codes * chain[0].step)[kept.frozen]
        torch.testing.assert_close(chain.original[kept.frozen], pinned, rtol=0, atol=0)
        assert torch.equal(convert(uninterrupted[0])[index].weight[kept.frozen], pinned)
        frozen += int(kept.frozen.sum())
    assert 0 < frozen < 164


def test_the_threshold_of_freezing_moves_by_half_a_cosine():
    options = QATOptions(freezing=(0.1, 0.01))
    thresholds = [options.threshold(progress) for progress in (0, 0.5, 1)]
    assert thresholds == pytest.approx([0.1, 0.055, 0.01])
    assert QATOptions(freezing=0.02).threshold(0.7) == 0.02


def oscillating(prepared, threshold=0.005):
    """Share of the weights of each layer that oscillate more often than a threshold."""
    kept = {name: step.oscillations for name, *_, step in qat._layers(prepared)}
    return {name: float((own.frequency > threshold).float().mean()) for name, own in kept.items()}


def test_counting_alone_changes_nothing():
    # A threshold that no frequency reaches: oscillations are counted, and nothing is frozen.
    runs = [train_tiny(options=dataclasses.replace(TINY, freezing=freezing))[0] for freezing in (None, 0.999)]
    assert_same_state(convert(runs[1]), state(convert(runs[0])))
    assert not any(hasattr(step, "oscillations") for *_, step in qat._layers(runs[0]))
    shares = oscillating(runs[1])
    assert list(shares) == ["0.weight", "5.weight"]
    assert 0 < max(shares.values()) <= 1


def test_dampening_makes_oscillations_rarer(digits, digits_model):
    recipe = dataclasses.replace(tuned_recipe(), epochs=4, learning_rate=0.02, schedule="constant")
    shares = []
    for strength in (0.0, 3.0):
        options = QATOptions("int3", dampening=strength, ramp_start=0.0, freezing=0.999)
        prepared, _ = train(digits_model, digits, recipe, options)
        shares.append(sum(oscillating(prepared).values()))
    assert shares[1] < 0.7 * shares[0]


def test_batch_norm_is_that_of_the_quantized_weights():
    recipe = dataclasses.replace(samples.TINY_RECIPE, batch_size=25)
    for batches in (50, 0):
        prepared, _ = train_tiny(options=dataclasses.replace(TINY, reestimate_batches=batches), recipe=recipe)
        mean = prepared[1].running_mean.clone()
        qat.reestimate(prepared, samples.tiny_data().train, recipe, 50)
        assert torch.equal(mean, prepared[1].running_mean) == (batches == 50)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, killed, uninterrupted):
    checkpoint = tmp_path / "run.checkpoint"
    killed(KILLED, checkpoint)
    model, history = train_tiny(checkpoint)
    assert json.dumps(history) == json.dumps(uninterrupted[1])
    assert_same_state(model, state(uninterrupted[0]))


@pytest.mark.parametrize(
    "change",
    [
        {"options": dataclasses.replace(TINY, dampening=0.2)},
        {"options": dataclasses.replace(TINY, plan={"0.weight": "int3"})},
        {"start": 1},
        {"recipe": dataclasses.replace(samples.TINY_RECIPE, seed=1)},
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change):
    train_tiny(tmp_path / "run.checkpoint")
    with pytest.raises(ValueError, match=r"run\.checkpoint belongs to another"):
        train_tiny(tmp_path / "run.checkpoint", **change)


def test_a_checkpoint_of_plain_training_is_refused(tmp_path):
    samples.fit_tiny(tmp_path / "run.checkpoint")
    with pytest.raises(ValueError, match=r"run\.checkpoint belongs to another"):
        train_tiny(tmp_path / "run.checkpoint")


def tuned_recipe():
    return Recipe(
        epochs=3, batch_size=32, learning_rate=0.005, schedule="cosine", flip=False, shift=1, compute="fp32"
    )


def accuracy(model, data):
    with torch.no_grad():
        return float((model(normalise(data.test.images)).argmax(1) == data.test.labels).float().mean())


@pytest.mark.parametrize(("precision", "lost"), [("int4", 0.01), ("int2", 0.03)])
def test_digits_survive_few_bits(digits, digits_model, precision, lost):
    prepared, _ = train(digits_model, digits, tuned_recipe(), QATOptions(precision))
    assert accuracy(convert(prepared), digits) >= accuracy(digits_model, digits) - lost


def test_training_measures_what_it_is_told_to():
    def zeros(model, epoch):
        return convert(model).quantized["0.weight"].zeros

    run = (samples.tiny_model(), samples.tiny_data(), samples.TINY_RECIPE, TINY)
    prepared, history = train(*run, measure=zeros)
    assert history[-1]["measured"] == zeros(prepared, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int1"}, "int1 has no positive code"),
        ({"precision": "fp32"}, "fp32 has no integer grid"),
        ({"precision": "int99"}, "unknown precision 'int99'; known: fp32"),
        ({"boundary_precision": "int1"}, "int1 has no positive code"),
        ({"boundary_precision": "fp16"}, "fp16 has no integer grid"),
        ({"plan": {"fc.weight": "int1"}}, r"fc\.weight: int1 has no positive code"),
        ({"plan": {"fc.weight": "four"}}, r"fc\.weight: unknown precision 'four'"),
        ({"step_learning_rate": 0.0}, "step_learning_rate must be larger than 0"),
        ({"dampening": -1.0}, "dampening must be at least 0"),
        ({"dampening": float("nan")}, "dampening must be at least 0"),
        ({"ramp_start": 1.0}, r"ramp_start must be at least 0 and below 1"),
        ({"freezing": 0}, "freezing must be larger than 0 and below 1"),
        ({"freezing": (0.1, 1.5)}, "freezing must be larger than 0 and below 1"),
        ({"freezing": "cosine"}, "freezing must be larger than 0"),
        ({"freezing": (0.1,)}, "freezing is None, a number or a pair"),
        ({"reestimate_batches": -1}, "reestimate_batches must be at least 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        QATOptions(**options)


def test_a_plan_for_another_model_is_refused_with_the_known_layers():
    options = QATOptions(plan={"fc.weight": "int4"})
    with pytest.raises(ValueError, match=r"unknown layer 'fc\.weight'; known: 0\.weight, 5\.weight"):
        train_tiny(options=options)


def test_models_that_cannot_be_prepared_are_refused(model):
    everything = dict.fromkeys(["0.weight", "5.weight"], "fp32")
    with pytest.raises(ValueError, match="no convolution and no linear layer is left"):
        prepare(samples.tiny_model(), QATOptions(plan=everything))
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        prepare(nn.ReLU(), QATOptions())
    with pytest.raises(ValueError, match="prepared already"):
        prepare(prepare(model, QATOptions()), QATOptions())
    with pytest.raises(ValueError, match=r"stem\.weight: weights are trained in float32"):
        prepare(copy.deepcopy(model).bfloat16(), QATOptions())
    model.stages[1].conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"stages\.1\.conv2\.weight: .*not finite"):
        prepare(model, QATOptions())


def test_models_that_are_not_prepared_are_refused(model):
    with pytest.raises(ValueError, match=r"make it with qat\.prepare"):
        convert(model)


def test_a_layer_that_is_not_trained_stays():
    model = samples.tiny_model()
    model[5].weight.requires_grad_(False)
    prepared = prepare(model, TINY)
    loop.fit(prepared, samples.tiny_data(), samples.TINY_RECIPE, hooks=QAT(prepared, TINY))
    assert torch.equal(prepared[5].parametrizations.weight.original, model[5].weight)
    assert not torch.equal(prepared[0].parametrizations.weight.original, model[0].weight)
