"""The playground: every choice is measured from the model, once, and all three forms show it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from quantskew.audits.model import audit_model
from quantskew.interactive import live_model
from quantskew.interactive.chain import chain
from quantskew.interactive.playground import Playground
from quantskew.measures import fairness
from quantskew.quantization.quantizer import Quantizer

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def small(digits_model):
    # The fixture has trained what this takes from the cache.
    return Playground(["digits"], ["fp32", "int4", "int2"])


def gap(numbers, precision):
    return numbers.query("measure == 'fvo' and precision == @precision")["value"].item()


def test_it_begins_with_the_papers_quantizer(small):
    assert small.choice == {
        "experiment": "digits",
        "precision": "int4",
        "scheme": "banner",
        "grid": "per tensor",
        "first and last layer": "as the others",
        "batch norm": "kept",
    }


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        ({"scheme": "mse"}, {"scheme": "mse"}),
        ({"grid": "per channel"}, {"per_channel": True}),
        ({"first_and_last_layer": "int8"}, {"boundary_precision": "int8"}),
        ({"batch_norm": "folded"}, {"fold_batchnorm": True}),
    ],
)
def test_every_choice_reaches_the_quantizer(small, digits_model, digits, choice, options):
    small.choose(precision="int2", **choice)
    quantizers = Quantizer.each(["fp32", "int2"], **options)
    expected = audit_model(digits_model, digits, quantizers).plain()
    assert small.numbers.equals(chain(expected))
    assert f"FVO {fairness.fvo(expected)['value'].iloc[1]:.2f}" in small._area.value
    assert all(str(value) in small._area.value for value in choice.values())


def test_what_was_computed_is_not_computed_again(small, monkeypatch):
    seen = []

    def audit(model, data, precisions, *arguments, **options):
        seen.append(precisions)
        return audit_model(model, data, precisions, *arguments, **options)

    monkeypatch.setattr(live_model, "audit_model", audit)
    small.choose(precision="int2")
    first, made = small._area.value, len(seen)
    small.choose(precision="int4")
    small.choose(precision="int2")
    assert small._area.value == first
    assert len(seen) == made == len(set(map(tuple, seen)))


def test_experiments_can_be_chosen(digits_model):
    seeds = Playground(["digits", "balanced_digits"], ["fp32", "int2"])
    seeds.choose(experiment="balanced_digits")
    other = live_model.LiveModel("balanced_digits").audit("int2")
    assert seeds.numbers.equals(chain(other))


def test_unknown_choices_are_refused_with_the_known_ones(small):
    with pytest.raises(ValueError, match="unknown choice 'bits'; known: experiment, precision, scheme"):
        small.choose(bits=2)
    with pytest.raises(ValueError, match="there is no 'int5' to choose; there are fp32, int4, int2"):
        small.choose(precision="int5")
    with pytest.raises(ValueError, match="needs an experiment and a precision"):
        Playground([])
    with pytest.raises(ValueError, match="unknown experiment 'digit'"):
        Playground(["digit"])


def test_what_goes_wrong_is_shown_beside_the_buttons(small, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no <memory> left")

    monkeypatch.setattr(live_model.LiveModel, "audit", fail)
    small.choose(precision="int2")
    assert 'role="alert"' in small._status.value
    assert "RuntimeError: no &lt;memory&gt; left" in small._status.value


def test_it_has_a_form_for_a_kernel_one_for_a_page_and_one_for_paper(small):
    bundle = small._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png", WIDGET}
    assert re.findall(r'<input type="radio"[^>]+value="(\w+)"', bundle["text/html"]) == [
        "fp32",
        "int4",
        "int2",
    ]
    assert len(re.findall(r'<img alt="[^"]{100,}"', bundle["text/html"])) == 3
    assert (
        bundle["text/html"]
        == Playground(["digits"], ["fp32", "int4", "int2"])._repr_mimebundle_()["text/html"]
    )


def test_a_choice_draws_the_same_whatever_was_chosen_before(small):
    small.choose(precision="int2", scheme="mse")
    direct = Playground(["digits"], ["fp32", "int4", "int2"])
    small.choose(precision="int4", scheme="symmetric")
    direct.choose(scheme="symmetric")
    (words, first), (same_words, second) = apart(small._area.value), apart(direct._area.value)
    assert words == same_words
    assert np.abs(first - second).mean() < 0.01


def apart(html):
    """The words of what is shown, and the pixels of its picture."""
    (data,) = re.findall(r'base64,([^"]+)"', html)
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("L")
    return html.replace(data, ""), np.asarray(picture, float)
