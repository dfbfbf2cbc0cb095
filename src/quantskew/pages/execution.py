"""One chapter executed with papermill, from its text to a notebook that appears whole."""

import os
import tempfile
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from quantskew.base.files import replacing
from quantskew.pages.parameters import check_parameters
from quantskew.pages.text_notebooks import read_text_notebook

CELL_TIMEOUT = 900
START_TIMEOUT = 120


def execute(source, output, parameters=None, cwd=".", progress=True, timeout=None):
    """Execute one chapter with papermill; the output appears only when every cell has run.

    Parameters
    ----------
    source : path
        Text notebook.
    output : path
        Executed notebook.
    parameters : dict, optional
    cwd : path
        Where the kernel runs.
    progress : bool
        Whether papermill shows its progress bar.
    timeout : int, optional
        Seconds that a cell may take; by default `CELL_TIMEOUT`.

    Raises
    ------
    ValueError
        If a parameter is refused (before anything runs).
    RuntimeError
        If a cell fails, with the cell's error.
    """
    parameters, timeout = parameters or {}, timeout or CELL_TIMEOUT
    notebook = read_text_notebook(source)
    check_parameters(notebook, parameters, Path(source).name)
    with tempfile.TemporaryDirectory() as folder, replacing(output) as partial:
        plain = Path(folder) / f"{Path(source).stem}.ipynb"
        nbformat.write(notebook, plain)
        executed = Path(folder) / "executed.ipynb"
        try:
            papermill.execute_notebook(
                str(plain),
                str(executed),
                parameters,
                cwd=str(cwd),
                progress_bar=progress,
                execution_timeout=timeout,
                start_timeout=START_TIMEOUT,
                # Only a whole notebook is kept, so that it need not be written after every cell.
                request_save_on_cell_execute=False,
                autosave_cell_every=0,
                config=_own_sockets(folder),
                # All outputs are here by then, and torch takes seconds to go.
                shutdown_kernel="immediate",
            )
        except PapermillExecutionError as error:
            raise RuntimeError(
                f"{source} failed in cell {error.exec_count}: {error.ename}: {error.evalue}"
            ) from error
        except CellTimeoutError as error:
            raise RuntimeError(f"{source}: a cell did not end within {timeout} s") from error
        except DeadKernelError as error:
            raise RuntimeError(f"{source}: its kernel died; was it out of memory?") from error
        partial.write_bytes(executed.read_bytes())


def _own_sockets(folder):
    """Let a kernel be reached through files in a folder of its own.

    Ports are chosen before they are taken, so that of many kernels that start at once two may get the same.
    """
    path = f"{folder}/kernel"
    # The operating system allows about a hundred letters.
    usable = os.name == "posix" and len(path) < 90
    return Config({"KernelManager": {"transport": "ipc", "ip": path}} if usable else {})
