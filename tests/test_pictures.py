"""Pictures inside of a page: few colours, words, and axes that do not move."""

import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from quantskew.pictures import beside, img, png, share_frame
from quantskew.style import compare


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
    tag = img(png(drawn([1, 2])), 'a "b" < c')
    assert re.match(
        r'<img alt="a &quot;b&quot; &lt; c" width="330" height="220" src="data:image/png;base64,', tag
    )


def test_pictures_in_a_row_are_as_wide_as_all_of_them():
    one, other = png(drawn([1, 2])), png(plt.figure(figsize=(1, 1)))
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


def test_a_frame_that_is_fixed_stays_where_it_is():
    first = drawn([1, 2, 3])
    share_frame([first])
    place = first.axes[0].get_position().bounds
    share_frame([first, drawn([1, 2, 30000000])])
    assert first.axes[0].get_position().bounds == place
