"""The control: numbers of what is chosen, made once; alive in a kernel, radio buttons in a page."""

import base64
import io
import re
import time

import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from PIL import Image

import samples
from quantskew.audits.model import audit_model
from quantskew.interactive import live_model
from quantskew.interactive.control import bit_width, playground
from quantskew.interactive.live_model import LiveModel
from quantskew.interactive.views import CHAIN, VIEWS
from quantskew.measures import fairness, forward
from quantskew.quantization.quantizer import Quantizer

WIDGET = "application/vnd.jupyter.widget-view+json"


class MadeModel:
    """Stands for a trained model: a random Audit a scheme, and a list of what was asked."""

    def __init__(self):
        self.asked = []

    def audit(self, quantizer, surface, reference):
        self.asked.append((quantizer.name, surface))
        seed = ("banner", "symmetric", "mse").index(quantizer.scheme)
        precisions = dict.fromkeys((reference, quantizer.name))
        return samples.random_audit(precisions=tuple(precisions), seed=seed)


@pytest.fixture
def audits():
    return {
        "live": samples.random_audit(precisions=("fp32", "int8", "int4", "int2")),
        "record": samples.random_audit(precisions=("fp32", "int4", "int2"), seed=5, groups=4),
    }


@pytest.fixture
def model():
    return MadeModel()


@pytest.fixture
def control(audits, model):
    return bit_width("accuracy", audits, model)


@pytest.fixture
def reader(audits):
    return bit_width("accuracy", audits)


def value(table, row, precision):
    own = table[(table["group"] == row) & (table["precision"] == precision)]
    return own["value"].item()


def chosen(control, **choice):
    """What is shown after a choice, as HTML."""
    control.choose(**choice)
    assert control._status.value == ""
    return control._area.value


def test_it_begins_at_the_papers_precision_or_the_lowest(audits):
    assert bit_width("accuracy", audits).choice == {"precision": "int4"}
    few = {title: audit.select(["fp32", "int2"]) for title, audit in audits.items()}
    assert bit_width("accuracy", few).choice == {"precision": "int2"}


def test_what_is_read_are_the_numbers_of_the_audits(control, reader, audits, model):
    reader.choose(precision="int2")
    for own, precision in ((control, "int4"), (reader, "int2")):
        for title, table in own.numbers.items():
            pair = audits[title].select(["fp32", precision])
            assert value(table, "FVO", precision) == fairness.fvo(pair)["value"].iloc[1]
            assert value(table, "group 1", "fp32") == forward.group_accuracy(pair)["value"].iloc[1]
    assert model.asked == []
    assert len(reader.widget.children) == 3


def test_with_a_choice_the_first_column_is_computed_and_the_second_is_read(control, audits):
    control.choose(precision="int2", scheme="mse")
    made = samples.random_audit(precisions=("fp32", "int2"), seed=2)
    assert value(control.numbers["live"], "FVO", "int2") == fairness.fvo(made)["value"].iloc[1]
    read = fairness.fvo(audits["record"].select(["fp32", "int2"]))
    assert value(control.numbers["record"], "FVO", "int2") == read["value"].iloc[1]


def test_what_was_computed_is_not_computed_again(control, model):
    first = chosen(control, precision="int2")
    chosen(control, scheme="mse")
    assert chosen(control, scheme="banner") == first
    assert control.numbers["live"] is control.numbers["live"]
    assert model.asked == [("int2", None), ("int2:mse", None)]


def test_a_precision_that_a_record_lacks_is_said(control):
    assert "record has no int8" in chosen(control, precision="int8")
    assert list(control.numbers) == ["live"]


def test_the_scheme_of_a_column_is_not_in_the_name_of_its_button(audits, model):
    names = {"fp32": "fp32", "int4": "int4:mse", "int2": "int2:mse"}
    named = audits | {"live": audits["record"].select(["fp32", "int4", "int2"])}
    object.__setattr__(named["live"], "precisions", tuple(names.values()))
    own = bit_width("loss", named, model, "mse")
    assert own.widget.children[0].options == tuple(names)
    assert "live, int4: group 0" in own._repr_mimebundle_()["text/html"]
    assert model.asked == []


def test_what_the_view_needs_of_the_loss_surface_is_asked_for(curved_audit, model):
    own = bit_width("gradients", {"live": curved_audit}, model)
    own.choose(precision="int8")
    assert model.asked == [("int8", "gradients")]


def test_a_picture_is_described_by_its_numbers(control):
    alts = re.findall(r'alt="([^"]+)"', chosen(control, precision="int2", scheme="mse"))
    assert alts[0].startswith("Accuracy of each group, live, int2, mse: overall accuracy 0.")
    assert alts[1].startswith("Accuracy of each group, record, int2: overall accuracy 0.")
    for alt, table in zip(alts, control.numbers.values(), strict=True):
        for row in ("FVO", "group 0", "group 1", "group 2"):
            assert f"{row} {value(table, row, 'int2'):.2f}" in alt


def test_floating_point_has_no_scheme(control):
    assert "live, fp32:" in chosen(control, precision="fp32", scheme="mse")


def test_the_headline_and_the_table_have_intervals(control, audits):
    html = chosen(control, precision="int2")
    fvo = fairness.fvo(audits["record"].select(["fp32", "int2"])).iloc[1]
    cell = f"{fvo['value']:.2f} [{fvo['low']:.2f}, {fvo['high']:.2f}]"
    assert f"FVO: {cell}</figcaption>" in html
    assert f"<td>{cell}</td>" in html


def test_markup_in_a_title_is_text(audits):
    html = chosen(bit_width("loss", {"<b>live": audits["live"]}), precision="int2")
    assert "<b>live" not in html
    assert "&lt;b&gt;live" in html


def test_every_panel_of_a_view_is_another_picture_of_the_same_size(control):
    htmls = [chosen(control, precision=own) for own in ("fp32", "int8", "int2")]
    tags = [re.search(r'<img [^>]+src="([^"]+)"', html) for html in htmls]
    sizes = {re.sub(r'(alt|src)="[^"]*"', "", tag[0]) for tag in tags}
    assert len({tag[1] for tag in tags}) == 3
    assert len(sizes) == 1


def test_a_choice_recomputes_figure_and_numbers_from_the_model(digits_audit, digits_model, digits):
    control = bit_width("accuracy", {"live": digits_audit}, LiveModel("digits"))
    before = chosen(control, precision="int3", scheme="mse")
    expected = audit_model(digits_model, digits, ["fp32", "int3:mse"]).plain()
    shown = control.numbers["live"]
    assert value(shown, "FVO", "int3") == fairness.fvo(expected)["value"].iloc[1]
    assert value(shown, "FVO", "int3") != value(VIEWS["accuracy"].numbers(digits_audit), "FVO", "int3")
    assert f"FVO {value(shown, 'FVO', 'int3'):.2f}" in before
    after = chosen(control, precision="int2")
    assert "live, int2, mse: overall accuracy" in after
    assert after != before


def test_at_the_scheme_of_the_chapter_the_model_gives_the_numbers_of_the_chapter(digits_audit):
    control = bit_width("accuracy", {"live": digits_audit}, LiveModel("digits"))
    control.choose(precision="int2")
    pair = digits_audit.select(["fp32", "int2"])
    assert control.numbers["live"].equals(VIEWS["accuracy"].numbers(pair))


def test_what_goes_wrong_is_shown_beside_the_buttons(audits):
    class Broken:
        def audit(self, *choice):
            raise RuntimeError("no <memory> left")

    control = bit_width("accuracy", audits, Broken())
    control.choose(precision="int2")
    assert 'role="alert"' in control._status.value
    assert "RuntimeError: no &lt;memory&gt; left" in control._status.value


def test_there_must_be_something_to_choose(audits):
    with pytest.raises(ValueError, match="none was given"):
        bit_width("accuracy", {})
    with pytest.raises(ValueError, match="unknown scheme 'best'; known: banner"):
        bit_width("accuracy", audits, scheme="best")
    with pytest.raises(
        ValueError, match="unknown view 'accuracies'; known: accuracy, weights, logits, bound"
    ):
        bit_width("accuracies", audits)
    with pytest.raises(ValueError, match="unknown precision 'int3'; known: fp32, int8, int4, int2"):
        bit_width("accuracy", audits).choose(precision="int3")


def test_it_has_a_form_for_a_kernel_one_for_a_page_and_one_for_paper(reader):
    bundle = reader._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png", WIDGET}
    words = "Accuracy of each group at int4 (of fp32, int8, int4, int2): live, record"
    assert bundle["text/plain"] == words
    assert len(re.findall(r'<input type="radio"[^>]+ checked>', bundle["text/html"])) == 1
    # The record has one precision less.
    assert len(re.findall(r'<img alt="[^"]{40,}"', bundle["text/html"])) == 7
    assert base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG"


def test_the_page_and_the_picture_are_the_same_on_every_build(audits):
    first, second = (bit_width("loss", audits)._repr_mimebundle_() for _ in range(2))
    for form in ("text/plain", "text/html", "image/png"):
        assert first[form] == second[form]


def test_every_button_is_named(audits):
    control = bit_width("accuracy", audits, LiveModel("digits"))
    precision, scheme, *_ = control.widget.children
    assert (precision.description, scheme.description) == ("Precision", "Scheme")
    assert precision.options == ("fp32", "int8", "int4", "int2")


@pytest.fixture
def small(digits_model):
    # The fixture has trained what this takes from the cache.
    return playground(["digits"], ["fp32", "int4", "int2"])


def test_the_playground_begins_with_the_papers_quantizer(small):
    assert small.choice == {
        "experiment": "digits",
        "precision": "int4",
        "scheme": "banner",
        "grid": "per tensor",
        "first_and_last_layer": "as the others",
        "batch_norm": "kept",
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
    assert small.numbers["digits"].equals(CHAIN.numbers(expected))
    assert f"FVO {fairness.fvo(expected)['value'].iloc[1]:.2f}" in small._area.value
    assert all(str(value) in small._area.value for value in choice.values())


def test_what_the_playground_has_computed_is_not_computed_again(small, monkeypatch):
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
    seeds = playground(["digits", "balanced_digits"], ["fp32", "int2"])
    seeds.choose(experiment="balanced_digits")
    other = live_model.LiveModel("balanced_digits").audit("int2")
    assert seeds.numbers["balanced_digits"].equals(CHAIN.numbers(other))


def test_unknown_choices_are_refused_with_the_known_ones(small):
    with pytest.raises(ValueError, match="unknown choice 'bits'; known: experiment, precision, scheme"):
        small.choose(bits=2)
    with pytest.raises(ValueError, match="unknown precision 'int5'; known: fp32, int4, int2"):
        small.choose(precision="int5")
    with pytest.raises(ValueError, match="needs an experiment and a precision"):
        playground([])
    with pytest.raises(ValueError, match="unknown experiment 'digit'"):
        playground(["digit"])


def test_what_goes_wrong_in_the_playground_is_shown_beside_its_buttons(small, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no <memory> left")

    monkeypatch.setattr(live_model.LiveModel, "audit", fail)
    small.choose(precision="int2")
    assert 'role="alert"' in small._status.value
    assert "RuntimeError: no &lt;memory&gt; left" in small._status.value


def test_the_playground_has_a_form_for_a_kernel_one_for_a_page_and_one_for_paper(small):
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
        == playground(["digits"], ["fp32", "int4", "int2"])._repr_mimebundle_()["text/html"]
    )


def test_a_choice_draws_the_same_whatever_was_chosen_before(small):
    small.choose(precision="int2", scheme="mse")
    direct = playground(["digits"], ["fp32", "int4", "int2"])
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


CELL = """
from quantskew.experiments import catalogue
from quantskew.interactive.control import bit_width
from quantskew.interactive.live_model import LiveModel
audits = {"live: digits": catalogue.audit("digits", ["fp32", "int4", "int2"])}
control = bit_width("accuracy", audits, LiveModel("digits"))
control
"""


class Kernel:
    """A live kernel, and what a browser would know of it: the messages of its widgets."""

    def __init__(self, client):
        self.client, self.widgets, self.shown, self.printed = client, {}, None, ""

    def run(self, code):
        """Execute a cell and read on until it is done."""
        self._until_idle(self.client.execute(code))

    def send(self, model, **state):
        """What the browser sends after a click."""
        data = {"method": "update", "state": state, "buffer_paths": []}
        message = self.client.session.msg("comm_msg", {"comm_id": model, "data": data})
        self.client.shell_channel.send(message)
        self._until_idle(message["header"]["msg_id"])

    def find(self, **state):
        """The widget whose state has these values."""
        (found,) = [key for key, own in self.widgets.items() if state.items() <= own.items()]
        return found

    def _until_idle(self, request):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            message = self.client.get_iopub_msg(timeout=300)
            content = message["content"]
            if message["msg_type"] == "comm_open":
                self.widgets[content["comm_id"]] = dict(content["data"]["state"])
            elif message["msg_type"] == "comm_msg":
                self.widgets[content["comm_id"]] |= content["data"].get("state", {})
            elif message["msg_type"] == "execute_result":
                self.shown = content["data"]
            elif message["msg_type"] == "stream":
                self.printed += content["text"]
            elif message["msg_type"] == "error":
                raise AssertionError("\n".join(content["traceback"]))
            elif content.get("execution_state") == "idle" and message["parent_header"]["msg_id"] == request:
                return
        raise AssertionError("the kernel was not idle within 300 s")


@pytest.fixture
def kernel(digits_model, monkeypatch):
    # The model comes from the cache of this run.
    monkeypatch.setenv("TQDM_DISABLE", "1")
    manager, client = start_new_kernel()
    yield Kernel(client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_click_in_a_live_kernel_moves_the_figure(kernel, digits_model, digits):
    kernel.run(CELL)
    box = kernel.widgets[kernel.shown[WIDGET]["model_id"]]
    area = box["children"][-1].removeprefix("IPY_MODEL_")
    before = kernel.widgets[area]["value"]
    assert "live: digits, int4: overall accuracy" in before
    precision = kernel.find(_model_name="ToggleButtonsModel", description="Precision")
    assert kernel.widgets[precision]["_options_labels"] == ["fp32", "int4", "int2"]
    kernel.send(precision, index=2)
    scheme = kernel.find(_model_name="ToggleButtonsModel", description="Scheme")
    kernel.send(scheme, index=1)
    after = kernel.widgets[area]["value"]
    expected = audit_model(digits_model, digits, ["fp32", "int2:symmetric"]).plain()
    gap = fairness.fvo(expected)["value"].iloc[1]
    assert "live: digits, int2, symmetric: overall accuracy" in after
    assert f"FVO {gap:.2f}" in after
    pictures = [re.search(r'src="data:image/png;base64,([^"]+)"', html)[1] for html in (before, after)]
    assert pictures[0] != pictures[1]
    kernel.run("print(control.numbers['live: digits'].query('group == \"FVO\"')['value'].iloc[-1])")
    assert float(kernel.printed) == pytest.approx(gap)
