"""Text notebooks (jupytext MyST): their parameters, and how papermill reads and runs them.

papermill loads this module while it is being imported, so nothing here may import papermill at its head.
"""

import ast
import json
import os
from pathlib import Path

import jupytext
import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from traitlets.config import Config

from quantskew.checks import MOST_SEED, MOST_SEEDS, check_whole, shortened
from quantskew.files import digest, replacing, scratch, write_bytes

CELL_TIMEOUT, START_TIMEOUT = 900, 120


def read_text_notebook(path):
    """A text notebook as notebook node."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no chapter at {path}")
    return jupytext.read(path)


class TextNotebookHandler:
    """Lets papermill read the text notebooks below ``notebooks/`` (entry point ``papermill.io``)."""

    @classmethod
    def read(cls, path):
        """The notebook as JSON, or the text of a parameter file."""
        if Path(path).suffix == ".md":
            return nbformat.writes(read_text_notebook(path))
        return Path(path).read_text(encoding="utf-8")

    @classmethod
    def write(cls, buffer, path):
        """Write an executed notebook; the text sources are never written."""
        if Path(path).suffix == ".md":
            raise ValueError(f"{path} is a chapter's source; name an .ipynb for the executed notebook")
        write_bytes(path, buffer.encode())

    @classmethod
    def pretty_path(cls, path):
        """The path as it is shown."""
        return str(path)


def declared_parameters(notebook):
    """Names and default values in a notebook's ``parameters`` cell.

    Examples
    --------
    >>> source = 'seed: int = 0  # of the run'
    >>> cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    >>> declared_parameters(nbformat.v4.new_notebook(cells=[cell]))
    {'seed': 0}
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    lines = [node for cell in cells for node in ast.parse(cell.source).body]
    given = [node for node in lines if isinstance(node, ast.AnnAssign) and node.value is not None]
    return {node.target.id: ast.literal_eval(node.value) for node in given}


def check_parameters(notebook, parameters, name):
    """Refuse parameters that a chapter does not declare, or that have another type, with a ValueError."""
    check_declared(declared_parameters(notebook), parameters, name)


def check_declared(declared, parameters, name, kinds=None):
    """Refuse parameters that `name` does not declare, or that have another type; its defaults always fit.

    The types are those of the defaults, or in `kinds`; what is empty by default is else a name or a path.
    """
    of_defaults = {key: str if default is None else type(default) for key, default in declared.items()}
    kinds = of_defaults | (kinds or {})
    listing = ", ".join(f"{key}={value!r}" for key, value in declared.items())
    for key, value in parameters.items():
        if key not in declared:
            raise ValueError(f"{name} has no parameter {shortened(key)}; it declares {listing}")
        expected, given = kinds[key], type(value)
        if given is not expected and (expected, given) != (float, int) and value is not declared[key]:
            how = "; papermill takes a list as -y 'precisions: [fp32, int4]'" if expected is list else ""
            said = f"{key} must be of type {expected.__name__}, not {given.__name__} ({shortened(value)})"
            raise ValueError(f"{name}: {said}{how}; it declares {listing}")


def check_values(values, name, folders=None, *, here=True):
    """Refuse values of a chapter's parameters that nothing can be made of, before any work.

    Parameters
    ----------
    values : dict
        By the parameters' names, of the types that the chapter declares; of others nothing is known.
    name : str
        Of the chapter, for messages.
    folders : sequence of path, optional
        Where records are, by default those around the working directory.
    here : bool
        Whether the device has to be usable on this machine.
    """
    # A kernel or a reader of texts need not wait for torch before there is something to check.
    from quantskew.experiments import catalogue, runs
    from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, Quantizer

    try:
        place = values.get("data_dir"), values.get("device", "auto")
        for experiment in [values["experiment"]] if "experiment" in values else values.get("experiments", []):
            catalogue.check(catalogue.get(experiment), *place, here=here)
        if {"precisions", "scheme"} & values.keys():
            given = values.get("precisions")
            chosen = DEFAULT_PRECISIONS if given is None else given
            Quantizer.each(chosen, scheme=values.get("scheme", "banner"))
        for key, least, most in (("seed", 0, MOST_SEED), ("seeds", 1, MOST_SEEDS)):
            if key in values:
                check_whole(key, values[key], least, most)
        if "record" in values:
            made = values.get("data_dir") is not None
            catalogue.get(values["record"]) if made else runs.check_record(values["record"], folders)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{name}: {error}") from None


def execute(source, output, parameters=None, cwd=".", progress=True, timeout=None):
    """Execute one chapter with papermill; the output appears only when every cell has run.

    Parameters
    ----------
    source, output : path
        Text notebook, and executed one.
    parameters : dict, optional
        What the chapter does not declare is refused with a ValueError; a cell that fails is a RuntimeError.
    cwd : path
        Where the kernel runs.
    progress : bool
        Whether papermill shows its progress bar.
    timeout : int, optional
        Seconds that a cell may take; by default `CELL_TIMEOUT`.
    """
    # papermill loads this module for its reader, so it cannot be imported first.
    import papermill
    from papermill.exceptions import PapermillExecutionError

    parameters, timeout = parameters or {}, timeout or CELL_TIMEOUT
    notebook = read_text_notebook(source)
    check_parameters(notebook, parameters, Path(source).name)
    # The folder is gone before the output is there.
    with replacing(output) as partial, scratch() as folder:
        plain, executed = folder / f"{Path(source).stem}.ipynb", folder / "executed.ipynb"
        nbformat.write(notebook, plain)
        options = {"execution_timeout": timeout, "start_timeout": START_TIMEOUT, "progress_bar": progress}
        # Only a whole notebook is kept, so that it need not be written after every cell.
        options |= {"request_save_on_cell_execute": False, "autosave_cell_every": 0}
        # All outputs are here at the end, and torch takes seconds to go.
        options |= {"cwd": str(cwd), "config": _own_sockets(folder), "shutdown_kernel": "immediate"}
        try:
            papermill.execute_notebook(str(plain), str(executed), parameters, **options)
        except PapermillExecutionError as error:
            said = f"{error.ename}: {error.evalue}"
            raise RuntimeError(f"{source} failed in cell {error.exec_count}: {said}") from error
        except CellTimeoutError as error:
            raise RuntimeError(f"{source}: a cell did not end within {timeout} s") from error
        except DeadKernelError as error:
            raise RuntimeError(f"{source}: its kernel died; was it out of memory?") from error
        content = json.loads(executed.read_bytes())
        # Where a reader of notebooks leaves it alone.
        content["metadata"]["quantskew"] = digest(content["cells"])
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_whole(path):
    """Whether an executed chapter is there, as `execute` wrote it."""
    try:
        content = json.loads(Path(path).read_bytes())
        return content["metadata"]["quantskew"] == digest(content["cells"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _own_sockets(folder):
    """Let a kernel be reached through files in a folder of its own, which is all that it leaves.

    Ports are chosen before they are taken, so that of many kernels that start at once two may get the same.
    """
    manager = {"connection_file": f"{folder}/kernel.json"}
    # The operating system allows about a hundred letters.
    if os.name == "posix" and len(f"{folder}/kernel") < 90:
        manager |= {"transport": "ipc", "ip": f"{folder}/kernel"}
    return Config({"KernelManager": manager})
