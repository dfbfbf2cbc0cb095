"""Text notebooks (jupytext MyST), and the reader that lets papermill run them.

papermill loads this module while it is being imported, so nothing here may import papermill.
"""

from pathlib import Path

import jupytext
import nbformat

from quantskew.base.files import write_bytes


def read_text_notebook(path):
    """A text notebook as notebook node.

    Raises
    ------
    FileNotFoundError
        If there is none at `path`.
    """
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
    def listdir(cls, path):
        """Files in a folder."""
        return [str(entry) for entry in sorted(Path(path).iterdir())]

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
