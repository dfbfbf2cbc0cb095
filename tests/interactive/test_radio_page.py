"""The control of a page: one radio button a panel, and nothing from elsewhere."""

import re
from html.parser import HTMLParser

import pytest

from quantskew.interactive.pictures import control

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
    elements = Elements(control("Accuracy", PANELS, "int4"))
    radios = elements.all("input")
    assert [radio["value"] for radio in radios] == list(PANELS)
    assert ["checked" in radio for radio in radios] == [False, True, False]
    assert len({radio["name"] for radio in radios}) == 1
    assert [label["for"] for label in elements.all("label")] == [radio["id"] for radio in radios]
    assert len(elements.all("legend")) == 1


def test_two_controls_do_not_share_a_group_and_the_same_one_is_the_same_text():
    one, other = control("Accuracy", PANELS, "int4"), control("Accuracy", {**PANELS, "fp32": "else"}, "int4")
    assert one == control("Accuracy", PANELS, "int4")
    names = [set(re.findall(r'name="([^"]+)"', html)) for html in (one, other)]
    assert names[0].isdisjoint(names[1])


def test_every_radio_button_shows_its_own_panel():
    html = control("Accuracy", PANELS, "int4")
    shown = re.findall(r"#([\w-]+):checked ~ \.bit-width-panels > :nth-child\((\d)\)", html)
    radios = Elements(html).all("input")
    assert shown == [(radio["id"], str(place)) for place, radio in enumerate(radios, 1)]


def test_nothing_is_loaded_and_nothing_is_run():
    html = control("Accuracy", PANELS, "int4")
    assert not re.search(r"https?:|<script|<link|@import|url\(|\son\w+=", html)


def test_a_choice_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no panel 'int3'; there are fp32, int4"):
        control("Accuracy", PANELS, "int3")
