"""Models as other libraries give them: the numbers of the plain model, or one sentence on what to do."""

import copy
import types

import numpy as np
import pytest
import torch
from torch import nn

from quantskew.audits.model import audit_model, audit_models
from quantskew.datasets import normalise
from quantskew.quantization.ptq import HalfPrecision, quantize_model
from quantskew.report import summary

COLUMNS = ["fp32", "int8", "int4"]


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


class Giving(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.body, self.form = classifier(), form

    def forward(self, x):
        return self.form(self.body(x))


@pytest.fixture(scope="module")
def few(digits):
    return digits.test.subset(np.arange(40))


@pytest.fixture(scope="module")
def expected(few):
    return audit_model(classifier(), few, COLUMNS)


FORMS = {
    "tuple": lambda y: (y, y[:, :3]),
    "list": lambda y: [y],
    "dict": lambda y: {"loss": None, "logits": y},
    "object": lambda y: types.SimpleNamespace(logits=y),
    "further axes": lambda y: y[..., None, None],
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_what_a_model_gives(form, few, expected):
    audit = audit_model(Giving(FORMS[form]), few, COLUMNS)
    assert np.array_equal(audit.logits, expected.logits)
    assert np.array_equal(audit.weights.zeros, expected.weights.zeros)


@pytest.mark.parametrize("form", [torch.float16, torch.bfloat16, torch.float64])
def test_other_formats_are_audited_in_fp32(form, few):
    model = classifier().to(form)
    audit = audit_model(model, few, COLUMNS)
    assert next(model.parameters()).dtype == form
    assert np.array_equal(audit.logits, audit_model(copy.deepcopy(model).float(), few, COLUMNS).logits)


class Standardised(nn.Conv2d):
    def forward(self, x):
        return nn.functional.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Outside(nn.Module):
    """Reaches its layer by a function that no copy takes along."""

    def __init__(self):
        super().__init__()
        self.body = classifier()
        layer = self.body[3]
        self.function = lambda x: layer(x)

    def forward(self, x):
        return self.function(self.body[:3](x))


REFUSED = {
    "one logit": (
        lambda: Giving(lambda y: y[:, :1]),
        r"of shape \(4, 1\) for 4 images at fp32, but an",
    ),
    "no axis": (lambda: Giving(lambda y: y[:, 0]), r"of shape \(4,\)"),
    "other classes": (lambda: Giving(lambda y: y.repeat(1, 100)), r"of shape \(4, 1000\)"),
    "text": (lambda: Giving(lambda y: "logits"), "gives a str"),
    "probabilities": (lambda: Giving(lambda y: y.softmax(1)), "take off the softmax"),
    "sure probabilities": (lambda: Giving(lambda y: (1e4 * y).softmax(1)), "take off the softmax"),
    "not finite": (lambda: Giving(lambda y: y * torch.nan), "not finite for sample 0 at fp32; check"),
    "channels": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), "cannot take images of shape"),
    "changes its weight": (
        lambda: nn.Sequential(Standardised(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)),
        "0.weight: the layer computes with another weight",
    ),
    "uses the original": (Outside, "still computes with body.3.weight of the original"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_audited_is_refused_with_a_remedy(name, few):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        audit_model(make(), few, COLUMNS)


def test_models_that_are_quantized_already_are_checked_alike(few):
    model = classifier().eval()
    alike = {name: quantize_model(model, name) for name in ("fp32", "int4")}
    cut = {"fp32": alike["fp32"], "int4": nn.Sequential(alike["int4"], nn.Softmax(1))}
    with pytest.raises(ValueError, match="take off the softmax"):
        audit_models(model, cut, few)
    for make, message in ((Outside, "body.3.weight of the original"), (lambda: classifier()[:3], "at int4")):
        odd = make().eval()
        with pytest.raises(ValueError, match=message):
            audit_models(odd, alike | {"int4": quantize_model(odd, "int4")}, few)
    broken = copy.deepcopy(alike["int4"])
    next(broken.parameters()).data.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite for sample 0 at int4"):
        audit_models(model, alike | {"int4": broken}, few)


@pytest.mark.parametrize("squash", [torch.sigmoid, lambda y: y.sigmoid().round()])
def test_outputs_of_a_sigmoid_are_told_with_a_remedy_and_no_others(squash, few, caplog):
    audit_model(Giving(squash), few, ["fp32"])
    assert "as those of a sigmoid do" in caplog.text
    assert "take it off" in caplog.text
    caplog.clear()
    for own in (Giving(lambda y: y), Giving(lambda y: 0 * y), Giving(lambda y: y.sigmoid() - 0.5)):
        audit_model(own, few, ["fp32"])
    assert caplog.text == ""


class Floating(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.lstm, self.fc = nn.LSTM(36, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.lstm(self.norm(self.conv(x)).flatten(2))[0][:, -1]) * self.scale


def test_what_stays_in_floating_point_is_named_with_its_share(few):
    model = Floating()
    audit = audit_model(model, few, ["fp32", "int4", "int4:folded"])
    floating = audit.provenance["floating"]
    assert floating["names"] == ["lstm (LSTM)", "biases", "norm (BatchNorm2d)", "scale"]
    quantized = model.conv.weight.numel() + model.fc.weight.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert floating["share"] == pytest.approx(1 - quantized / total)
    assert audit.provenance["unfolded"] == []
    assert f"in floating point: {floating['share']:.2%} of the parameters: lstm (LSTM)" in summary(audit)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.fc = nn.Conv2d(1, 4, 4, 4), nn.Linear(4, 10)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True)

    def forward(self, x):
        return self.fc(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def test_the_curvature_of_attention_is_that_of_a_dense_hessian(few):
    torch.manual_seed(0)
    model = Attention().eval()
    audit = audit_model(model, few, ["fp32", "int4"], curvature=2)
    group = int(few.groups[0])
    index = np.flatnonzero(few.groups.numpy() == group)[:2]
    images, labels = normalise(few.images[index]).double(), few.labels[index]
    exact = copy.deepcopy(model).double()
    parameters = list(exact.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = nn.functional.cross_entropy(exact(images), labels)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradient])
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(x, parameters, retain_graph=True)])
        for x in flat
    ]
    largest = float(torch.linalg.eigvalsh(torch.stack(rows))[-1])
    assert audit.curvature.lambda_max[0, group] == pytest.approx(largest, rel=1e-2)


class Between(nn.Module):
    """Arithmetic between the layers, of the size that it is given."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(2, 2, bias=False), function
        nn.init.eye_(self.fc.weight)

    def forward(self, x):
        return self.function(self.fc(x))


BETWEEN = {
    "residual": lambda y: y + y,
    "in place": lambda y: y.clone().add_(y),
    "softmax by hand": lambda y: torch.exp(y / 2000) / torch.exp(y / 2000).sum(-1, keepdim=True),
    "product": lambda y: y @ y.T,
}


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("size", [1.0, 40000.0, -40000.0])
def test_half_precision_overflows_between_layers_where_fp16_does(name, size):
    images = torch.tensor([[size, size / 2], [size, 3.0]])
    model = Between(BETWEEN[name])
    exact, half = copy.deepcopy(model).half()(images.half()), quantize_model(model, "fp16")(images)
    assert torch.equal(torch.isfinite(half), torch.isfinite(exact))


def test_half_precision_rounds_nothing_else_between_layers():
    images = torch.randn(4, 2)
    half = HalfPrecision(Between(lambda y: (y + y / 3) * 1.1 - y.exp().sum()))
    rounded = images.half().float()
    expected = (rounded + rounded / 3) * 1.1 - rounded.exp().sum()
    assert torch.equal(half(images), expected.half().float())
