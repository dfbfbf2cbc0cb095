"""The gate on the command line: status, sentences and files."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

import samples
from quantskew import report
from quantskew.cli import main
from quantskew.experiments import catalogue


@pytest.fixture
def command(tmp_path, monkeypatch):
    """An audit of logits, without its tables and figures."""
    audit = samples.exact_audit({"fp32": [0.9, 0.9], "int8": [0.9, 0.7]}, count=100)
    for name, array in (
        ("a", audit.logits[0]),
        ("b", audit.logits[1]),
        ("y", audit.labels),
        ("g", audit.groups),
    ):
        np.save(tmp_path / f"{name}.npy", array)
    monkeypatch.setattr(report, "write_report", lambda *_: [])
    monkeypatch.chdir(tmp_path)
    files = ["--logits", "fp32=a.npy", "--logits", "int8=b.npy", "--labels", "y.npy", "--groups", "g.npy"]
    return lambda *more: main(["audit", *files, *more])


def test_the_status_is_that_of_the_conditions(command, capsys):
    assert command("--fail-if", "fvo_change > 0.3", "--fail-if", "accuracy < 0.6") == 0
    shown = capsys.readouterr()
    assert shown.out.count("\npassed: ") == 2
    assert shown.err == ""
    assert command("--fail-if", "fvo_change > 0.1", "--fail-if", "accuracy < 0.6") == 1
    shown = capsys.readouterr()
    assert "FAILED: fvo_change > 0.1: met, it is 0.2000 [" in shown.err
    assert "Harm is shown: group 1 loses 20.0 points at int8" in shown.out


def test_outcomes_are_written_for_others(command, tmp_path, capsys):
    given = [
        "--fail-if",
        "accuracy_change < -0.19",
        "--annotations",
        "--junit",
        str(tmp_path / "in" / "j.xml"),
    ]
    assert command(*given) == 1
    assert "::error title=quantskew gate::FAILED: accuracy_change < -0.19" in capsys.readouterr().out
    assert ElementTree.parse(tmp_path / "in" / "j.xml").getroot().get("failures") == "1"
    assert command(*given, "--confidently") == 0
    assert "::notice title=quantskew gate::passed" in capsys.readouterr().out
    assert ElementTree.parse(tmp_path / "in" / "j.xml").getroot().get("failures") == "0"


def test_a_report_is_written_whatever_became_of_the_conditions(command, tmp_path):
    given = ["--fail-if", "fvo_change > 0.1"]
    assert command(*given, "--report", "in/report.md") == 1
    assert "Harm is shown" in (tmp_path / "in" / "report.md").read_text()
    assert command(*given, "--report", "a.npy/report.md") == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--fail-if", "nothing"], "condition 'nothing' is not understood"),
        (["--fail-if", "fvo > 0.1 at int4"], "unknown column"),
        (["--confidently"], "need --fail-if"),
        (["--fail-if", "fvo > 1", "--junit", "a.npy/x.xml"], "the folder of --junit"),
    ],
)
def test_wrong_use_is_refused_before_any_work(given, message, command, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("quantskew.cli._audits_of_logits", never)
    monkeypatch.setattr(catalogue, "audit", never)
    assert command(*given) == 2
    assert message in capsys.readouterr().err
    assert main(["audit", "digits", *given]) == 2


def test_a_plan_is_printed_and_wrong_sizes_are_refused(capsys):
    assert main(["plan", "--groups", "900, 40", "--detect", "0.03"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("543 images of a group show a drop of 0.03 with a probability of 0.8")
    assert shown.splitlines()[-1].split() == ["40", "0.001", "0.236"]
    for groups, detect in (("900,few", "0.03"), ("0", "0.03"), ("900", "3"), ("900", "0")):
        assert main(["plan", "--groups", groups, "--detect", detect]) == 2
        assert "must be" in capsys.readouterr().err


def test_runtimes_are_columns_and_one_that_is_left_out_is_no_pass(command, monkeypatch, capsys):
    asked = []

    def audit(experiment, quantizers, runtimes, **options):
        asked.append(([own.name for own in quantizers], runtimes))
        made = samples.exact_audit({"fp32": [0.9, 0.9], "int8:mse": [0.9, 0.9]})
        return replace(made, provenance={"runtimes_left_out": {"ort:fp32": "ort:fp32 needs onnxruntime"}})

    monkeypatch.setattr(catalogue, "audit", audit)
    given = ["audit", "digits", "--precisions", "fp32,int8:mse,ort:fp32"]
    assert main(given) == 0
    assert "ort:fp32 needs onnxruntime" in capsys.readouterr().out
    assert main([*given, "--fail-if", "fvo > 0.9"]) == 2
    assert "the conditions cannot be decided: ort:fp32 needs onnxruntime" in capsys.readouterr().err
    assert asked == [(["fp32", "int8:mse"], ["ort:fp32"])] * 2


def test_curvature_and_runtimes_exclude_each_other(capsys):
    given = ["audit", "digits", "--curvature", "--precisions", "fp32,int8,ort:fp32"]
    assert main(given) == 2
    assert "curvature is of weights" in capsys.readouterr().err
