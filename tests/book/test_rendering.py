"""The Sphinx extension: buttons, downloads and long tables, without a build."""

from types import SimpleNamespace

import nbformat
import pytest
from docutils import nodes
from sphinx.errors import ConfigError

from quantskew.book import rendering

PAGE = "book/chapters/02_logits"
ADDRESS = "https://github.com/me/skew"


def app(repository, outdir=None, builder="html"):
    config = SimpleNamespace(html_theme_options={"repository_url": repository, "repository_branch": "dev"})
    return SimpleNamespace(config=config, outdir=outdir, builder=SimpleNamespace(format=builder))


def buttons(page, repository, doctree=True):
    context = {"header_buttons": []}
    rendering.add_buttons(app(repository), page, "page.html", context, doctree)
    shown = [button for group in context["header_buttons"] for button in group["buttons"]]
    return {button["text"]: button["url"] for button in shown}


def test_a_page_with_an_address_has_buttons():
    assert list(buttons(PAGE, ADDRESS)) == ["Source", "Binder", "Colab"]
    assert "/blob/dev/notebooks/02_logits.md" in buttons(PAGE, ADDRESS)["Source"]


def test_without_an_address_or_a_source_there_are_none():
    assert buttons(PAGE, "") == {}
    assert buttons("search", ADDRESS, doctree=None) == {}


def test_a_wrong_address_stops_the_build_before_it_begins():
    with pytest.raises(ConfigError, match="must be empty or"):
        rendering.check_repository(app("https://example.org/a/b"))


def test_thebe_is_left_out_and_nothing_else():
    def script(filename, **attributes):
        return SimpleNamespace(filename=filename, attributes=attributes)

    kept = [script("doctools.js"), script(None, body="let a = 1")]
    context = {
        "script_files": [script("sphinx-thebe.js"), *kept, script(None, body="const THEBE_JS_URL = 1")]
    }
    rendering.drop_thebe(None, PAGE, "page.html", context, None)
    assert context["script_files"] == kept


def test_a_downloaded_notebook_fetches_the_package_once(tmp_path):
    path = tmp_path / "_sources" / f"{PAGE}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Logits")]), path)
    rendering.prepare_downloads(app("", tmp_path), None)
    assert len(nbformat.read(path, as_version=4).cells) == 1
    for _ in range(2):
        rendering.prepare_downloads(app(ADDRESS, tmp_path), None)
    first, title = nbformat.read(path, as_version=4).cells
    assert f"--depth 1 {ADDRESS} quantskew\n    %cd quantskew\n" in first.source
    assert title.source == "# Logits"


def test_what_scripts_read_is_laid_beside_them(tmp_path):
    built, chapters = tmp_path / "html", tmp_path / "book" / "chapters"
    for folder in (built / "_static", chapters):
        folder.mkdir(parents=True)
    (chapters / "digits.js").write_text("1")
    own = app("", built)
    own.srcdir = tmp_path
    rendering.copy_files(own, None)
    assert (built / "_static" / "digits.js").read_text() == "1"


def table(rows):
    body = nodes.tbody()
    for row in rows:
        body += nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in row))
    columns = [nodes.colspec(colwidth=1) for _ in rows[0]]
    return nodes.table("", nodes.tgroup("", *columns, body))


@pytest.mark.parametrize(
    ("rows", "builder", "widths"), [(40, "latex", [8, 40]), (40, "html", [1, 1]), (5, "latex", [1, 1])]
)
def test_columns_of_long_tables_have_widths_by_their_words_in_a_pdf(rows, builder, widths):
    made = table([["a", "word " * 20]] * rows)
    rendering.fit_tables(app("", builder=builder), nodes.section("", made), "page")
    assert [column["colwidth"] for column in made.findall(nodes.colspec)] == widths
    assert ("colwidths-given" in made["classes"]) == (widths != [1, 1])
