"""Sets are written file by file and read back; no model is trained here."""

import numpy as np
import pytest

import samples
from quantskew import difficulty, experiments, record_sets
from quantskew.audit import Audit
from quantskew.record_sets import file_name, recorded, write_sets

FOLDER = "book/records"
ROTATIONS = (difficulty.BALANCED, "group 0", "group 1", "group 2")


def fake(key, seed):
    return samples.random_audit(seed=1000 * seed + sum(map(ord, key)))


@pytest.fixture(autouse=True)
def made(tmp_path, monkeypatch):
    """Methods and rotations give made Audits; their calls are listed."""
    calls = []

    def mitigate(experiment, key, *, data_dir, device, start_from):
        calls.append((experiment.name, key, experiment.recipe.seed, data_dir, device))
        return fake(key, experiment.recipe.seed)

    def rotations(experiment, data_dir, device):
        calls.append((experiment.name, "rotations", experiment.recipe.seed, data_dir, device))
        return {key: fake(key, experiment.recipe.seed) for key in ROTATIONS}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record_sets, "mitigate", mitigate)
    monkeypatch.setattr(difficulty, "rotations", rotations)
    return calls


def write(keys, seeds, **more):
    return list(write_sets(experiments.get("digits"), FOLDER, keys, seeds, device="cpu", **more))


def same(audit, expected):
    np.testing.assert_array_equal(audit.logits, expected.logits)
    np.testing.assert_array_equal(audit.groups, expected.groups)


def test_sets_are_read_back_as_they_were_written():
    write(("ptq", "u-o+wcr"), range(2))
    sets = recorded("digits", ("u-o+wcr", "mpqat", "ptq"))
    assert list(sets) == ["u-o+wcr", "ptq"]
    for key, audits in sets.items():
        assert len(audits) == 2
        for seed, audit in enumerate(audits):
            same(audit, fake(key, seed))


def test_one_seed_is_finished_before_the_next(made, tmp_path):
    written = write(("ptq", "mse"), range(2), rotate=True)
    assert [call[1:3] for call in made] == [
        (key, seed) for seed in range(2) for key in ("ptq", "mse", "rotations")
    ]
    assert {call[4] for call in made} == {"cpu"}
    assert [key for key, _, _ in written] == ["ptq", "mse", *ROTATIONS] * 2
    for _, audit, path in written:
        same(Audit.load(path), audit)
    assert len(list((tmp_path / FOLDER).iterdir())) == len(written) == 12


def test_each_audit_is_there_before_the_next_is_made(made, tmp_path):
    sets = write_sets(experiments.get("digits"), FOLDER, ("ptq", "mse"), range(2))
    _, _, path = next(sets)
    assert path.exists()
    assert len(made) == 1


def test_a_set_ends_at_the_first_seed_that_is_missing(tmp_path):
    write(("ptq",), (0, 1, 3))
    assert len(recorded("digits", ("ptq",))["ptq"]) == 2


def test_no_record_at_all_is_an_error_that_says_what_to_do():
    write(("ptq",), (0,))
    with pytest.raises(FileNotFoundError, match=r"no record of utkface with ptq, mse; .*quantskew records"):
        recorded("utkface", ("ptq", "mse"))
    with pytest.raises(FileNotFoundError, match="no record of digits with mse"):
        recorded("digits", ("mse",))


def test_files_are_named_by_experiment_method_and_seed():
    names = {file_name(e, k, s) for e in ("digits", "utkface") for k in ("ptq", "u-o+wcr") for s in range(3)}
    assert len(names) == 12
    assert file_name("digits", "ptq", 0) == "digits-ptq.safetensors"
    assert file_name("digits", "ptq", 2) == "digits-ptq-2.safetensors"


def test_what_is_made_here_stands_beside_the_record(made):
    write(("ptq",), range(3))
    made.clear()
    sets = record_sets.live_and_recorded("utkface", "digits", ("ptq", "mse"), 2, device="cpu")
    assert list(sets) == ["live: utkface", "record: digits"]
    assert {key: len(own) for key, own in sets["live: utkface"].items()} == {"ptq": 2, "mse": 2}
    assert {key: len(own) for key, own in sets["record: digits"].items()} == {"ptq": 3}
    assert {(name, seed) for name, _, seed, _, _ in made} == {("utkface", 0), ("utkface", 1)}


def test_the_record_is_made_again_where_its_data_are(made):
    sets = record_sets.live_and_recorded("digits", "utkface", ("ptq",), 1, data_dir="faces")
    assert list(sets) == ["live: digits", "as the record, live: utkface"]
    assert [(name, data_dir) for name, _, _, data_dir, _ in made] == [("digits", None), ("utkface", "faces")]


def test_rotations_are_read_back_by_the_group_that_was_cut(made):
    write((), range(2), rotate=True)
    made.clear()
    sets = record_sets.live_and_recorded_rotations("digits", "digits", 1)
    assert list(sets) == ["live: digits", "record: digits"]
    kept = sets["record: digits"]
    assert list(kept) == list(ROTATIONS)
    for key, audits in kept.items():
        assert len(audits) == 2
        for seed, audit in enumerate(audits):
            same(audit, fake(key, seed))
    assert [name for name, *_ in made] == ["digits"]
    again = record_sets.live_and_recorded_rotations("digits", "utkface", 1, data_dir="faces")
    assert list(again) == ["live: digits", "as the record, live: utkface"]
