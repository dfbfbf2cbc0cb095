"""A book built of small chapters: outputs kept by content, laid out in order, byte by byte the same."""

import os
import re
import shutil

import nbformat
import pytest

from quantskew.book import chapters, execution
from small_chapter import TEXT


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


FILES = """
from IPython.display import display

files = {"a.js": "'ä'", "b.js": ""}
display({"text/plain": "two files", "application/vnd.quantskew.files+json": files}, raw=True)
"""


def test_files_of_an_output_are_laid_beside_the_chapter_and_not_in_it(chapter, tmp_path):
    chapter.write_text(TEXT.replace("print(bits * share, names)", FILES))
    (built,) = chapters.build(tmp_path)
    assert built.with_name("a.js").read_text(encoding="utf-8") == "'ä'"
    assert built.with_name("b.js").read_bytes() == b""
    outputs = nbformat.read(built, as_version=4).cells[-1].outputs
    assert [set(output.data) for output in outputs] == [{"text/plain"}]


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


def test_threads_of_a_kernel_do_not_spin_while_they_wait(chapter, tmp_path):
    cell = "import os; print(os.environ['OMP_WAIT_POLICY'])"
    chapter.write_text(TEXT.replace("print(bits * share, names)", cell))
    (built,) = chapters.build(tmp_path)
    assert "passive" in built.read_text()


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


def test_a_stored_chapter_that_was_changed_is_not_whole(tmp_path):
    (tmp_path / "a.md").write_text(TEXT)
    path = tmp_path / "a.ipynb"
    execution.execute(tmp_path / "a.md", path, progress=False)
    assert execution.is_whole(path)
    whole = path.read_bytes()
    cells = nbformat.reads(whole, as_version=4).cells
    assert cells
    cells[0]["source"] += " "
    for content in (b"", whole[:-40], whole.replace(b'"source": [', b'"source": ["", ', 1)):
        path.write_bytes(content)
        assert not execution.is_whole(path)
    assert not execution.is_whole(tmp_path / "none.ipynb")
