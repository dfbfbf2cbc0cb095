import dataclasses

import pytest
import torch
from torch import nn

import samples
from quantskew.datasets import normalise
from quantskew.quantization.batchnorm import reestimate, variance_ratios
from quantskew.quantization.ptq import quantize_model
from quantskew.training.recipe import Recipe

RECIPE = Recipe(batch_size=16, compute="fp32")


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def statistics_by_hand(model, batches):
    """Mean and unbiased variance of what each batch norm is given, averaged over batches, one norm at a time.

    Each is computed with the norms before it in training mode, as in a real pass.
    """
    seen = {}
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}

    def keep(name):
        def hook(module, inputs):
            values = inputs[0].transpose(0, 1).flatten(1).double()
            seen.setdefault(name, []).append((values.mean(1), values.var(1)))

        return hook

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in norms.items()]
    model.eval()
    for module in norms.values():
        module.train()
    with torch.no_grad():
        for images in batches:
            model(normalise(images))
    for handle in handles:
        handle.remove()
    return {
        name: [torch.stack(kind).mean(0).float() for kind in zip(*pairs, strict=True)]
        for name, pairs in seen.items()
    }


def assert_statistics(model, expected):
    for name, (mean, variance) in expected.items():
        norm = model.get_submodule(name)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)


@pytest.fixture
def split():
    return samples.tiny_data(train=50).train


@pytest.mark.parametrize("batch_size", [50, 500])
def test_one_batch_of_everything_is_a_full_pass(split, batch_size):
    model = samples.tiny_model(dropout=0.5)
    expected = statistics_by_hand(samples.tiny_model(dropout=0.5), [split.images])
    reestimate(model, split, dataclasses.replace(RECIPE, batch_size=batch_size))
    assert_statistics(model, expected)


def test_several_norms_of_a_quantized_model():
    split = samples.tiny_split(40)
    split = dataclasses.replace(split, images=split.images.expand(-1, 3, -1, -1))
    quantized = quantize_model(samples.small_resnet(), "int3")
    other = quantize_model(samples.small_resnet(), "int3")
    reestimate(quantized, split, dataclasses.replace(RECIPE, batch_size=40))
    assert_statistics(quantized, statistics_by_hand(other, [split.images]))


@pytest.mark.parametrize(("batches", "seen"), [(1, 1), (2, 2), (3, 3), (50, 3)])
def test_statistics_are_the_average_over_batches(split, batches, seen):
    # Which images are drawn is found by their brightness: the average must be of so many whole batches.
    model, drawn = samples.tiny_model(), []
    handle = model.register_forward_pre_hook(lambda module, inputs: drawn.append(inputs[0].clone()))
    reestimate(model, split, RECIPE, batches)
    handle.remove()
    assert [len(images) for images in drawn] == [16] * seen
    flat = torch.cat(drawn).flatten(1)
    assert len(torch.unique(flat, dim=0)) == len(flat)
    pixels = [((images * 0.5 + 0.5) * 255).round().to(torch.uint8) for images in drawn]
    assert_statistics(model, statistics_by_hand(samples.tiny_model(), pixels))


def test_only_statistics_change_and_modes_stay(split):
    model = samples.tiny_model(dropout=0.5).train()
    model[1].eval()
    before, modes = state(model), [module.training for module in model.modules()]
    torch.manual_seed(5)
    random = torch.random.get_rng_state()
    reestimate(model, split, RECIPE)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    assert model[1].momentum == 0.1
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_the_seed_decides_the_images(split):
    means = []
    for seed in (0, 0, 1):
        model = samples.tiny_model()
        reestimate(model, split, dataclasses.replace(RECIPE, seed=seed), batches=1)
        means.append(model[1].running_mean)
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])


def test_bf16_is_close(split):
    exact, short = samples.tiny_model(), samples.tiny_model()
    reestimate(exact, split, RECIPE)
    reestimate(short, split, dataclasses.replace(RECIPE, compute="bf16"))
    torch.testing.assert_close(short[1].running_mean, exact[1].running_mean, rtol=0.02, atol=0.02)
    assert short[1].running_mean.dtype == torch.float32


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(36, 2)),
        nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(36, 2)),
    ],
)
def test_a_model_without_statistics_is_left_alone(split, model):
    before = state(model)
    reestimate(model, split, RECIPE)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


class TwoNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3)
        self.first = nn.BatchNorm2d(3)
        self.second = nn.BatchNorm1d(3)

    def forward(self, images):
        return self.second(self.first(self.convolution(images)).mean((2, 3)))


def test_ratios_are_the_variances_of_the_inputs_over_the_kept_ones():
    torch.manual_seed(0)
    model, split = TwoNorms().eval(), samples.tiny_split(40)
    model.first.running_var.uniform_(0.5, 2)
    features = model.convolution(normalise(split.images[:32])).detach().double()
    expected = 1.0
    for channel in range(3):
        values = features[:, channel].flatten()
        variance = ((values - values.mean()) ** 2).mean()
        expected *= float(variance / model.first.running_var[channel]) ** (1 / 3)
    table = variance_ratios(model, split, batch_size=32)
    assert table["name"].tolist() == ["first", "second"]
    assert table["layer"].tolist() == [1, 2]
    assert table["value"][0] == pytest.approx(expected, rel=1e-6)
    halved = TwoNorms().eval()
    halved.load_state_dict(model.state_dict())
    halved.convolution.weight.data /= 2
    assert variance_ratios(halved, split, 32)["value"][0] == pytest.approx(expected / 4, rel=1e-5)


def test_nothing_of_the_model_is_left_changed():
    model = TwoNorms().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    variance_ratios(model, samples.tiny_split(10))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.first._forward_pre_hooks
