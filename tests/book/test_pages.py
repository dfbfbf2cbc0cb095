"""The built book: every page is whole without a network, and every link, number and word in it resolves."""

import importlib
import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from browser import grave, needs_browser, pictures
from quantskew.claims.verdicts import VERDICTS
from quantskew.figures import flow

CHAPTERS = "book/chapters/"
TOC = (Path(__file__).parents[2] / "_toc.yml").read_text()
PAGES = [f"{path}.html" for path in re.findall(r"(?:file|root): (\S+)", TOC)]
# Sphinx itself writes lists of references whose items have no role.
OF_SPHINX = ("aria-required-children", ['<div role="list" class="citation-list">'])
PLAYGROUND = f"{CHAPTERS}playground.html"
PLACES = {stage.chapter: stage.name for stage in flow.STAGES}


@pytest.fixture(scope="module")
def pages(built_book):
    """Every page that a reader sees, parsed, by its path in the book."""
    paths = [*(built_book / "book").rglob("*.html"), built_book / "search.html"]
    parsed = {path: BeautifulSoup(path.read_text(), "html.parser") for path in paths}
    return {path.relative_to(built_book).as_posix(): page for path, page in parsed.items()}


@pytest.fixture(scope="module")
def chapters_of_the_book(pages):
    """The numbered chapters' pages, by the names of their files."""
    numbered = {path.removeprefix(CHAPTERS).removesuffix(".html"): page for path, page in pages.items()}
    return {name: page for name, page in numbered.items() if name[0].isdigit()}


def texts(repository):
    """The numbered chapters' texts, by the names of their files."""
    return {path.stem: path.read_text() for path in sorted((repository / "notebooks").glob("[0-9]*.md"))}


def local(address):
    return not re.match(r"[a-z][a-z0-9+.-]*:|//", address)


def loaded(page):
    """Addresses that a browser fetches to show a page."""
    for tag in page.find_all(["script", "img", "source", "iframe", "embed", "audio", "video", "input"]):
        yield from filter(None, [tag.get("src")])
        yield from (part.split()[0] for part in tag.get("srcset", "").split(",") if part.strip())
    for tag in page.find_all("link"):
        if {"stylesheet", "preload", "icon", "prefetch", "manifest"} & set(tag.get("rel", [])):
            yield tag["href"]
    for tag in page.find_all("object"):
        yield tag.get("data", "")
    styles = [tag["style"] for tag in page.find_all(style=True)]
    for style in styles + [tag.text for tag in page.find_all("style")]:
        yield from asked_by_css(style)


def asked_by_css(text):
    """Addresses in a style sheet: pictures, fonts, and other sheets."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    addresses = re.findall(r"url\(\s*[\"']?([^\"')]+)", text) + re.findall(r"@import\s+[\"']([^\"']+)", text)
    return [address for address in addresses if not address.startswith(("data:", "#"))]


def test_every_page_of_the_contents_is_built(pages, repository):
    contents = yaml.safe_load((repository / "_toc.yml").read_text())
    listed = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    assert {f"{name}.html" for name in [contents["root"], *listed]} | {"search.html"} == set(pages)


def test_pages_load_only_what_lies_beside_them(pages, built_book):
    for path, page in pages.items():
        for address in loaded(page):
            if address.startswith("data:"):
                continue
            assert local(address), f"{path} loads {address}"
            target = (built_book / path).parent / address.partition("?")[0]
            assert target.exists(), f"{path}: {address}"


def test_style_sheets_load_only_what_lies_beside_them(built_book):
    sheets = list(built_book.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        for address in asked_by_css(sheet.read_text()):
            assert local(address), f"{sheet.name} loads {address}"
            assert (sheet.parent / re.split("[?#]", address)[0]).exists(), f"{sheet.name}: {address}"


def test_mathematics_has_its_fonts_beside_it(built_book):
    assert len(list((built_book / "_static" / "mathjax").rglob("*.woff"))) > 10


def test_every_link_within_the_book_leads_somewhere(pages, built_book):
    ids = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in pages.items()}
    for path, page in pages.items():
        for tag in page.find("main").find_all("a", href=True):
            address, _, anchor = tag["href"].partition("#")
            if not local(tag["href"]):
                continue
            target = (built_book / path).parent.joinpath(address).resolve() if address else built_book / path
            assert target.exists(), f"{path}: {tag['href']}"
            name = target.relative_to(built_book.resolve() if address else built_book).as_posix()
            if anchor and name in ids:
                assert anchor in ids[name], f"{path}: {tag['href']}"


def test_every_chapter_says_what_it_is_about_and_where_the_reader_is(chapters_of_the_book):
    assert set(PLACES) <= set(chapters_of_the_book)
    for name, page in chapters_of_the_book.items():
        margin = page.find("aside", class_="margin")
        assert re.search(r"[Ss]ections? ", margin.text), name
        assert margin.find("a", href=re.compile("references")), name
        (shown,) = page.find_all("nav", class_="impact-flow")
        section = shown.find_parent("section")
        assert section.find("h1", recursive=False), f"{name}: the map is not at the head"
        assert shown.find_previous("section") is section, f"{name}: the map is not at the head"
        here = [tag.find("strong").text for tag in shown.find_all(attrs={"aria-current": "page"})]
        assert here == ([PLACES[name]] if name in PLACES else []), name
        linked = [tag["href"] for tag in shown.find_all("a")]
        assert linked == [f"{chapter}.html" for chapter in PLACES if chapter != name]


def test_the_first_page_has_five_findings_with_verdict_picture_and_figure(pages):
    page = pages["book/index.html"]
    findings = page.select("main ol > li")
    assert len(findings) == 5
    for finding in findings:
        assert {tag.text for tag in finding.select("span.verdict")} <= set(VERDICTS)
        for picture in finding.select("svg[role=img]"):
            assert re.match(r"effect .* of \d+ seeds are right of", picture["aria-label"])
        assert finding.select("span.verdict")
        assert finding.select('a[href^="chapters/"][href*="#fig-"]')
    assert not findings[0].find_all_previous("pre")


def test_what_to_take_is_a_table_that_needs_no_script(chapters_of_the_book):
    (table,) = chapters_of_the_book["08_mitigation"].select("table.chooser")
    assert {row.find("td").text for row in table.select("tbody tr")} >= {"int4", "int3", "int2"}
    assert table["data-takes"].count("|") == 3


def test_equations_have_the_papers_numbers(pages, repository):
    sources = "\n".join(texts(repository).values())
    tagged = re.findall(r"\((eq-[\w-]+)\)=\n\$\$\n.*?\\tag\{(\d+)\}\s*\$\$", sources, re.DOTALL)
    numbers = {label: int(number) for label, number in tagged}
    assert sorted(numbers.values()) == list(range(1, 13))
    assert sources.count(r"\tag{") == len(numbers)
    written = sources + "".join(path.read_text() for path in (repository / "book").glob("*.md"))
    for shown, label in re.findall(r"\[([^\]]*)\]\((eq-[\w-]+)\)", written):
        assert shown == f"Eq. {numbers[label]}"
    for label in numbers:
        assert sum(page.find("div", id=label) is not None for page in pages.values()) == 1, label


def test_the_margin_names_the_equations_of_its_chapter(repository):
    for name, text in texts(repository).items():
        margin = re.search(r"```{margin}\n(.*?)\n```", text, re.DOTALL)[1]
        listed = re.sub(r"(\d+) to (\d+)", spelled_out, margin.partition("Eq. ")[2])
        shown = set(re.findall(r"\\tag\{(\d+)\}", text))
        assert shown <= set(re.findall(r"\d+", listed)), name


def spelled_out(match):
    first, last = map(int, match.groups())
    return " ".join(map(str, range(first, last + 1)))


def test_every_word_of_the_glossary_is_linked_and_every_chapter_links_some(pages, chapters_of_the_book):
    glossary = pages["book/glossary.html"].find("dl", class_="glossary")
    linked = {path: terms_of(page) for path, page in pages.items()}
    everywhere = set().union(*linked.values())
    entries = list(synonyms(glossary))
    assert len(entries) > 40
    for names in entries:
        assert names & everywhere, f"nothing links to {' / '.join(sorted(names))}"
    for name in chapters_of_the_book:
        assert linked[f"{CHAPTERS}{name}.html"], name


def terms_of(page):
    """Identifiers of the glossary's words that a page links to."""
    found = page.find("main").find_all("a", href=re.compile("#term-"))
    return {tag["href"].partition("#")[2] for tag in found}


def synonyms(glossary):
    """The identifiers of each entry's names, which stand below each other and share what follows."""
    names = set()
    for tag in glossary.find_all(["dt", "dd"], recursive=False):
        if tag.name == "dt":
            names.add(tag["id"])
        else:
            yield names
            names = set()


def test_the_page_of_symbols_has_every_equation_and_names_what_exists(repository):
    text = (repository / "book" / "notation.md").read_text()
    labels = set(re.findall(r"\((eq-[\w-]+)\)=", "".join(texts(repository).values())))
    assert labels == set(re.findall(r"\]\((eq-[\w-]+)\)", text))
    tables, _, modules = text.partition("## Modules")
    names = re.findall(r"`([a-z_]+(?:\.\w+)+)`", tables)
    assert len(names) > 30
    rows = re.findall(r"^\| `quantskew\.(\w+)` \| (.*) \|$", modules, re.MULTILINE)
    package_of = {module: package for package, listed in rows for module in re.findall(r"\w+", listed)}
    assert package_of.keys() == {name.partition(".")[0] for name in names}
    for name in names:
        assert exists(f"{package_of[name.partition('.')[0]]}.{name}"), name


def exists(name):
    """Whether the package has a module, a function, or an attribute of a class by that name."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["quantskew", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if part in getattr(found, "__dataclass_fields__", {}):
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_symbols_of_the_papers_equations_are_explained(repository):
    text = (repository / "book" / "notation.md").read_text()
    for symbol in (
        *("D_g", "M", "x_i", "y_i", "y_{ig}", "G", "C", "\\theta", "K", "f_\\theta(x_i)", "z_g", "\\sigma"),
        *("p_\\theta(x_i)", "L(\\theta; D)", "\\theta_o", "\\theta_q", "\\tilde\\theta_q", "S", "T", "I"),
        *("Acc(\\theta, D_g)", "CD(A, B)", "DTDB_{i,g}", "x_c", "\\nabla L", "H", "\\lambda_{\\max}", "a_g"),
    ):
        assert any(symbol in shown for shown in re.findall(r"\$([^$]+)\$", text)), symbol


def test_how_to_cite_says_what_the_citation_file_says(repository):
    text = (repository / "book" / "cite.md").read_text()
    cited = yaml.safe_load((repository / "CITATION.cff").read_text())
    fields = dict(re.findall(r"(\w+) = \{+([^{}]+)\}+", text))
    assert fields["title"] == cited["title"]
    assert fields["author"] == cited["authors"][0]["name"]
    package = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert fields["version"] == cited["version"] == package["version"]
    assert fields["year"] == yaml.safe_load((repository / "_config.yml").read_text())["copyright"]
    library = (repository / "book" / "references.bib").read_text()
    paper = library.partition("@misc{bellam2025")[2].partition("\n}")[0]
    assert cited["references"][0]["title"] in paper
    assert cited["references"][0]["identifiers"][0]["value"].removeprefix("arXiv:") in paper


def test_every_picture_has_words(pages):
    for path, page in pages.items():
        for picture in page.find("main").find_all("img"):
            if picture.find_previous_sibling("img"):
                # The right half of what is cut for small screens: the left one has the words of the whole.
                assert picture["alt"] == "", path
                continue
            assert len(picture.get("alt", "")) > 40, path
            assert "_images" not in picture["alt"], path
        for figure in page.find("main").find_all("figure"):
            assert figure.find("figcaption").text.strip(), path


def test_a_page_with_all_its_pictures_weighs_little(pages, built_book):
    for path, page in pages.items():
        pictures = {tag["src"] for tag in page.find_all("img") if local(tag["src"])}
        files = [built_book / path, *((built_book / path).parent / picture for picture in pictures)]
        assert sum(file.stat().st_size for file in files) <= 1_500_000, path


def test_every_chapter_of_the_chain_has_one_control_and_no_widget(chapters_of_the_book):
    chain = [stage.chapter for stage in (*flow.QUESTION, *flow.FORWARD, *flow.BACKWARD)]
    assert len(chain) == 7
    for name in chain:
        assert len(chapters_of_the_book[name].find_all("fieldset", class_="bit-width")) == 1, name
    for name, page in chapters_of_the_book.items():
        assert "vnd.jupyter.widget" not in str(page), name


def test_no_glued_number_is_undefined(pages):
    for path, page in pages.items():
        assert "nan [" not in page.text, path


def test_pages_have_a_language_a_title_and_no_jump_in_their_headings(pages):
    titles = [page.find("title").text for page in pages.values()]
    assert len(set(titles)) == len(titles)
    for path, page in pages.items():
        assert page.find("html")["lang"] == "en"
        levels = [int(tag.name[1]) for tag in page.select("article :is(h1, h2, h3, h4, h5, h6)")]
        assert path == "search.html" or levels.count(1) == 1, path
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), path


@needs_browser
def test_mathematics_is_set_without_a_network(built_book, open_in_browser):
    page = open_in_browser(built_book / "book" / "chapters" / "01_weights.html")
    page.wait_for_function("document.querySelectorAll('mjx-container').length > 5")
    assert page.locator("mjx-container").count() == page.locator(".math").count()
    assert page.locator("mjx-merror").count() == 0
    assert page.seen == []


@needs_browser
def test_search_finds_a_word_without_a_network(built_book, open_in_browser):
    page = open_in_browser(built_book / "search.html")
    page.goto((built_book / "search.html").as_uri() + "?q=sparsity")
    for path in ("book/chapters/01_weights.html", "book/glossary.html"):
        page.wait_for_selector(f"#search-results a[href*='{path}']")
    # It would show a passage of each page, which a browser does not let it read from disk.
    assert [seen for seen in page.seen if seen.startswith("request:")] == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", [*PAGES, "search.html"])
def test_a_page_is_whole_and_can_be_used_by_everybody(path, scheme, built_book, open_in_browser):
    page = open_in_browser(built_book / path, color_scheme=scheme)
    assert page.seen == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_viewport_size({"width": 1100, "height": 900})
    # Last: axe itself asks for the style sheets again, which a browser refuses on a page from disk.
    assert [found for found in grave(page) if found != OF_SPHINX] == []


@needs_browser
def test_choosing_a_precision_changes_every_picture_of_every_control(built_book, open_in_browser):
    controls = {path for path in PAGES if (built_book / path).read_text().count('class="bit-width"')}
    assert len(controls) == 8
    # Where the page computes itself, pictures are for paper.
    for path in controls - {PLAYGROUND}:
        page = open_in_browser(built_book / path)
        before = pictures(page)
        page.click(".bit-width label:has-text('int2')")
        after = pictures(page)
        assert len(before) == len(after) > 0, path
        assert set(before).isdisjoint(after), path
        assert page.seen == [], path


@needs_browser
def test_the_playground_computes_in_the_page(built_book, open_in_browser):
    page = open_in_browser(built_book / PLAYGROUND)
    page.wait_for_selector(".live-gallery p")
    page.click(".live-choice label:text-is('balanced_digits')")
    page.wait_for_function("document.querySelector('.live-summary').textContent.startsWith('balanced')")
    assert pictures(page) == []
    assert page.seen == []
    for name in ("digits", "balanced_digits"):
        assert (built_book / "_static" / f"{name}.js").stat().st_size <= 600_000
