import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from quantskew.training import models
from quantskew.training.models import SmallResNet, build, check_name, known_models, load_weights


@pytest.mark.parametrize(
    ("name", "side"),
    [("small_resnet", 8), ("resnet18", 32), ("mobilenet_v2", 32), ("squeezenet1_0", 64), ("googlenet", 64)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_models_map_images_to_logits(name, side, channels):
    model = build(name, num_classes=5, in_channels=channels)
    images = torch.zeros(2, channels, side, side)
    for mode in (True, False):
        assert model.train(mode)(images).shape == (2, 5)


def test_the_paper_s_model_is_torchvision_s_resnet18():
    model = build("resnet18", num_classes=5)
    assert sum(p.numel() for p in model.parameters()) == 11_176_512 + 5 * 513


def test_the_small_resnet_has_seven_convolutions_and_three_stages():
    kinds = [m for m in SmallResNet(10).modules() if isinstance(m, nn.Conv2d)]
    assert sum(conv.kernel_size == (3, 3) for conv in kinds) == 7
    assert [module.out_features for module in SmallResNet(10).modules() if isinstance(module, nn.Linear)] == [
        10
    ]


@pytest.mark.parametrize("name", ["small_resnet", "resnet18"])
def test_the_seed_decides_the_weights(name):
    once, again, other = (build(name, 3, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(once[key], again[key]) for key in once)
    assert not torch.equal(*(next(iter(state.values())) for state in (once, other)))


def test_building_leaves_torch_s_random_state_alone():
    state = torch.random.get_rng_state()
    build("small_resnet", 3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_are_channels_last():
    assert build("small_resnet", 3).stem.weight.is_contiguous(memory_format=torch.channels_last)


def test_an_unknown_model_is_refused_with_the_known_ones():
    for function in (check_name, lambda name: build(name, 2)):
        with pytest.raises(ValueError, match="unknown model 'resnet19'") as error:
            function("resnet19")
        assert all(name in str(error.value) for name in known_models())


def test_weights_come_back(tmp_path):
    saved, other = build("small_resnet", 4, 1, seed=1), build("small_resnet", 4, 1, seed=2)
    state = {name: value.contiguous() for name, value in saved.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    load_weights(other, tmp_path / "model.safetensors")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())


def test_another_architecture_is_named(tmp_path):
    state = {name: value.contiguous() for name, value in build("small_resnet", 4, 1).state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"another architecture.*tensors differ, such as conv1\.weight"):
        load_weights(build("resnet18", 4, 1), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"number of classes: 2 tensors differ, such as head\.weight"):
        load_weights(build("small_resnet", 5, 1), tmp_path / "model.safetensors")


def test_no_file_and_half_a_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(build("small_resnet", 4, 1), tmp_path / "absent.safetensors")
    (tmp_path / "half.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_weights(build("small_resnet", 4, 1), tmp_path / "half.safetensors")


def _other(tensors, change):
    return {name: change(value) if value.is_floating_point() else value for name, value in tensors.items()}


def _prefixed(tensors, prefix):
    return {prefix + name: value for name, value in tensors.items()}


TAKEN = {
    "as it is": lambda t: t,
    "data parallel": lambda t: _prefixed(t, "module."),
    "compiled": lambda t: _prefixed(t, "_orig_mod."),
    "lightning": lambda t: _prefixed(t, "model."),
    "several": lambda t: _prefixed(t, "model._orig_mod.module."),
    "no counts": lambda t: {name: value for name, value in t.items() if "num_batches" not in name},
    "half": lambda t: _other(t, lambda value: value.half()),
    "bfloat16": lambda t: _other(t, lambda value: value.bfloat16()),
    "double": lambda t: _other(t, lambda value: value.double()),
}


@pytest.mark.parametrize("name", TAKEN)
def test_weights_are_taken_as_other_tools_leave_them(name, tmp_path, capsys):
    source = models.build("small_resnet", 3, 1, seed=1)
    tensors = {name: value.contiguous() for name, value in source.state_dict().items()}
    given = TAKEN[name](tensors)
    save_file(given, tmp_path / "w.safetensors")
    model = models.build("small_resnet", 3, 1, seed=2)
    models.load_weights(model, tmp_path / "w.safetensors")
    for key, value in model.state_dict().items():
        kind = torch.float16 if name == "half" else torch.bfloat16 if name == "bfloat16" else value.dtype
        expected = tensors[key].to(kind).to(value.dtype) if value.is_floating_point() else tensors[key]
        assert torch.equal(value, expected), key
    assert ("taken without" in capsys.readouterr().err) == (next(iter(given)) not in tensors)


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_taken_from_what_torch_has_saved(key, zipped, tmp_path, capsys):
    source, model = (models.build("small_resnet", 3, 1, seed=seed) for seed in (1, 2))
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    state = {key: state, "epoch": 3} if key else state
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    models.load_weights(model, tmp_path / "w.pth")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in source.state_dict().items())
    said = capsys.readouterr().err
    assert "taken without 'module.'" in said
    assert (f"those under {key!r}" in said) == (key is not None)


class Evil:
    """What an unpickler would run."""

    def __reduce__(self):
        return exec, ("raise SystemExit('this has run')",)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_unpickled_that_could_run(zipped, tmp_path):
    model = models.build("small_resnet", 3, 1)
    for held, message in (({"w": Evil()}, "more than tensors"), ({"epoch": 3}, "holds no state_dict")):
        torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=message):
            models.load_weights(model, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:50])
    with pytest.raises(ValueError, match="more than tensors, or is damaged"):
        models.load_weights(model, tmp_path / "w.pth")


def test_weights_that_are_not_finite_and_folders_are_refused(tmp_path):
    model = models.build("small_resnet", 3, 1)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    tensors["head.weight"][1, 2] = torch.nan
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"not finite, such as head\.weight"):
        models.load_weights(model, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="is a folder"):
        models.load_weights(model, tmp_path)


@pytest.mark.parametrize(("name", "side"), [("alexnet", 32), ("squeezenet1_1", 8)])
def test_a_model_that_cannot_take_the_size_says_so_before_training(name, side):
    model = models.build(name, 3)
    with pytest.raises(ValueError, match=rf"{name} cannot take .*{side} x {side} pixels.*another size"):
        models.check_takes(model, name, torch.zeros(2, 3, side, side))
    assert model.training
