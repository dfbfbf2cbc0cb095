"""What other kinds of training add to the plain loop: hooks, optimizers of their own, measurements."""

import functools
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open

import samples
from quantskew.training import loop
from quantskew.training.loop import Hooks, fit

STEPS = 4  # 50 images in batches of 16
TOTAL = STEPS * samples.TINY_RECIPE.epochs


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
    monkeypatch.setattr(loop, "tqdm", functools.partial(fit.tqdm, disable=silent))
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
    path, train_epoch = tmp_path / "run.checkpoint", loop._train_epoch

    def own(checkpoint=None):
        model = samples.tiny_model(dropout=0.3)
        hooks = OwnBias(model, adam)
        run(hooks, model, checkpoint=checkpoint)
        moments = hooks.optimizer.state[model[5].bias]
        return [*model.state_dict().values(), *(moments[name] for name in sorted(moments))]

    def interrupt(model, split, recipe, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(model, split, recipe, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            own(path)
    with safe_open(path, framework="pt") as file:
        assert "optimizer/1/0/exp_avg" in file.keys()
    for value, expected in zip(own(path), own(), strict=True):
        assert torch.equal(value, expected)


def test_progress_goes_on_where_a_run_stood(tmp_path, monkeypatch):
    path, train_epoch = tmp_path / "run.checkpoint", loop._train_epoch

    def interrupt(model, split, recipe, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(model, split, recipe, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_epoch", interrupt)
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
