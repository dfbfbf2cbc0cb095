"""Locks: one process makes what several ask for, and a killed one holds nobody up."""

import subprocess
import sys

import pytest

from quantskew.cache import lock_of, locked, make_once

MAKER = """
import sys, time
from pathlib import Path
from quantskew.cache import make_once
path, notes = Path(sys.argv[1]), Path(sys.argv[2])
def make():
    with open(notes, "a") as file:
        file.write("made\\n")
    time.sleep(0.5)
    path.write_text("whole")
make_once(path, make)
assert path.read_text() == "whole"
"""
KILLED = """
import os, signal, sys
from quantskew.cache import make_once
from pathlib import Path
make_once(Path(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_of_ten_processes_one_makes_it(tmp_path):
    command = [sys.executable, "-c", MAKER, tmp_path / "made", tmp_path / "notes"]
    processes = [subprocess.Popen(command) for _ in range(10)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 10
    assert (tmp_path / "notes").read_text() == "made\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "notes"]


def test_a_killed_maker_holds_nobody_up(tmp_path, killed):
    killed(KILLED, tmp_path / "made")
    assert lock_of(tmp_path / "made").exists()
    make_once(tmp_path / "made", lambda: (tmp_path / "made").write_text("again"))
    assert (tmp_path / "made").read_text() == "again"


def test_what_is_there_is_not_made_again(tmp_path):
    (tmp_path / "made").write_text("first")
    make_once(tmp_path / "made", lambda: pytest.fail("made again"))


def test_a_failure_leaves_the_lock_free(tmp_path):
    def fail():
        raise KeyError("gone")

    for _ in range(2):
        with pytest.raises(KeyError, match="gone"):
            make_once(tmp_path / "deep" / "made", fail)
    with locked(tmp_path / "deep" / "made"):
        pass
