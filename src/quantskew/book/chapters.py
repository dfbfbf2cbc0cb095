"""From the chapters' texts to executed chapters: outputs kept by content, links between pages."""

import hashlib
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from jupyter_core.utils import ensure_event_loop

from quantskew.book import execution
from quantskew.book.prose import for_page
from quantskew.figures.style import NUMBERS
from quantskew.files import digest, write_bytes

_WIDGET = "application/vnd.jupyter.widget-view+json"
# By the name of a file its text: what scripts of the pages read, see `quantskew.interactive.page`.
_FILES = "application/vnd.quantskew.files+json"
# Each kernel holds about a gigabyte.
_MOST_AT_ONCE = 4


def with_outputs(text, executed):
    """The text notebook with the outputs of an executed one, cell by cell.

    The cell that papermill injects has no place in the text; it is kept, hidden from the page.  Widgets are
    left out: without their kernel they are dead, and their ids are random.
    """
    ran = [cell for cell in executed.cells if cell.cell_type == "code"]
    merged = []
    for cell in text.cells:
        merged.append(cell)
        if cell.cell_type != "code":
            continue
        done = ran.pop(0)
        cell.outputs = [output for output in done.outputs if not _is_dead(output)]
        cell.execution_count = done.execution_count
        for output in cell.outputs:
            output.get("data", {}).pop(_WIDGET, None)
        if ran and "injected-parameters" in ran[0].metadata.get("tags", []):
            merged.append(ran.pop(0))
            merged[-1].metadata["tags"] = ["injected-parameters", "remove-cell"]
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
    """The notebook, changed in place: its links to other chapters' texts lead to their pages.

    Texts link to texts, since that is what JupyterLab and a repository's web page can open.

    Examples
    --------
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


def surroundings(root, *patterns):
    """Digest of what every chapter depends on beside its text: the package, the records, and more files."""
    content, root = hashlib.sha256(), Path(root)
    own = Path(__file__).parents[1].rglob("*.*")
    paths = sorted(path for path in own if path.suffix in (".py", ".html", ".css", ".mplstyle"))
    for pattern in ("book/records/*.safetensors", *patterns):
        paths += sorted(root.glob(pattern))
    for path in paths:
        content.update(path.name.encode() + path.read_bytes())
    return content.hexdigest()


def chapter_key(text, parameters, surrounding):
    """Digest of everything that a chapter's outputs depend on: its code and tags, not its prose."""
    code = [cell for cell in text.cells if cell.cell_type == "code"]
    cells = [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in code]
    return digest([cells, parameters, surrounding])


def build(root, parameters=None, at_once=None):
    """Execute every chapter of a book whose outputs are not at hand, and lay them out for rendering.

    Parameters
    ----------
    root : path
        The repository: text in ``notebooks/``, executed chapters to ``book/chapters/``, the store of
        outputs in ``.cache/chapters/``.
    parameters : dict, optional
        The same for every chapter that declares them; refused before anything runs where none does.
    at_once : int, optional
        How many chapters are executed at the same time; by default one for each processor, four at most.
        They share the processors, since small models gain little from a second one.

    Returns
    -------
    list of Path
        The chapters, in order.  Where one fails, those that have not begun are not executed.
    """
    root = Path(root)
    texts = {path: execution.read_text_notebook(path) for path in sorted((root / "notebooks").glob("*.md"))}
    if not texts:
        raise FileNotFoundError(f"{root} has no chapters in notebooks/; run this in the repository's root")
    shares = _share_out(parameters or {}, texts)
    surrounding = surroundings(root, "notebooks/grids/*.yml")
    keys = {source: chapter_key(text, shares[source], surrounding) for source, text in texts.items()}
    stores = {path: root / ".cache" / "chapters" / f"{path.stem}-{key}.ipynb" for path, key in keys.items()}

    def prepare(number, source):
        name = f"[{number}/{len(texts)}] {source.stem}:"
        if execution.is_whole(stores[source]):
            print(name, "unchanged", flush=True)
            return
        damaged = f" again, since {stores[source]} is damaged" if stores[source].exists() else ""
        print(f"{name} executing{damaged}", flush=True)
        start = time.perf_counter()
        try:
            execution.execute(source, stores[source], shares[source], cwd=root, progress=False)
        finally:
            # The kernel's client makes a loop for each thread, and leaves it open.
            ensure_event_loop().close()
        print(f"{name} executed in {time.perf_counter() - start:.0f} s", flush=True)

    _for_all(prepare, enumerate(texts, 1), at_once or min(_processors(), _MOST_AT_ONCE))
    return [_lay_out(root, source, texts, stores[source]) for source in texts]


def _processors():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _for_all(prepare, arguments, at_once):
    """Call a function with each of the arguments, some at once; the first error ends it."""
    # For the kernels, which take it from this process.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _processors() // at_once)))
    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(prepare, *own) for own in arguments]
        try:
            for done in as_completed(running):
                done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _lay_out(root, source, texts, store):
    """Write the chapter that the renderer reads."""
    merged = with_outputs(texts[source], nbformat.read(store, as_version=4))
    lead_to_pages(merged, [path.stem for path in texts])
    chapter, drawn = root / "book" / "chapters" / f"{source.stem}.ipynb", {}
    for cell in merged.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            for name, text in data.pop(_FILES, {}).items():
                write_bytes(chapter.with_name(name), text.encode())
            drawn[figure] = data.pop(NUMBERS, None) or drawn.get(figure)
    drawn = {figure: numbers for figure, numbers in drawn.items() if figure and numbers}
    if drawn:
        merged.cells.append(_script(drawn))
    content = json.dumps(merged, indent=1, sort_keys=True, ensure_ascii=False).encode()
    # An untouched file lets the renderer skip the page.
    if not chapter.exists() or chapter.read_bytes() != content:
        write_bytes(chapter, content)
    return chapter


def _script(drawn):
    """A cell that only gives numbers to ``record.js``, by the name of the figure that it draws from them."""
    output = nbformat.v4.new_output("display_data", {"text/html": for_page("figure", drawn)})
    # A cell without a source is not rendered.
    own = {"id": "numbers", "metadata": {"tags": ["remove-input"]}, "outputs": [output]}
    return nbformat.v4.new_code_cell("# What figures are drawn from.", **own)


def _share_out(parameters, texts):
    """The parameters that each chapter declares, all checked before the first chapter runs."""
    declared = {source: execution.declared_parameters(text) for source, text in texts.items()}
    known = set().union(*declared.values())
    for name in sorted(parameters.keys() - known):
        raise ValueError(f"no chapter has a parameter {name!r}; known: {', '.join(sorted(known))}")
    shares = {}
    for source, text in texts.items():
        shares[source] = {key: parameters[key] for key in parameters if key in declared[source]}
        execution.check_parameters(text, shares[source], source.name)
    return shares
