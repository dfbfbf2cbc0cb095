"""The map of the impact flow, as text, and as links."""

import re

import pytest

from quantskew.figures import flow


def test_the_readers_place_is_marked_and_not_a_link():
    html = flow.Map("logits")._repr_html_()
    assert html.count("aria-current") == 1
    linked = re.findall(r'href="(\w+)\.md"', html)
    assert linked == [stage.chapter for stage in flow.STAGES if stage.name != "logits"]


@pytest.mark.parametrize("stage", flow.STAGES, ids=lambda stage: stage.name)
def test_every_chapter_of_the_map_has_the_map_at_its_head(stage, repository):
    text = (repository / "notebooks" / f"{stage.chapter}.md").read_text()
    head, _, _ = text.partition(":tags: [parameters]")
    assert f'Map("{stage.name}")' in head
    assert "Map(" not in text[len(head) :]


def test_unknown_place_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="known: problem, weights, logits"):
        flow.Map("activations")


def test_a_link_is_solid_where_its_verdict_holds():
    figure = flow.links({("a", "b"): "holds", ("c", "d"): "tie", ("e", "f"): "fails"})
    (axes,) = figure.axes
    assert [text.arrow_patch.get_linestyle() for text in axes.texts if text.get_text() == ""] == [
        "-",
        "--",
        "--",
    ]
    assert {"a", "b", "holds", "tie", "fails"} <= {text.get_text() for text in axes.texts}
