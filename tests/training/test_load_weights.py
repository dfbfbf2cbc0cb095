import pytest
import torch
from safetensors.torch import save_file

from quantskew.training.models import build, load_weights


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
