import pytest
import torch
from torch import nn

import samples
from quantskew.datasets import normalise
from quantskew.quantization.batchnorm import variance_ratios


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


def test_a_model_without_batch_norm_is_refused():
    with pytest.raises(ValueError, match="no batch norm"):
        variance_ratios(nn.Flatten(), samples.tiny_split(4))
