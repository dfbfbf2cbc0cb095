"""kill -9 at random moments: nothing lost or half-read, the same result in the end, nothing left behind.

``python tests/fuzz/campaign.py [--kills N] [--seed N] [--minutes M] [TASK ...]``: seeded and bounded.
"""

import argparse
import collections
import contextlib
import hashlib
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
from PIL import Image
from safetensors.numpy import load_file

_CHAPTER = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

```{code-cell} ipython3
:tags: [parameters]

seed: int = 0
```

```{code-cell} ipython3
from quantskew.experiments import catalogue

for number in range(3):
    experiment = catalogue.get("digits", epochs=2, seed=seed + number)
    print(catalogue.audit(experiment, ["fp32", "int2"], device="cpu").logits.sum())
```
"""
_GRID = (
    "audit:\n  product: {experiment: [digits], epochs: [1], precisions: [[fp32, int2]], seed: [0, 1, 2]}\n"
)
_SAVE = """
import numpy as np
from quantskew.audits.audit import Audit
labels = np.arange(4000) % 4
for number in range(40):
    logits = {"fp32": np.random.default_rng(number).normal(size=(4000, 4)).astype(np.float32)}
    Audit.from_logits(logits, labels, labels % 2).save(f"out/{number}.safetensors")
    assert len(Audit.load(f"out/{number}.safetensors").labels) == 4000
"""


_EMPTY_IN_THE_END = {"TMPDIR": "tmp", "JUPYTER_RUNTIME_DIR": "runtime"}


# Of what each task needs, so that most of its time is its work.
_LOADED = ("quantskew.cli", "quantskew.experiments.catalogue", "quantskew.report", "quantskew.book.chapters")
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__, *_LOADED, "quantskew.sweeps.sweep", "papermill"])

TASKS = {
    "train": "train digits --epochs 4",
    "audit": "audit digits --epochs 1 --precisions fp32,int4,int2 --output out",
    "curvature": "audit digits --epochs 1 --precisions fp32,int2 --curvature --curvature-images 2 --output o",
    "decode": "train folder --data-dir photos --model small_resnet --size 16 --epochs 1",
    "save": None,
    "sweep": "sweep grid.yml --jobs 2 --output out",
    "book": "book",
}


def _do(task, place, environment):
    """A task in this process, which is of its own; processes that it starts are told by their environment."""
    os.setsid()
    os.chdir(place)
    os.environ.update(environment)
    tempfile.tempdir = None
    log = os.open("log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if task == "save":
        exec(_SAVE, {})
        return
    from quantskew.cli import main

    sys.argv = ["quantskew", *TASKS[task].split()]
    sys.exit(main())


def _photos(folder):
    rng = np.random.default_rng(0)
    for path in (folder / kind / f"{number}.png" for kind in "ab" for number in range(120)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(path)


class Campaign:
    """One task: its folder, how long it takes, and what it makes when nobody kills it."""

    def __init__(self, task, folder):
        self.task, self.base = task, folder
        # The first process waits for what all of them have loaded.
        first = _SERVER.Process(target=os.getpid)
        first.start()
        first.join()
        start = time.monotonic()
        place = self.fresh("reference")
        self.run(place)
        self.seconds, self.expected = time.monotonic() - start, results(place)
        # torch keeps a folder among the temporary ones.
        self.usual = set(left_over(place))
        if not self.expected:
            raise AssertionError(f"{task} makes nothing that could be compared")

    def fresh(self, name):
        """An empty place for the task, with what it reads."""
        place = self.base / f"{self.task}-{name}"
        for folder in ("notebooks", *_EMPTY_IN_THE_END.values()):
            (place / folder).mkdir(parents=True)
        (place / "notebooks" / "00_small.md").write_text(_CHAPTER)
        (place / "grid.yml").write_text(_GRID)
        if self.task == "decode":
            _photos(place / "photos")
        return place

    def start(self, place):
        """The task, in a session of its own, whose processes a mark in their environment tells."""
        environment = {
            "OMP_NUM_THREADS": "1",
            "QUANTSKEW_CACHE": str(place / "cache"),
            "QUANTSKEW_FUZZ": str(place),
            # Where nothing may be left in the end.
            **{name: str(place / folder) for name, folder in _EMPTY_IN_THE_END.items()},
        }
        process = _SERVER.Process(target=_do, args=(self.task, str(place), environment))
        process.start()
        return process

    def run(self, place):
        """The task to its end."""
        process = self.start(place)
        process.join(600)
        if process.exitcode != 0:
            raise AssertionError(f"{self.task} failed:\n{(place / 'log.txt').read_text()[-3000:]}")

    def attack(self, number, rng, kills=2):
        """Kill the task a few times at random moments, let it end, and compare; how often it was killed."""
        place, killed = self.fresh(str(number)), 0
        for _ in range(kills):
            process = self.start(place)
            process.join(rng.uniform(0.05, 1) * self.seconds)
            if process.exitcode not in (None, 0):
                raise AssertionError(f"{self.task} failed:\n{(place / 'log.txt').read_text()[-3000:]}")
            process.kill()
            process.join()
            if process.exitcode == 0:
                break
            killed += 1
            wait_for_the_end(place)
        self.run(place)
        wait_for_the_end(place)
        made = results(place)
        if made != self.expected:
            names = sorted({*made.items()} ^ {*self.expected.items()})
            raise AssertionError(f"{self.task}, attack {number}: other results after a kill: {names}")
        if left := set(left_over(place)) - self.usual:
            raise AssertionError(f"{self.task}, attack {number}: left over: {left}")
        return killed


def wait_for_the_end(place, seconds=60):
    """Wait until no process of the task is left; one that stays is an error, and is ended."""
    end = time.monotonic() + seconds
    while running := processes(place):
        if time.monotonic() > end:
            names = [process.cmdline()[:6] for process in running]
            for process in running:
                process.send_signal(signal.SIGKILL)
            raise AssertionError(f"processes outlive their command: {names}")
        time.sleep(0.1)


def processes(place):
    """The processes that were started for a place."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get("QUANTSKEW_FUZZ")
            if mark == str(place) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def results(place):
    """Digests of what a task has made, by path: arrays of tensors, tables, and the outputs of chapters."""
    made = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.suffix == ".safetensors":
            arrays = sorted(load_file(path).items())
            content = b"".join(key.encode() + array.tobytes() for key, array in arrays)
        elif path.suffix == ".ipynb" and "chapters" in path.parts:
            cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
            outputs = [output for cell in cells for output in cell.outputs]
            # A progress bar is there only where something was left to do.
            content = "".join(own.text for own in outputs if own.get("name") == "stdout").encode()
        elif path.suffix == ".csv" and path.name != "table.csv":
            content = path.read_bytes()
        else:
            continue
        made[name] = hashlib.sha256(content).hexdigest()
    return made


def left_over(place):
    """Files that nobody needs any more."""
    pattern = re.compile(r"\.partial$|\.tmp|\.curvature$|\.checkpoint$")
    found = [path for path in place.rglob("*") if pattern.search(path.name)]
    found += [path for folder in _EMPTY_IN_THE_END.values() for path in (place / folder).rglob("*")]
    return [str(path.relative_to(place)) for path in found]


def main():
    """Run the campaign, task by task in turn, until it has killed enough or its time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20)
    options = parser.parse_args()
    rng, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        campaigns, killed, number = [Campaign(task, Path(folder)) for task in options.tasks], 0, 0
        # Each task has its turn, however slow the machine is, and the quick ones have more of them.
        quick = [own for own in campaigns if own.seconds <= 3 * min(other.seconds for other in campaigns)]
        turns, counts = [*campaigns, *quick, *quick], collections.Counter()
        while killed < options.kills and (number < len(campaigns) or time.monotonic() < end):
            campaign = turns[number % len(turns)]
            counts[campaign.task] += campaign.attack(number, rng, kills=8)
            killed, number = counts.total(), number + 1
            print(f"{killed} kills; the last: {campaign.task}", flush=True)
    told = ", ".join(f"{task} {count}" for task, count in counts.items())
    print(f"nothing lost in {killed} kills in {number} attacks (seed {options.seed}): {told}")


if __name__ == "__main__":
    main()
