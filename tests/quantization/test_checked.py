"""Odd models x transformations, each compared with the weights that torch's own forward pass uses."""

import copy
import functools
import types

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from quantskew.quantization import qat
from quantskew.quantization.grids import fake_quantize
from quantskew.quantization.ptq import quantize_model, weight_parameters

# torch's own old weight norm and scripting, which models still have.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
IMAGES = torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def net(kind=Net):
    torch.manual_seed(1)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model


def pruned(layer):
    return prune.random_unstructured(prune.l1_unstructured(layer, "weight", 0.4), "weight", 0.2)


REPARAMETRISED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight_norm": weight_norm,
    "old spectral_norm": spectral_norm,
    "pruned": pruned,
    "two at once": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer)),
}


@pytest.fixture(
    params=[(name, mode) for name in REPARAMETRISED for mode in ("fresh", "trained", "evaluation")]
)
def reparametrised(request):
    """A model whose weights are computed: as made, after a training pass, and in evaluation mode."""
    name, mode = request.param
    model = net()
    model.conv, model.fc = REPARAMETRISED[name](model.conv), REPARAMETRISED[name](model.fc)
    if mode == "trained":
        functional.cross_entropy(model(IMAGES), torch.arange(6) % 3).backward()
    return model.eval() if mode == "evaluation" else model


def used(model):
    """The weights that convolutions and linear layers compute with in evaluation, one after another."""
    found = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in (torch.conv2d, functional.linear):
                found.append(args[1].detach().clone())
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        logits = model(IMAGES)
    return found, logits


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("quantizer", ["fp32", "int4", "int2:mse,per-channel"])
def test_weights_that_are_computed_are_quantized_as_they_are_used(reparametrised, quantizer):
    before, training = state(reparametrised), reparametrised.training
    quantized = quantize_model(reparametrised, quantizer)
    assert reparametrised.training == training
    for name, value in reparametrised.state_dict().items():
        assert torch.equal(value, before[name]), name
    found, logits = used(quantized)
    expected, original = used(reparametrised.eval())
    for now, then in zip(found, expected, strict=True):
        torch.testing.assert_close(now, then if quantizer == "fp32" else fake_quantize(then, quantizer))
    for now, listed in zip(found, weight_parameters(quantized).values(), strict=True):
        assert torch.equal(now, listed)
    if quantizer == "fp32":
        torch.testing.assert_close(logits, original)


def test_training_on_the_grid_bakes_the_same_weights(reparametrised):
    before = state(reparametrised)
    prepared = qat.prepare(reparametrised, qat.QATOptions("int2", boundary_precision=None)).eval()
    assert all(torch.equal(value, before[name]) for name, value in reparametrised.state_dict().items())
    assert [len(torch.unique(weight)) <= 4 for weight in used(prepared)[0]] == [True, True]
    assert list(qat.convert(prepared).quantized) == ["conv.weight", "fc.weight"]


def test_layers_that_share_a_computed_weight_go_on_sharing_it():
    model = nn.Sequential(nn.Flatten(), nn.Linear(243, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    model[3].weight = model[2].weight
    for layer in (model[2], model[3]):
        nn.utils.parametrize.register_parametrization(layer, "weight", nn.Tanh())
    assert list(quantize_model(model.eval(), "int4").quantized) == ["1.weight", "2.weight"]


def replaced(model, function):
    model.conv.forward = function(model.conv)
    return model


def without_gradient(layer):
    @functools.wraps(type(layer).forward)
    def forward(x, _inner=layer.forward):
        with torch.no_grad():
            return _inner(x)

    return forward


def as_method(layer):
    inner = layer.forward
    return types.MethodType(lambda self, x: inner(x).float(), layer)


class OwnCopy(Net):
    def __deepcopy__(self, memo):
        return self


REFUSED = {
    "decorated": (lambda: replaced(net(), without_gradient), "the forward of conv was replaced"),
    "a method around the old one": (lambda: replaced(net(), as_method), "the forward of conv was replaced"),
    "scripted": (lambda: torch.jit.script(net()), "scripted or traced"),
    "meta": (lambda: net().to("meta"), "weight of conv is on the meta device"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), "has no shape yet"),
    "weights alone": (lambda: net().state_dict(), "load_state_dict"),
    "copies that are no copies": (lambda: net(OwnCopy), "conv.weight is not replaced"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_copied_faithfully_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        quantize_model(make(), "int4")


WRAPPED = {
    "data parallel": nn.DataParallel,
    "compiled": functools.partial(torch.compile, backend="eager"),
    "a compiled part": lambda model: (
        setattr(model, "conv", torch.compile(model.conv, backend="eager")) or model
    ),
    "forward bound again": lambda model: replaced(model, lambda layer: layer.forward),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_are_looked_through(name):
    quantized = quantize_model(WRAPPED[name](net().eval()), "int4")
    plain = quantize_model(net(), "int4")
    assert list(quantized.quantized) == ["conv.weight", "fc.weight"]
    assert torch.equal(quantized(IMAGES), plain(IMAGES))


class Twice(Net):
    def forward(self, x):
        return self.fc((torch.relu(self.norm(self.conv(x))) + self.conv(x.flip(3))).mean((2, 3)))


class SharedNorm(Net):
    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.fc(self.norm(self.second(self.norm(self.conv(x)))).mean((2, 3)))


class SharedWeight(SharedNorm):
    def __init__(self):
        super().__init__()
        self.norm2, self.third = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.third.weight = self.second.weight

    def forward(self, x):
        return self.fc(self.third(self.norm2(self.second(self.norm(self.conv(x))))).mean((2, 3)))


class TwoReaders(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.fc((self.norm(y) + y).mean((2, 3)))


class ReadElsewhere(Net):
    def forward(self, x):
        return super().forward(x) + self.conv.weight.mean() + self.norm.running_var.mean()


class Transposed(Net):
    def __init__(self):
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 8, 3)


class NormFirst(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.fc(self.conv(torch.relu(self.norm(x))).mean((2, 3)))


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.conv.register_forward_hook(lambda module, inputs, output: output * 2)


class NoAffine(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8, affine=False)


UNFOLDED = {
    Net: [],
    NoAffine: [],
    Twice: ["norm"],
    SharedNorm: ["norm"],
    SharedWeight: ["norm2"],
    TwoReaders: ["norm"],
    ReadElsewhere: ["norm"],
    Transposed: ["norm"],
    NormFirst: ["norm"],
    Hooked: ["norm"],
}


@pytest.mark.parametrize("kind", UNFOLDED)
def test_folding_is_exact_and_names_what_it_leaves(kind):
    model = net(kind).eval()
    before, expected = state(model), model(IMAGES)
    folded = quantize_model(model, "fp32:folded")
    torch.testing.assert_close(folded(IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert folded.unfolded == UNFOLDED[kind]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_pass_in_training_leaves_a_model_that_can_be_copied():
    model = net()
    model.kept = [model(IMAGES)]
    copied = quantize_model(model, "int4")
    assert copied.kept[0].grad_fn is None
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
