"""Sets are written file by file and read back; no model is trained here."""

import numpy as np
import pytest

import samples
from quantskew.audits.audit import Audit
from quantskew.experiments import catalogue, difficulty, runs
from quantskew.experiments.methods import RECORDED, REPEATED
from quantskew.experiments.runs import file_name, recorded, write_records, write_sets

FOLDER = "book/records"
ROTATIONS = (difficulty.BALANCED, "group 0", "group 1", "group 2")


def fake(key, seed):
    return samples.random_audit(seed=1000 * seed + sum(map(ord, key)))


@pytest.fixture(autouse=True)
def made(tmp_path, monkeypatch):
    """Whatever would be trained gives made Audits; the calls are listed."""
    calls = []

    def mitigate(experiment, key, *, data_dir, device, start_from):
        calls.append((experiment.name, key, experiment.recipe.seed, data_dir, device))
        return fake(key, experiment.recipe.seed)

    def rotations(experiment, data_dir, device):
        calls.append((experiment.name, "rotations", experiment.recipe.seed, data_dir, device))
        return {key: fake(key, experiment.recipe.seed) for key in ROTATIONS}

    def made_seeds(experiment, precisions, seeds, data_dir, device, curvature):
        extent = "with curvature" if curvature else "base"
        calls.append((experiment.name, extent, experiment.recipe.seed, data_dir, device))
        return [fake("base", seed) for seed in seeds]

    def audit(experiment, columns, data_dir, device):
        calls.append((experiment.name, "activations", experiment.recipe.seed, data_dir, device))
        return fake("activations", experiment.recipe.seed)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "mitigate", mitigate)
    monkeypatch.setattr(runs, "made_seeds", made_seeds)
    monkeypatch.setattr(runs, "audit", audit)
    monkeypatch.setattr(difficulty, "rotations", rotations)
    return calls


def write(keys, seeds):
    return list(write_sets(catalogue.get("digits"), FOLDER, keys, seeds, device="cpu"))


def write_all(seeds, **more):
    return list(write_records(catalogue.get("digits"), FOLDER, seeds, device="cpu", **more))


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
    written = write(("ptq", "mse"), range(2))
    assert [call[1:3] for call in made] == [(key, seed) for seed in range(2) for key in ("ptq", "mse")]
    assert {call[4] for call in made} == {"cpu"}
    assert [key for key, _, _ in written] == ["ptq", "mse"] * 2
    for _, audit, path in written:
        same(Audit.load(path), audit)
    assert len(list((tmp_path / FOLDER).iterdir())) == len(written) == 4


def test_the_records_of_an_experiment_are_all_that_the_book_reads(made, tmp_path):
    paths = write_all((0, 2), data_dir="images")
    expected, names = [], []
    for seed, methods in ((0, RECORDED), (2, REPEATED)):
        keys = ["with curvature", *methods, "activations", "rotations"]
        expected += [("digits", key, seed, "images", "cpu") for key in keys]
        parts = ["", *(f"-{key}" for key in (*methods, "activations", "balanced"))]
        parts += [f"-cut-{name}" for name in ROTATIONS[1:]]
        names += [file_name(f"digits{part}", seed) for part in parts]
    assert made == expected
    assert [path.name for path in paths] == names
    assert set((tmp_path / FOLDER).iterdir()) == {tmp_path / path for path in paths}
    same(Audit.load(tmp_path / FOLDER / "digits-2.safetensors"), fake("base", 2))
    same(Audit.load(tmp_path / FOLDER / "digits-cut-group 1-2.safetensors"), fake("group 1", 2))


def test_the_base_alone_is_one_file_a_seed(made):
    assert [path.name for path in write_all(range(2), base_only=True)] == [
        "digits.safetensors",
        "digits-1.safetensors",
    ]
    assert {key for _, key, *_ in made} == {"base"}


def test_each_audit_is_there_before_the_next_is_made(made, tmp_path):
    sets = write_sets(catalogue.get("digits"), FOLDER, ("ptq", "mse"), range(2))
    _, _, path = next(sets)
    assert path.exists()
    assert len(made) == 1


def test_a_seed_that_one_key_lacks_is_left_out_of_all(capsys):
    write(("ptq",), range(3))
    write(("mse",), (0, 2))
    write(("bias",), (0,))
    sets = recorded("digits", ("ptq", "mse", "bias"))
    # Keys are paired by place: both lists end with seed 2.
    for key, seeds in {"ptq": (0, 2), "mse": (0, 2), "bias": (0,)}.items():
        assert len(sets[key]) == len(seeds)
        for seed, audit in zip(seeds, sets[key], strict=True):
            same(audit, fake(key, seed))
    assert capsys.readouterr().out == "digits-mse-1.safetensors is missing: seed 1 is left out\n"


def test_a_set_whose_only_seed_is_left_out_is_no_set():
    write(("ptq",), (1,))
    write(("mse",), (0,))
    assert list(recorded("digits", ("ptq", "mse"))) == ["ptq"]


def test_no_record_at_all_is_an_error_that_says_what_to_do():
    write(("ptq",), (0,))
    with pytest.raises(FileNotFoundError, match=r"no record of utkface with ptq, mse; .*quantskew records"):
        recorded("utkface", ("ptq", "mse"))
    with pytest.raises(FileNotFoundError, match="no record of digits with mse"):
        recorded("digits", ("mse",))


def test_files_are_named_by_experiment_method_and_seed(tmp_path):
    for experiment in ("digits", "utkface"):
        list(write_sets(catalogue.get(experiment), FOLDER, ("ptq", "u-o+wcr"), (0, 2)))
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {
        file_name(f"{e}-{k}", s) for e in ("digits", "utkface") for k in ("ptq", "u-o+wcr") for s in (0, 2)
    }
    assert (tmp_path / FOLDER / "utkface-u-o+wcr-2.safetensors").exists()


def test_what_is_made_here_stands_beside_the_record(made):
    write(("ptq",), range(3))
    made.clear()
    sets = runs.live_and_recorded("utkface", "digits", ("ptq", "mse"), 2, device="cpu")
    assert list(sets) == ["live: utkface", "record: digits"]
    assert {key: len(own) for key, own in sets["live: utkface"].items()} == {"ptq": 2, "mse": 2}
    assert {key: len(own) for key, own in sets["record: digits"].items()} == {"ptq": 3}
    assert {(name, seed) for name, _, seed, _, _ in made} == {("utkface", 0), ("utkface", 1)}


def test_the_record_is_made_again_where_its_data_are(made):
    sets = runs.live_and_recorded("digits", "utkface", ("ptq",), 1, data_dir="faces")
    assert list(sets) == ["live: digits", "as the record, live: utkface"]
    assert [(name, data_dir) for name, _, _, data_dir, _ in made] == [("digits", None), ("utkface", "faces")]


def test_rotations_are_read_back_by_the_group_that_was_cut(made):
    write_all(range(2))
    made.clear()
    sets = runs.live_and_recorded_rotations("digits", "digits", 1)
    assert list(sets) == ["live: digits", "record: digits"]
    kept = sets["record: digits"]
    assert list(kept) == list(ROTATIONS)
    for key, audits in kept.items():
        assert len(audits) == 2
        for seed, audit in enumerate(audits):
            same(audit, fake(key, seed))
    assert [name for name, *_ in made] == ["digits"]
    again = runs.live_and_recorded_rotations("digits", "utkface", 1, data_dir="faces")
    assert list(again) == ["live: digits", "as the record, live: utkface"]


def test_a_rotation_that_is_missing_is_named(tmp_path):
    write_all(range(1))
    (tmp_path / FOLDER / "digits-cut-group 1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks digits-cut-group 1\.safetensors; make it with"):
        runs.live_and_recorded_rotations("digits", "digits", 1)
