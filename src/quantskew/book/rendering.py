"""Where a page of the book comes from, and where it can be run.

A chapter's page is rendered from an executed notebook that git does not have, so the theme's own links would
lead nowhere.  These lead to the text that the notebook was made from.  They need to know where the repository
is: ``repository.url`` in ``_config.yml``.  Where that is empty, pages have no such links.
"""

import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.errors import ConfigError

_PAGES, _TEXTS = "book/chapters/", "notebooks/"
# Colab opens notebooks on GitHub only: the workflow that publishes the book puts them on this branch.
_EXECUTED = "executed"
_INSTALLATION = """\
# Where the package is missing, as in Colab: fetch it, with the book's records.
import importlib.util

if importlib.util.find_spec("quantskew") is None:
    !git clone --quiet --depth 1 {} quantskew
    %cd quantskew
    %pip install --quiet ".[book]"
"""


def source(page):
    """The file in the repository that a page is made from.

    Examples
    --------
    >>> source("book/chapters/02_logits"), source("book/data")
    ('notebooks/02_logits.md', 'book/data.md')
    """
    return f"{_TEXTS}{page.removeprefix(_PAGES)}.md" if page.startswith(_PAGES) else f"{page}.md"


def links(page, repository, branch="main"):
    """Addresses of a page's source and, for a chapter, of where it runs, by name; none without a repository.

    Examples
    --------
    >>> links("book/chapters/02_logits", "https://github.com/me/skew")["Binder"]
    'https://mybinder.org/v2/gh/me/skew/main?urlpath=lab/tree/notebooks/02_logits.md'
    """
    if not repository:
        return {}
    match = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(?:\.git)?/*", repository)
    if not match:
        allowed = "repository.url in _config.yml must be empty or https://github.com/OWNER/NAME"
        raise ConfigError(f"{allowed}; got {repository!r}")
    name = match[1]
    found = {"Source": f"https://github.com/{name}/blob/{branch}/{source(page)}"}
    if page.startswith(_PAGES):
        found["Binder"] = f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{source(page)}"
        notebook = f"{name}/blob/{_EXECUTED}/{page.removeprefix(_PAGES)}.ipynb"
        found["Colab"] = f"https://colab.research.google.com/github/{notebook}"
    return found


_LOOKS = {
    "Source": {"icon": "fas fa-file-lines", "tooltip": "The text that this page is made from"},
    "Binder": {"icon": "_static/images/logo_binder.svg", "tooltip": "Run this chapter on Binder"},
    "Colab": {"icon": "_static/images/logo_colab.png", "tooltip": "Run this chapter in Colab"},
}
# Sphinx breaks tables of more rows than this over pages, and then no longer breaks the lines in their cells.
_LONG = 30
# In pixels, of pictures that a phone cannot show whole, and of what parts their panels.
_WIDE, _GUTTER = 600, 8
# In characters, of a column of a long table.
_NARROWEST, _WIDEST = 8, 40


def _repository(app):
    options = app.config.html_theme_options
    return options.get("repository_url", ""), options.get("repository_branch") or "main"


def check_repository(app):
    """Refuse an address of the repository that no link can be made of, before anything is rendered."""
    links("", *_repository(app))


def add_buttons(app, page, template, context, doctree):
    """Links to a page's source and to where it runs, in a group of buttons at its head."""
    found = links(page, *_repository(app)) if doctree else {}
    buttons = [
        {"type": "link", "text": name, "url": address, "label": f"{name.lower()}-button"} | _LOOKS[name]
        for name, address in found.items()
    ]
    if buttons:
        group = {"type": "group", "icon": "fas fa-rocket", "label": "launch-buttons", "buttons": buttons}
        context["header_buttons"].append({**group, "tooltip": "Source, and where to run it"})


def drop_thebe(app, page, template, context, doctree):
    """Leave out Thebe, which runs cells through another host: unused, and declared twice, an error."""
    scripts = context.get("script_files", [])
    context["script_files"] = [js for js in scripts if "thebe" not in f"{js.filename}{js.attributes}".lower()]


def prepare_downloads(app, error):
    """Let the notebooks that pages offer for download fetch the package themselves."""
    repository, _ = _repository(app)
    if error or not repository or app.builder.format != "html":
        return
    text = _INSTALLATION.format(repository).strip()
    for path in (Path(app.outdir) / "_sources" / "book" / "chapters").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        # A page that was not rendered anew has its notebook from the build before.
        if notebook.cells[0].get("id") != "installation":
            notebook.cells.insert(0, nbformat.v4.new_code_cell(text, id="installation"))
            nbformat.write(notebook, path)


def copy_files(app, error):
    """Lay what the scripts of the pages read, which chapters have written, beside these scripts."""
    if not error and app.builder.format == "html":
        for path in (Path(app.srcdir) / _PAGES).glob("*.js"):
            shutil.copy(path, Path(app.outdir) / "_static")


def fit_tables(app, doctree, page):
    """Give the columns of long tables widths by their words, where the book becomes a PDF."""
    for table in doctree.findall(nodes.table) if app.builder.format == "latex" else ():
        rows = [[entry.astext() for entry in row.children] for row in table.findall(nodes.row)]
        if len(rows) > _LONG:
            for column, *cells in zip(table.findall(nodes.colspec), *rows, strict=True):
                column["colwidth"] = min(max(_NARROWEST, *map(len, cells)), _WIDEST)
            table["classes"].append("colwidths-given")


def lay_panels(app, doctree, page):
    """Cut wide pictures between their panels, which then stand one below the other on a small screen."""
    for image in list(doctree.findall(nodes.image)) if app.builder.format == "html" else ():
        path, words = Path(app.srcdir) / image["uri"], image.get("alt", "")
        if path.suffix != ".png" or "width" in image or not path.is_file():
            continue
        picture = Image.open(path).convert("RGB")
        if picture.width <= _WIDE:
            continue
        # Only what chapters have drawn: the others are files of the repository.
        cut = _gutter(np.asarray(picture)) if path.parent.name == "jupyter_execute" else None
        panels = nodes.container("", classes=["panels"])
        for start, end in ((0, cut), (cut, picture.width)) if cut else ():
            part = path.with_name(f"{path.stem}-{start}.png")
            picture.crop((start, 0, end, picture.height)).save(part, optimize=True)
            uri = part.relative_to(app.srcdir).as_posix()
            app.env.images.add_file(page, uri)
            # The words are of the whole.
            panels += nodes.image(uri=uri, candidates={"*": uri}, alt="" if start else words)
        image.replace_self(panels if cut else nodes.container("", image.deepcopy(), classes=["wide"]))


def _gutter(pixels):
    """The middle of the widest empty band from top to bottom near the middle of a picture, if any."""
    drawn = np.flatnonzero((pixels != 255).any(axis=(0, 2)))
    drawn = drawn[abs(drawn / pixels.shape[1] - 0.5) < 0.1]
    gaps = np.diff(drawn)
    return int(drawn[gaps.argmax()] + gaps.max() // 2) if gaps.max(initial=0) >= _GUTTER else None


def find_formulas(app, doctree, page):
    """Let the search find the words of formulas, such as DTDB, by which it knows no page otherwise."""
    formulas = (node.astext() for kind in (nodes.math, nodes.math_block) for node in doctree.findall(kind))
    words = {word for text in formulas for word in re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", text)}
    if words:
        doctree += nodes.meta(name="keywords", content=", ".join(sorted(words)))


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", check_repository)
    # After the theme, which makes the list of buttons at 500 and fills it at 501.
    app.connect("html-page-context", add_buttons, priority=600)
    app.connect("html-page-context", drop_thebe, priority=600)
    app.connect("doctree-resolved", fit_tables)
    app.connect("doctree-resolved", lay_panels)
    app.connect("doctree-resolved", find_formulas)
    app.connect("build-finished", prepare_downloads)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
