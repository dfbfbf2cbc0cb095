"""Text notebooks as papermill sees them."""

import pytest

from quantskew.pages import text_notebooks


def test_a_source_is_never_overwritten(chapter):
    with pytest.raises(ValueError, match="is a chapter's source"):
        text_notebooks.TextNotebookHandler.write("{}", str(chapter))
