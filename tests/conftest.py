"""Fixtures that several test files share."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import browser
import samples
import small_chapter
from quantskew import datasets
from quantskew.audits.model import audit_model
from quantskew.book import chapters
from quantskew.experiments import catalogue

# Benchmarks are scripts; collecting doctests would run them.
collect_ignore = ["benchmarks"]

# The same examples on every run: a suite that fails now and then is not trusted.
settings.register_profile("suite", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """An empty cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("QUANTSKEW_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="session")
def digits_model(digits):
    """The book's live model, trained once for all tests; nobody may change it."""
    return catalogue.trained(catalogue.get("digits"), digits, "cpu")[0]


@pytest.fixture(scope="session")
def digits_audit(digits_model, digits):
    """The live model at the book's precisions."""
    return audit_model(digits_model, digits)


@pytest.fixture(scope="session")
def curved_audit(digits_model, digits):
    """The live model with gradients and Hessians of a few images a group."""
    return audit_model(digits_model, digits.test.subset(range(200)), ["fp32", "int8", "int2"], curvature=5)


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def built_book(tmp_path_factory, repository):
    """The whole book, executed and rendered strictly in a copy of the repository.

    With one seed instead of three: `make book` takes as long as all other tests together.
    """
    root = tmp_path_factory.mktemp("book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(repository / name, root)
    ignored = shutil.ignore_patterns("chapters")
    for folder in ("notebooks", "book"):
        shutil.copytree(repository / folder, root / folder, ignore=ignored)
    chapters.build(root, {"seeds": 1})
    strict = ["build", str(root), "-W", "-n", "--keep-going", "--quiet"]
    result = subprocess.run(
        [Path(sys.executable).parent / "jupyter-book", *strict],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return root / "_build" / "html"


@pytest.fixture(scope="session")
def chromium():
    # Imported here: without Chromium nothing needs it.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        launched = started.chromium.launch(
            executable_path=browser.CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture
def open_in_browser(chromium):
    """Open a file without a network; what it asks for and what goes wrong is in ``page.seen``."""
    contexts = []

    def open_one(path, **options):
        context = chromium.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
        context.set_default_timeout(60_000)
        context.set_offline(True)
        contexts.append(context)
        page = browser.watched(context.new_page())
        page.goto(path.as_uri())
        return page

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture
def model():
    return samples.small_resnet()


@pytest.fixture
def killed(request):
    """Run a script that ends by kill -9; the process is real, and so is what it leaves behind."""

    def run(script, *arguments):
        path = [str(request.path.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        command = [sys.executable, "-c", script, *map(str, arguments)]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == -signal.SIGKILL, process.stderr

    return run


@pytest.fixture
def chapter(tmp_path):
    """The text of a small chapter, in the folder of chapters of an empty root."""
    path = tmp_path / "notebooks" / "00_small.md"
    path.parent.mkdir()
    path.write_text(small_chapter.TEXT)
    return path
