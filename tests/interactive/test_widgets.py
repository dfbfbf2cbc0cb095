"""The bit-width control: alive in process and in a kernel, still in a page, a picture elsewhere."""

import base64
import re
import time

import pytest
from jupyter_client.manager import start_new_kernel

import samples
from quantskew.audits.model import audit_model
from quantskew.interactive import views
from quantskew.interactive.live_model import LiveModel
from quantskew.interactive.widgets import bit_width
from quantskew.measures import fairness

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def audits():
    record = samples.random_audit(precisions=("fp32", "int4", "int2"), seed=5, groups=4)
    return {"live": samples.random_audit(precisions=("fp32", "int4", "int2")), "record": record}


def value(table, row, precision):
    own = table[(table["group"] == row) & (table["precision"] == precision)]
    return own["value"].item()


def test_it_begins_at_the_papers_precision_or_the_lowest(audits):
    assert bit_width(views.ACCURACY, audits).value == "int4"
    assert bit_width(views.ACCURACY, audits, precisions=["fp32", "int2"]).value == "int2"


def test_a_choice_recomputes_figure_and_numbers_from_the_model(digits_audit, digits_model, digits):
    control = bit_width(views.ACCURACY, {"live": digits_audit}, LiveModel("digits"))
    control.value = "int3"
    control.scheme = "mse"
    expected = audit_model(digits_model, digits, ["fp32", "int3:mse"]).plain()
    shown = control.numbers["live"]
    assert value(shown, "FVO", "int3") == fairness.fvo(expected)["value"].iloc[1]
    assert value(shown, "FVO", "int3") != value(views.ACCURACY.numbers(digits_audit), "FVO", "int3")
    before = control._area.value
    assert f"FVO {value(shown, 'FVO', 'int3'):.2f}" in before
    control.value = "int2"
    assert "live, int2, mse: overall accuracy" in control._area.value
    assert control._area.value != before


def test_at_the_scheme_of_the_chapter_the_model_gives_the_numbers_of_the_chapter(digits_audit):
    control = bit_width(views.ACCURACY, {"live": digits_audit}, LiveModel("digits"))
    control.value = "int2"
    assert control.numbers["live"].equals(views.ACCURACY.numbers(digits_audit.select(["fp32", "int2"])))


def test_without_a_model_a_choice_reads_the_audits(audits):
    control = bit_width(views.ACCURACY, audits)
    control.value = "int2"
    for title, table in control.numbers.items():
        assert value(table, "FVO", "int2") == fairness.fvo(audits[title])["value"].iloc[2]
    assert len(control.widget.children) == 3


def test_what_goes_wrong_is_shown_beside_the_buttons(audits):
    class Broken:
        def audit(self, *choice):
            raise RuntimeError("no <memory> left")

    control = bit_width(views.ACCURACY, audits, Broken())
    control.value = "int2"
    assert 'role="alert"' in control._status.value
    assert "RuntimeError: no &lt;memory&gt; left" in control._status.value


def test_there_must_be_something_to_choose(audits):
    with pytest.raises(ValueError, match="none was given"):
        bit_width(views.ACCURACY, {})
    with pytest.raises(ValueError, match="no Audit has 'int3', and there is no model"):
        bit_width(views.ACCURACY, audits, precisions=["fp32", "int3"])
    with pytest.raises(ValueError, match="unknown scheme 'best'; known: banner"):
        bit_width(views.ACCURACY, audits, scheme="best")
    with pytest.raises(ValueError, match="there is no 'int3' to choose; there are fp32, int4, int2"):
        bit_width(views.ACCURACY, audits).value = "int3"


def test_it_has_a_form_for_a_kernel_one_for_a_page_and_one_for_paper(audits):
    bundle = bit_width(views.ACCURACY, audits)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png", WIDGET}
    assert bundle["text/plain"] == "Accuracy of each group at int4 (of fp32, int4, int2): live, record"
    assert len(re.findall(r'<input type="radio"[^>]+ checked>', bundle["text/html"])) == 1
    assert len(re.findall(r'<img alt="[^"]{40,}"', bundle["text/html"])) == 6
    assert base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG"


def test_the_page_and_the_picture_are_the_same_on_every_build(audits):
    first, second = (bit_width(views.LOSS, audits)._repr_mimebundle_() for _ in range(2))
    for form in ("text/plain", "text/html", "image/png"):
        assert first[form] == second[form]


def test_every_button_is_named(audits):
    control = bit_width(views.ACCURACY, audits, LiveModel("digits"))
    precision, scheme, *_ = control.widget.children
    assert (precision.description, scheme.description) == ("Precision", "Scheme")
    assert precision.options == ("fp32", "int4", "int2")


CELL = """
from quantskew.interactive import views
from quantskew.experiments import experiments
from quantskew.interactive.live_model import LiveModel
from quantskew.interactive.widgets import bit_width
audits = {"live: digits": experiments.audit("digits", ["fp32", "int4", "int2"])}
control = bit_width(views.ACCURACY, audits, LiveModel("digits"))
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
