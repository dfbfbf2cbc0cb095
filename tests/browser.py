"""Headless Chromium for tests of pages: where it is, and what axe-core says of a page."""

import shutil
from importlib.util import find_spec

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_missing = [
    name
    for name, found in {
        "Chromium": CHROMIUM,
        "playwright": find_spec("playwright"),
        "axe-playwright-python": find_spec("axe_playwright_python"),
    }.items()
    if not found
]
needs_browser = pytest.mark.skipif(
    bool(_missing),
    reason=f"tests of pages in a browser need what is not installed here: {', '.join(_missing)}",
)


def watched(page):
    """The page, which from now on notes in ``seen`` what goes wrong and what it asks of other hosts."""
    page.seen = []
    page.on("pageerror", lambda error: page.seen.append(f"error: {error}"))
    page.on("requestfailed", lambda request: page.seen.append(f"failed: {request.url}"))
    page.on("request", lambda request: _note(page, request.url))
    return page


def _note(page, address):
    if not address.startswith(("file:", "data:", "blob:")):
        page.seen.append(f"request: {address}")


def grave(page):
    """What axe-core calls serious or critical: the rule, and the first elements that break it."""
    from axe_playwright_python.sync_playwright import Axe

    # Colours fade in; while they do, they are not yet what a reader sees.
    page.evaluate("Promise.all(document.getAnimations().map(fading => fading.finished))")
    found = Axe().run(page).response
    assert len(found["passes"]) > 20
    return [
        (rule["id"], [node["html"] for node in rule["nodes"]][:3])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


def pictures(page):
    """The visible pictures of all controls, by what they show."""
    shown = page.locator(".bit-width img:visible")
    return [shown.nth(place).get_attribute("src") for place in range(shown.count())]
