"""Where a page of the book comes from, and where it can be run.

A chapter's page is rendered from an executed notebook that git does not have, so the theme's own links would
lead nowhere.  These lead to the text that the notebook was made from.  They need to know where the repository
is: ``repository.url`` in ``_config.yml``.  Where that is empty, pages have no such links.
"""

from urllib.parse import urlparse

import nbformat

_PAGES, _TEXTS = "book/chapters/", "notebooks/"
# Colab opens notebooks on GitHub only: the workflow that publishes the book puts them on this branch.
_EXECUTED = "executed"


def source(page):
    """The file in the repository that a page is made from.

    Examples
    --------
    >>> source("book/chapters/02_logits"), source("book/data")
    ('notebooks/02_logits.md', 'book/data.md')
    """
    return f"{_TEXTS}{page.removeprefix(_PAGES)}.md" if page.startswith(_PAGES) else f"{page}.md"


def links(page, repository, branch="main"):
    """Addresses of a page's source and, for a chapter, of where it runs, by name.

    Parameters
    ----------
    page : str
        Its path in the book, without an ending.
    repository : str
        ``https://github.com/OWNER/NAME``; empty for no links.
    branch : str

    Raises
    ------
    ValueError
        If `repository` is something else.

    Examples
    --------
    >>> links("book/chapters/02_logits", "https://github.com/me/skew")["Binder"]
    'https://mybinder.org/v2/gh/me/skew/main?urlpath=lab/tree/notebooks/02_logits.md'
    """
    if not repository:
        return {}
    address = urlparse(repository)
    name = address.path.strip("/").removesuffix(".git")
    if address.scheme != "https" or address.netloc != "github.com" or name.count("/") != 1:
        raise ValueError(
            "repository.url in _config.yml must be empty or https://github.com/OWNER/NAME; "
            f"got {repository!r}"
        )
    found = {"Source": f"https://github.com/{name}/blob/{branch}/{source(page)}"}
    if page.startswith(_PAGES):
        found["Binder"] = f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{source(page)}"
        notebook = f"{name}/blob/{_EXECUTED}/{page.removeprefix(_PAGES)}.ipynb"
        found["Colab"] = f"https://colab.research.google.com/github/{notebook}"
    return found


def with_installation(notebook, repository):
    """A notebook that fetches the book's repository first, where its package is not installed.

    Parameters
    ----------
    notebook : NotebookNode
        Changed in place.
    repository : str
    """
    folder = urlparse(repository).path.strip("/").rsplit("/", 1)[-1].removesuffix(".git")
    lines = [
        "# Where the package is missing, as in Colab: fetch it, with the book's records.",
        "import importlib.util",
        "",
        'if importlib.util.find_spec("quantskew") is None:',
        f"    !git clone --quiet --depth 1 {repository}",
        f"    %cd {folder}",
        '    %pip install --quiet ".[book]"',
    ]
    cell = nbformat.v4.new_code_cell("\n".join(lines), id="installation")
    notebook.cells.insert(0, cell)
    return notebook
