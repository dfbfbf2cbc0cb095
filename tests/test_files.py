"""Files that are not what was written: every kind, flipped at many places, cut, and empty."""

import json
import logging
import os
import random
import stat
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.numpy import load as arrays_of
from safetensors.numpy import save as bytes_of
from safetensors.torch import save

import samples
from quantskew import files
from quantskew.audits.audit import Audit, audit_once
from quantskew.cache import cache_dir, lock_of, locked, make_once
from quantskew.files import Damaged, read_tensors, replacing, write_arrays, write_bytes, write_tensors
from quantskew.training import models
from quantskew.training.checkpoint import train_once


@pytest.fixture
def audit():
    return samples.random_audit()


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "quantskew")
    return lambda: [record.getMessage() for record in caplog.records]


def model():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))


def test_arrays_are_written_without_a_copy_as_safetensors_writes_them(tmp_path):
    kinds = (np.float32, np.float64, np.int64, np.uint8, np.uint16)
    arrays = {
        f"{kind.__name__} {n}": np.arange(6 * n, dtype=kind).reshape(2, -1) for kind in kinds for n in (0, 3)
    }
    write_arrays(tmp_path / "a", arrays, {"about": "é"})
    write_tensors(tmp_path / "b", bytes_of(arrays, {"about": "é"}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found, metadata = read_tensors(tmp_path / "a", arrays_of, own=True)
    assert metadata == {"about": "é"}
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], own) for name, own in arrays.items())
    large = {"large": np.zeros((4, 10**6))}
    tracemalloc.start()
    write_arrays(tmp_path / "a", large, {})
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_no_audit_is_read_from_other_bytes_than_were_written(audit, tmp_path):
    path = tmp_path / "record.safetensors"
    audit.save(path)
    for content in samples.damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"record\.safetensors is not a whole Audit"):
            Audit.load(path, own=True)


def test_a_record_is_refused_wherever_its_tensors_are_changed(audit, tmp_path):
    path = tmp_path / "record.safetensors"
    audit.save(path)
    whole = path.read_bytes()
    first = 8 + int.from_bytes(whole[:8], "little")
    for place in random.Random(1).sample(range(first, len(whole)), 60):
        changed = bytearray(whole)
        changed[place] ^= 0x80
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="does not agree with its digest"):
            Audit.load(path)


def test_a_record_without_a_digest_is_read_as_it_is_but_is_no_cache_entry(audit, tmp_path):
    path = tmp_path / "old.safetensors"
    audit.save(path)
    path.write_bytes(bytes_of(*read_tensors(path, arrays_of)))
    assert Audit.load(path).logits.tobytes() == audit.logits.tobytes()
    with pytest.raises(ValueError, match="digest"):
        Audit.load(path, own=True)


def test_a_damaged_audit_in_the_cache_is_made_again_with_one_line(audit, fresh_cache, said):
    def make(_):
        made.append(1)
        return audit

    made, folder = [], cache_dir() / "audits"
    audit_once("a", "key", make)
    path = folder / "a-key.safetensors"
    whole = path.read_bytes()
    for number, content in enumerate(samples.damaged(whole, places=8), 2):
        path.write_bytes(content)
        before = len(said())
        assert audit_once("a", "key", make).logits.tobytes() == audit.logits.tobytes()
        assert len(made) == number
        (line,) = said()[before:]
        assert "a-key.safetensors cannot be used and is made again" in line
        assert path.read_bytes() == whole
    path.unlink()
    path.mkdir()
    (path / "file").touch()
    assert audit_once("a", "key", make).logits.tobytes() == audit.logits.tobytes()
    assert os.listdir(folder) == [path.name]


def test_a_damaged_model_or_checkpoint_in_the_cache_is_made_again(tmp_path, said):
    path, checkpoint = tmp_path / "m.safetensors", tmp_path / "m.checkpoint"

    def train(given):
        assert given == checkpoint
        samples.fit_tiny(given)
        return [{"epoch": 0}]

    first = model()
    state = {name: value.clone() for name, value in first.state_dict().items()}
    assert train_once(first, path, train)["history"] == [{"epoch": 0}]
    whole = path.read_bytes()
    assert os.listdir(tmp_path) == [path.name]
    for content in samples.damaged(whole, places=3):
        path.write_bytes(content)
        again = model()
        again.load_state_dict(state)
        train_once(again, path, train)
        assert "is made again" in said()[-1]
        assert all(torch.equal(again.state_dict()[name], state[name]) for name in state)
    samples.fit_tiny(checkpoint)
    whole = checkpoint.read_bytes()
    for content in samples.damaged(whole, places=1):
        path.unlink()
        checkpoint.write_bytes(content)
        train_once(model(), path, train)
        assert "m.checkpoint is not a whole checkpoint" in said()[-1]
        assert "begun anew" in said()[-1]
        assert os.listdir(tmp_path) == [path.name]


def test_a_damaged_checkpoint_that_the_user_names_is_refused_by_name(tmp_path):
    path = tmp_path / "run.checkpoint"
    samples.fit_tiny(path)
    for content in samples.damaged(path.read_bytes(), places=6):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.checkpoint .*delete it"):
            samples.fit_tiny(path)


def test_weights_that_are_damaged_are_refused_by_name(tmp_path):
    path, own = tmp_path / "w.safetensors", model()
    write_tensors(path, save(own.state_dict()))
    models.load_weights(own, path)
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 4
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"w\.safetensors .*digest"):
        models.load_weights(own, path)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_the_umask_decides_who_may_read(tmp_path, audit, mask):
    before = os.umask(mask)
    try:
        audit.save(tmp_path / "a.safetensors")
        train_once(model(), tmp_path / "m.safetensors", lambda checkpoint: samples.fit_tiny(checkpoint)[1])
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_content_and_name_are_on_disk_in_that_order(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace
    kinds = {True: "folder", False: "file"}
    monkeypatch.setattr(
        os, "fsync", lambda n: (steps.append(kinds[stat.S_ISDIR(os.fstat(n).st_mode)]), fsync(n))[1]
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("rename"), replace(*paths))[1])
    write_bytes(tmp_path / "a", b"new")
    assert steps == ["file", "rename", "folder"]


def test_a_full_disk_is_one_error_with_path_and_remedy(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; make room, .*/a'"):
        write_bytes(tmp_path / "a", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_partial_files_of_other_machines_and_containers_stay(tmp_path, monkeypatch):
    path, gone = tmp_path / "a", subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with replacing(path) as partial:
        partial.touch()
        dead = partial.with_name(partial.name.replace(f".{os.getpid()}.", f".{gone.pid}."))
    dead.touch()
    with monkeypatch.context() as patch:
        patch.setattr(files, "_processes", lambda: "elsewhere")
        write_bytes(path, b"new")
    assert dead.exists()
    # One of before this machine was started again, and a folder of its kind.
    old, folder = (tmp_path / f".a.{name}.12.ab.partial" for name in ("01234567", "89abcdef"))
    old.touch()
    folder.mkdir()
    (folder / "part").touch()
    with replacing(path) as partial:
        partial.touch()
        assert old.exists()
        for own in (old, folder):
            os.utime(own, (0, time.time() - 90_000))
    assert old.exists()
    write_bytes(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_no_lock_stays_where_making_fails(tmp_path):
    with pytest.raises(KeyError):
        make_once(tmp_path / "a", lambda: {}["none"])
    assert list(tmp_path.iterdir()) == []
    # A maker that was killed between its last two steps leaves its lock.
    (tmp_path / "a").touch()
    lock_of(tmp_path / "a").touch()
    make_once(tmp_path / "a", lambda: pytest.fail("made again"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


HOLDER = """
import sys, time
from quantskew.cache import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(3)
"""


def test_who_waits_for_a_lock_says_so_once(tmp_path, said):
    command = [sys.executable, "-c", HOLDER, tmp_path / "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with locked(tmp_path / "a"):
            (line,) = said()
    assert "waiting for another process" in line
    assert "a.lock" in line


def test_damage_is_an_error_of_its_own_kind(tmp_path):
    for content in (b"", b"\x05\0\0\0\0\0\0\0[1,2]", b'\x02\0\0\0\0\0\0\0""', b"\xff" * 40):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(Damaged):
            read_tensors(tmp_path / "a", json.loads)
