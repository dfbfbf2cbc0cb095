"""The cells of a sweep, run job by job: each leaves a result or an error in a folder of its own.

A process that runs them may be killed at any moment, and sees one GPU that no other process has.
"""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from filelock import Timeout

from quantskew.audits.audit import LISTENER, Audit, taken
from quantskew.book.execution import execute
from quantskew.cache import cache_dir, locked
from quantskew.files import Damaged, digest_of, sealed, unsealed, write_bytes
from quantskew.measures.measure import audit_rows, audited

# This module is also run by itself, under another name.
_LOG = logging.getLogger("quantskew.sweeps.cells")
PLAN = "plan.json"
AUDIT = "audit"
_CHOICE = "CUDA_VISIBLE_DEVICES"
# The file that a sweep whose workers are on its machine has locked.
SWEEP = "QUANTSKEW_SWEEP"


def cell_folder(folder, name):
    """Where the cell of that id leaves what it makes."""
    return Path(folder) / "cells" / name


def result_of(folder, name, key):
    """What a cell has left, or None; a result with another `key`, as of older code, counts as none.

    So does one that is damaged, or whose files are gone or are not what was written.

    ``audits`` has of each Audit its name in the cache (``audit``), what it is of (``audited``) and its tidy
    ``rows`` by column; ``seconds`` is what the cell took.
    """
    own = cell_folder(folder, name)
    if not (own / "result.json").exists():
        return None
    try:
        result = unsealed((own / "result.json").read_bytes())
        if result["key"] != key:
            return None
        for made, content in result["files"].items():
            if digest_of(own / made) != content:
                raise Damaged(f"its {made} is not what was written")
        return result
    except (Damaged, OSError) as error:
        _LOG.warning("cell %s counts as not done: %s", name, error)
        return None


def write_result(folder, name, key, seconds, audits, files=()):
    """Leave what `result_of` reads: `files` are the names of what else the cell has left."""
    own = cell_folder(folder, name)
    result = {"key": key, "seconds": seconds, "audits": audits}
    result["files"] = {made: digest_of(own / made) for made in files}
    write_bytes(own / "result.json", json.dumps(sealed(result)).encode())


def run_job(folder, job):
    """Run the cells of one job of a sweep, but not those that are done or have failed already."""
    folder = Path(folder).resolve()
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    # A log is no place for bars that move.
    os.environ["TQDM_DISABLE"] = "1"
    os.chdir(plan["root"])
    own = plan["jobs"][job]
    with one_gpu(plan["gpus"] if own["gpu"] else []):
        for name in own["cells"]:
            _run_cell(folder, name, plan["cells"][name], plan["timeout"])


def _run_cell(folder, name, cell, timeout):
    own = cell_folder(folder, name)
    error, started = own / "error.txt", own / "started"
    # A worker of a sweep that was killed may still be at it.
    with locked(own / "cell"):
        if error.exists() or result_of(folder, name, cell["key"]):
            return
        if started.exists():
            write_bytes(error, b"its process was killed while it ran; was it out of memory?")
            return
        started.write_text(str(os.getpid()))
        with _output_to(own / "log.txt"):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {cell['task']} {json.dumps(cell['parameters'])}")
            try:
                start = time.perf_counter()
                audits = _execute(own, cell, timeout)
                seconds = round(time.perf_counter() - start, 3)
                files = [path.name for path in own.glob("*.*") if path.suffix in (".safetensors", ".ipynb")]
                write_result(folder, name, cell["key"], seconds, audits, files)
                print(f"done in {seconds} s")
            except Exception as failure:
                traceback.print_exc()
                write_bytes(error, f"{type(failure).__name__}: {failure}".encode())
        # The next sweep may have cleared it already, if this worker outlived its own.
        started.unlink(missing_ok=True)


def _execute(own, cell, timeout):
    """Run the chapter or make the audit; the rows of every Audit that it took from the cache."""
    listener = own / "audits.txt"
    listener.unlink(missing_ok=True)
    os.environ[LISTENER] = str(listener)
    if cell["task"] == AUDIT:
        # A chapter's worker need not wait for torch.
        from quantskew.experiments import catalogue

        experiment = catalogue.get(**cell["experiment"])
        catalogue.audit(experiment, **cell["options"]).save(own / "audit.safetensors")
    else:
        source, output = Path("notebooks") / f"{cell['task']}.md", own / f"{cell['task']}.ipynb"
        execute(source, output, cell["parameters"], progress=False, timeout=timeout)
    del os.environ[LISTENER]
    return [_described(path) for path in taken(listener)]


def _described(path):
    # The options of its quantizers are columns of their own.
    audit = Audit.load(path).plain()
    return {"audit": path.stem, "audited": audited(audit), "rows": audit_rows(audit).to_dict("list")}


def visible_gpus():
    """The GPUs that this process may use, by the names that `CUDA_VISIBLE_DEVICES` knows; it starts none."""
    # A worker that executes a chapter need not wait for torch.
    import torch

    count = torch.cuda.device_count()
    chosen = [name for name in os.environ.get(_CHOICE, "").split(",") if name]
    return chosen[:count] if chosen else [str(number) for number in range(count)]


@contextlib.contextmanager
def one_gpu(names):
    """Hold one of these GPUs for the block, as soon as one is free; where there is none, nothing happens.

    It is to be entered before the process uses a GPU, since a choice cannot be changed later.
    """
    if not names:
        yield None
        return
    name, held = _first_free(names)
    os.environ[_CHOICE] = name
    with held:
        yield name


def _first_free(names):
    for again in itertools.count():
        for name in names:
            lock = locked(cache_dir() / "gpus" / f"{socket.gethostname()}-{name}")
            with contextlib.suppress(Timeout):
                return name, lock.acquire(timeout=0)
        if again == 1:
            _LOG.info("waiting for a GPU: other processes have %s", ", ".join(names))
        time.sleep(1)


@contextlib.contextmanager
def _output_to(path):
    """Send standard output and error to a file, those of child processes and compiled code too."""
    with open(path, "a", buffering=1, encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield
        finally:
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


def _end_with_the_sweep():
    """End this process, its kernel and its schedulers as soon as the sweep is no more, which has a lock.

    A process that is killed cannot end its own children, and they would compute on for nobody.
    """
    import psutil

    with contextlib.suppress(FileNotFoundError), open(os.environ[SWEEP], "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    me = psutil.Process()
    # The one that starts others goes first.
    for one in (*reversed(me.parents()), *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            if SWEEP in one.environ():
                one.kill()
    os._exit(1)


if __name__ == "__main__":
    if SWEEP in os.environ:
        threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    # What waits or comes from the cache is said in the logs.
    logging.getLogger("quantskew").setLevel(logging.INFO)
    logging.getLogger("quantskew").addHandler(logging.StreamHandler())
    run_job(*sys.argv[1:])
