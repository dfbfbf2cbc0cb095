"""Tests and doctests have a cache folder of their own: nobody's ~/.cache is read or written."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_run(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # One for all processes of a run: what several tests need is trained and audited once.
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSKEW_CACHE", str(folder / "cache"))
        yield
