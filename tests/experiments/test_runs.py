"""Runs are made, written file by file, read back, and stand side by side; next to nothing is trained here."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import samples
from quantskew import cache, cli
from quantskew.audits.audit import Audit, in_half
from quantskew.claims.register import CLAIMS, judged, needs
from quantskew.experiments import allocation, catalogue, difficulty, interventions, runs
from quantskew.experiments.difficulty import BALANCED
from quantskew.experiments.methods import RECORDED, REPEATED
from quantskew.experiments.runs import (
    ACTIVATIONS,
    BASE,
    CALIBRATION,
    CAUSES,
    EVERY_CUT,
    FRONT,
    LAYERS,
    beside,
    file_name,
    make,
    read,
    write,
)

FOLDER = "book/records"
CUTS = ["cut-group 0", "cut-group 1", "cut-group 2"]


def fake(key, seed):
    return samples.random_audit(seed=1000 * seed + sum(map(ord, key)))


def same(audit, expected):
    # Some are kept in half the size.
    halves = in_half(expected.logits)
    exact = (audit.logits == expected.logits).all()
    np.testing.assert_array_equal(audit.logits, expected.logits if exact else halves)
    np.testing.assert_array_equal(audit.groups, expected.groups)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of records of the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / FOLDER
    path.mkdir(parents=True)
    return path


@pytest.fixture
def made(folder, monkeypatch):
    """Whatever would be trained gives made Audits; the calls are listed."""
    calls = []

    def stand_in(key, experiment, data_dir=None, device="auto", **more):
        calls.append((experiment.name, key, experiment.recipe.seed, data_dir, device))
        return fake(key, experiment.recipe.seed)

    def audit(experiment, columns, curvature=False, **more):
        base = "with curvature" if curvature else BASE
        return stand_in(ACTIVATIONS if columns == catalogue.ACTIVATION_COLUMNS else base, experiment, **more)

    monkeypatch.setattr(runs, "mitigate", lambda e, key, **more: stand_in(key, e, **more))
    monkeypatch.setattr(difficulty, "rotation", lambda e, key, **more: stand_in(key, e, **more))
    monkeypatch.setattr(catalogue, "audit", audit)
    monkeypatch.setattr(interventions, "audit", lambda e, **more: stand_in(CAUSES, e, **more))
    for key, name in {CALIBRATION: "calibration_audit", FRONT: "front"}.items():
        monkeypatch.setattr(allocation, name, lambda e, key=key, **more: stand_in(key, e, **more))
    monkeypatch.setattr(catalogue, "layer_audit", lambda e, **more: stand_in(LAYERS, e, **more))
    monkeypatch.setattr(catalogue, "load_data", lambda *_: fake("data", 0))
    return calls


def write_seeds(folder, name, seeds):
    audits = {seed: samples.random_audit(seed=seed) for seed in seeds}
    for seed, audit in audits.items():
        audit.save(folder / file_name(name, seed=seed))
    return audits


def written(keys, seeds, **options):
    return list(write(catalogue.get("digits"), FOLDER, seeds, keys, device="cpu", **options))


def of_base(name):
    return read(name)[BASE]


def of_method(name):
    experiment, key = name.split("-")
    return read(experiment, [key])[key]


# What reads the seeds of a record: by its name, or as one of several keys.
READERS = pytest.mark.parametrize("reader", [of_base, of_method])


@READERS
def test_seeds_are_read_in_their_order(reader, folder, capsys):
    # As text 10 comes before 2, and a record of another name begins like this one.
    expected = write_seeds(folder, "mine-ptq", range(11))
    write_seeds(folder, "mine-ptq-fair", [0, 1])
    found = [audit.logits[0, 0, 0] for audit in reader("mine-ptq")]
    assert found == [audit.logits[0, 0, 0] for audit in expected.values()]
    assert capsys.readouterr().out == ""


@READERS
@pytest.mark.parametrize(("seeds", "missing"), [((0, 2), [1]), ((1, 2), [0]), ((0, 3), [1, 2])])
def test_a_missing_seed_is_left_out_and_named(seeds, missing, reader, folder, capsys):
    expected = write_seeds(folder, "mine-ptq", seeds)
    for audit, own in zip(reader("mine-ptq"), expected.values(), strict=True):
        same(audit, own)
    lines = [f"{file_name('mine-ptq', seed=seed)} is missing: seed {seed} is left out" for seed in missing]
    # A key may have fewer seeds than the base.
    lines = lines if reader is of_base else []
    assert capsys.readouterr().out.splitlines() == lines


@READERS
@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("a", "b", "other")])
def test_seeds_with_other_groups_are_refused(names, reader, folder):
    for seed, audit in write_seeds(folder, "mine-ptq", [0, 1, 2]).items():
        own = names if seed == 1 else ("a", "b", "c")
        changed = dataclasses.replace(audit, group_names=own, train_counts=None)
        changed.save(folder / file_name("mine-ptq", seed=seed))
    message = (
        rf"mine-ptq-1\.safetensors has the groups {', '.join(names)}, but .*ptq\.safetensors has a, b, c;"
    )
    with pytest.raises(ValueError, match=message):
        reader("mine-ptq")


@READERS
def test_a_seed_that_lacks_a_precision_is_read_and_says_so_when_asked(reader, folder):
    write_seeds(folder, "mine-ptq", [0, 1])[1].select(["fp32", "int8"]).save(
        folder / "mine-ptq-1.safetensors"
    )
    audits = reader("mine-ptq")
    assert [audit.precisions for audit in audits] == [("fp32", "int8", "int2"), ("fp32", "int8")]
    with pytest.raises(ValueError, match="this Audit has no 'int2'; it has fp32, int8"):
        audits[1].select(["int2"])


@READERS
def test_a_record_of_another_format_is_refused(reader, folder):
    described = {"quantskew.audit": json.dumps({"format": 99})}
    save_file({"logits": np.zeros((1, 1, 2), dtype=np.float32)}, folder / "mine-ptq.safetensors", described)
    with pytest.raises(ValueError, match=r"mine-ptq\.safetensors has the format 99, not 1; make it again"):
        reader("mine-ptq")


@READERS
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_record_is_refused(share, reader, folder):
    write_seeds(folder, "mine-ptq", [0])
    path = folder / "mine-ptq.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"mine-ptq\.safetensors is not a whole Audit .*; make it again"):
        reader("mine-ptq")


@READERS
def test_a_record_that_other_versions_made_is_read(reader, folder, monkeypatch):
    expected = samples.random_audit()
    monkeypatch.setattr(cache.importlib.metadata, "version", lambda package: "0.0.1")
    older = dataclasses.replace(expected, provenance=cache.provenance())
    older.save(folder / "mine-ptq.safetensors")
    (audit,) = reader("mine-ptq")
    assert audit.provenance["versions"]["torch"] == "0.0.1"
    same(audit, expected)


def test_records_are_found_from_within_the_repository(folder, monkeypatch):
    write_seeds(folder, "first", [0])
    (folder.parent / "deep").mkdir()
    monkeypatch.chdir(folder.parent / "deep")
    found = read("first")
    assert (found.experiment, found.title) == ("first", "record: first")
    assert found[BASE][0].precisions == ("fp32", "int8", "int2")
    with pytest.raises(FileNotFoundError, match="no record 'second'; known: first"):
        read("second")


def test_a_path_is_read_as_it_is_with_its_seeds(folder, monkeypatch):
    write_seeds(folder, "mine", [0, 1])
    write_seeds(folder, "mine-ptq", [0])
    monkeypatch.chdir("/")
    found = read(str(folder / "mine.safetensors"), [BASE, "ptq"])
    assert {key: len(audits) for key, audits in found.items()} == {BASE: 2}
    with pytest.raises(
        FileNotFoundError, match=r"no record '.*yours.safetensors'; known: mine, mine-1, mine-ptq"
    ):
        read(str(folder / "yours.safetensors"))


def test_runs_are_read_back_as_they_were_written(made):
    written(("ptq", "u-o+wcr"), range(2))
    found = read("digits", ("u-o+wcr", "mpqat", "ptq"))
    assert list(found) == ["u-o+wcr", "ptq"]
    for key, audits in found.items():
        assert len(audits) == 2
        for seed, audit in enumerate(audits):
            same(audit, fake(key, seed))


def test_every_key_has_the_seeds_that_it_has(made, capsys):
    seeds = {"ptq": (0, 1, 2), "mse": (0, 2), "bias": (3,)}
    for key, own in seeds.items():
        written((key,), own)
    found = read("digits", seeds)
    for key, own in seeds.items():
        for seed, audit in zip(own, found[key], strict=True):
            same(audit, fake(key, seed))
    assert capsys.readouterr().out == ""


def test_the_base_has_its_own_seeds(made):
    written((BASE,), range(3))
    written(("ptq",), (0, 2))
    assert {key: len(audits) for key, audits in read("digits", (BASE, "ptq")).items()} == {BASE: 3, "ptq": 2}


def test_records_are_read_as_far_as_they_are_there(folder):
    write_seeds(folder, "mine", [0, 1])
    keys = needs([CLAIMS["fvo_grows"], CLAIMS["qat_alone"]])
    assert {key: len(own) for key, own in read("mine", keys).items()} == {BASE: 2}
    samples.random_audit().save(folder / file_name("mine", "ptq"))
    assert {key: len(own) for key, own in read("mine", keys).items()} == {BASE: 2, "ptq": 1}
    with pytest.raises(FileNotFoundError, match="no record 'yours'; known: mine, mine-1, mine-ptq"):
        read("yours", keys)


def test_no_record_at_all_is_an_error_that_says_what_to_do(made):
    written(("ptq",), (0,))
    with pytest.raises(FileNotFoundError, match=r"no record of utkface with ptq, mse; .*quantskew records"):
        read("utkface", ("ptq", "mse"))
    with pytest.raises(FileNotFoundError, match="no record of digits with mse"):
        read("digits", ("mse",))


def test_only_what_is_asked_for_is_made_for_every_seed(made):
    found = make("digits", needs([CLAIMS["fvo_grows"]]), range(2), device="cpu")
    assert (found.experiment, found.title, list(found)) == ("digits", "live: digits", [BASE])
    assert made == [("digits", BASE, seed, None, "cpu") for seed in range(2)]
    made.clear()
    claims = [CLAIMS[key] for key in ("lambda_grows", "qat_alone", "difficult_test", "activations_alike")]
    keys = needs(claims)
    assert keys == [BASE, "ptq", "mpqat", BALANCED, ACTIVATIONS]
    found = make("digits", keys, [3, 4], curvature=True, data_dir="somewhere", device="cpu")
    assert {key: len(audits) for key, audits in found.items()} == dict.fromkeys(keys, 2)
    expected = ["with curvature", *keys[1:]]
    assert made == [("digits", key, seed, "somewhere", "cpu") for key in expected for seed in (3, 4)]


def test_the_records_of_an_experiment_are_all_that_the_book_reads(made, folder):
    paths = [path for _, _, path in written(None, (0, 2), data_dir="images")]
    expected, names = [], []
    for seed, methods in ((0, RECORDED), (2, REPEATED)):
        keys = [*methods, ACTIVATIONS, CAUSES, LAYERS, CALIBRATION, FRONT, BALANCED, *CUTS]
        expected += [("digits", key, seed, "images", "cpu") for key in ("with curvature", *keys)]
        names += [file_name("digits", key, seed) for key in (BASE, *keys)]
    assert made == expected
    assert [path.name for path in paths] == names
    assert {path.name for path in folder.iterdir()} == set(names)
    same(Audit.load(folder / "digits-2.safetensors"), fake("with curvature", 2))
    same(Audit.load(folder / "digits-cut-group 1-2.safetensors"), fake("cut-group 1", 2))


def test_the_base_alone_is_one_file_a_seed(made):
    names = [path.name for _, _, path in written((BASE,), range(2))]
    assert names == ["digits.safetensors", "digits-1.safetensors"]
    assert {key for _, key, *_ in made} == {BASE}


def test_one_seed_is_finished_before_the_next(made, folder):
    found = written(("ptq", "mse"), range(2))
    assert [call[1:3] for call in made] == [(key, seed) for seed in range(2) for key in ("ptq", "mse")]
    assert [key for key, _, _ in found] == ["ptq", "mse"] * 2
    for _, audit, path in found:
        same(Audit.load(path), audit)
    assert len(list(folder.iterdir())) == len(found) == 4


def test_each_audit_is_there_before_the_next_is_made(made):
    _, _, path = next(write(catalogue.get("digits"), FOLDER, range(2), ("ptq", "mse")))
    assert path.exists()
    assert len(made) == 1


def test_files_are_named_by_experiment_key_and_seed(made, folder):
    for experiment in ("digits", "utkface"):
        list(write(catalogue.get(experiment), FOLDER, (0, 2), ("ptq", "u-o+wcr")))
    assert {path.name for path in folder.iterdir()} == {
        f"{name}-{key}{seed}.safetensors"
        for name in ("digits", "utkface")
        for key in ("ptq", "u-o+wcr")
        for seed in ("", "-2")
    }


def test_cuts_are_read_back_by_the_group_that_was_cut(made):
    written(None, range(2))
    made.clear()
    live, kept = beside("digits", ["digits"], [BALANCED, EVERY_CUT], [0])
    assert list(live) == list(kept) == [BALANCED, *CUTS]
    for key, audits in kept.items():
        assert len(audits) == 2
        for seed, audit in enumerate(audits):
            same(audit, fake(key, seed))
    assert [key for _, key, *_ in made] == [BALANCED, *CUTS]


def test_a_cut_that_is_missing_is_named(made, folder):
    written(None, range(1))
    (folder / "digits-cut-group 1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks digits-cut-group 1\.safetensors; make it with"):
        read("digits", [BALANCED, EVERY_CUT])


def test_what_is_made_here_stands_beside_the_record(made):
    written(("ptq",), range(3))
    made.clear()
    live, kept = beside("utkface", ["digits"], ("ptq", "mse"), range(2), device="cpu")
    assert [(own.experiment, own.title) for own in (live, kept)] == [
        ("utkface", "live: utkface"),
        ("digits", "record: digits"),
    ]
    assert {key: len(own) for key, own in live.items()} == {"ptq": 2, "mse": 2}
    assert {key: len(own) for key, own in kept.items()} == {"ptq": 3}
    assert {(name, seed) for name, _, seed, _, _ in made} == {("utkface", 0), ("utkface", 1)}


def test_the_record_is_made_again_where_its_images_are(made, folder):
    write_seeds(folder, "more", [0])
    found = beside("digits", ["utkface", "more"], [BASE], [0], data_dir="faces")
    # It is found by its experiment, whatever its title is.
    assert {own.experiment: own.title for own in found} == {
        "digits": "live: digits",
        "utkface": "as the record, live: utkface",
        "more": "record: more",
    }
    assert [(name, data_dir) for name, _, _, data_dir, _ in made] == [("digits", None), ("utkface", "faces")]


def test_a_further_experiment_without_a_record_is_left_out(made, folder, capsys):
    write_seeds(folder, "mine", [0])
    found = beside("digits", ["mine", "yours"], [BASE], [0])
    assert [own.title for own in found] == ["live: digits", "record: mine"]
    assert "no record 'yours'; known: mine: it is left out" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="no record 'yours'"):
        beside("digits", ["yours"], [BASE], [0])


def test_a_record_is_shown_at_the_precisions_that_it_has(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    pair = beside("digits", ["utkface"], [BASE], [0], precisions=["fp32", "int6", "int3"], scheme="symmetric")
    live, kept = ({audit.precisions for audit in own[BASE]} for own in pair)
    assert live == {("fp32", "int6", "int3")}
    assert kept == {("fp32", "int3")}
    assert capsys.readouterr().out == "the record utkface has no int6\n"


def test_the_digits_are_judged_from_end_to_end(repository, monkeypatch):
    monkeypatch.chdir(repository)
    found = read("utkface", needs(CLAIMS.values()))
    assert {BASE, "ptq", "mpqat", "fair-qat", BALANCED} <= found.keys()
    made = make("digits", needs([CLAIMS["fvo_grows"], CLAIMS["activations_alike"]]), [0])
    assert [own[0].precisions[-1] for own in made.values()] == ["int2", "W4A4"]
    assert judged(made, ["fvo_grows", "activations_alike"])["seeds"].tolist() == [1, 1]


@pytest.fixture
def threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_seeds_at_once_have_a_process_and_a_share_of_the_threads_each(tmp_path, threads, capfd):
    runs.ahead(3, samples.threads_of_seeds, tmp_path, seeds=[5, 7], wait=0)
    made = [json.loads((tmp_path / seed).read_text()) for seed in "57"]
    assert [own for _, own in made] == [2, 2]
    assert os.getpid() not in dict(made)
    assert torch.get_num_threads() == 2
    assert sorted(capfd.readouterr().err.splitlines()) == ["seed 5 is made", "seed 7 is made"]


def test_one_seed_or_one_job_is_made_here(tmp_path, threads):
    runs.ahead(1, samples.threads_of_seeds, tmp_path, seeds=[0, 1])
    runs.ahead(2, samples.threads_of_seeds, tmp_path, seeds=[0])
    assert not list(tmp_path.iterdir())
    assert torch.get_num_threads() == 4


def test_a_seed_that_fails_is_named_and_ends_the_others(tmp_path, threads):
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="seed 1: no image is left"):
        runs.ahead(2, samples.threads_of_seeds, tmp_path, seeds=[0, 1], wait=300, failing=1)
    assert time.monotonic() - start < 250
    assert not multiprocessing.active_children()


def test_an_interruption_ends_every_seed(tmp_path):
    code = (
        "import samples, signal, sys; from pathlib import Path; from quantskew.experiments import runs\n"
        # What is started in the background may ignore interruptions.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "if __name__ == '__main__':\n"
        "    runs.ahead(2, samples.threads_of_seeds, Path(sys.argv[1]), seeds=[0, 1], wait=300)"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    (tmp_path / "of").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "of"], env=environment, stderr=subprocess.PIPE
    ) as process:
        while len(list((tmp_path / "of").glob("?"))) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert said.splitlines()[-1] == b"KeyboardInterrupt"
    for path in (tmp_path / "of").glob("?"):
        with pytest.raises(ProcessLookupError):
            os.kill(json.loads(path.read_text())[0], 0)


def test_records_of_seeds_at_once_are_those_of_one_after_the_other(tmp_path, monkeypatch, threads, capsys):
    chosen = ["--epochs", "1", "--seeds", "2", "--base-only", "--device", "cpu"]
    printed = {}
    # In this order the second process has the threads that each of the two had.
    for jobs in ("2", "1"):
        monkeypatch.setenv("QUANTSKEW_CACHE", str(tmp_path / f"cache {jobs}"))
        assert not cli.main(["records", "digits", *chosen, "--jobs", jobs, "--output", str(tmp_path / jobs)])
        printed[jobs] = capsys.readouterr().out
    assert printed["1"] == printed["2"].replace(str(tmp_path / "2"), str(tmp_path / "1"))
    for seed in range(2):
        one, two = (Audit.load(tmp_path / jobs / file_name("digits", seed=seed)) for jobs in "12")
        same(one, two)


def test_the_records_of_the_book_stay_small(repository):
    assert sum(path.stat().st_size for path in (repository / "book" / "records").iterdir()) < 40e6
