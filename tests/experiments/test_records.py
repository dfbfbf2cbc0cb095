"""Records are found by name and by path, over their seeds, and shown beside a live Audit."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import samples
from quantskew import cache
from quantskew.audits.audit import Audit
from quantskew.experiments import runs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of records of the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "book" / "records"
    folder.mkdir(parents=True)
    return folder


def read_set(name):
    """Reads a record as a set with a single key."""
    experiment, key = name.split("-")
    return runs.recorded(experiment, [key])[key]


def write_seeds(folder, name, seeds):
    audits = {seed: samples.random_audit(seed=seed) for seed in seeds}
    for seed, audit in audits.items():
        audit.save(folder / runs.file_name(name, seed))
    return audits


# What reads a record: one file, the seeds of a name, and a set of them.
READERS = (runs.record, runs.seeds_of, read_set)
OVER_SEEDS = (runs.seeds_of, read_set)


def test_records_are_found_from_within_the_repository(tmp_path, monkeypatch):
    folder = tmp_path / "book" / "records"
    folder.mkdir(parents=True)
    samples.random_audit().save(folder / "first.safetensors")
    (tmp_path / "book" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "book" / "deep")
    assert runs.record("first").precisions == ("fp32", "int8", "int2")
    assert runs.record(str(folder / "first.safetensors")).group_names[0] == "group 0"
    with pytest.raises(FileNotFoundError, match="no record 'second'; known: first"):
        runs.record("second")
    with pytest.raises(FileNotFoundError, match="no Audit at"):
        runs.record(str(folder / "second.safetensors"))


def test_a_record_is_shown_at_the_precisions_that_it_has(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    pair = runs.live_and_record("digits", "utkface", ["fp32", "int6", "int3"])
    shown = [{audit.precisions for audit in seeds} for seeds in pair.values()]
    assert shown == [{("fp32", "int6", "int3")}, {("fp32", "int3")}]
    assert "the record utkface has no int6" in capsys.readouterr().out


def test_a_pair_without_a_record_names_the_known_ones(repository, monkeypatch):
    monkeypatch.chdir(repository)
    with pytest.raises(FileNotFoundError, match=r"no record 'nobody'; known: .*utkface"):
        runs.live_and_record("digits", "nobody", ["fp32", "int3"])


@pytest.mark.parametrize("read", OVER_SEEDS)
def test_seeds_are_read_in_their_order(read, folder, capsys):
    # As text 10 comes before 2, and a record of another name begins like this one.
    made = write_seeds(folder, "mine-ptq", range(11))
    write_seeds(folder, "mine-ptq-fair", [0, 1])
    assert [audit.logits[0, 0, 0] for audit in read("mine-ptq")] == [
        audit.logits[0, 0, 0] for audit in made.values()
    ]
    assert capsys.readouterr().out == ""


def test_seeds_are_found_by_the_path_of_the_first(folder, monkeypatch):
    write_seeds(folder, "mine", [0, 1])
    monkeypatch.chdir("/")
    assert len(runs.seeds_of(str(folder / "mine.safetensors"))) == 2
    with pytest.raises(FileNotFoundError, match=r"no record '.*yours.safetensors'; known: mine, mine-1"):
        runs.seeds_of(str(folder / "yours.safetensors"))


def test_seeds_of_an_unknown_record_name_the_known_ones(folder):
    write_seeds(folder, "mine", [0])
    with pytest.raises(FileNotFoundError, match="no record 'yours'; known: mine"):
        runs.seeds_of("yours")


@pytest.mark.parametrize("read", OVER_SEEDS)
@pytest.mark.parametrize(("seeds", "missing"), [((0, 2), [1]), ((1, 2), [0]), ((0, 3), [1, 2])])
def test_a_missing_seed_is_left_out_and_named(seeds, missing, read, folder, capsys):
    made = write_seeds(folder, "mine-ptq", seeds)
    for audit, expected in zip(read("mine-ptq"), made.values(), strict=True):
        np.testing.assert_array_equal(audit.logits, expected.logits)
    lines = capsys.readouterr().out.splitlines()
    names = [runs.file_name("mine-ptq", seed) for seed in missing]
    assert lines == [
        f"{name} is missing: seed {seed} is left out" for name, seed in zip(names, missing, strict=True)
    ]


@pytest.mark.parametrize("read", OVER_SEEDS)
@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("a", "b", "other")])
def test_seeds_with_other_groups_are_refused(names, read, folder):
    made = write_seeds(folder, "mine-ptq", [0, 1, 2])
    for seed, audit in made.items():
        own = names if seed == 1 else ("a", "b", "c")
        dataclasses.replace(audit, group_names=own, train_counts=None).save(
            folder / runs.file_name("mine-ptq", seed)
        )
    message = (
        rf"mine-ptq-1\.safetensors has the groups {', '.join(names)}, but .*ptq\.safetensors has a, b, c;"
    )
    with pytest.raises(ValueError, match=message):
        read("mine-ptq")


@pytest.mark.parametrize("read", OVER_SEEDS)
def test_a_seed_that_lacks_a_precision_is_read_and_says_so_when_asked(read, folder):
    made = write_seeds(folder, "mine-ptq", [0, 1])
    made[1].select(["fp32", "int8"]).save(folder / "mine-ptq-1.safetensors")
    audits = read("mine-ptq")
    assert [audit.precisions for audit in audits] == [("fp32", "int8", "int2"), ("fp32", "int8")]
    with pytest.raises(ValueError, match="this Audit has no 'int2'; it has fp32, int8"):
        audits[1].select(["int2"])


@pytest.mark.parametrize("read", READERS)
def test_a_record_of_another_format_is_refused(read, folder):
    described = {"quantskew.audit": json.dumps({"format": 99})}
    save_file({"logits": np.zeros((1, 1, 2), dtype=np.float32)}, folder / "mine-ptq.safetensors", described)
    with pytest.raises(ValueError, match=r"mine-ptq\.safetensors has the format 99, not 1; make it again"):
        read("mine-ptq")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_record_is_refused(share, read, folder):
    write_seeds(folder, "mine-ptq", [0])
    path = folder / "mine-ptq.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"mine-ptq\.safetensors is not a whole Audit .*; make it again"):
        read("mine-ptq")


@pytest.mark.parametrize("read", READERS)
def test_a_record_that_other_versions_made_is_read(read, folder, monkeypatch):
    made = samples.random_audit()
    monkeypatch.setattr(cache.importlib.metadata, "version", lambda package: "0.0.1")
    older = dataclasses.replace(made, provenance=cache.provenance())
    older.save(folder / "mine-ptq.safetensors")
    found = read("mine-ptq")
    audit = found if isinstance(found, Audit) else found[0]
    assert audit.provenance["versions"]["torch"] == "0.0.1"
    np.testing.assert_array_equal(audit.logits, made.logits)
