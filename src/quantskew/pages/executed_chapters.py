"""What of an executed chapter goes into its page: its text with the outputs, and links between pages."""

import re

_WIDGET = "application/vnd.jupyter.widget-view+json"


def with_outputs(text, executed):
    """The text notebook with the outputs of an executed one, cell by cell.

    The cell that papermill injects has no place in the text; it is kept, hidden from the page.  Widgets are
    left out: without their kernel they are dead, and their ids are random.
    """
    ran = [cell for cell in executed.cells if cell.cell_type == "code"]
    merged = []
    for cell in text.cells:
        if cell.cell_type != "code":
            merged.append(cell)
            continue
        done = ran.pop(0)
        cell.outputs = [output for output in done.outputs if not _is_dead(output)]
        cell.execution_count = done.execution_count
        for output in cell.outputs:
            output.get("data", {}).pop(_WIDGET, None)
        merged.append(cell)
        if ran and "injected-parameters" in ran[0].metadata.get("tags", []):
            injected = ran.pop(0)
            injected.metadata["tags"] = ["injected-parameters", "remove-cell"]
            merged.append(injected)
    for position, cell in enumerate(merged):
        # Ids are random; numbers keep a page the same from run to run.
        cell["id"] = f"cell-{position}"
    text.cells = merged
    return text


def _is_dead(output):
    """Whether nothing is left of an output without its kernel: a progress bar's text says that it began."""
    forms = set(output.get("data", {}))
    return _WIDGET in forms and forms <= {_WIDGET, "text/plain"}


def lead_to_pages(notebook, stems):
    """The notebook with its links to other chapters' texts turned into links to their pages.

    Texts link to texts, since that is what JupyterLab and a repository's web page can open.

    Parameters
    ----------
    notebook : NotebookNode
        Changed in place.
    stems : sequence of str
        Names of the chapters' files, without their endings.

    Examples
    --------
    >>> import nbformat
    >>> text = nbformat.v4.new_markdown_cell("[Next](02_logits.md#norms), [more](notes.md)")
    >>> lead_to_pages(nbformat.v4.new_notebook(cells=[text]), ["02_logits"]).cells[0].source
    '[Next](02_logits.ipynb#norms), [more](notes.md)'
    """
    chapter = "|".join(map(re.escape, stems))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(rf"\]\(({chapter})\.md(?=[)#])", r"](\1.ipynb", cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                # Raw HTML is not looked into by the renderer.
                link = rf'href="({chapter})\.md(?=["#])'
                data["text/html"] = re.sub(link, r'href="\1.html', data["text/html"])
    return notebook
