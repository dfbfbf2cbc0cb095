"""Names from outside are text wherever they come out: pages, figures, tables and controls."""

import csv
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import samples
from quantskew import report
from quantskew.audits.audit import Audit
from quantskew.book import prose
from quantskew.claims.effects import BASE
from quantskew.claims.register import judged
from quantskew.figures import lines, style
from quantskew.interactive.control import bit_width
from quantskew.measures import forward
from quantskew.sweeps.grid import Cell

NAMES = (
    "<script>alert(1)</script>", "$0-$25k", r"$\frac{1$", "=cmd()", "@sum", "-north", "\"'quotes'&",
    "two\nlines", "x" * 200, "日本", "العربية", "ಕನ್ನಡ",
)  # fmt: skip


@pytest.fixture(scope="module")
def named():
    rng, groups = np.random.default_rng(0), np.arange(240) % len(NAMES)
    logits = rng.normal(size=(240, 3)).astype(np.float32)
    columns = {"fp32": logits, "int4": logits + rng.normal(size=logits.shape)}
    return Audit.from_logits(columns, rng.integers(0, 3, 240), groups, NAMES, NAMES[:3])


def no_tags(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_report_is_written_without_a_warning_and_its_tables_hold_no_formula(named, tmp_path):
    named.provenance["experiment"] = {"name": NAMES[2]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = report.write_report(named, tmp_path)
    assert {path.suffix for path in written} == {".safetensors", ".csv", ".png"}
    for path in written:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                table = list(csv.DictReader(file))
            for cell in (cell for row in table for cell in row.values()):
                assert re.fullmatch(r"-?[\d.e+-]+", cell) or not cell.startswith(("=", "+", "-", "@"))
            if table[0].get("group"):
                assert {row["group"].removeprefix("'") for row in table} <= {*NAMES, "all"}
    assert Audit.load(written[0]).group_names == NAMES


def test_words_of_a_figure_are_no_mathematics_and_short(named):
    figure = style.compare(lines.of(forward.group_accuracy), {NAMES[1]: named}, height=4.5)
    figure.draw_without_rendering()
    texts = figure.findobj(Text)
    assert not any(text.get_parse_math() for text in texts)
    words = [text.get_text() for text in texts]
    assert max(map(len, "\n".join(words).splitlines())) <= 60
    assert any(word.startswith("$0-$25k (") for word in words)


def test_long_names_that_differ_in_their_middle_stay_apart():
    names = [f"{'x' * 100}{number}{'x' * 100}" for number in range(50)]
    words = {style.legible(name) for name in names}
    assert len(words) == 50
    assert {len(word) for word in words} == {56}


@pytest.mark.parametrize("place", [*NAMES, "../../up", "/etc/x", "a" * 5000, ".", "\0"])
def test_the_folder_of_a_cell_has_a_plain_short_name_of_its_own(place):
    own = Cell("audit", {"experiment": "folder", "data_dir": place}, {"data_dir": None})
    assert re.fullmatch(r"[A-Za-z0-9][\w.-]{0,79}", own.id, re.ASCII)
    other = Cell("audit", {"experiment": "folder", "data_dir": f"{place} "}, {"data_dir": None})
    assert own.id != other.id


def test_a_scorecard_escapes_names():
    audits = samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=200, train_counts=[9, 1])
    tables = dict.fromkeys(NAMES, judged({BASE: [audits] * 2}, ["fvo_grows", "dtdb_left"]))
    for shown in (prose.linked(tables), prose.show(prose.counts(tables))):
        no_tags(shown.to_html())
        assert "$0-$25k" in shown.to_html()


def test_pages_escape_names(named):
    table = pd.DataFrame({"group": NAMES, NAMES[0]: 0.5}, index=NAMES)
    for shown in (prose.show(table), prose.captioned(NAMES[0], table)):
        no_tags(shown._repr_html_())
        no_tags(shown._repr_markdown_())
    assert len(prose.show(table)._repr_markdown_().splitlines()) == len(NAMES) + 2


def test_a_control_escapes_names(named):
    chosen = bit_width("accuracy", {NAMES[0]: named})
    no_tags(chosen._repr_mimebundle_()["text/html"])
