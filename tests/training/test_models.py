import pytest
import torch
from safetensors.torch import save_file
from torch import nn

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
