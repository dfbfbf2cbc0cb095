"""Controls of a built page in headless Chromium: from disk, with the network cut, and without JavaScript."""

import functools
import os
import re
import shutil
import subprocess
import sys

import pytest

from browser import grave, needs_browser, pictures
from quantskew.book import chapters

pytestmark = needs_browser

CHAPTER = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Two controls of one page

```{code-cell} ipython3
import numpy as np
from quantskew.audits.audit import Audit
from quantskew.figures.flow import Map
from quantskew.interactive.control import bit_width

rng = np.random.default_rng(0)
logits = {name: rng.normal(size=(90, 3)) for name in ("fp32", "int8", "int4", "int2")}
audit = Audit.from_logits(logits, rng.integers(0, 3, 90), np.arange(90) % 3)
audits = {"live: noise": audit, "record: noise": audit.select(["fp32", "int4", "int2"])}
```

```{code-cell} ipython3
Map("loss")
```

```{code-cell} ipython3
bit_width("accuracy", audits)
```

```{code-cell} ipython3
bit_width("loss", audits)
```
"""
TOC = "format: jb-book\nroot: book/index\nchapters:\n  - file: book/chapters/00_controls\n"
BUTTON = ".bit-width label:has-text('{}')"


@pytest.fixture(scope="module")
def html(repository, tmp_path_factory):
    """A small page with two controls, made and rendered as the book is."""
    root = tmp_path_factory.mktemp("small")
    shutil.copy(repository / "_config.yml", root)
    shutil.copytree(repository / "book" / "_static", root / "book" / "_static")
    shutil.copy(repository / "book" / "references.bib", root / "book")
    (root / "_toc.yml").write_text(TOC)
    (root / "book" / "index.md").write_text("# A small book\n")
    (root / "notebooks").mkdir()
    (root / "notebooks" / "00_controls.md").write_text(CHAPTER)
    chapters.build(root)
    strict = ["build", str(root), "-W", "-n", "--keep-going", "--quiet"]
    built = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "jupyter-book"), *strict],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    return root / "_build" / "html" / "book" / "chapters" / "00_controls.html"


@pytest.fixture
def open_page(open_in_browser, html):
    """Open the small page, from disk and without a network."""
    return functools.partial(open_in_browser, html)


def test_a_choice_changes_every_picture_of_the_page(open_page):
    page = open_page()
    before = pictures(page)
    page.click(BUTTON.format("int2") + " >> nth=0")
    after = pictures(page)
    assert len(before) == len(after) == len({*before, *after}) / 2 == 4
    assert (
        page.locator(".bit-width input:checked").evaluate_all("all => all.map(r => r.value)") == ["int2"] * 2
    )
    assert page.seen == []


def test_a_choice_is_kept_for_the_next_page(open_page):
    page = open_page()
    page.click(BUTTON.format("int2") + " >> nth=1")
    chosen = pictures(page)
    page.reload()
    assert pictures(page) == chosen


def test_a_precision_that_a_record_lacks_is_said(open_page):
    page = open_page()
    page.click(BUTTON.format("int8") + " >> nth=0")
    assert page.locator("text=record: noise has no int8.").first.is_visible()
    assert len(pictures(page)) == 2


def test_it_works_without_javascript(open_page):
    page = open_page(java_script_enabled=False)
    before = pictures(page)
    page.click(BUTTON.format("int2") + " >> nth=0")
    after = pictures(page)
    assert len(before) == len(after) == 4
    assert before[2:] == after[2:]
    assert set(before[:2]).isdisjoint(after[:2])


def test_it_works_by_keyboard_alone_and_shows_the_focus(open_page):
    page = open_page()
    before = pictures(page)
    focused = "document.activeElement.matches('.bit-width input')"
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate(focused):
            break
    assert page.evaluate(f"{focused} && document.activeElement.value") == "int4"
    outline = "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.value") == "int2"
    assert set(before).isdisjoint(pictures(page))


def test_it_fits_a_screen_of_360_pixels(open_page):
    page = open_page(viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for part in page.locator(".bit-width, .bit-width label, .bit-width img:visible").all():
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    # One below the other, so that each is wide enough to be read.
    assert all(part.bounding_box()["width"] > 250 for part in page.locator(".bit-width img:visible").all())


def luminance(color):
    channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_buttons_are_legible_in_light_and_in_dark_mode(scheme, open_page):
    page = open_page(color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.2) == (scheme == "dark")
    for value in ("int4", "int2"):
        label = page.locator(BUTTON.format(value)).first
        color, own = label.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
        behind = ground if own == "rgba(0, 0, 0, 0)" else own
        low, high = sorted((luminance(color), luminance(behind)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme, open_page):
    page = open_page(color_scheme=scheme)
    assert grave(page) == []


def test_no_widget_is_left_in_the_page(html):
    text = html.read_text(encoding="utf-8")
    assert "vnd.jupyter.widget" not in text
    assert "html-manager" not in text
    assert "require.js" not in text
