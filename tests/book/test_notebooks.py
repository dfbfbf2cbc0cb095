"""The book's own notebooks: each explains its parameters, runs with others, and keeps to its anatomy."""

import ast
import re
import shutil
import statistics
from pathlib import Path

import nbformat
import pytest
import yaml
from click.testing import CliRunner
from papermill.__main__ import papermill as papermill_command

from quantskew.book.execution import declared_parameters, execute, read_text_notebook
from small_chapter import outputs

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.md"))
# The pages of the argument have a number before their name; others are executed like them.
CHAPTERS = [path for path in NOTEBOOKS if path.name[0].isdigit()]
PARAMETER_FILES = sorted((ROOT / "notebooks" / "parameters").glob("*.yml"))
SCORECARD = ROOT / "notebooks" / "09_what_held_up.md"
REPRODUCTION = ROOT / "notebooks" / "reproduction.md"

# papermill warns of a notebook that is text, and reads it.
_TEXT = pytest.mark.filterwarnings("ignore:The specified file")


@_TEXT
@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_plain_papermill_explains_every_chapter(source, monkeypatch):
    monkeypatch.chdir(ROOT)
    helped = CliRunner().invoke(papermill_command, ["--help-notebook", f"notebooks/{source.name}"])
    assert helped.exit_code == 0, helped.output
    for name in declared_parameters(read_text_notebook(source)):
        # The name, its type and default, and below them what it means.
        assert re.search(rf"^  {name}: \w+ \(default .+\)\s+\w", helped.output, re.MULTILINE), name


def declared_in(source):
    return declared_parameters(read_text_notebook(source)).keys()


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


# The others compare seeds and methods; the book of the tests is built with another number of seeds.
@pytest.mark.parametrize(
    "source", [path for path in CHAPTERS if "precisions" in declared_in(path)], ids=lambda path: path.stem
)
def test_a_chapter_runs_at_other_precisions_with_another_quantizer(source, tmp_path):
    other = {"precisions": ["fp32", "int6", "int3"], "scheme": "symmetric", "seeds": 1}
    execute(source, tmp_path / "out.ipynb", other, cwd=ROOT, progress=False)
    assert "the record utkface has no int6" in outputs(tmp_path / "out.ipynb")


def test_the_scorecard_is_made_with_images_and_without_a_further_record(tmp_path):
    records = tmp_path / "book" / "records"
    records.mkdir(parents=True)
    shutil.copy(ROOT / "book" / "records" / "utkface_mobilenet.safetensors", records)
    # The digits need no images; they stand for an experiment whose images are here.
    images = {"record": "digits", "data_dir": ".", "seeds": 1}
    execute(SCORECARD, tmp_path / "out.ipynb", images, cwd=tmp_path, progress=False)
    printed = outputs(tmp_path / "out.ipynb")
    assert "no record 'utkface_gender'; known: utkface_mobilenet: it is left out" in printed
    assert "nothing to draw: there is no record" in printed
    assert "as the record, live: digits" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_keeps_to_its_anatomy(source):
    notebook = read_text_notebook(source)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    # Captions and alt texts are not counted where a cell draws the figure either.
    prose = re.sub(r"```\{figure\}.*?```", "", prose, flags=re.DOTALL)
    assert len(code) <= 20
    # What is checked against the record is a list, and grows with what the page says.
    told = [cell for cell in code if "page.check(" not in cell.source]
    assert max(len(cell.source.splitlines()) for cell in told) <= 12
    assert 900 <= len(re.sub(r"\$[^$]*\$", "", prose).split()) <= 1500
    assert list(declared_parameters(notebook))[:2] == ["experiment", "record"]
    for cell in code:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure:
            assert figure["name"].startswith("fig-")
            assert figure["caption"].strip()
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_opens_with_its_question_and_a_picture_before_any_section(source):
    cells = read_text_notebook(source).cells
    first = next(n for n, cell in enumerate(cells) if re.search(r"^## ", cell.source, re.MULTILINE))
    code = [cell for cell in cells[:first] if cell.cell_type == "code"]
    pictures = [cell for cell in code if "figure" in cell.metadata.get("mystnb", {})]
    # The scorecard is a table.
    assert len(pictures) == (source != SCORECARD)
    folded = {"hide-input", "remove-cell"}
    assert all(folded & set(cell.metadata.get("tags", [])) for cell in code if cell not in pictures)
    told = [cell.source for cell in cells[:first] if cell.cell_type == "markdown"]
    assert "?" in "".join(told)


def sentences_of(source):
    """What a chapter has checked, in the order of its cells."""
    code = [cell.source for cell in read_text_notebook(source).cells if cell.cell_type == "code"]
    calls = [node for own in code for node in ast.walk(ast.parse(own)) if isinstance(node, ast.Call)]
    checks = [call for call in calls if ast.unparse(call.func) == "page.check"]
    return [ast.literal_eval(key) for check in checks for key in check.args[0].keys]


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: path.stem)
def test_what_is_checked_against_the_record_is_what_the_page_says(source):
    cells = read_text_notebook(source).cells
    said = " ".join(" ".join(cell.source for cell in cells if cell.cell_type == "markdown").split())
    sentences = sentences_of(source)
    assert len(sentences) >= 5
    assert [sentence for sentence in sentences if sentence not in said] == []


def imports_of(cell):
    return [
        node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def test_chapters_import_little_and_a_page_shows_neither_that_nor_parameters():
    counts = []
    for source in NOTEBOOKS:
        code = [cell for cell in read_text_notebook(source).cells if cell.cell_type == "code"]
        counts.append(sum(len(imports_of(cell)) for cell in code))
        for cell in code:
            tags = set(cell.metadata.get("tags", []))
            if imports_of(cell) or "parameters" in tags:
                assert tags & {"hide-input", "hide-cell", "remove-cell"}, f"{source.name}: {cell.source}"
    assert statistics.median(counts) <= 3


def test_the_page_on_reproduction_names_every_chapter_and_figure_of_the_paper():
    page = REPRODUCTION.read_text()
    assert set(re.findall(r"\((\d\w+)\.md\)", page)) == {path.stem for path in CHAPTERS}
    cells = [cell for path in CHAPTERS for cell in read_text_notebook(path).cells]
    figures = [cell.metadata.get("mystnb", {}).get("figure", {"caption": ""}) for cell in cells]
    of_the_paper = {
        figure["name"] for figure in figures if re.search(r"Fig\. \d[^.]* of the paper", figure["caption"])
    }
    assert len(of_the_paper) >= 16
    assert of_the_paper <= set(re.findall(r"{numref}`([\w-]+)`", page))


def test_the_table_of_contents_has_every_chapter():
    listed = re.findall(r"book/chapters/(\w+)", (ROOT / "_toc.yml").read_text())
    assert sorted(listed) == [path.stem for path in NOTEBOOKS]
