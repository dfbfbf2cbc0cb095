"""Every test and doctest runs with a cache folder of its own: nobody's ~/.cache is read or written."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSKEW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
