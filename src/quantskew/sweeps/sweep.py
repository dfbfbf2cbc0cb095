"""A sweep: the cells of a grid that are not done yet, run in jobs by Snakemake, and the page of its runs.

Only one sweep at a time runs in a folder; one that was ended in any way goes on when it is given again.
"""

import ctypes
import fcntl
import importlib.util
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import torch
from tqdm import tqdm

from quantskew.book.chapters import chapter_key, surroundings, with_outputs
from quantskew.book.execution import execute, read_text_notebook
from quantskew.cache import source_digest
from quantskew.checks import check_whole, shortened
from quantskew.experiments.experiment import get
from quantskew.files import digest, digest_of, replacing, scratch, write_bytes
from quantskew.sweeps.cells import AUDIT, PLAN, SWEEP, cell_folder, result_of, visible_gpus
from quantskew.sweeps.grid import read_grid, split_audit
from quantskew.sweeps.table import write_table

DRY_RUN = {"-n", "--dry-run", "--dryrun"}
_SNAKEFILE = Path(__file__).with_name("Snakefile")
_LOG = "snakemake.log"
_SECONDS_BETWEEN_LOOKS = 0.3
# Starting a process costs some three seconds, so that of eight audits each bears less than half a second.
_LEAST_AUDITS = 8
# Batches for each worker: enough that all end at about the same time.
_BATCHES_EACH = 4
# The chapter that is the page of a sweep, and the grid that it shows.
_CHAPTER = Path("notebooks") / "batch.md"
_GRID = Path("notebooks") / "grids" / "batch.yml"


def run_sweep(grid, folder, workers=1, root=".", executor=None, timeout=None, passed=()):
    """Run the cells of a grid that are not done yet, and gather all results.

    Parameters
    ----------
    grid : path
        See `quantskew.sweeps.grid`.
    folder : path
        Where everything is left; a sweep that was ended in any way goes on when it is given again.
    workers : int
        Jobs at once; each has one processor, unless Snakemake is told otherwise.
    root : path
        The repository with the chapters; audits alone need none.
    executor : str, optional
        Of Snakemake, such as ``slurm``; by default this machine.
    timeout : int, optional
        Seconds that one code cell of a chapter may take; by default `quantskew.book.execution.CELL_TIMEOUT`.
    passed : sequence of str
        Further options of Snakemake.

    Returns
    -------
    dict of str to str
        The error of each cell that has failed, by its id.

    Raises
    ------
    ValueError, FileNotFoundError
        If the grid is refused (see `quantskew.sweeps.grid.read_grid`); nothing has run then.
    RuntimeError
        If Snakemake is not installed, refuses its options, or ends before the cells do.
    """
    for name in ("snakemake", "pyarrow"):
        if importlib.util.find_spec(name) is None:
            raise RuntimeError(f'a sweep needs {name}: pip install "quantskew[book,sweep]"')
    check_whole("--jobs", workers, 1)
    root, folder = Path(root).resolve(), Path(folder)
    cells = read_grid(grid, root, here=executor in (None, "local"))
    folder.mkdir(parents=True, exist_ok=True)
    # What killed schedulers left is removed also where nothing is to be done any more.
    with scratch() as temporary, open(folder / "lock", "w") as lock, open(temporary / "alive", "w") as alive:
        _hold(lock, folder)
        fcntl.flock(alive, fcntl.LOCK_EX)
        plan = described(cells, root)
        waiting = pending(folder, plan)
        # A cluster gives each of its jobs a GPU itself.
        gpus = visible_gpus() if executor in (None, "local") else []
        content = {"root": str(root), "timeout": timeout, "gpus": gpus, "cells": plan}
        content["jobs"] = jobs([cell for cell in cells if cell.id in waiting], workers, gpus)
        write_bytes(folder / "grid.yml", Path(grid).read_bytes())
        write_bytes(folder / PLAN, json.dumps(content, indent=1).encode())
        shutil.rmtree(folder / "jobs", ignore_errors=True)
        command = _command(folder, workers, executor, gpus, passed)
        if DRY_RUN & set(passed):
            if subprocess.run(command, check=False).returncode:
                raise RuntimeError("Snakemake refused this dry run; what it says is above")
            return {}
        if waiting:
            for name, left in itertools.product(waiting, ("result.json", "error.txt", "started")):
                (cell_folder(folder, name) / left).unlink(missing_ok=True)
            # Snakemake leaves its temporary folders where it is killed.
            own = {SWEEP: alive.name, "TMPDIR": str(temporary)}
            _schedule(command, folder, plan, waiting, lock, own if executor in (None, "local") else {})
        write_table(folder)
    return failures(folder, pending(folder, plan))


def described(cells, root):
    """The cells as a plan has them, by id.

    ``key`` is a digest of all that the result depends on, ``settings`` has the defaults too, and an audit's
    ``experiment`` and ``options`` are those of `quantskew.sweeps.grid.split_audit`.
    """
    code = source_digest("quantskew.experiments.catalogue", "quantskew.measures")
    surrounding = surroundings(root)
    plan = {}
    for cell in cells:
        settings = {**cell.defaults, **cell.given}
        facts = {"task": cell.task, "parameters": cell.parameters, "given": cell.given, "settings": settings}
        if cell.task == AUDIT:
            facts["experiment"], facts["options"] = split_audit(cell.parameters)
            parts = [cell.parameters, code, torch.__version__]
            start = get(**facts["experiment"]).start
            facts["key"] = digest([*parts, digest_of(root / start)] if start else parts)
        else:
            text = read_text_notebook(root / "notebooks" / f"{cell.task}.md")
            facts["key"] = chapter_key(text, cell.parameters, surrounding)
        plan[cell.id] = facts
    return plan


def pending(folder, plan):
    """Ids of the cells that have no result yet."""
    return [name for name, cell in plan.items() if result_of(folder, name, cell["key"]) is None]


def jobs(cells, workers, gpus=()):
    """The cells that are to be run, in jobs: each chapter is one, audits come in batches.

    By name: the ids of its ``cells``, and ``gpu``, how many of `gpus` it holds: 0 or 1.
    """
    # Audits of the same model stand together, so that fewer batches wait for it to be trained.
    first = {}
    audits = [cell for cell in cells if cell.task == AUDIT]
    audits.sort(key=lambda cell: first.setdefault(cell.model, len(first)))
    size = batch_size(len(audits), workers)
    batches = {cell.id: [cell.id] for cell in cells if cell.task != AUDIT}
    for start in range(0, len(audits), size):
        ids = [cell.id for cell in audits[start : start + size]]
        batches[f"audits-{digest(ids)[:10]}"] = ids
    on_gpu = {cell.id for cell in cells if gpus and cell.given.get("device", "auto") != "cpu"}
    return {job: {"cells": ids, "gpu": int(not on_gpu.isdisjoint(ids))} for job, ids in batches.items()}


def batch_size(count, workers):
    """How many of `count` audits share a process: its start costs little, but no worker has nothing to do."""
    enough = min(_LEAST_AUDITS, math.ceil(count / workers))
    return max(enough, math.ceil(count / (_BATCHES_EACH * workers)), 1)


def failures(folder, names):
    """The errors of those of the named cells that have failed, by id."""
    errors = {name: cell_folder(folder, name) / "error.txt" for name in names}
    return {name: path.read_text(encoding="utf-8") for name, path in errors.items()}


def _hold(lock, folder):
    """Lock the folder; Snakemake inherits the lock, which so outlives this process if Snakemake does."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for the sweep that runs in {folder} already", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _command(folder, workers, executor, gpus, passed):
    # The folder is locked above, in a way that ends with the process that holds it.
    command = [sys.executable, "-m", "snakemake", "--nolock", "--keep-going", "--rerun-incomplete"]
    command += ["--snakefile", str(_SNAKEFILE), "--directory", str(folder), "--jobs", str(workers)]
    # The other scheduler solves a linear program, for jobs that depend on each other.
    command += ["--scheduler", "greedy", "--nocolor", *(["--executor", executor] if executor else [])]
    return [*command, *(["--resources", f"gpu={len(gpus)}"] if gpus else []), *passed]


def _schedule(command, folder, plan, waiting, lock, here):
    """Run Snakemake and show how many cells are done; `here` is its environment on this machine."""
    interval = 0.1 if sys.stderr.isatty() else 10
    done, counts = len(plan) - len(waiting), {"total": len(plan), "unit": " cells", "mininterval": interval}
    with open(folder / _LOG, "wb") as log, tqdm(initial=done, desc="sweep", **counts) as bar:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "pass_fds": [lock.fileno()]}
        if here:
            pipes |= {"env": os.environ | here, "preexec_fn": _die_with_parent}
        process = subprocess.Popen(command, **pipes)
        running = True
        try:
            while running:
                running = process.poll() is None
                left = [name for name in waiting if not _ended(folder, name)]
                bar.update(len(plan) - len(left) - bar.n)
                time.sleep(_SECONDS_BETWEEN_LOOKS if running else 0)
        except KeyboardInterrupt:
            # Snakemake is interrupted too, and ends its jobs.
            process.wait()
            raise
    if left:
        tail = (folder / _LOG).read_text(errors="replace").splitlines()[-15:]
        write_table(folder)
        others = failures(folder, [name for name in pending(folder, plan) if name not in left])
        tail += [f"failed: {name}: {error}" for name, error in others.items()]
        what = f"{len(left)} of {len(plan)} cells to do (status {process.returncode})"
        remedy = f"the same command goes on with them. The end of {folder / _LOG}:"
        raise RuntimeError("\n".join([f"Snakemake ended with {what}; {remedy}", *tail]))


def _die_with_parent():
    """Let the kernel kill this process when its parent is killed, where the kernel is Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _ended(folder, name):
    return any((cell_folder(folder, name) / left).exists() for left in ("result.json", "error.txt"))


def swept(folder=None):
    """The folder of a sweep, or of that of the grid that the chapter shows, which is run here first."""
    if folder is not None:
        if not (isinstance(folder, str | Path) and (Path(folder) / PLAN).is_file()):
            raise ValueError(f"sweep must be a folder of `quantskew sweep`; got {shortened(folder)}")
        return Path(folder)
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / _GRID).exists()), None)
    if root is None:
        raise FileNotFoundError(f"there is no {_GRID} here or above; run this in the repository")
    folder = root / "runs" / _GRID.stem
    failed = run_sweep(root / _GRID, folder, workers=2, root=root)
    if failed:
        raise RuntimeError(f"{len(failed)} cells failed; the first: {next(iter(failed.values()))}")
    return folder


def write_page(folder, root="."):
    """Render the page of a sweep into its folder: ``page/index.html``, complete without a network.

    It is the book's chapter on batches, executed on that sweep, with the style and settings of `root`.
    """
    folder, root = Path(folder).resolve(), Path(root).resolve()
    if not (root / _CHAPTER).exists():
        raise FileNotFoundError(f"the page needs the repository, which is not {root}; name it with --root")
    with replacing(folder / "page") as partial, scratch() as book:
        shutil.copy(root / "_config.yml", book)
        shutil.copytree(root / "book", book / "book", ignore=shutil.ignore_patterns("chapters", "records"))
        write_bytes(book / "_toc.yml", b"format: jb-book\nroot: index\n")
        execute(root / _CHAPTER, book / "executed.ipynb", {"sweep": str(folder)}, cwd=root, progress=False)
        executed = nbformat.read(book / "executed.ipynb", as_version=4)
        page = with_outputs(read_text_notebook(root / _CHAPTER), executed)
        write_bytes(book / "index.ipynb", json.dumps(page).encode())
        build = [Path(sys.executable).parent / "jupyter-book", "build", book, "--quiet"]
        result = subprocess.run(build, capture_output=True, text=True, check=False)
        if result.returncode:
            said = result.stdout[-2000:] + result.stderr[-2000:]
            raise RuntimeError(f"the page could not be rendered:\n{said}")
        shutil.copytree(book / "_build" / "html", partial)
    return folder / "page" / "index.html"
