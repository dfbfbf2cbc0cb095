"""The page that compares the runs of a sweep: the book's chapter on batches, executed on that sweep."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from quantskew.book.chapters import with_outputs
from quantskew.book.execution import execute, read_text_notebook
from quantskew.cache import write_bytes
from quantskew.sweeps.sweep import run_sweep

_SOURCE = Path("notebooks") / "batch.md"
_GRID = Path("notebooks") / "grids" / "batch.yml"
_TOC = b"format: jb-book\nroot: index\n"


def small_sweep():
    """Run the grid that the chapter shows, in the repository around the working directory.

    Returns
    -------
    pathlib.Path
        Folder of the sweep.

    Raises
    ------
    FileNotFoundError
        If the working directory is in no repository of the book.
    RuntimeError
        If a cell fails.
    """
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

    Parameters
    ----------
    folder : path
        Of the sweep.
    root : path
        The repository, whose chapter, style and settings are used.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    FileNotFoundError
        If `root` is not the repository.
    RuntimeError
        If the chapter fails on this sweep, or the page cannot be rendered.
    """
    folder, root = Path(folder).resolve(), Path(root).resolve()
    if not (root / _SOURCE).exists():
        raise FileNotFoundError(f"the page needs the repository, which is not {root}; name it with --root")
    with tempfile.TemporaryDirectory() as temporary:
        book = Path(temporary)
        shutil.copy(root / "_config.yml", book)
        shutil.copytree(root / "book", book / "book", ignore=shutil.ignore_patterns("chapters", "records"))
        write_bytes(book / "_toc.yml", _TOC)
        execute(root / _SOURCE, book / "executed.ipynb", {"sweep": str(folder)}, cwd=root, progress=False)
        executed = nbformat.read(book / "executed.ipynb", as_version=4)
        page = with_outputs(read_text_notebook(root / _SOURCE), executed)
        write_bytes(book / "index.ipynb", json.dumps(page).encode())
        build = [Path(sys.executable).parent / "jupyter-book", "build", book, "--quiet"]
        result = subprocess.run(build, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(
                f"the page could not be rendered:\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
            )
        _replace(folder / "page", book / "_build" / "html")
    return folder / "page" / "index.html"


def _replace(place, made):
    """Put a folder in its place, so that it is never half there."""
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    shutil.copytree(made, partial)
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
