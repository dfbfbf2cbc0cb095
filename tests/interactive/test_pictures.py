"""Pictures inside of a page: few colours, words, axes that do not move, and radio buttons over them."""

import io
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from quantskew.figures.style import compare
from quantskew.interactive.pictures import beside, png, radio_page, share_frame, shown


def drawn(points, log=False):
    def draw(values, axes):
        if values:
            axes.plot(values, range(len(values)), marker="o")
        if log:
            axes.set_xscale("log")

    return compare(draw, {"points": points}, height=2, legend=False, width=3)


def opened(content):
    return Image.open(io.BytesIO(content))


def test_a_picture_has_few_colours_and_looks_as_drawn():
    figure = drawn([1, 2, 3])
    picture = opened(png(figure))
    assert picture.format == "PNG"
    assert len(picture.getcolors()) <= 64
    whole = io.BytesIO()
    figure.savefig(whole, dpi=160)
    difference = np.asarray(picture.convert("RGB"), float) - np.asarray(
        opened(whole.getvalue()).convert("RGB")
    )
    assert np.abs(difference).mean() < 1
    assert len(png(figure)) < len(whole.getvalue()) / 2


def test_the_same_figure_is_the_same_bytes():
    assert png(drawn([1, 2, 3])) == png(drawn([1, 2, 3]))


def test_an_image_has_its_words_and_the_size_of_the_figure():
    table = pd.DataFrame({"int4": ["0.50"]}, index=["a"])
    html = shown(png(drawn([1, 2])), 'a "b" < c', "d & e", table)
    assert re.match(
        r'<figure><img alt="a &quot;b&quot; &lt; c" width="330" height="220" src="data:image/png;base64,',
        html,
    )
    assert "<figcaption>d &amp; e</figcaption>" in html
    assert "<td>0.50</td>" in html


def test_pictures_in_a_row_are_as_wide_as_all_of_them():
    one, other = png(drawn([1, 2])), png(plt.figure(figsize=(1, 2)))
    plt.close()
    row = opened(beside([one, other]))
    assert row.size == (opened(one).width + 160, opened(one).height)


def test_a_frame_has_room_for_the_data_of_every_figure():
    figures = [drawn([1, 2, 3]), drawn([10, 200, 3000])]
    places = [figure.axes[0].get_position().bounds for figure in figures]
    lows, highs = zip(*(figure.axes[0].get_xlim() for figure in figures), strict=True)
    share_frame(figures)
    for figure in figures:
        assert figure.axes[0].get_xlim() == (min(lows), max(highs))
    first, second = (figure.axes[0].get_position().bounds for figure in figures)
    assert first == second
    assert first not in places


def test_axes_without_data_take_the_limits_of_the_others():
    figures = [drawn([], log=True), drawn([100, 1000], log=True)]
    expected = figures[1].axes[0].get_xlim()
    share_frame(figures)
    assert [figure.axes[0].get_xlim() for figure in figures] == [pytest.approx(expected)] * 2


def test_a_frame_stays_as_it_is_for_a_figure_that_is_fitted_to_it():
    frame = [drawn([1, 2, 3]), drawn([2, 30])]
    share_frame(frame)
    places = [(own.axes[0].get_position().bounds, own.axes[0].get_xlim()) for own in frame]
    for points in ([1, 2, 30000000], [2, 3]):
        fitted = drawn(points)
        own = fitted.axes[0].get_xlim()
        share_frame([fitted], frame)
        assert [
            (figure.axes[0].get_position().bounds, figure.axes[0].get_xlim()) for figure in frame
        ] == places
        (place, (low, high)) = places[0]
        assert fitted.axes[0].get_position().bounds == place
        assert fitted.axes[0].get_xlim() == (min(own[0], low), max(own[1], high))


PANELS = {"fp32": "<p>whole</p>", "int4": "<p>four</p>", 'W8"A8': "<p>both</p>"}


class Elements(HTMLParser):
    """All elements with their attributes, and whether every one is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.found, self.open = [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("input", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_each_panel_has_a_labelled_radio_button_of_one_group():
    elements = Elements(radio_page("Accuracy", PANELS, "int4"))
    radios = elements.all("input")
    assert [radio["value"] for radio in radios] == list(PANELS)
    assert ["checked" in radio for radio in radios] == [False, True, False]
    assert len({radio["name"] for radio in radios}) == 1
    assert [label["for"] for label in elements.all("label")] == [radio["id"] for radio in radios]
    assert len(elements.all("legend")) == 1


def test_two_controls_do_not_share_a_group_and_the_same_one_is_the_same_text():
    one, other = (
        radio_page("Accuracy", PANELS, "int4"),
        radio_page("Accuracy", {**PANELS, "fp32": "else"}, "int4"),
    )
    assert one == radio_page("Accuracy", PANELS, "int4")
    names = [set(re.findall(r'name="([^"]+)"', html)) for html in (one, other)]
    assert names[0].isdisjoint(names[1])


def test_every_radio_button_shows_its_own_panel():
    html = radio_page("Accuracy", PANELS, "int4")
    shown = re.findall(r"#([\w-]+):checked ~ \.bit-width-panels > :nth-child\((\d)\)", html)
    radios = Elements(html).all("input")
    assert shown == [(radio["id"], str(place)) for place, radio in enumerate(radios, 1)]


def test_nothing_is_loaded_and_nothing_is_run():
    html = radio_page("Accuracy", PANELS, "int4")
    assert not re.search(r"https?:|<script|<link|@import|url\(|\son\w+=", html)


def test_a_choice_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="unknown panel 'int3'; known: fp32, int4"):
        radio_page("Accuracy", PANELS, "int3")
