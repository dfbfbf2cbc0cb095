import pytest

from small_chapter import TEXT


@pytest.fixture
def chapter(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    path = folder / "00_small.md"
    path.write_text(TEXT)
    return path
