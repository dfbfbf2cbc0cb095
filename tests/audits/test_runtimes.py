"""The model in the runtimes that ship it, against torch and against what quantization may cost."""

import builtins

import pytest
import torch
from torch import nn

import samples
from quantskew import report
from quantskew.audits import runtimes
from quantskew.audits.model import audit_model, calibration_images
from quantskew.audits.runtimes import RUNTIMES, logits_function, logits_functions, session, version
from quantskew.report import summary

IMAGES = samples.random_images(70, side=8)
# Where the extra is not installed, every test that needs it says so.
needs_ort = pytest.mark.skipif(version("ort:fp32") is None, reason='needs onnxruntime: the extra "runtimes"')
needs_torchao = pytest.mark.skipif(
    version("torchao:int8") is None, reason='needs torchao: the extra "runtimes"'
)


@pytest.fixture(scope="module")
def network():
    """A small convolutional network with batch norm and a linear layer."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(32, 4)).eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    """The network as an ONNX file that takes four images at a time."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.onnx.export(network, (IMAGES[:4],), path, dynamo=True, verbose=False)
    return path


def reference(network):
    with torch.inference_mode():
        return network(IMAGES)


def off(function, network):
    """How far a function is from the network, as a share of the network's largest logit."""
    logits = function(IMAGES)
    assert logits.shape == (70, 4)
    return float((logits - reference(network)).abs().max() / reference(network).abs().max())


@needs_ort
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("ort:fp32", 0, 1e-5),
        ("ort:dynamic-int8", 1e-5, 0.05),
        ("ort:static-int8", 1e-5, 0.05),
    ],
)
def test_onnx_runtime_gives_the_logits_of_the_module(name, least, most, network):
    assert least <= off(logits_function(name, network, IMAGES), network) < most


@needs_torchao
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("torchao:int8", 1e-5, 0.02),
        ("torchao:int8-dynamic", 1e-5, 0.05),
        ("torchao:int4", 1e-3, 0.3),
    ],
)
def test_torchao_gives_the_logits_of_the_module(name, least, most, network):
    before = {own: tensor.clone() for own, tensor in network.state_dict().items()}
    with torch.inference_mode():
        assert least <= off(logits_function(name, network, IMAGES), network) < most
    assert all(torch.equal(tensor, before[own]) for own, tensor in network.state_dict().items())


@needs_ort
def test_a_file_of_a_fixed_batch_serves_batches_of_any_size(file, network):
    run, running = session(file)
    assert running.get_inputs()[0].shape[0] == 4
    for count in (1, 4, 6):
        assert run(IMAGES[:count]).numpy() == pytest.approx(reference(network)[:count].numpy(), abs=1e-5)
    for name, most in (("ort:fp32", 1e-5), ("ort:static-int8", 0.05)):
        assert off(logits_function(name, file, IMAGES), network) < most


@needs_ort
def test_static_ranges_are_those_of_the_calibration_images(network):
    """Images of a hundredth of the size leave no room for the real ones."""
    narrow = off(logits_function("ort:static-int8", network, IMAGES / 100), network)
    assert narrow > 0.3


@needs_ort
@needs_torchao
def test_what_a_runtime_cannot_take_is_named_and_the_others_go_on(file):
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten()).eval()
    functions, refused = logits_functions(["ort:fp32", "torchao:int8"], convolutions, IMAGES)
    assert list(functions) == ["ort:fp32"]
    assert (
        "torchao:int8 cannot take the model (ValueError: it quantizes linear layers"
        in refused["torchao:int8"]
    )
    odd = nn.Sequential(nn.Flatten(), nn.Linear(192, 30), nn.Linear(30, 4)).eval()
    _, refused = logits_functions(["torchao:int4"], odd, IMAGES)
    assert "torchao:int4 cannot take the model (AssertionError: " in refused["torchao:int4"]
    _, refused = logits_functions(["torchao:int8"], file, IMAGES)
    assert list(refused) == ["torchao:int8"]


def test_a_runtime_that_is_missing_is_named_with_the_remedy(network, monkeypatch):
    found = builtins.__import__

    def lacking(name, *rest):
        if name.startswith(("onnxruntime", "torchao")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    functions, refused = logits_functions(list(RUNTIMES), network, IMAGES)
    assert functions == {}
    assert list(refused) == list(RUNTIMES)
    for name, reason in refused.items():
        package = "onnxruntime" if name.startswith("ort:") else "torchao"
        assert reason.startswith(f"{name} needs {package}")
        assert reason.endswith('pip install "quantskew[runtimes]"')


def test_an_unknown_runtime_is_refused(network):
    with pytest.raises(ValueError, match="unknown runtime 'tvm'; known: ort:fp32, "):
        logits_function("tvm", network, IMAGES)


def test_a_version_is_that_of_the_package(monkeypatch):
    monkeypatch.setattr(runtimes.importlib.metadata, "version", lambda package: "1")
    assert [version(name) for name in ("ort:fp32", "torchao:int4")] == ["onnxruntime 1", "torchao 1"]


def test_runtimes_stand_beside_quantizers(monkeypatch):
    data, model = samples.tiny_data(), samples.tiny_model().eval()
    audit = audit_model(model, data, ["fp32", "int4"])
    seen = {}

    def functions(names, given, calibration):
        seen.update(names=names, calibration=calibration)
        return {"ort:fp32": lambda batch: (given(batch), "and more")}, {"torchao:int8": "no reason"}

    monkeypatch.setattr(runtimes, "logits_functions", functions)
    made = runtimes.beside(audit, ["ort:fp32", "torchao:int8"], model, data)
    assert made.precisions == ("fp32", "int4", "ort:fp32")
    assert (made.logits[:2] == audit.logits).all()
    assert made.logits[2] == pytest.approx(audit.logits[0], abs=1e-5)
    assert made.weights is None
    assert made.provenance["runtimes_left_out"] == {"torchao:int8": "no reason"}
    assert "no reason" in summary(made)
    assert torch.equal(seen["calibration"], calibration_images(data))
    tables = dict(report.tables(made))
    assert tables["agreement"]["fake"].tolist() == ["fp32"] * 3
    assert tables["agreement"]["same"].dropna().tolist() == [1, 1]
