"""Controls of a built page in headless Chromium: from disk, with the network cut, and without JavaScript."""

import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import sem, t

from browser import grave, needs_browser, pictures
from quantskew.audits.audit import Audit
from quantskew.book import chapters
from quantskew.figures import lines
from quantskew.measures.forward import cosine_distance, group_accuracy, group_loss

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
from quantskew.book.prose import forest
from quantskew.claims import register
from quantskew.figures import lines
from quantskew.figures.flow import Map
from quantskew.figures.style import compare
from quantskew.interactive.control import bit_width
from quantskew.measures.forward import group_accuracy

rng = np.random.default_rng(0)
logits = {name: rng.normal(size=(90, 3)) for name in ("fp32", "int8", "int4", "int2")}
labels, groups = rng.integers(0, 3, 90), np.arange(90) % 3
audit = Audit.from_logits(logits, labels, groups)
other = Audit.from_logits({name: values[::-1] for name, values in logits.items()}, labels, groups)
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

A long equation:

$$
P(\\text{a} \\mid \\text{b}) = \\frac{DTDB + \\text{one hundred words and more}}{\\text{the width of a phone}}
+ \\text{what is left} \\tag{7}
$$

```{code-cell} ipython3
---
mystnb:
  figure:
    caption: Accuracy of three groups.
    name: fig-drawn
  image:
    alt: Two panels of three lines.
---
figure = compare(lines.of(group_accuracy), {"live": audit, "record": audit})
figure.numbers = [lines.numbers(group_accuracy, "live", [audit])]
figure.numbers.append(lines.numbers(group_accuracy, "record", [audit, other, audit]))
figure
```

```{code-cell} ipython3
table = register.judged({"base": [audit, other]}, ["fvo_grows", "loss_order"])
forest({"live": table, "record": table})
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


def shade(element):
    """Mean lightness of what an element looks like, from 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("L")).mean()


def test_dark_mode_draws_dark_pictures_and_print_has_light_ones(open_page):
    page = open_page(color_scheme="dark")
    assert shade(page.locator(".bit-width img:visible").first) < 80
    assert shade(page.locator(".drawn-panels svg").first) < 80
    page.emulate_media(media="print")
    assert not page.locator(".drawn").is_visible()
    assert shade(page.locator(".panels img").first) > 180


def test_a_phone_reaches_the_whole_of_everything(open_page):
    page = open_page(viewport={"width": 360, "height": 740}, java_script_enabled=True)
    page.wait_for_function("document.querySelector('div.math mjx-container')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # Scrolled to its beginning an equation begins inside of its box.
    begin, wide = page.evaluate(
        """() => { const box = document.querySelector('div.math');
        box.scrollLeft = 0;
        const [outer, inner] = [box, box.querySelector('mjx-math')].map(own => own.getBoundingClientRect());
        return [inner.left - outer.left, box.scrollWidth > 360]; }"""
    )
    assert wide
    assert begin >= -1
    panels = [panel.bounding_box() for panel in page.locator(".drawn-panels svg").all()]
    assert panels[0]["y"] + panels[0]["height"] <= panels[1]["y"]
    assert all(panel["width"] > 250 for panel in panels)
    for verdict in page.locator(".forest .verdict").all():
        box = verdict.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 360
    assert grave(page) == []


def test_without_javascript_panels_are_pictures_one_below_the_other_on_a_phone(open_page):
    page = open_page(viewport={"width": 360, "height": 740}, java_script_enabled=False)
    first, second = (panel.bounding_box() for panel in page.locator(".panels img:visible").all())
    assert first["y"] + first["height"] <= second["y"]
    assert page.locator(".panels img").first.get_attribute("alt") == "Two panels of three lines."


def test_a_figure_shows_another_seed_fewer_groups_and_gives_its_numbers(open_page, tmp_path):
    page = open_page()
    live, record = page.locator(".drawn-panels svg").all()
    before = [live.inner_html(), record.inner_html()]
    page.select_option(".drawn select", "1")
    assert live.inner_html() == before[0]
    assert record.inner_html() != before[1]
    page.select_option(".drawn select", "2")
    assert page.locator(".drawn-panels svg").nth(1).inner_html() == before[1].replace("seed 0", "seed 2")
    page.select_option(".drawn select", "mean")
    assert "mean of 3 runs" in page.locator(".drawn-panels svg").nth(1).inner_html()
    page.select_option(".drawn select", "all")
    assert page.locator(".drawn-panels svg").nth(1).locator("[data-group='group 0'] path").count() == 3
    page.locator(".drawn button[data-name='group 0']").first.press("Space")
    assert page.locator(".drawn-panels [data-group='group 0']").count() == 0
    with page.expect_download() as file:
        page.click(".drawn-files button >> nth=1")
    file.value.save_as(tmp_path / "numbers.csv")
    table = pd.read_csv(tmp_path / "numbers.csv")
    assert len(table) == (1 + 3) * 4 * 3
    assert table.groupby("experiment")["seed"].nunique().tolist() == [1, 3]
    with page.expect_download() as file:
        page.click(".drawn-files button >> nth=0")
    file.value.save_as(tmp_path / "figure.svg")
    assert len(ElementTree.parse(tmp_path / "figure.svg").getroot().findall("{*}svg")) == 2
    assert page.seen == []


def test_the_mean_over_runs_is_that_of_python(open_page):
    page = open_page()
    script = "document.querySelector('script.figure-numbers').textContent"
    seeds = [panel["seeds"] for panel in json.loads(page.evaluate(script))["fig-drawn"]][1]
    values = np.array(seeds, dtype=float)[:, -1, 0, 0]
    page.select_option(".drawn select", "mean")
    title = page.locator(".drawn-panels svg").nth(1).locator("[data-group='group 0'] title").last
    reach = sem(values) * t.ppf(0.975, len(values) - 1)
    ends = np.clip([values.mean() - reach, values.mean() + reach], 0, 1)
    assert [
        float(own) for own in re.findall(r"[\d.]+", title.text_content().split(": ")[1])
    ] == pytest.approx([values.mean(), *ends], abs=0.006)


@pytest.fixture
def open_drawn(open_in_browser, html):
    """Open the small page with one more figure, which is drawn from panels of numbers."""

    def opened(panels):
        text = json.dumps({"fig-further": panels})
        figure = '<figure id="fig-further"><img alt="A picture."></figure>'
        script = f'<script type="application/json" class="figure-numbers">{text}</script>'
        path = html.with_name("further.html")
        path.write_text(html.read_text().replace("</article>", f"{figure}{script}</article>"))
        page = open_in_browser(path)
        return page, page.locator("#fig-further")

    return opened


@pytest.fixture(scope="module")
def runs():
    """Three training runs of noise."""
    rng = np.random.default_rng(1)
    labels, groups = rng.integers(0, 3, 90), np.arange(90) % 3
    names = ("fp32", "int8", "int4")
    return [
        Audit.from_logits({name: rng.normal(size=(90, 3)) for name in names}, labels, groups)
        for _ in range(3)
    ]


def test_a_map_has_a_cell_a_group_and_precision_and_the_mean_over_runs(open_drawn, runs):
    drawn = lines.of(cosine_distance).numbers("noise", runs)
    assert drawn["kind"] == "map"
    assert drawn["precisions"] == ["int8", "int4"]
    page, figure = open_drawn([drawn])
    cells = figure.locator(".drawn-panels [data-group='group 1'] g text").all_text_contents()
    value = cosine_distance(runs[0]).set_index(["group", "precision"])["value"]
    assert [float(own) for own in cells] == pytest.approx(value["group 1"].to_list()[1:], rel=0.06)
    figure.locator("select").select_option("mean")
    mean = np.mean([cosine_distance(own).query("group == 'group 1'")["value"] for own in runs], axis=0)
    cells = figure.locator(".drawn-panels [data-group='group 1'] g text").all_text_contents()
    assert [float(own) for own in cells] == pytest.approx(mean[1:], rel=0.06)
    assert page.seen == []


def test_a_measure_against_another_has_a_point_a_precision_where_both_are(open_drawn, runs, tmp_path):
    drawn = lines.against(group_loss, group_accuracy).numbers("noise", runs)
    page, figure = open_drawn([drawn])
    points = figure.locator(".drawn-panels [data-group='group 2'] g path")
    assert points.count() == 3
    places = [
        re.findall(r"translate\(([\d.]+),([\d.]+)\)", own.get_attribute("transform")) for own in points.all()
    ]
    across, up = (np.array([own[0] for own in places], dtype=float)[:, k] for k in (0, 1))
    loss, accuracy = (
        own(runs[0]).query("group == 'group 2'")["value"].to_numpy() for own in (group_loss, group_accuracy)
    )
    # Larger is further right, and further up.
    assert np.argsort(across).tolist() == np.argsort(accuracy).tolist()
    assert np.argsort(-up).tolist() == np.argsort(loss).tolist()
    assert np.corrcoef(across, accuracy)[0, 1] == pytest.approx(1, abs=1e-3)
    figure.locator("select").select_option("all")
    assert figure.locator(".drawn-panels [data-group='group 2'] path").count() == 3
    with page.expect_download() as file:
        figure.locator(".drawn-files button").nth(1).click()
    file.value.save_as(tmp_path / "numbers.csv")
    table = pd.read_csv(tmp_path / "numbers.csv").query("seed == 0 and group == 'group 2'")
    assert table["value"].to_numpy() == pytest.approx(loss, rel=1e-3)
    assert table["at"].to_numpy() == pytest.approx(accuracy, rel=1e-3)
    assert page.seen == []


def test_the_search_finds_what_is_in_a_formula(html):
    index = (html.parents[2] / "searchindex.js").read_text(encoding="utf-8")
    assert '"dtdb"' in index


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
