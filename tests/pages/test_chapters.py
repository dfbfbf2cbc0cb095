"""Chapters: parameters refused, outputs kept by content, every chapter run by papermill."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from click.testing import CliRunner
from papermill.__main__ import papermill as papermill_command

from quantskew.pages import chapters, text_notebooks

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.md"))
# The pages of the argument have a number before their name; others are executed like them.
CHAPTERS = [path for path in NOTEBOOKS if path.name[0].isdigit()]
PARAMETER_FILES = sorted((ROOT / "notebooks" / "parameters").glob("*.yml"))
REPRODUCTION = ROOT / "notebooks" / "reproduction.md"

TEXT = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A title

```{code-cell} ipython3
:tags: [parameters]

bits: int = 4  # of the weights
share: float = 0.5
names: list = ["a"]
path: str = None
```

```{code-cell} ipython3
print(bits * share, names)
```
"""


@pytest.fixture
def chapter(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    path = folder / "00_small.md"
    path.write_text(TEXT)
    return path


def outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", []))


def test_parameters_reach_the_cells(chapter, tmp_path):
    chapters.execute(chapter, tmp_path / "out.ipynb", {"bits": 8, "names": ["x", "y"]}, progress=False)
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
        chapters.execute(chapter, tmp_path / "out.ipynb", parameters, progress=False)
    assert not (tmp_path / "out.ipynb").exists()


def test_whole_numbers_serve_for_floats_and_none_for_an_empty_path(chapter):
    notebook = text_notebooks.read_text_notebook(chapter)
    chapters.check_parameters(notebook, {"share": 1, "path": None}, "small")


def test_a_failing_cell_leaves_no_output_and_says_why(chapter, tmp_path):
    chapter.write_text(TEXT.replace("print(bits", "raise KeyError('gone')\nprint(bits"))
    with pytest.raises(RuntimeError, match=r"00_small\.md failed in cell 2: KeyError: 'gone'"):
        chapters.execute(chapter, tmp_path / "out.ipynb", progress=False)
    assert list(tmp_path.glob("*.ipynb")) == []


def test_a_stalled_cell_ends_at_its_timeout(chapter, tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "CELL_TIMEOUT", 3)
    chapter.write_text(TEXT.replace("print(bits", "import time; time.sleep(60)\nprint(bits"))
    with pytest.raises(RuntimeError, match="did not end within 3 s"):
        chapters.execute(chapter, tmp_path / "out.ipynb", progress=False)
    assert list(tmp_path.glob("*.ipynb")) == []


def test_a_kernel_is_reached_through_files_where_their_names_are_short_enough():
    assert chapters._own_sockets("/tmp/short").KernelManager.transport == "ipc"
    assert not chapters._own_sockets("/tmp/" + "long" * 30)


def test_prose_reuses_outputs_and_code_does_not(chapter, tmp_path, capsys):
    def states():
        chapters.build(tmp_path)
        return re.findall(r": (\w+)$", capsys.readouterr().out, re.MULTILINE)

    assert states() == ["executing"]
    chapter.write_text(TEXT.replace("A title", "A better title"))
    assert states() == ["unchanged"]
    built = (tmp_path / "book" / "chapters" / "00_small.ipynb").read_text()
    assert "A better title" in built
    assert "2.0 ['a']" in built
    chapter.write_text(TEXT.replace("bits: int = 4", "bits: int = 6"))
    assert states() == ["executing"]
    (tmp_path / "book" / "records").mkdir()
    (tmp_path / "book" / "records" / "new.safetensors").write_bytes(b"new")
    assert states() == ["executing"]
    (tmp_path / "notebooks" / "grids").mkdir()
    (tmp_path / "notebooks" / "grids" / "new.yml").write_text("new")
    assert states() == ["executing"]


MEETING = """
import time
from pathlib import Path

Path(names[0]).touch()
while not {other}.exists():
    time.sleep(0.05)
"""


def test_chapters_are_executed_at_once_and_laid_out_in_order(chapter, tmp_path):
    # Each waits until the other has begun.
    for name, own, other in (("00_small", "a", "b"), ("01_more", "b", "a")):
        text = TEXT.replace('["a"]', f'["{own}"]')
        cell = MEETING.format(other=f'Path("{other}")')
        chapter.with_name(f"{name}.md").write_text(text.replace("print(bits * share, names)", cell))
    threads = os.environ.get("OMP_NUM_THREADS")
    built = chapters.build(tmp_path, at_once=2)
    assert [path.stem for path in built] == ["00_small", "01_more"]
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_a_chapter_that_fails_ends_the_build(chapter, tmp_path):
    chapter.write_text(TEXT.replace("print(bits * share, names)", "raise ValueError('no')"))
    for number in range(1, 4):
        chapter.with_name(f"0{number}_more.md").write_text(TEXT)
    with pytest.raises(RuntimeError, match=r"00_small.md failed in cell \d: ValueError: no"):
        chapters.build(tmp_path, at_once=1)
    # One may have begun before the error was seen.
    assert len(list((tmp_path / ".cache" / "chapters").glob("*.ipynb"))) <= 1
    assert not (tmp_path / "book" / "chapters").exists()


def test_links_between_texts_become_links_between_pages(chapter, tmp_path):
    chapter.write_text(TEXT.replace("# A title", "# A title\n\n[Next](01_more.md), [notes](notes.md)"))
    shown = "from IPython.display import HTML\n\nHTML('<a href=\"00_small.md\">back</a>')"
    chapter.with_name("01_more.md").write_text(TEXT.replace("print(bits * share, names)", shown))
    small, more = (path.read_text() for path in chapters.build(tmp_path))
    assert "[Next](01_more.ipynb), [notes](notes.md)" in small
    assert r"<a href=\"00_small.html\">" in more


def test_progress_bars_leave_nothing_in_a_page(chapter, tmp_path):
    drawn = "from tqdm.auto import tqdm\n\nfor _ in tqdm(range(3)):\n    pass\nprint(names)"
    chapter.write_text(TEXT.replace("print(bits * share, names)", drawn))
    (built,) = chapters.build(tmp_path)
    (output,) = nbformat.read(built, as_version=4).cells[-1].outputs
    assert output["text"] == "['a']\n"


def test_rebuilding_is_byte_identical(chapter, tmp_path):
    built = tmp_path / "book" / "chapters" / "00_small.ipynb"
    chapters.build(tmp_path)
    first = built.read_bytes()
    shutil.rmtree(tmp_path / "book")
    chapters.build(tmp_path)
    assert built.read_bytes() == first


def test_widgets_are_left_out_so_that_two_executions_are_byte_identical(chapter, tmp_path):
    chapter.write_text(
        TEXT.replace("print(bits", "import ipywidgets\ndisplay(ipywidgets.IntSlider())\nprint(bits")
    )
    built = tmp_path / "book" / "chapters" / "00_small.ipynb"
    chapters.build(tmp_path)
    first = built.read_bytes()
    shutil.rmtree(tmp_path / "book")
    shutil.rmtree(tmp_path / ".cache")
    chapters.build(tmp_path)
    assert built.read_bytes() == first
    assert b"vnd.jupyter.widget" not in first
    assert b"2.0 ['a']" in first


def test_injected_parameters_do_not_show_in_the_page(chapter, tmp_path):
    (built,) = chapters.build(tmp_path, {"bits": 2})
    cells = nbformat.read(built, as_version=4).cells
    (injected,) = [cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert "remove-cell" in injected.metadata["tags"]
    with pytest.raises(ValueError, match="known: bits, names, path, share"):
        chapters.build(tmp_path, {"bitz": 2})


def test_plain_papermill_runs_a_chapter_from_its_own_file(chapter, tmp_path):
    command = [sys.executable, "-m", "papermill", "notebooks/00_small.md", "out.ipynb", "-p", "bits", "2"]
    subprocess.run([*command, "--no-progress-bar"], cwd=tmp_path, check=True, capture_output=True)
    assert "1.0 ['a']" in outputs(tmp_path / "out.ipynb")
    helped = subprocess.run([*command[:4], "--help-notebook"], cwd=tmp_path, capture_output=True, text=True)
    assert "of the weights" in helped.stdout


# papermill warns of a notebook that is text, and reads it.
_TEXT = pytest.mark.filterwarnings("ignore:The specified file")


@_TEXT
@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_plain_papermill_explains_every_chapter(source, monkeypatch):
    monkeypatch.chdir(ROOT)
    helped = CliRunner().invoke(papermill_command, ["--help-notebook", f"notebooks/{source.name}"])
    assert helped.exit_code == 0, helped.output
    for name in chapters.declared_parameters(text_notebooks.read_text_notebook(source)):
        # The name, its type and default, and below them what it means.
        assert re.search(rf"^  {name}: \w+ \(default .+\)\s+\w", helped.output, re.MULTILINE), name


def declared_in(source):
    return chapters.declared_parameters(text_notebooks.read_text_notebook(source)).keys()


TAKERS = [
    pytest.param(source, file, id=f"{source.stem}-{file.stem}")
    for source in NOTEBOOKS
    for file in PARAMETER_FILES
    if yaml.safe_load(file.read_text()).keys() <= declared_in(source)
]


def test_every_parameter_file_is_for_some_chapter():
    assert {parameters.values[1] for parameters in TAKERS} == set(PARAMETER_FILES)


@_TEXT
@pytest.mark.parametrize(("source", "file"), TAKERS)
def test_plain_papermill_takes_parameter_files(source, file, monkeypatch, tmp_path):
    parameters = yaml.safe_load(file.read_text())
    monkeypatch.chdir(ROOT)
    paths = [f"notebooks/{source.name}", str(tmp_path / "out.ipynb")]
    command = ["--prepare-only", *paths, "-f", f"notebooks/parameters/{file.name}"]
    prepared = CliRunner().invoke(papermill_command, command)
    assert prepared.exit_code == 0, prepared.output
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    (injected,) = [cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert all(
        f"{name} = {value!r}".replace("'", '"') in injected.source for name, value in parameters.items()
    )


def test_a_source_is_never_overwritten(chapter):
    with pytest.raises(ValueError, match="is a chapter's source"):
        text_notebooks.TextNotebookHandler.write("{}", str(chapter))


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_runs_with_other_parameters(source, tmp_path):
    other = {"precisions": ["fp32", "int6", "int3"], "scheme": "symmetric"}
    if "precisions" not in chapters.declared_parameters(text_notebooks.read_text_notebook(source)):
        # What is compared there are seeds and methods.
        other = {"seeds": 1}
    chapters.execute(source, tmp_path / "out.ipynb", other, cwd=ROOT, progress=False)
    if "precisions" in other:
        assert "the record utkface has no int6" in outputs(tmp_path / "out.ipynb")


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_keeps_to_its_anatomy(source):
    notebook = text_notebooks.read_text_notebook(source)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert len(code) <= 20
    assert max(len(cell.source.splitlines()) for cell in code) <= 12
    assert 1000 <= len(re.sub(r"\$[^$]*\$", "", prose).split()) <= 1800
    assert list(chapters.declared_parameters(notebook))[:2] == ["experiment", "record"]
    for cell in code:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure:
            assert figure["name"].startswith("fig-")
            assert figure["caption"].strip()
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40


def test_the_page_on_reproduction_names_every_chapter_and_figure_of_the_paper():
    page = REPRODUCTION.read_text()
    assert set(re.findall(r"\((\d\w+)\.md\)", page)) == {path.stem for path in CHAPTERS}
    cells = [cell for path in CHAPTERS for cell in text_notebooks.read_text_notebook(path).cells]
    figures = [cell.metadata.get("mystnb", {}).get("figure", {"caption": ""}) for cell in cells]
    of_the_paper = {
        figure["name"] for figure in figures if re.search(r"Fig\. \d[^.]* of the paper", figure["caption"])
    }
    assert len(of_the_paper) >= 17
    assert of_the_paper <= set(re.findall(r"{numref}`([\w-]+)`", page))


def test_the_table_of_contents_has_every_chapter():
    listed = re.findall(r"book/chapters/(\w+)", (ROOT / "_toc.yml").read_text())
    assert sorted(listed) == [path.stem for path in NOTEBOOKS]
