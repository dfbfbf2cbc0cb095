"""The command line, in process; every refusal is one line that says what to do."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import samples
from quantskew import report
from quantskew.audits.audit import Audit
from quantskew.cli import main
from quantskew.experiments import catalogue, runs
from quantskew.experiments.experiment import EXPERIMENTS
from quantskew.experiments.methods import METHODS
from quantskew.quantization.quantizer import PRECISIONS, SCHEMES


@pytest.fixture
def arrays(tmp_path):
    """Four .npy files: logits of two runtimes, labels and group names."""
    rng = np.random.default_rng(0)
    content = {
        "a": rng.normal(size=(30, 3)),
        "b": rng.normal(size=(30, 3)),
        "y": rng.integers(0, 3, 30),
        "g": np.array(["north", "south", "west"])[rng.integers(0, 3, 30)],
    }
    for name, array in content.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


def logits_command(folder, *more):
    return [
        "audit", "--logits", f"fp32={folder}/a.npy", "--logits", f"int8={folder}/b.npy",
        "--labels", f"{folder}/y.npy", "--groups", f"{folder}/g.npy", "--output", f"{folder}/out", *more,
    ]  # fmt: skip


COMMANDS = (
    "logits",
    "experiments",
    "train",
    "audit",
    "plan",
    "allocate",
    "layers",
    "mitigate",
    "claims",
    "records",
    "book",
    "sweep",
)


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=["all", *COMMANDS])
def test_help_imports_nothing_heavy(arguments):
    code = f"""
import sys
from quantskew.cli import main
try:
    main({[*arguments, "--help"]})
except SystemExit as end:
    assert end.code == 0
heavy = {{"torch", "pandas", "scipy", "matplotlib", "sklearn", "numpy"}} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: quantskew" in done.stdout


def test_help_lists_what_there_is(capsys):
    for command, known in (("audit", [*EXPERIMENTS, *PRECISIONS, *SCHEMES]), ("mitigate", METHODS)):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        # Long names are broken at their hyphens.
        shown = "".join(capsys.readouterr().out.split())
        assert all(f"{name}," in shown or f"{name}-" in shown or f",{name}" in shown for name in known)
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_experiments_are_listed(capsys):
    assert main(["experiments"]) == 0
    listed = capsys.readouterr().out
    assert "digits" in listed
    assert "resnet18 on utkface, label gender, group ethnicity" in listed
    assert "mobilenet_v2 on utkface, 13 epochs" in listed


def test_logits_of_any_two_runtimes_are_audited(arrays, capsys):
    assert main(logits_command(arrays)) == 0
    assert "30 test samples in 3 groups: north" in capsys.readouterr().out
    audit = Audit.load(arrays / "out" / "audit.safetensors")
    assert audit.precisions == ("fp32", "int8")
    assert audit.logits[1] == pytest.approx(np.load(arrays / "b.npy").astype(np.float32))
    assert (arrays / "out" / "figures" / "fvo.png").exists()


def test_an_audit_by_group_and_class_writes_its_tables(arrays):
    assert main(logits_command(arrays)) == 0
    written = {path.name for path in (arrays / "out").rglob("*") if path.is_file()}
    assert {"equalized_odds.csv", "class_accuracy.csv", "class_accuracy.png"} <= written


def test_an_experiment_is_trained_audited_and_cached(fresh_cache, tmp_path, capsys):
    command = [
        "audit",
        "digits",
        "--epochs",
        "2",
        "--precisions",
        "fp32,int3",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    first = capsys.readouterr().out
    stamps = {path: path.stat().st_mtime_ns for path in fresh_cache.rglob("*.safetensors")}
    assert len(stamps) == 2
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out == first
    assert len(re.findall(r"^digits-\w{20}: from the cache, made on 20\d\d-\d\d-\d\d", again.err, re.M)) == 2
    assert {path: path.stat().st_mtime_ns for path in fresh_cache.rglob("*.safetensors")} == stamps


def test_layers_are_audited_and_written(fresh_cache, tmp_path, capsys):
    command = ["layers", "digits", "--epochs", "1", "--precision", "int3", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out.split()
    assert sorted(printed) == sorted(map(str, (tmp_path / "out").iterdir()))
    assert Audit.load(printed[0]).precisions[-1] == "int3"
    assert main([*command[:4], "--precision", "W8A8"]) == 2
    assert "give int4 or int4:mse, not W8A8" in capsys.readouterr().err


def test_activations_are_quantized_where_they_are_asked_for(fresh_cache, monkeypatch):
    audits = []
    monkeypatch.setattr(report, "write_report", lambda audit, folder: audits.append(audit) or [])
    command = ["audit", "digits", "--epochs", "1", "--precisions", "fp32,int8"]
    for more in ([], ["--activation-precision", "int2"]):
        assert main([*command, *more]) == 0
    plain, activations = audits
    assert (activations.logits[0] == plain.logits[0]).all()
    assert abs(activations.logits[1] - plain.logits[1]).mean() > 0.01
    assert activations.precisions == ("fp32", "W8A2")


def test_precisions_are_names_of_quantizers(monkeypatch, tmp_path):
    asked = []

    def audit(experiment, quantizers, **options):
        asked.append(([own.name for own in quantizers], options["curvature"]))
        return samples.exact_audit({own.name: [0.5, 0.5] for own in quantizers}, count=20)

    monkeypatch.setattr(catalogue, "audit", audit)
    monkeypatch.setattr(report, "write_report", lambda *_: [])
    names = "fp32,int4:mse,per-channel, int2:symmetric,A8"
    for more in ([], ["--scheme", "mse", "--curvature"], ["--fold-batchnorm", "--curvature-images", "3"]):
        assert main(["audit", "digits", "--precisions", names, *more]) == 0
    assert asked == [
        (["fp32", "int4:mse,per-channel", "int2:symmetric", "A8"], False),
        (["fp32", "int4:mse,per-channel", "int2:symmetric", "A8"], True),
        (["fp32:folded", "int4:mse,per-channel,folded", "int2:symmetric,folded", "A8:folded"], False),
    ]


def test_training_prints_where_the_model_is(fresh_cache, capsys):
    assert main(["train", "digits", "--epochs", "1", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    (model,) = (fresh_cache / "models").glob("digits-*.safetensors")
    assert str(model) in printed


def test_methods_are_run_and_compared(fresh_cache, tmp_path, capsys):
    folder = tmp_path / "out"
    arguments = ["mitigate", "digits", "--methods", "ptq,mpqat", "--epochs", "2", "--output", str(folder)]
    assert main(arguments) == 0
    names = {path.name for path in folder.iterdir()}
    assert names >= {"digits-ptq.safetensors", "digits-mpqat.safetensors", "comparison.csv", "fvo.png"}
    printed = capsys.readouterr().out
    assert str(folder / "digits-mpqat.safetensors") in printed
    assert all(word in printed for word in ("PTQ", "MPQAT", "accuracy", "int2"))
    audit = Audit.load(folder / "digits-mpqat.safetensors")
    assert audit.provenance["method"]["key"] == "mpqat"


def test_records_are_written_seed_by_seed(fresh_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "REPEATED", ("ptq",))
    monkeypatch.setattr(runs, "DEFAULT_PRECISIONS", ("fp32", "int8"))
    arguments = ["records", "digits", "--epochs", "1", "--seed", "1", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    names = [
        "",
        "-ptq",
        "-activations",
        "-causes",
        "-layers",
        "-calibration",
        "-front",
        "-balanced",
        *(f"-cut-{digit}" for digit in range(10)),
    ]
    expected = [str(tmp_path / "out" / f"digits{name}-1.safetensors") for name in names]
    assert capsys.readouterr().out.split() == expected
    assert sorted(str(path) for path in (tmp_path / "out").iterdir()) == sorted(expected)
    assert Audit.load(expected[0]).curvature is not None


def test_records_of_the_experiment_alone(fresh_cache, tmp_path, capsys):
    arguments = ["records", "digits", "--epochs", "1", "--base-only", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--seeds", "2"]) == 0
    assert [Path(path).name for path in capsys.readouterr().out.split()] == [
        "digits.safetensors",
        "digits-1.safetensors",
    ]
    assert Audit.load(tmp_path / "out" / "digits.safetensors").curvature is None


def test_claims_of_an_experiment(fresh_cache, tmp_path, capsys):
    path = tmp_path / "claims.json"
    arguments = ["claims", "digits", "--epochs", "1", "--seeds", "2", "--claims", "fvo_grows,fair_base"]
    assert main([*arguments, "--format", "json", "--output", str(path)]) == 0
    assert capsys.readouterr().out == ""
    rows = json.loads(path.read_text())
    assert [row["key"] for row in rows] == ["fvo_grows", "fair_base"]
    assert [row["seeds"] for row in rows] == [2, 2]


def test_claims_of_records_and_of_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wide = samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=200, train_counts=[9, 1])
    for number in ("", "-1"):
        wide.save(tmp_path / "book" / "records" / f"mine{number}.safetensors")
    printed = []
    for name in (["mine", "--recorded"], [str(tmp_path / "book" / "records" / "mine.safetensors")]):
        assert main(["claims", *name, "--claims", "fvo_grows,qat_alone"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    # Two that agree to the last digit are two coins.
    assert printed[0].startswith("undecided  0.4, 2 of 2 (by chance")
    assert "2 of 2" in printed[0]
    assert "no Audits of ptq" in printed[0]


def test_claims_of_runtimes_are_refused_in_one_line(tmp_path, capsys):
    samples.exact_audit({"fp32": [0.9, 0.8], "onnx": [0.9, 0.4]}).save(tmp_path / "mine.safetensors")
    assert main(["claims", str(tmp_path / "mine.safetensors")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no claim can be judged: all are on precisions such as int4, none of onnx is" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mitigate", "digits", "--methods", "ptq,magic"], "unknown method 'magic'; known: ptq, u-o"),
        (["mitigate", "digits", "--methods", "wcr", "--start", "x"], "which x cannot replace"),
        (["mitigate", "digits", "--methods", "ptq", "--start", "nowhere.safetensors"], "nowhere.safetensors"),
        (["mitigate", "digits", "--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["records", "digits", "--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["claims", "digits", "--claims", "fvo"], "unknown claim 'fvo'; known: fvo_grows"),
        (["claims", "digits", "--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["claims", "nobody", "--recorded"], "no record 'nobody'"),
        (["claims", "nowhere.safetensors"], "no record 'nowhere.safetensors'"),
        (["mitigate", "digit"], "known: digits, balanced_digits"),
        (["train", "digit"], "known: digits, balanced_digits"),
        (["audit"], "give an experiment or --logits"),
        (["audit", "digits", "--precisions", "fp32,int99"], "known: fp32, fp16"),
        (["audit", "digits", "--epochs", "1", "--scheme", "banana"], "known: banner, symmetric, mse"),
        (["audit", "digits", "--activation-precision", "int99"], "unknown precision 'int99'; known: fp32"),
        (["audit", "digits", "--activation-precision", "int8", "--curvature"], "leave out curvature"),
        (["train", "digits", "--model", "resnet17"], "known: small_resnet"),
        (["train", "digits", "--label", "age"], "known: digit"),
        (["train", "digits", "--device", "tpu"], "cannot be used here"),
        (["train", "utkface", "--data-dir", "nowhere"], "nowhere does not exist"),
        (["train", "digits", "--epochs", "0"], "epochs must be at least 1"),
        (["sweep", "nowhere.yml"], "there is no grid at nowhere.yml"),
        (["sweep", "nowhere.yml", "--jobs", "0"], "--jobs must be at least 1; got 0"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(arguments, message, fresh_cache, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("quantskew: ")
    assert message in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--logits", "int4"], "takes NAME=FILE.npy"),
        (["--logits", "int8=again.npy"], "names int8 twice"),
        (["--logits", "int4=missing.npy"], "missing.npy does not exist"),
        (["digits"], "not both"),
    ],
)
def test_bad_logits_are_refused(change, message, arrays, capsys):
    assert main(logits_command(arrays, *change)) == 2
    assert message in capsys.readouterr().err


def test_logits_that_cannot_fit_are_refused_before_they_are_read(arrays, capsys):
    with open(arrays / "b.npy", "r+b") as file:
        file.truncate(2**42)
    assert main(logits_command(arrays)) == 2
    assert (
        "the logits take 4,096.0 GB and their audit about 12,288, but this machine has"
        in capsys.readouterr().err
    )


def test_a_pickled_array_is_never_loaded(arrays, capsys):
    np.save(arrays / "g.npy", np.array([{"north": 1}] * 30, dtype=object), allow_pickle=True)
    assert main(logits_command(arrays)) == 2
    assert "without pickling" in capsys.readouterr().err


def test_the_book_refuses_parameters_that_no_chapter_has(repository, capsys):
    assert main(["book", "--root", str(repository), "-p", "precison", "[int4]"]) == 2
    assert "known: data_dir, device, epochs, experiment" in capsys.readouterr().err
    assert main(["book", "--root", str(repository), "-p", "seed", "one"]) == 2
    assert "seed must be of type int, not str ('one')" in capsys.readouterr().err


def test_the_book_needs_chapters(tmp_path, capsys):
    assert main(["book", "--root", str(tmp_path)]) == 2
    assert "has no chapters in notebooks/" in capsys.readouterr().err


def test_only_a_sweep_takes_options_of_snakemake(capsys):
    with pytest.raises(SystemExit):
        main(["train", "digits", "--", "--dry-run"])
    assert "only sweep takes options after --; got --dry-run" in capsys.readouterr().err


def test_non_finite_logits_name_the_sample(arrays, capsys):
    broken = np.load(arrays / "b.npy")
    broken[7, 1] = np.nan
    np.save(arrays / "b.npy", broken)
    assert main(logits_command(arrays)) == 2
    assert "sample 7 at int8" in capsys.readouterr().err
