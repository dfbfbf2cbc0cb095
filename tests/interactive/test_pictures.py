"""Pictures inside of a page: few colours, words, and axes that do not move."""

import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from quantskew.figures.style import compare
from quantskew.interactive.pictures import beside, fit_frame, img, png, share_frame


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


def test_a_frame_stays_as_it_is_for_a_figure_that_is_fitted_to_it():
    frame = [drawn([1, 2, 3]), drawn([2, 30])]
    share_frame(frame)
    places = [(own.axes[0].get_position().bounds, own.axes[0].get_xlim()) for own in frame]
    for points in ([1, 2, 30000000], [2, 3]):
        fitted = drawn(points)
        own = fitted.axes[0].get_xlim()
        fit_frame(fitted, frame)
        assert [
            (figure.axes[0].get_position().bounds, figure.axes[0].get_xlim()) for figure in frame
        ] == places
        (place, (low, high)) = places[0]
        assert fitted.axes[0].get_position().bounds == place
        assert fitted.axes[0].get_xlim() == (min(own[0], low), max(own[1], high))
