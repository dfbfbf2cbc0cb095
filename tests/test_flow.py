"""The map of the impact flow, as text, as links and as a picture."""

import re

import pytest

from quantskew import flow


def test_the_readers_place_is_marked_and_not_a_link():
    html = flow.Map("logits")._repr_html_()
    assert html.count("aria-current") == 1
    assert 'href="02_logits.html"' not in html
    assert set(re.findall(r'href="(\w+)\.html"', html)) == {
        s.chapter for s in flow.FORWARD + flow.BACKWARD if s.chapter and s.name != "logits"
    }


def test_unknown_place_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="known: weights, logits"):
        flow.Map("activations")


def test_every_linked_chapter_exists(repository):
    for stage in flow.FORWARD + flow.BACKWARD:
        if stage.chapter is not None:
            assert (repository / "notebooks" / f"{stage.chapter}.md").exists()


def test_the_picture_names_every_stage():
    (axes,) = flow.picture().axes
    shown = {text.get_text() for text in axes.texts}
    assert {stage.name for stage in flow.FORWARD + flow.BACKWARD} <= shown
