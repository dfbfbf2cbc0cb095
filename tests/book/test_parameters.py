"""Types of parameters; what is refused is in test_execution.py."""

from quantskew.book.execution import check_parameters, read_text_notebook


def test_whole_numbers_serve_for_floats_and_none_for_an_empty_path(chapter):
    notebook = read_text_notebook(chapter)
    check_parameters(notebook, {"share": 1, "path": None}, "small")
