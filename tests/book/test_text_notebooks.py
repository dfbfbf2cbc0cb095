"""Text notebooks as papermill sees them."""

import pytest

from quantskew.book import execution


def test_a_source_is_never_overwritten(chapter):
    with pytest.raises(ValueError, match="is a chapter's source"):
        execution.TextNotebookHandler.write("{}", str(chapter))
