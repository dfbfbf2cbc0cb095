import os
import threading
from pathlib import Path

import pytest

from quantskew.cache import cache_dir, digest, replacing, write_bytes

KILLED_WHILE_WRITING = """
import os, signal, sys
from quantskew.cache import replacing
with replacing(sys.argv[1]) as partial:
    partial.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


# The brackets are a pattern to glob, but only a name here.
@pytest.mark.parametrize("name", ["answer.txt", "a[1]*.txt"])
def test_a_killed_writer_leaves_the_old_content_and_is_tidied_up_after(tmp_path, killed, name):
    path = tmp_path / name
    path.write_text("old")
    killed(KILLED_WHILE_WRITING, path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_bytes(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_first_writer_leaves_no_file(tmp_path, killed):
    killed(KILLED_WHILE_WRITING, tmp_path / "answer.txt")
    assert not (tmp_path / "answer.txt").exists()


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "answer.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_keeps_the_content_that_it_opened(tmp_path):
    path = tmp_path / "answer.txt"
    path.write_text("old")
    with path.open() as reader:
        write_bytes(path, b"new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_two_writers_at_once_do_not_mix(tmp_path):
    path = tmp_path / "deep" / "answer.txt"
    both_opened = threading.Barrier(2)

    def write(letter):
        with replacing(path) as partial:
            both_opened.wait()
            partial.write_text(letter * 100_000)
            both_opened.wait()

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in ("a" * 100_000, "b" * 100_000)
    assert list(path.parent.iterdir()) == [path]


def test_another_process_that_still_writes_is_left_alone(tmp_path):
    path = tmp_path / "answer.txt"
    with replacing(path) as mine:
        mine.write_text("mine")
        theirs = path.parent / mine.name.replace(f".{os.getpid()}.", f".{os.getppid()}.")
        theirs.write_text("theirs")
        write_bytes(path, b"third")
        assert theirs.exists()
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"QUANTSKEW_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, Path("/a/b")),
        ({"QUANTSKEW_CACHE": "", "XDG_CACHE_HOME": "/c"}, Path("/c/quantskew")),
        ({"QUANTSKEW_CACHE": "~/x"}, Path("/home/reader/x")),
        ({}, Path("/home/reader/.cache/quantskew")),
    ],
)
def test_cache_folder(monkeypatch, variables, expected):
    for name in ("QUANTSKEW_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/reader")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == expected


def test_the_cache_of_this_run_is_temporary(tmp_path_factory):
    assert cache_dir().is_relative_to(tmp_path_factory.getbasetemp())


def test_digests_tell_contents_apart():
    same = [{"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}]
    different = [{"a": 1, "b": [2, 1]}, {"a": 1.5, "b": [1, 2]}, {"a": "1", "b": [1, 2]}, {"a": 1}]
    assert digest(same[0]) == digest(same[1])
    assert len({digest(content) for content in [same[0], *different]}) == 5
