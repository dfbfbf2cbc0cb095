"""The page of a report: complete, escaped, legible, and the same numbers as the tables."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import browser
import samples
from quantskew import report
from quantskew.audits.audit import Audit
from quantskew.figures import lines, style
from quantskew.measures import fairness, forward, harm

RUNTIMES = (
    "fp32",
    "int8",
    "W8A8:per-channel",
    "ort:fp32",
    "ort:static-int8",
    "ort:dynamic-int8",
    "torchao:int4",
)
NAMES = ("<script>alert(1)</script>", 'a "name" | of *some* length\nin two lines', "$x$ & <b>")


def one_line(name):
    return " ".join(name.split())


class Read(HTMLParser):
    """Tags, words and tables of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.words, self.open = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        self.open = tag in ("th", "td")

    def handle_endtag(self, tag):
        self.open = False

    def handle_data(self, data):
        self.words += data
        if self.open:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def audit():
    made = samples.random_audit(samples=600, precisions=RUNTIMES)
    columns = dict(zip(RUNTIMES, made.logits, strict=True))
    return Audit.from_logits(columns, made.labels, made.groups, NAMES, provenance={"source": NAMES[0]})


@pytest.fixture(scope="module")
def page(audit, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write_page(audit, path)
    return path


def test_the_page_says_the_verdict_first_and_needs_nothing_else(page, audit):
    read = Read(page.read_text(encoding="utf-8"))
    assert ("html", {"lang": "en"}) in read.tags
    assert read.words.index(harm.verdict(harm.harm(audit))) < read.words.index("Worst group")
    assert not {"script", "link", "iframe", "b"} & {tag for tag, _ in read.tags}
    sources = [own.get("src") or own.get("href") for _, own in read.tags if own.keys() & {"src", "href"}]
    assert all(source.startswith("data:") for source in sources)
    assert all(own["alt"] for tag, own in read.tags if tag == "img")
    assert len([tag for tag, _ in read.tags if tag == "img"]) >= 6
    assert all(table[0][0] in ("column", "group", "fact") for table in read.tables)


def test_a_page_to_send_carries_no_endless_list(audit, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_LISTED", 2)
    report.write_page(audit, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    content = re.search(r'download="flips.csv" href="data:text/csv;base64,([^"]+)"', text)[1]
    assert len(pd.read_csv(io.BytesIO(base64.b64decode(content)))) == 2
    assert f"The first 2 of {len(harm.flips(audit)):,} flips; all are in the folder" in text


def test_its_numbers_are_those_of_the_tables(page, audit):
    read = Read(page.read_text(encoding="utf-8"))
    worst, changes, beside = read.tables[:3]
    accuracy = forward.group_accuracy(audit).set_index(["precision", "group"])["value"]
    for row, gap in zip(worst[1:], fairness.fvo(audit)["value"], strict=True):
        assert row[2].startswith(f"{accuracy[row[0]].min():.3f} [")
        assert one_line(accuracy[row[0]].idxmin()) == row[1]
        assert row[3].startswith(f"{gap:.3f} [")
    table = harm.harm(audit)
    table = table.assign(group=table["group"].map(one_line)).set_index(["group", "precision"])
    assert len(changes) - 1 == len(table)
    for row in changes[1:]:
        own = table.loc[(row[0], row[1])]
        assert [float(row[4]), int(row[6]), int(row[7])] == [
            round(100 * own["value"], 1),
            own["harmed"],
            own["helped"],
        ]
    pairs = {(row[1], row[8]) for row in beside[1:]}
    assert pairs == {
        ("ort:fp32", "fp32"), ("ort:static-int8", "int8"), ("ort:static-int8", "W8A8:per-channel"),
        ("ort:dynamic-int8", "int8"), ("ort:dynamic-int8", "W8A8:per-channel"),
    }  # fmt: skip


def test_lists_can_be_saved_and_hold_no_formula(page, audit):
    links = dict(re.findall(r'download="([\w.]+)" href="data:text/csv;base64,([^"]+)"', page.read_text()))
    flips = pd.read_csv(io.BytesIO(base64.b64decode(links["flips.csv"])))
    assert len(flips) == len(harm.flips(audit))
    assert set(flips["flip"]) == {"harmed", "helped"}
    assert len(pd.read_csv(io.BytesIO(base64.b64decode(links["harm.csv"])))) == 18


def test_markdown_has_the_same_words_and_no_markup_from_outside(audit, tmp_path):
    report.write_page(audit, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Audit of logits\n\n> ")
    assert "<script" not in text.replace(r"\<script", "")
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("| $x$")]
    assert rows
    assert {len(row) for row in rows} <= {9, 10, 13}


def test_doubts_stand_before_the_verdict(audit, tmp_path):
    facts = {"warnings": ["bgr <would> score better"], "runtimes_left_out": {"ort:fp32": "it needs onnx"}}
    told = replace(audit.select(["fp32", "int8"]), provenance=facts)
    report.write_page(told, tmp_path / "report.md")
    lines = (tmp_path / "report.md").read_text().split("\n\n")
    assert lines[1] == r"> Warning: bgr \<would\> score better"
    assert lines[2].startswith("> No harm") or lines[2].startswith("> Harm")
    assert lines[4] == "Left out: it needs onnx"


def test_one_column_alone_has_a_page(tmp_path):
    report.write_page(samples.random_audit().select(["fp32"]), tmp_path / "report.html")
    assert "There is nothing to compare" in (tmp_path / "report.html").read_text()


@browser.needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_the_page_is_accessible_and_fits(page, width, scheme, open_in_browser):
    opened = open_in_browser(page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.grave(opened) == []


def test_names_of_seven_runtimes_do_not_overlap(audit):
    for draw, legend in (
        (lines.of(forward.group_accuracy), True),
        (lines.fvo, False),
        (lines.of(forward.l1_distance), False),
    ):
        figure = style.compare(draw, {"x": audit}, 4, legend)
        figure.draw_without_rendering()
        axes, *_ = figure.axes
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        # Turned names run in parallel: their ends are more than a line apart.
        ends = [box.x1 for box in boxes]
        assert min(np.diff(ends)) > 10
        inside, legends = figure.get_window_extent(), [*figure.legends, *filter(None, [axes.get_legend()])]
        shown = [*axes.get_xticklabels(), axes.xaxis.label, axes.yaxis.label]
        for text in [*shown, *(text for legend in legends for text in legend.get_texts())]:
            own = text.get_window_extent()
            assert inside.x0 - 1 < own.x0 < own.x1 < inside.x1 + 1, text
            assert inside.y0 - 1 < own.y0 < own.y1 < inside.y1 + 1, text


def test_columns_without_an_order_are_not_joined(audit):
    for columns, joined in ((RUNTIMES, False), (("fp32", "int8", "W8A8:per-channel"), True)):
        figure = style.compare(lines.of(forward.group_accuracy), {"x": audit.select(columns)})
        drawn = {
            line.get_linestyle() for line in figure.axes[0].lines if len(line.get_xdata()) == len(columns)
        }
        assert (drawn == {"None"}) is not joined
    figure = style.compare(lines.fvo, {"x": audit})
    assert all(line.get_marker() != "None" for line in figure.axes[0].lines)


def test_the_axis_is_that_of_the_data_where_these_take_little_of_it():
    close = samples.exact_audit({"fp32": [0.9, 0.88], "int8": [0.89, 0.86]}, count=2000)
    axes = style.compare(lines.of(forward.group_accuracy), {"x": close}).axes[0]
    low, high = axes.get_ylim()
    table = forward.group_accuracy(close)
    assert table["low"].min() - 0.01 < low < table["low"].min()
    assert table["high"].max() < high < table["high"].max() + 0.01
    far = samples.exact_audit({"fp32": [0.9, 0.88], "int2": [0.89, 0.2]})
    assert style.compare(lines.of(forward.group_accuracy), {"x": far}).axes[0].get_ylim() == (-0.03, 1.03)


def test_many_groups_are_summarised_by_those_that_lose_most_and_least():
    audit = samples.random_audit(samples=4000, groups=30, precisions=("fp32", "int8"))
    few = style.summarised(audit)
    change = forward.group_accuracy.change(audit).set_index("group")["value"].sort_values(kind="stable")
    assert set(few.group_names) - {"20 others"} == {*change.index[:5], *change.index[-5:]}
    assert few.group_counts.sum() == 4000
    assert few.train_counts.tolist() == few.group_counts.tolist()
    both = forward.group_accuracy(audit), forward.group_accuracy(few)
    one, other = (own.set_index(["group", "precision"])["value"] for own in both)
    for key in other.index:
        if key[0] in audit.group_names:
            assert other[key] == one[key]
    left = [place for place, name in enumerate(audit.group_names) if name not in few.group_names]
    own = np.isin(audit.groups, left)
    assert other[("20 others", "int8")] == pytest.approx((audit.predictions[1] == audit.labels)[own].mean())
    assert style.summarised(samples.random_audit()).group_names == samples.random_audit().group_names
