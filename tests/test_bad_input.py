"""Bad input of every kind: an error that names what is wrong and what to do, before any work."""

import errno
import re
import tempfile
import time
from pathlib import Path

import pytest

from quantskew import cli, datasets
from quantskew.audits.model import check_audit
from quantskew.book.execution import check_values
from quantskew.chapter import Chapter, playground
from quantskew.cli import main
from quantskew.experiments import catalogue, runs
from quantskew.quantization.quantizer import Quantizer
from quantskew.sweeps.grid import read_grid
from quantskew.training.recipe import Recipe

LONG = "x" * 100_000
NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _untouched(tmp_path, monkeypatch):
    """Each in a folder of its own, with a cache in which nothing may appear, and within a second or two."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("QUANTSKEW_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    start = time.process_time()
    yield
    assert time.process_time() - start < 5
    assert not cache.exists()


def refused(arguments, capsys):
    """What a command that is refused says last."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr()
    assert status == 2, said.err
    assert "Traceback" not in said.err
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("quantskew")
    assert len(last) < 2000
    return last


COUNTS = {
    "--seeds": [("mitigate", "records", "claims"), "0", "-1", "1000000000000"],
    "--seed": [("train", "audit", "mitigate", "records", "claims"), "-1", "4294967296"],
    "--epochs": [("train", "audit", "mitigate"), "0", "-1", "10000000000"],
    "--size": [("train", "audit"), "0", "-1", "2049"],
    "--curvature-images": [("audit",), "0", "-1", "100000000000"],
    "--jobs": [("sweep",), "0", "-1", "1000000"],
    "--timeout": [("sweep",), "0", "-1", "100000000000"],
}
BAD_COUNTS = [
    [command, "grid.yml" if command == "sweep" else "digits", option, value]
    for option, (commands, *values) in COUNTS.items()
    for command in commands
    for value in values
]


@pytest.mark.parametrize("arguments", BAD_COUNTS, ids=" ".join)
def test_a_count_out_of_range_is_refused_with_its_bound(arguments, capsys):
    said = refused(arguments, capsys)
    assert re.search(rf"{arguments[2]} must be at (least|most) \d+; got {arguments[3]}$", said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digits", "--epochs", "one"], "invalid int value: 'one'"),
        (["train", "digits", "--seed", "1.5"], "invalid int value: '1.5'"),
        (["train"], "required: experiment"),
        (["trane"], "invalid choice: 'trane'"),
        (["claims", "digits", "--format", "xml"], "invalid choice: 'xml'"),
        (["train", LONG], "known: digits"),
        (["train", "digits", "--model", LONG], "known: "),
        (["train", "digits", "--label", LONG], "known: digit"),
        (["train", "digits", "--group", "colour"], "unknown group 'colour' of digits; known: digit"),
        (["train", "digits", "--device", LONG], "use auto"),
        (["train", "digits", "--device", "meta"], "use auto"),
        (["train", "digits", "--device", "cuda:-1"], "use auto"),
        (["train", "../digits"], "known: digits"),
        (["train", "utkface", "--data-dir", "nowhere"], "data_dir: nowhere does not exist; name the folder"),
        (["mitigate", "utkface", "--data-dir", "nowhere"], "data_dir: nowhere does not exist"),
        (["records", "digits", "--device", "tpu"], "use auto or cpu"),
        (["claims", "digits", "--seed", "4294967290", "--seeds", "9"], "the last seed must be at most"),
        (["audit", "digits", "--precisions", ""], "a name begins with one of fp32"),
        (["audit", "digits", "--precisions", "fp32,fp32"], "each precision is named once"),
        (["audit", "digits", "--precisions", "fp32,int4:ends-fp32"], "must be an integer precision"),
        (["audit", "digits", "--precisions", ",".join(["fp32"] * 1000)], "1 to 64 precisions"),
        (["audit", "digits", "--boundary-precision", "fp16"], "must be an integer precision"),
        (["audit", "digits", "--output", "file"], "the output folder file cannot be written: it is a file"),
        (["audit", "digits", "--output", "file/x"], "file is a file; name another --output"),
        (["mitigate", "digits", "--output", "file"], "it is a file; name another --output"),
        (["records", "digits", "--output", "file"], "it is a file; name another --output"),
        (["sweep", "grid.yml", "--output", "file"], "it is a file; name another --output"),
        (["claims", "digits", "--output", "."], "--output . is a folder; name a file"),
        (["claims", "digits", "--output", "file/x.txt"], "it is a file; name another --output"),
        (["claims", "../../etc/passwd", "--recorded"], "no record '../../etc/passwd'"),
        (["mitigate", "digits", "--methods", ""], "unknown method ''; known: ptq"),
        (["sweep", "."], "cannot be read as text"),
        (["sweep", "/dev/zero"], "more than 500,000 bytes"),
        (["sweep", "file"], "holds no grid"),
        (["sweep", "file", "--root", "nowhere"], "--root nowhere is no folder; name the repository"),
        (["book", "--root", "file"], "--root file is no folder"),
        (["book", "--root", "."], "has no chapters in notebooks/"),
        (["book", "-p", "seed", "["], "-p 'seed' is no value in YAML: '['"),
        (["book", "-p", "seed", "[" * 5000], "is no value in YAML"),
        (["book", "-p", "seed", LONG], "more than 10000 characters"),
        (["book", "-p", "seed", "9" * 5000], "is no value in YAML"),
        (["book", "-p", "seed", "2020-13-45"], "is no value in YAML"),
        (["book", "-p", "seed", "!!python/object:os.system x"], "is no value in YAML"),
        (["audit", "--logits", "a=file"], "needs --labels FILE.npy"),
        (["audit", "--logits", "a=file", "--labels", "file", "--groups", "file"], "file is not an array"),
        (["audit", "--logits", "a=.", "--labels", "file", "--groups", "file"], ". is not an array"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_command_is_refused_in_one_line(arguments, message, capsys):
    assert message in refused(arguments, capsys)


def test_a_cache_that_is_a_file_is_refused_before_any_work(monkeypatch, capsys):
    monkeypatch.setenv("QUANTSKEW_CACHE", str(Path("file").absolute()))
    for command in (["train", "digits"], ["audit", "digits"], ["records", "digits"], ["book"]):
        assert "it is a file; name a folder with QUANTSKEW_CACHE" in refused(command, capsys)
    monkeypatch.setenv("QUANTSKEW_CACHE", "nowhere")


def test_a_cache_that_can_only_be_read_is_refused_before_any_work(monkeypatch, capsys):
    def read_only(dir):
        raise OSError(errno.EROFS, "Read-only file system") if dir.name == "shared" else FileNotFoundError

    Path("shared").mkdir()
    monkeypatch.setenv("QUANTSKEW_CACHE", str(Path("shared").absolute()))
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", read_only)
        assert "cannot be written: Read-only" in (said := refused(["train", "digits"], capsys))
    assert said.strip().endswith("name a folder with QUANTSKEW_CACHE")
    Path("shared").rmdir()
    monkeypatch.setenv("QUANTSKEW_CACHE", "nowhere")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.safetensors"), "free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied (in `quantskew exp"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), "name a file"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"), "name a folder"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "QUANTSKEW_CACHE"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (MemoryError(), "out of memory in `quantskew experiments`"),
        (KeyError("gone"), "unexpected KeyError: 'gone' (in `quantskew experiments`)"),
        (AssertionError("wrong\nlines"), "unexpected AssertionError: wrong (in"),
        (TypeError("NoneType"), "QUANTSKEW_DEBUG=1"),
        (ValueError(""), "unexpected ValueError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_whatever_escapes_is_one_line(error, message, monkeypatch, capsys):
    def fail(options):
        raise error

    monkeypatch.setattr(cli, "_COMMANDS", [(fail, ())])
    fail.__name__ = "experiments"
    assert message in refused(["experiments"], capsys)
    monkeypatch.setenv("QUANTSKEW_DEBUG", "1")
    assert main(["experiments"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_and_a_closed_pipe_are_quiet(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_COMMANDS", [(interrupted, ())])
    assert main(["interrupted"]) == 130
    assert capsys.readouterr().err == "quantskew: interrupted; the same command goes on\n"


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


LAUGHS = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
)
THOUSAND = ",".join(map(str, range(1, 1001)))
AUDITS = {
    "label: [colour]": "unknown label 'colour' of digits; known: digit",
    "group: [colour]": "unknown group 'colour' of digits; known: digit",
    "size: [0]": "size (pixels a side) must be at least 1",
    "size: [-3]": "size (pixels a side) must be at least 1",
    "size: [100000]": "size (pixels a side) must be at most 2048",
    "device: [nonsense]": "device 'nonsense' cannot be used here",
    "device: ['cuda:99']": "device 'cuda:99' cannot be used here",
    "device: [meta]": "device 'meta' cannot be used here",
    "epochs: [0]": "epochs must be at least 1; got 0",
    "epochs: [true]": "epochs must be of type int, not bool",
    "epochs: [10000000000]": "epochs must be at most 1000000",
    "batch_size: [1]": "batch_size must be at least 2",
    "learning_rate: [.inf]": "learning_rate must be larger than 0 and finite; got inf",
    "learning_rate: [.nan]": "learning_rate must be larger than 0 and finite; got nan",
    "learning_rate: [0]": "learning_rate must be larger than 0",
    "learning_rate: [-0.1]": "learning_rate must be larger than 0",
    "momentum: [2.0]": "momentum must be at least 0 and below 1; got 2.0",
    "momentum: [-1.0]": "momentum must be at least 0 and below 1",
    "weight_decay: [.nan]": "weight_decay must be at least 0 and finite",
    "weight_decay: [-1.0]": "weight_decay must be at least 0",
    "shift: [100]": "shift must be at most 64; got 100",
    "seed: [-1]": "seed must be at least 0",
    "seed: [100000000000000000000000]": "seed must be at most 4294967295",
    f"seed: [{'9' * 5000}]": "mend the YAML",
    "seed: [2020-13-45]": "mend the YAML",
    "seed: [2020-01-01]": "seed must be of type int, not date",
    "seed: [null]": "seed must be of type int, not NoneType",
    "optimizer: [adam]": "unknown optimizer 'adam'; known: sgd, adamw",
    "schedule: [step]": "unknown schedule 'step'",
    "compute: [fp8]": "unknown compute 'fp8'",
    "flip: [1]": "flip must be of type bool, not int",
    "curvature: [true], curvature_images: [0]": "curvature_images must be at least 1; got 0",
    "curvature: [true], curvature_images: [-1]": "curvature_images must be at least 1; got -1",
    "curvature: [true], precisions: [[fp32, A8]]": "leave out curvature or A8",
    "precisions: [[[fp32]]]": "a quantizer is a Quantizer or its name; got ['fp32']",
    "precisions: [[]]": "give 1 to 64 precisions in a list",
    "precisions: [[fp32, int99]]": "unknown precision 'int99'",
    "data_dir: [nowhere]": "nowhere does not exist",
    f"model: [{LONG}]": "known: ",
    f"scheme: [{LONG}]": "known: banner, symmetric, mse",
    f"epochs: [{nested(15)}]": "epochs must be of type int, not list",
    f"epochs: [{nested(3000)}]": "nested too deeply",
    f"epochs: [{nested(3000, '{')}": "mend the YAML",
    "epochs: [1], ? {? {? {a: b} : c} : d} : e": "a name is plain text",
    "epochs: &a [*a]": "a reference stands for a value: write it out; mend the YAML",
    "seed: [" + ",".join(["1"] * 300_000) + "]": "more than 500,000 bytes",
    ", ".join(f"{name}: [{THOUSAND}]" for name in ("seed", "epochs", "shift", "size")):
        "1e+12 cells, but a grid has at most 10,000; split it",
}  # fmt: skip


def read(text, root="."):
    Path("grid.yml").write_text(text)
    return read_grid("grid.yml", root)


def test_the_limit_of_cells_is_that_of_the_whole_grid():
    numbers = ", ".join(map(str, range(6000)))
    own = f"  product: {{seed: [{numbers}]}}\n"
    with pytest.raises(ValueError, match=r"grid.yml, 04_loss: 1.2e\+04 cells, but a grid has at most 10,000"):
        read(f"01_weights:\n{own}04_loss:\n{own}")


@pytest.mark.parametrize("change", AUDITS, ids=lambda change: change[:50])
def test_an_audit_of_a_grid_is_refused(change):
    with pytest.raises(ValueError, match=re.escape(AUDITS[change])) as refusal:
        read(f"audit:\n  product: {{experiment: [digits], {change}}}\n")
    assert "grid.yml" in str(refusal.value)
    assert len(str(refusal.value)) < 3000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "a reference stands for a value: write it out"),
        ("04_loss: {cells: [{seed: -1}]}", "seed must be at least 0; got -1"),
        ("04_loss: {cells: [{seed: one}]}", "seed must be of type int, not str ('one')"),
        ("04_loss: {cells: [{seeds: 0}]}", "seeds must be at least 1; got 0"),
        ("04_loss: {cells: [{seeds: 1000000000000}]}", "seeds must be at most 1000"),
        ("04_loss: {cells: [{record: nothing}]}", "no record 'nothing'; known: cifar10_long_tail"),
        ("04_loss: {cells: [{record: ''}]}", "a record is a name such as utkface"),
        ("04_loss: {cells: [{experiment: digit}]}", "unknown experiment 'digit'"),
        ("04_loss: {cells: [{device: tpu}]}", "device 'tpu' cannot be used here"),
        ("04_loss: {cells: [{data_dir: nowhere}]}", "nowhere does not exist"),
        ("04_loss: {cells: [{precisions: []}]}", "give 1 to 64 precisions"),
        ("playground: {cells: [{experiments: [digit]}]}", "unknown experiment 'digit'"),
        ("playground: {cells: [{seed: -1}]}", "seed must be at least 0"),
        ("../README: {cells: [{}]}", "there is no chapter '../README'"),
        ("notebooks/04_loss: {cells: [{}]}", "there is no chapter 'notebooks/04_loss'"),
        ("04_loss.md: {cells: [{}]}", "there is no chapter '04_loss.md'"),
        ("/etc/passwd: {cells: [{}]}", "there is no chapter '/etc/passwd'"),
        ("1: {cells: [{}]}", "there is no chapter 1"),
        ("null: {cells: [{}]}", "there is no chapter None"),
        ("audit: [1]", "write `product:`, `cells:` or both below it; got [1]"),
        ("audit: {cells: {}}", "`cells` is a list of mappings"),
        ("audit: {cells: []}", "there are no cells"),
        ("audit: {cells: [[]]}", "cell 1 is no mapping of parameters: []"),
        ("audit: {cells: [{experiment: [digits]}]}", "an audit names its experiment"),
        ("\t", "mend the YAML"),
        ("a: !!python/none x", "mend the YAML"),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_a_chapter_of_a_grid_is_refused(text, message, repository):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        read(text, repository)
    assert "grid.yml" in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "abc"}, "this chapter: seed must be of type int, not str ('abc'); it declares"),
        ({"seed": -1}, "this chapter: seed must be at least 0; got -1"),
        ({"seeds": 0}, "this chapter: seeds must be at least 1; got 0"),
        ({"seeds": 10**12}, "this chapter: seeds must be at most 1000"),
        ({"seeds": True}, "seeds must be of type int, not bool"),
        ({"precisions": "['fp32','int4']"}, "not str (\"['fp32','int4']\"); papermill takes a list as -y"),
        ({"precisions": []}, "give 1 to 64 precisions in a list"),
        ({"precisions": ["fp32", "int99"]}, "unknown precision 'int99'"),
        ({"scheme": "msr"}, "unknown scheme 'msr'; known: banner, symmetric, mse"),
        ({"experiment": "digit"}, "unknown experiment 'digit'; known: digits"),
        ({"experiment": 3}, "experiment must be of type str, not int"),
        ({"device": "tpu"}, "use auto or cpu"),
        ({"data_dir": "nowhere"}, "data_dir: nowhere does not exist"),
    ],
    ids=str,
)
def test_a_chapter_checks_its_parameters_itself(change, message, monkeypatch):
    monkeypatch.setattr("quantskew.chapter.beside", None)
    with pytest.raises(ValueError, match=re.escape(message)):
        Chapter(**{"experiment": "digits", "record": "utkface", **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "abc"}, "this chapter: seed must be of type int, not str ('abc')"),
        ({"experiments": "digits"}, "experiments must be of type list, not str ('digits'); papermill takes"),
        ({"experiments": ["digit"]}, "unknown experiment 'digit'; known: digits"),
        ({"precisions": ["int99"]}, "unknown precision 'int99'"),
        ({"device": "tpu"}, "use auto or cpu"),
    ],
    ids=str,
)
def test_a_playground_checks_its_parameters_itself(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        playground(**{"experiments": ["digits"], "precisions": ["fp32"], **change})


def test_a_record_that_is_missing_is_said_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(runs, "make", None)
    for name, message in (("nothing", "no record 'nothing'"), ("x/y.safetensors", "no record 'x/y")):
        with pytest.raises(FileNotFoundError, match=re.escape(message)):
            Chapter("digits", name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Recipe(epochs=1.5), "epochs must be a whole number; got 1.5"),
        (lambda: Recipe(epochs="3"), "epochs must be a whole number; got '3'"),
        (lambda: Recipe(seed=True), "seed must be a whole number; got True"),
        (lambda: Recipe(seed=10**5000), "seed must be at most 4294967295"),
        (lambda: Recipe(learning_rate="0.1"), "learning_rate must be larger than 0"),
        (lambda: Recipe(learning_rate=INF), "learning_rate must be larger than 0 and finite"),
        (lambda: Recipe(momentum=NAN), "momentum must be at least 0 and below 1"),
        (lambda: Recipe(flip="no"), "flip is True or False; got 'no'"),
        (lambda: Recipe(optimizer=["sgd"]), "unknown optimizer ['sgd']; known: sgd, adamw"),
        (lambda: Recipe(class_weights=(NAN, 1.0)), "class weights must be finite"),
        (lambda: Quantizer.each("fp32"), "give 1 to 64 precisions in a list"),
        (lambda: Quantizer.each(None), "give 1 to 64 precisions in a list"),
        (lambda: Quantizer.each(4), "give 1 to 64 precisions in a list"),
        (lambda: Quantizer.each([4]), "a quantizer is a Quantizer or its name; got 4"),
        (lambda: Quantizer.parse(LONG), "a name begins with one of fp32"),
        (lambda: Quantizer.parse("int4:" + LONG), "known: banner, symmetric, mse"),
        (lambda: datasets.load("mnist"), "unknown data set 'mnist'; known: digits"),
        (lambda: datasets.load("digits", size=0), "size (pixels a side) must be at least 1"),
        (lambda: datasets.load("digits", size=1.5), "size (pixels a side) must be a whole number"),
        (lambda: check_audit(["fp32"], -1), "curvature (True, False or a number of images) must be at least"),
        (lambda: check_audit(["fp32"], 1.5), "must be a whole number; got 1.5"),
        (lambda: check_audit(["fp32"], "yes"), "must be a whole number; got 'yes'"),
        (lambda: catalogue.get(None), "unknown experiment None; known: digits"),
        (lambda: catalogue.get("digits", colour=1), "an experiment has no colour; it has"),
        (lambda: catalogue.get("digits", model=3), "unknown model 3; known"),
        (lambda: catalogue.choose_device(None), "device None cannot be used here"),
        (lambda: catalogue.audit("digits", ["fp32", "int99"]), "unknown precision 'int99'"),
        (lambda: check_values({"record": LONG}, "x"), "x: a record is a name such as utkface"),
    ],
    ids=range(28),
)
def test_a_call_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        call()
    assert len(str(refusal.value)) < 3000
