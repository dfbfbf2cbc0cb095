"""A model in a file with images of the user's own, wherever an experiment is expected."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from quantskew.audits.audit import Audit
from quantskew.audits.shipped import Fed, Opened
from quantskew.cli import main
from quantskew.datasets import normalise
from quantskew.datasets.listed import Preprocessing
from quantskew.experiments import catalogue, runs
from quantskew.sweeps.grid import audit_cell, split_audit

NET = """
from torch import nn
def net(num_classes):
    convolutions = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""
HOW = {"size": 8, "mean": "0.3,0.4,0.5", "std": "0.2", "channels": "bgr", "range": "0-255"}
FED = Preprocessing(8, (0.3, 0.4, 0.5), 0.2, channels="bgr", range="0-255")


@pytest.fixture
def place(tmp_path, monkeypatch, fresh_cache):
    """A working directory with lists of images, a network, its checkpoint and its exported program."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_layers.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    rng, kinds = np.random.default_rng(0), {}
    for name, count in (("train", 60), ("test", 24)):
        with open(f"{name}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "label", "pen", "side"])
            for row in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(f"{name}{row}.png")
                kinds[f"{name}{row}.png"] = pixels
                pen = "thin" if row % 3 else "thick"
                table.writerow([f"{name}{row}.png", "abc"[row % 3 - 1], pen, "left" if row % 2 else "right"])
    namespace = {}
    exec(NET, namespace)
    torch.manual_seed(0)
    net = namespace["net"](3)
    net(torch.randn(8, 3, 8, 8))
    net.eval()
    torch.save(net.state_dict(), "m.pth")
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(net, (torch.randn(2, 3, 8, 8),), dynamic_shapes=shapes), "m.pt2")
    catalogue._opened.cache_clear()
    pixels = np.stack([kinds[f"test{row}.png"] for row in range(24)]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        return net, net(FED.inputs(pixels)).numpy()


def command(name, model, *more, train=True):
    given = [f"--{own}={value}" for own, value in HOW.items()]
    given += ["--arch", "own_layers:net"] if model == "m.pth" else []
    given += ["--train", "train.csv"] if train else []
    return [name, model, "--test", "test.csv", *given, *more]


@pytest.mark.parametrize("channels", ["rgb", "bgr", "grey"])
@pytest.mark.parametrize("range", ["0-1", "0-255"])
def test_a_model_is_fed_what_it_expects_through_the_usual_normalisation(channels, range):
    width = 1 if channels == "grey" else 3
    how = Preprocessing(4, (0.2, 0.3, 0.4)[:width], (0.5, 0.6, 0.7)[:width], channels=channels, range=range)
    pixels = np.random.default_rng(0).integers(0, 256, (5, width, 4, 4), dtype=np.uint8)
    opened = Opened(None, None, None, ("a", "b"), how, {}, 0)
    given = Fed(nn.Flatten(), opened)(normalise(torch.from_numpy(pixels)))
    expected = how.inputs(pixels).flatten(1)
    assert torch.allclose(given, expected, rtol=1e-5, atol=2e-6 * float(expected.abs().max()))


def test_layers_of_a_checkpoint_and_of_a_program_are_those_of_the_network(place, capsys):
    _, expected = place
    made = {}
    for model in ("m.pth", "m.pt2"):
        assert main(command("layers", model, "--precision=int2", f"--output={model}-out", train=False)) == 0
        shown = capsys.readouterr()
        assert "channels from --channels" in shown.err
        assert "cannot be traced" not in shown.err
        made[model] = Audit.load(f"{model}-out/audit.safetensors")
        assert made[model].logits[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert made[model].class_names == ("a", "b", "c")
        assert made[model].group_names == ("thick", "thin")
        assert len(made[model].precisions) == 8
    assert made["m.pth"].logits == pytest.approx(made["m.pt2"].logits, rel=1e-3, abs=1e-3)
    assert made["m.pth"].provenance["experiment"]["own"]["test"] == "test.csv"


def test_bits_are_allocated_and_a_checkpoint_is_trained_with_them(place, capsys):
    _, expected = place
    assert main(command("allocate", "m.pth", "--mean-bits", "4", "--output", "plan.json")) == 0
    more = ["--plan", "plan.json", "--epochs", "2", "--output", "out", "--group", "side"]
    assert main(command("mitigate", "m.pth", "--methods", "mse,mpqat,fine-tuned", *more)) == 0
    shown = capsys.readouterr()
    assert "MPQAT" in shown.out
    for key in ("mse", "mpqat"):
        made = Audit.load(f"out/m-{key}.safetensors")
        assert made.logits[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert made.group_names == ("left", "right")
        assert made.train_counts.tolist() == [24, 24]
        assert made.provenance["history"] == []
    tuned = Audit.load("out/m-fine-tuned.safetensors")
    assert not np.allclose(tuned.logits[0], expected, atol=1e-3)


def test_claims_are_judged_as_far_as_a_trained_model_goes(place, capsys):
    assert main(command("claims", "m.pth", "--claims", "fvo_grows,fair_base", "--format", "csv")) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("key,")
    assert "no Audits of u-o+wcr" in shown.out
    assert "without u-o+wcr: U-O + WCR trains a float model of its own, which m.pth cannot" in shown.err


def test_a_model_in_a_file_is_a_cell_of_a_grid(place, tmp_path):
    _, expected = place
    given = {"experiment": "m.pt2", "test": "test.csv", **HOW, "precisions": ["fp32"], "curvature": True}
    cell = audit_cell(given, tmp_path)
    assert "m.pt2" in cell.id
    own, options = split_audit(cell.parameters)
    made = catalogue.audit(catalogue.get(**own), **options)
    assert made.logits[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert np.isfinite(made.curvature.lambda_max).all()
    with pytest.raises(ValueError, match="mean must be of type str, not list"):
        audit_cell(given | {"mean": [0.5]}, tmp_path)


def test_a_changed_file_or_preprocessing_changes_the_key(place):
    given = {"test": "test.csv", "arch": "own_layers:net", **HOW}
    first = catalogue.ready(catalogue.get("m.pth", **given))[3]["key"]
    assert catalogue.ready(catalogue.get("m.pth", **given | {"mean": "0.4"}))[3]["key"] != first
    state = torch.load("m.pth", weights_only=True)
    torch.save({name: own + 1 for name, own in state.items()}, "m.pth")
    catalogue._opened.cache_clear()
    assert catalogue.ready(catalogue.get("m.pth", **given))[3]["key"] != first


def test_what_a_kind_of_file_cannot_do_is_said_before_work(place, monkeypatch, capsys):
    def refused(arguments):
        assert main(arguments) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    monkeypatch.setattr(runs, "mitigate", lambda *_: pytest.fail("worked"))
    assert "give a checkpoint with --arch" in refused(command("mitigate", "m.pt2", "--methods", "ptq,mpqat"))
    assert "which m.pth cannot replace" in refused(command("mitigate", "m.pth", "--methods", "ptq,u-o"))
    for name in ("mitigate", "allocate"):
        more = ["--mean-bits=3"] if name == "allocate" else []
        assert "give --train CSV or folder" in refused(command(name, "m.pth", *more, train=False))
    with pytest.warns(FutureWarning):
        torch.jit.trace(place[0], torch.randn(2, 3, 8, 8)).save("m.ts")
    assert "give a .pt2 of torch.export, or a checkpoint with --arch" in refused(command("layers", "m.ts"))
    assert "one run: leave out --seeds" in refused(command("claims", "m.pth", "--seeds=2"))
    assert "--test (CSV or folder)" in refused(["layers", "m.pth"])
    assert "only with a model in a file" in refused(["layers", "digits", "--mean", "0.5"])
    assert "named by --arch" in refused(command("layers", "m.pth", "--model=resnet18"))
    assert "mean is a number or one a channel" in refused(command("layers", "m.pth", "--mean=x"))
    own = catalogue.get("m.pth", test="test.csv", arch="own_layers:net", **HOW)
    with pytest.raises(ValueError, match="data_dir is of named experiments"):
        catalogue.check(own, data_dir=".")
    with pytest.raises(ValueError, match="unknown group column 'hand'"):
        catalogue.load_data(dataclasses.replace(own, group="hand"))
