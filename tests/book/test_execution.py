"""One chapter run by papermill: parameters refused, errors told, nothing half-written."""

import pkgutil
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from papermill import iorw
from papermill.__main__ import papermill as papermill_command

from quantskew.book import execution
from small_chapter import TEXT, outputs


def test_parameters_reach_the_cells(chapter, tmp_path):
    execution.execute(chapter, tmp_path / "out.ipynb", {"bits": 8, "names": ["x", "y"]}, progress=False)
    assert "4.0 ['x', 'y']" in outputs(tmp_path / "out.ipynb")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"bit": 4}, "no parameter 'bit'; it declares bits=4"),
        ({"bits": "4"}, "must be of type int, not str"),
        ({"bits": True}, "must be of type int, not bool"),
        ({"names": "a"}, "must be of type list"),
        ({"path": 3}, "must be of type str"),
    ],
)
def test_parameters_are_refused_before_anything_runs(parameters, message, chapter, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        execution.execute(chapter, tmp_path / "out.ipynb", parameters, progress=False)
    assert not (tmp_path / "out.ipynb").exists()


def test_a_failing_cell_leaves_no_output_and_says_why(chapter, tmp_path):
    chapter.write_text(TEXT.replace("print(bits", "raise KeyError('gone')\nprint(bits"))
    with pytest.raises(RuntimeError, match=r"00_small\.md failed in cell 2: KeyError: 'gone'"):
        execution.execute(chapter, tmp_path / "out.ipynb", progress=False)
    assert list(tmp_path.glob("*.ipynb")) == []


def test_a_stalled_cell_ends_at_its_timeout(chapter, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "CELL_TIMEOUT", 3)
    chapter.write_text(TEXT.replace("print(bits", "import time; time.sleep(60)\nprint(bits"))
    with pytest.raises(RuntimeError, match="did not end within 3 s"):
        execution.execute(chapter, tmp_path / "out.ipynb", progress=False)
    assert list(tmp_path.glob("*.ipynb")) == []


def test_a_kernel_is_reached_through_files_where_their_names_are_short_enough():
    assert execution._own_sockets("/tmp/short").KernelManager.transport == "ipc"
    assert "ip" not in execution._own_sockets("/tmp/" + "long" * 30).KernelManager


KILLED = """
import os, signal, sys
from quantskew.book import execution
def killed(*arguments, **options):
    arguments[0] and open(arguments[0])
    os.kill(os.getpid(), signal.SIGKILL)
import papermill
papermill.execute_notebook = killed
execution.execute(sys.argv[1], sys.argv[2])
"""


def test_a_killed_execution_is_tidied_up_after_by_the_next(chapter, tmp_path, killed, monkeypatch):
    own = tmp_path / "temporary"
    own.mkdir()
    monkeypatch.setenv("TMPDIR", str(own))
    monkeypatch.setattr(tempfile, "tempdir", None)
    killed(KILLED, chapter, tmp_path / "out.ipynb")
    assert len(list(own.glob(".qs.*"))) == 1
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    execution.execute(chapter, tmp_path / "out.ipynb", progress=False)
    assert list(own.glob(".qs.*")) == []
    assert not list((tmp_path / "runtime").glob("*"))


def test_plain_papermill_runs_a_chapter_from_its_own_file(chapter, tmp_path):
    command = [sys.executable, "-m", "papermill", "notebooks/00_small.md", "out.ipynb", "-p", "bits", "2"]
    subprocess.run([*command, "--no-progress-bar"], cwd=tmp_path, check=True, capture_output=True)
    assert "1.0 ['a']" in outputs(tmp_path / "out.ipynb")
    helped = subprocess.run([*command[:4], "--help-notebook"], cwd=tmp_path, capture_output=True, text=True)
    assert "of the weights" in helped.stdout


@pytest.mark.parametrize(
    ("name", "parameter", "message"),
    [
        ("batch", "sweep", "must be a folder of `quantskew sweep`"),
        ("reproduction", "folder", "must hold records"),
    ],
)
@pytest.mark.parametrize("value", [3, "nowhere", ["a"]])
def test_the_first_cell_of_an_appendix_checks_its_parameter(name, parameter, message, value, repository):
    notebook = execution.read_text_notebook(repository / "notebooks" / f"{name}.md")
    _, first, *_ = (cell for cell in notebook.cells if cell.cell_type == "code")
    with pytest.raises(ValueError, match=f"{parameter} {message}; got"):
        exec(first.source, {parameter: value})


def test_whole_numbers_serve_for_floats_and_none_for_an_empty_path(chapter):
    notebook = execution.read_text_notebook(chapter)
    execution.check_parameters(notebook, {"share": 1, "path": None}, "small")


def test_a_source_is_never_overwritten(chapter):
    with pytest.raises(ValueError, match="is a chapter's source"):
        execution.TextNotebookHandler.write("{}", str(chapter))


@pytest.mark.filterwarnings("ignore:The specified file")
@pytest.mark.parametrize(
    "form", ["notebooks/{}", "./notebooks/{}", "../{parent}/notebooks/{}", "{root}/notebooks/{}", "{}"]
)
def test_plain_papermill_reads_a_chapter_however_its_path_begins(
    form, chapter, tmp_path, monkeypatch, repository
):
    # Entry points are read when the package is installed: these are the ones that will be.
    declared = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["entry-points"]
    local = [own for own in iorw.papermill_io._handlers if own[0] == "local"]
    handlers = [(name, pkgutil.resolve_name(place)) for name, place in declared["papermill.io"].items()]
    monkeypatch.setattr(iorw.papermill_io, "_handlers", handlers + local)
    monkeypatch.chdir(chapter.parent if form == "{}" else tmp_path)
    path = form.format(chapter.name, parent=tmp_path.name, root=tmp_path)
    for output in ("out.ipynb", "./out.ipynb", str(tmp_path / "out.ipynb")):
        done = CliRunner().invoke(papermill_command, ["--prepare-only", path, output, "-p", "bits", "2"])
        assert done.exit_code == 0, done.output
        assert "bits = 2" in Path(output).read_text()
        Path(output).unlink()
    for known in (repository / "notebooks").glob("*.md"):
        assert known.name.startswith(tuple(declared["papermill.io"]))
    refused = CliRunner().invoke(papermill_command, ["--prepare-only", path, str(chapter)])
    assert "is a chapter's source; name an .ipynb" in str(refused.exception)
