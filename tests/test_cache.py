"""Files that are whole or not there, locks, and digests of what results depend on."""

import importlib
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest
import torch

import samples
from quantskew import cache
from quantskew.audits.model import audit_model
from quantskew.cache import cache_dir, lock_of, locked, make_once, provenance
from quantskew.files import digest, replacing, write_bytes
from quantskew.quantization import qat
from quantskew.training import loop, models
from quantskew.training.recipe import Recipe

KILLED_WHILE_WRITING = """
import os, signal, sys
from quantskew.files import replacing
with replacing(sys.argv[1]) as partial:
    partial.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""

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
KILLED_WHILE_MAKING = """
import os, signal, sys
from quantskew.cache import make_once
from pathlib import Path
make_once(Path(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGKILL))
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
    own = tmp_path_factory.getbasetemp()
    # All processes of a run share one cache, beside their own folders.
    assert cache_dir().is_relative_to(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


def test_digests_tell_contents_apart():
    same = [{"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}]
    different = [{"a": 1, "b": [2, 1]}, {"a": 1.5, "b": [1, 2]}, {"a": "1", "b": [1, 2]}, {"a": 1}]
    assert digest(same[0]) == digest(same[1])
    assert len({digest(content) for content in [same[0], *different]}) == 5


def test_of_ten_processes_one_makes_it(tmp_path):
    command = [sys.executable, "-c", MAKER, tmp_path / "made", tmp_path / "notes"]
    processes = [subprocess.Popen(command) for _ in range(10)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 10
    assert (tmp_path / "notes").read_text() == "made\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "notes"]


def test_a_killed_maker_holds_nobody_up(tmp_path, killed):
    killed(KILLED_WHILE_MAKING, tmp_path / "made")
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


def test_versions_are_those_that_run():
    versions = provenance()["versions"]
    assert versions["torch"] == torch.__version__.split("+")[0]
    assert versions["numpy"] == numpy.__version__
    assert versions["python"] == platform.python_version()


def test_facts_and_the_command_are_kept(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/quantskew", "audit", "my data"])
    record = provenance(seed=3, quantizers=["fp32", "int4:mse"])
    assert record["seed"] == 3
    assert record["command"] == "quantskew audit 'my data'"
    assert json.loads(json.dumps(record)) == record


STEP = """
'''What a step does.'''
import math
from probed.sizes import SIZE, scaled as resized
from probed import tools

def step(x):
    from probed.late import shift
    return math.floor(resized(x) + tools.half(SIZE) + shift)

def unused():
    return "never"
"""
LATE = """
KNOWN = []

def known(function):
    KNOWN.append(function)

@known
def one():
    return 1

shift = KNOWN[0]()
"""
PACKAGE = {
    "__init__": "",
    "step": STEP,
    "sizes": "SIZE = 8\nTABLE = {}\n\ndef scaled(x):\n    return x * TABLE['x']\n\nTABLE['x'] = 2\n",
    "tools": "from probed.sizes import SIZE\n\ndef half(x):\n    return x / 2\n\nother = SIZE\n",
    "late": LATE,
}


@pytest.fixture
def digest_of(tmp_path, monkeypatch):
    """The digest of what names in a small package lead to, after its files were written anew."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest_now(files, *names):
        for path in (tmp_path / "probed").glob("*.py"):
            path.unlink()
        for name, text in files.items():
            write_bytes(tmp_path / "probed" / f"{name}.py", text.encode())
        for known in [name for name in sys.modules if name.partition(".")[0] == "probed"]:
            del sys.modules[known]
        importlib.invalidate_caches()
        for cached in (cache._source, cache._is_module):
            cached.cache_clear()
        return cache.source_digest.__wrapped__(*(names or ["probed.step.step"]))

    return digest_now


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("step", "return math.floor", "return math.ceil"),
        ("step", "import math", "import cmath as math"),
        ("sizes", "SIZE = 8", "SIZE = 9"),
        ("sizes", "TABLE = {}", "TABLE = {'y': 1}"),
        ("sizes", "TABLE['x'] = 2", "TABLE['x'] = 3"),
        ("sizes", "return x *", "return x +"),
        ("tools", "return x / 2", "return x / 3"),
        ("late", "KNOWN[0]", "KNOWN[-1]"),
        ("late", "return 1", "return 2"),
    ],
)
def test_code_that_is_reached_counts(digest_of, module, old, new):
    changed = PACKAGE[module].replace(old, new)
    assert changed != PACKAGE[module]
    assert digest_of(PACKAGE) != digest_of({**PACKAGE, module: changed})


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("step", "What a step does", "What it does"),
        ("step", "def step(x):", "def step(x):\n    # A comment."),
        ("step", "never", "ever"),
        ("tools", "other = SIZE", "other = 0"),
    ],
)
def test_words_and_what_is_not_reached_do_not_count(digest_of, module, old, new):
    changed = PACKAGE[module].replace(old, new)
    assert changed != PACKAGE[module]
    assert digest_of(PACKAGE) == digest_of({**PACKAGE, module: changed})


def test_where_code_stands_does_not_count(digest_of):
    before = digest_of(PACKAGE)
    moved = {name: text.replace("tools", "halves") for name, text in PACKAGE.items()}
    moved["halves"] = moved.pop("tools")
    moved["late"] += moved.pop("sizes")
    moved = {name: text.replace("probed.sizes", "probed.late") for name, text in moved.items()}
    assert digest_of(moved) == before


def test_of_a_module_and_of_a_package_everything_counts(digest_of):
    changed = {**PACKAGE, "step": STEP.replace("never", "ever")}
    for name in ("probed.step", "probed"):
        assert digest_of(PACKAGE, name) != digest_of(changed, name)


def test_a_name_that_nothing_defines_is_refused(digest_of):
    with pytest.raises(KeyError, match="stride"):
        digest_of(PACKAGE, "probed.step.stride")


KEEPING = ("quantskew.cache", "quantskew.files")


def ran(call):
    """The package's functions and classes that a call runs, as (module, name); of what keeps results none."""
    called = set()

    def note(frame, event, _):
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith("quantskew.") and name not in KEEPING:
            called.add((name, frame.f_code.co_qualname.partition(".")[0]))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    # What dataclasses write themselves.
    return {(module, name) for module, name in called if name != "__create_fn__"}


RECIPE = Recipe(epochs=1, batch_size=8, compute="fp32", class_weights=(0.4, 0.6))
MODEL = "quantskew.training.models.build"


def small_model():
    return models.build("small_resnet", 2, 1)


def train(data):
    loop.fit(small_model(), data, RECIPE)


def train_quantized(data):
    options = qat.QATOptions("int3")
    prepared = qat.prepare(small_model(), options)
    loop.fit(prepared, data, RECIPE, hooks=qat.QAT(prepared, options))
    qat.convert(prepared)


def audit(data):
    audit_model(small_model(), data, ["fp32", "fp16", "int4:mse,per-channel,folded", "W8A8"])


def audit_curvature(data):
    audit_model(small_model(), data, ["fp32", "int4"], curvature=2)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (train, ["quantskew.training.loop.fit"]),
        (train_quantized, ["quantskew.quantization.qat", "quantskew.training.loop.fit"]),
        (audit, ["quantskew.audits.model"]),
        (audit_curvature, ["quantskew.audits.model"]),
    ],
)
def test_whatever_runs_is_in_the_key(call, names):
    # Data and recipe are in the key by their content.
    data = samples.tiny_data()
    called = ran(lambda: call(data))
    assert len(called) > 15
    assert called <= cache.reached(*names, MODEL).keys()
