"""The plain loop, and what other kinds of training add to it: hooks, optimizers, measurements."""

import contextlib
import dataclasses
import functools
import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

import oracles
import samples
from quantskew.datasets import Dataset, normalise
from quantskew.training import loop
from quantskew.training.loop import Hooks, augment, batches_of_epoch, evaluate, fit, on_device
from quantskew.training.recipe import Recipe

KILLED = """
import os, signal, sys
import samples
from quantskew import files
from quantskew.training import checkpoint

def die():
    os.kill(os.getpid(), signal.SIGKILL)

save, flush = checkpoint.save, files._flush
def save_then_die(*arguments):
    save(*arguments)
    if len(arguments[-1]) == 2:
        die()

def write_half_then_die(path):
    if path.is_file() and b'epoch\\\\": 1' in (content := path.read_bytes()):
        os.truncate(path, len(content) // 2)
        die()
    flush(path)

if sys.argv[2] == "after":
    checkpoint.save = save_then_die
else:
    files._flush = write_half_then_die
samples.fit_tiny(sys.argv[1])
"""


STEPS = 4  # 50 images in batches of 16
TOTAL = STEPS * samples.TINY_RECIPE.epochs


def stopping_before(epoch):
    """The training of an epoch, until that one is to begin."""
    train_epoch = loop._train_epoch

    def interrupt(model, split, recipe, now, *rest):
        if now == epoch:
            raise KeyboardInterrupt
        return train_epoch(model, split, recipe, now, *rest)

    return interrupt


def assert_same_run(one, other):
    (model, history), (other_model, other_history) = one, other
    assert json.dumps(history) == json.dumps(other_history)
    for (name, value), expected in zip(
        model.state_dict().items(), other_model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name


def epochs_in(checkpoint):
    with safe_open(checkpoint, framework="pt") as file:
        return len(json.loads(file.metadata()["quantskew.checkpoint"])["history"])


@pytest.fixture(scope="module")
def uninterrupted():
    return samples.fit_tiny()


@pytest.mark.parametrize(("moment", "epochs"), [("after", 2), ("during", 1)])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, killed, uninterrupted, moment, epochs):
    checkpoint = tmp_path / "run.checkpoint"
    killed(KILLED, checkpoint, moment)
    assert epochs_in(checkpoint) == epochs
    assert_same_run(samples.fit_tiny(checkpoint), uninterrupted)
    assert list(tmp_path.iterdir()) == [checkpoint]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_every_optimizer_and_schedule_trains_and_resumes(tmp_path, monkeypatch, optimizer, schedule):
    recipe = dataclasses.replace(
        samples.TINY_RECIPE, optimizer=optimizer, schedule=schedule, epochs=5, learning_rate=0.01
    )
    whole = samples.fit_tiny(recipe=recipe, dropout=0)
    losses = [np.nanmean(epoch["train"]["loss"]) for epoch in whole[1]]
    assert losses[-1] < 0.8 * losses[0]
    checkpoint = tmp_path / "run.checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", stopping_before(3))
        with pytest.raises(KeyboardInterrupt):
            samples.fit_tiny(checkpoint, recipe, dropout=0)
    assert epochs_in(checkpoint) == 3
    assert_same_run(samples.fit_tiny(checkpoint, recipe, dropout=0), whole)


def test_a_finished_checkpoint_is_not_trained_again(tmp_path, monkeypatch, uninterrupted):
    samples.fit_tiny(tmp_path / "run.checkpoint")
    monkeypatch.setattr(loop, "_train_epoch", lambda *_: pytest.fail("trained again"))
    assert_same_run(samples.fit_tiny(tmp_path / "run.checkpoint"), uninterrupted)


def test_only_the_recipe_decides_the_weights(uninterrupted):
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    assert_same_run(samples.fit_tiny(), uninterrupted)
    assert torch.equal(torch.random.get_rng_state(), state)
    other, _ = samples.fit_tiny(recipe=dataclasses.replace(samples.TINY_RECIPE, seed=1))
    assert not torch.equal(other[0].weight, uninterrupted[0][0].weight)


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": dataclasses.replace(samples.TINY_RECIPE, learning_rate=0.01)},
        {"data": samples.tiny_data(train=49)},
        {"model": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2))},
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change):
    path = tmp_path / "run.checkpoint"
    samples.fit_tiny(path)
    run = {
        "model": samples.tiny_model(0.3),
        "data": samples.tiny_data(),
        "recipe": samples.TINY_RECIPE,
        **change,
    }
    with pytest.raises(ValueError, match=r"run\.checkpoint belongs to another"):
        fit(**run, checkpoint=path)


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "foreign"])
def test_a_corrupt_checkpoint_is_refused(tmp_path, kind):
    path = tmp_path / "run.checkpoint"
    samples.fit_tiny(path)
    if kind == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    else:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"epoch 1\n" * 9, "truncated": whole[:-50]}[kind])
    with pytest.raises(ValueError, match=r"run\.checkpoint .*delete it"):
        samples.fit_tiny(path)


def means_by_hand(model, split):
    with torch.no_grad():
        logits = model(normalise(split.images))
    loss = functional.cross_entropy(logits, split.labels, reduction="none").tolist()
    right = (logits.argmax(1) == split.labels).double().tolist()
    groups = split.groups.tolist()
    return {n: oracles.group_means(v, groups, 3) for n, v in (("loss", loss), ("accuracy", right))}


def assert_same_means(measured, expected):
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(measured[name], expected[name], rtol=1e-5)
        assert np.isnan(measured[name][1])


def test_the_history_is_of_each_group(uninterrupted):
    model, history = uninterrupted
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert_same_means(history[-1]["validation"], means_by_hand(model, samples.tiny_data().validation))
    assert not model.training


def test_the_history_of_training_is_as_seen_before_each_step():
    recipe = Recipe(epochs=1, batch_size=64, flip=False, shift=0, compute="fp32")
    model, data = samples.tiny_model().train(), samples.tiny_data()
    expected = means_by_hand(model, data.train)
    assert_same_means(fit(samples.tiny_model(), data, recipe)[0]["train"], expected)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_evaluation_does_not_depend_on_the_batch(uninterrupted, batch_size):
    split = samples.tiny_data().test
    measured = evaluate(uninterrupted[0], split, batch_size=batch_size)
    assert_same_means(measured, means_by_hand(uninterrupted[0], split))


def test_an_empty_validation_split_is_all_nan():
    data = samples.tiny_data()
    data = Dataset("tiny", data.train, data.validation.subset([]), data.test)
    history = fit(samples.tiny_model(), data, dataclasses.replace(samples.TINY_RECIPE, epochs=1))
    assert np.isnan(history[0]["validation"]["accuracy"]).all()


@pytest.mark.parametrize(("count", "lengths"), [(32, [16, 16]), (33, [16, 16]), (34, [16, 16, 2]), (1, [1])])
def test_a_last_batch_of_one_image_is_left_out(count, lengths):
    batches, _ = batches_of_epoch(samples.TINY_RECIPE, count, epoch=0)
    assert [len(batch) for batch in batches] == lengths
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(count))


def test_training_survives_a_last_batch_of_one_image():
    history = fit(samples.tiny_model(), samples.tiny_data(train=33), samples.TINY_RECIPE)
    assert len(history) == 3


def test_every_epoch_has_an_order_of_its_own():
    orders = [torch.cat(batches_of_epoch(Recipe(seed=s), 50, e)[0]).tolist() for s in (0, 1) for e in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_the_weights_stay_fp32(compute):
    model = samples.tiny_model()
    fit(model, samples.tiny_data(), dataclasses.replace(samples.TINY_RECIPE, compute=compute))
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_auto_asks_the_processor_and_trains_like_what_it_chose(monkeypatch):
    recipe, device = dataclasses.replace(samples.TINY_RECIPE, compute="auto"), torch.device("cpu")
    trained = {}
    for units, chosen in (({"avx2": True}, "fp32"), ({"avx2": True, "avx512_bf16": True}, "bf16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units)
        assert on_device(recipe, device).compute == chosen
        for compute in ("auto", chosen):
            model = samples.tiny_model()
            fit(model, samples.tiny_data(), dataclasses.replace(recipe, compute=compute))
            trained[compute] = model.state_dict()
        assert all(torch.equal(trained["auto"][name], value) for name, value in trained[chosen].items())
    assert any(not torch.equal(trained["fp32"][name], value) for name, value in trained["bf16"].items())


def test_what_a_recipe_fixes_is_not_chosen_anew():
    for compute in ("fp32", "bf16"):
        assert on_device(Recipe(compute=compute), "cpu").compute == compute


def test_a_loss_that_is_not_finite_is_refused():
    recipe = dataclasses.replace(samples.TINY_RECIPE, learning_rate=1e30)
    with pytest.raises(ValueError, match="a lower learning_rate"):
        fit(samples.tiny_model(), samples.tiny_data(), recipe)


def augmented(shift, flip, count=600, seed=0):
    image = torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5)
    recipe = Recipe(shift=shift, flip=flip)
    batch = augment(image.expand(count, 3, 4, 5), recipe, torch.Generator().manual_seed(seed))
    return image.numpy(), batch


@pytest.mark.parametrize(("shift", "flip"), [(0, False), (0, True), (1, False), (1, True), (2, False)])
def test_augmentation_makes_every_mirrored_and_moved_image_and_no_other(shift, flip):
    image, batch = augmented(shift, flip)
    assert batch.dtype == torch.uint8
    made = {result.tobytes() for result in batch.contiguous().numpy()}
    assert made == {result.tobytes() for result in oracles.augmentations(image, shift, flip)}


def test_half_of_the_images_are_mirrored():
    image, batch = augmented(0, True, count=2000)
    assert (batch.numpy() == image).all(axis=(1, 2, 3)).mean() == pytest.approx(0.5, abs=0.05)


def test_augmentation_is_decided_by_its_generator():
    once, again, other = (augmented(2, True, count=20, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_the_digits_are_learned(digits, digits_model):
    assert np.mean(evaluate(digits_model, digits.test)["accuracy"]) > 0.85


def run(hooks=None, model=None, **more):
    model = model or samples.tiny_model()
    return model, fit(model, samples.tiny_data(), samples.TINY_RECIPE, hooks=hooks, **more)


class Recorder(Hooks):
    def __init__(self, model):
        self.model, self.calls, self.weights, self.grads = model, [], [], []

    def identity(self):
        return ["recorder"]

    def note(self, place, progress):
        self.calls.append((place, progress))
        self.weights.append(self.model[5].weight.detach().clone())
        self.grads.append(self.model[5].weight.grad is not None)

    def after_backward(self, progress):
        self.note("backward", progress)

    def after_step(self, progress):
        self.note("step", progress)

    def before_evaluation(self, split, recipe):
        assert len(split) == 50
        assert recipe is samples.TINY_RECIPE
        self.calls.append(("evaluation", None))


class OwnBias(Hooks):
    """The last bias has an optimizer of its own."""

    def __init__(self, model, make):
        self.optimizer = make([model[5].bias])

    def own_optimizers(self):
        return [self.optimizer]


def adam(parameters):
    return torch.optim.Adam(parameters, 0.02)


def still(parameters):
    return torch.optim.SGD(parameters, 0.0)


def test_hooks_are_called_at_their_places():
    model = samples.tiny_model()
    hooks = Recorder(model)
    run(hooks, model)
    places = [place for place, _ in hooks.calls]
    assert places == (["backward", "step"] * STEPS + ["evaluation"]) * samples.TINY_RECIPE.epochs
    assert all(hooks.grads)
    for step in range(TOTAL):
        before, after = hooks.weights[2 * step : 2 * step + 2]
        assert not torch.equal(before, after)
        if step:
            assert torch.equal(before, hooks.weights[2 * step - 1])


@pytest.mark.parametrize("silent", [False, True])
def test_progress_rises_from_0_by_steps_whether_a_bar_shows_it_or_not(silent, monkeypatch):
    monkeypatch.setattr(loop, "tqdm", functools.partial(loop.tqdm, disable=silent))
    model = samples.tiny_model()
    hooks = Recorder(model)
    run(hooks, model)
    progress = [value for place, value in hooks.calls if place == "backward"]
    assert progress == pytest.approx([step / TOTAL for step in range(TOTAL)])
    assert progress == [value for place, value in hooks.calls if place == "step"]


def test_hooks_that_do_nothing_change_nothing():
    (plain, history), model = run(), samples.tiny_model()
    hooked, same = run(Recorder(model), model)
    assert torch.equal(plain[5].weight, hooked[5].weight)
    assert str(history) == str(same)


def test_validation_sees_what_comes_before_evaluation():
    class Blank(Hooks):
        def before_evaluation(self, split, recipe):
            with torch.no_grad():
                model[5].weight.zero_()
                model[5].bias.zero_()

    model = samples.tiny_model()
    _, history = run(Blank(), model)
    for entry in history:
        losses = np.array(entry["validation"]["loss"])
        assert losses[[0, 2]] == pytest.approx(math.log(2))


def test_measurements_are_kept_where_there_are_any():
    seen = []

    def measure(model, epoch):
        seen.append((epoch, model.training))
        return None if epoch == 1 else [epoch, model[5].bias[0].item()]

    model, history = run(measure=measure)
    assert seen == [(0, False), (1, False), (2, False)]
    assert ["measured" in entry for entry in history] == [True, False, True]
    assert history[2]["measured"] == [2, model[5].bias[0].item()]


def test_the_recipe_s_optimizer_leaves_their_parameters_alone():
    model = samples.tiny_model()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    run(OwnBias(model, still), model)
    unchanged = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert unchanged == {"5.bias"}


def test_own_optimizers_are_stepped():
    model = samples.tiny_model()
    before = model[5].bias.detach().clone()
    hooks = OwnBias(model, adam)
    run(hooks, model)
    assert not torch.equal(model[5].bias, before)
    assert int(hooks.optimizer.state[model[5].bias]["step"]) == TOTAL


def test_a_resumed_run_has_the_same_own_optimizers(tmp_path, monkeypatch):
    path = tmp_path / "run.checkpoint"

    def own(checkpoint=None):
        model = samples.tiny_model(dropout=0.3)
        hooks = OwnBias(model, adam)
        run(hooks, model, checkpoint=checkpoint)
        moments = hooks.optimizer.state[model[5].bias]
        return [*model.state_dict().values(), *(moments[name] for name in sorted(moments))]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", stopping_before(2))
        with pytest.raises(KeyboardInterrupt):
            own(path)
    with safe_open(path, framework="pt") as file:
        assert "optimizer/1/0/exp_avg" in file.keys()
    for value, expected in zip(own(path), own(), strict=True):
        assert torch.equal(value, expected)


def test_progress_goes_on_where_a_run_stood(tmp_path, monkeypatch):
    path = tmp_path / "run.checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", stopping_before(2))
        model = samples.tiny_model()
        with pytest.raises(KeyboardInterrupt):
            run(Recorder(model), model, checkpoint=path)
    model = samples.tiny_model()
    hooks = Recorder(model)
    run(hooks, model, checkpoint=path)
    assert hooks.calls[0] == ("backward", pytest.approx(2 / 3))
    assert len([place for place, _ in hooks.calls if place == "step"]) == STEPS


def test_a_checkpoint_of_other_hooks_is_refused(tmp_path):
    path, model = tmp_path / "run.checkpoint", samples.tiny_model()
    run(Recorder(model), model, checkpoint=path)
    with pytest.raises(ValueError, match=r"run\.checkpoint belongs to another"):
        run(checkpoint=path)


@pytest.mark.parametrize(
    ("layer", "size", "taken"),
    [
        (torch.nn.Conv2d(8, 6, 3, padding=1, bias=False), (2, 2), True),
        (torch.nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False), (4, 3), True),
        (torch.nn.Conv2d(8, 6, 1, stride=2, bias=False), (4, 4), True),
        (torch.nn.Conv2d(8, 6, 3, padding=1, bias=False), (3, 3), False),
        (torch.nn.Conv2d(8, 6, 3, padding=1), (2, 2), False),
        (torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), (2, 2), False),
        (torch.nn.Conv2d(8, 6, 3, padding="same", bias=False), (2, 2), False),
    ],
)
def test_small_maps_are_the_same_convolution_as_a_product_of_matrices(layer, size, taken, monkeypatch):
    products = []
    unfold = functional.unfold
    monkeypatch.setattr(functional, "unfold", lambda *a, **o: (products.append(1), unfold(*a, **o))[1])
    images = torch.randn(5, 8, *size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for mode in (contextlib.nullcontext(), loop.SmallMaps()):
        with mode, torch.autocast("cpu", torch.bfloat16):
            maps = layer(images)
        found.append([maps, *torch.autograd.grad(maps.float().square().sum(), [images, layer.weight])])
    assert bool(products) == taken
    for exact, own in zip(*found, strict=True):
        assert own.dtype == exact.dtype
        torch.testing.assert_close(own.float(), exact.float(), rtol=0, atol=0.02 * exact.abs().max().item())
