"""The gate: what its language says, decides and writes, against values read off the tables."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import norm

import samples
from quantskew.audits.audit import Audit
from quantskew.measures.fairness import fvo
from quantskew.measures.forward import cosine_distance, group_accuracy, group_loss
from quantskew.measures.gate import Outcome, annotation, conditions, decide, junit, parse
from quantskew.measures.measure import pooled

COLUMNS = ("fp32", "int8", "int2:mse")


@pytest.fixture(scope="module")
def audit():
    shares = {"fp32": [0.9, 0.8, 0.9], "int8": [0.9, 0.75, 0.85], "int2:mse": [0.5, 0.4, 0.9]}
    return samples.exact_audit(shares, count=200)


def failed(text, audit, **options):
    (condition,) = conditions([text], audit.precisions)
    return decide(condition, audit, **options).failed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy_change < -0.39", True),
        ("accuracy_change < -0.41", False),
        ("accuracy_change[worst] < -0.049 at int8", True),
        ("accuracy_change[worst] < -0.051 at int8", False),
        ("accuracy_change[group 0] < -0.01 at int8", False),
        ("accuracy_change[group 1] <= -0.04 at int8", True),
        ("  accuracy [group 2]  >  0.84 at   int8 ", True),
        ("group_accuracy < 0.41", True),
        ("group_accuracy < 0.41 at int2", True),
        ("accuracy > 0.89 at fp32", True),
        ("accuracy_change[all] < -0.03 at int8", True),
        ("accuracy_change[all] < -0.034 at int8", False),
        ("overall_accuracy >= 0.8 at int8", True),
        ("fvo > 0.4", True),
        ("fvo > 0.51", False),
        ("fvo_change > 4.9e-2 at int8", True),
        ("fvo_change < 0", False),
    ],
)
def test_conditions_are_decided_by_the_values_of_the_tables(text, expected, audit):
    assert failed(text, audit) is expected


def test_every_measure_can_be_named_and_is_read_off_its_table(audit):
    for name, measure in (
        ("loss", group_loss),
        ("group_loss", group_loss),
        ("cosine_distance", cosine_distance),
    ):
        table = measure(audit)
        most = table[table["precision"] != "fp32"]["value"].max()
        assert failed(f"{name} > {most - 1e-6:.9f}", audit)
        assert not failed(f"{name} > {most + 1e-6:.9f}", audit)
    whole = group_loss(pooled(audit))["value"].to_numpy()
    assert failed(f"loss[all] > {whole[1] - 1e-6:.9f} at int8", audit)


def test_confidence_is_that_of_the_whole_interval_and_wider_for_more_rows(audit):
    table = fvo.change(audit).set_index("precision")
    low, value = table.loc["int8", ["low", "value"]]
    for bound, value_met, met in (
        (low - 0.001, True, True),
        (low + 0.001, True, False),
        (value + 0.01, False, False),
    ):
        assert failed(f"fvo_change > {bound:.6f} at int8", audit) is value_met
        assert failed(f"fvo_change > {bound:.6f} at int8", audit, confidently=True) is met
    table = group_accuracy.change(audit).set_index(["group", "precision"])
    value, high = table.loc[("group 1", "int8"), ["value", "high"]]
    assert failed(f"accuracy_change[group 1] < {high + 1e-4:.6f} at int8", audit, confidently=True)
    assert not failed(f"accuracy_change[group 1] < {high - 1e-4:.6f} at int8", audit, confidently=True)
    rows = group_accuracy.change(audit).query("precision == 'int8'")
    wider = norm.ppf(1 - 0.025 / 3) / norm.ppf(0.975)
    most = (rows["value"] + wider * (rows["high"] - rows["value"])).min()
    assert failed(f"accuracy_change < {most + 1e-4:.6f} at int8", audit, confidently=True)
    assert not failed(f"accuracy_change < {most - 1e-4:.6f} at int8", audit, confidently=True)


def test_a_sentence_says_what_was_found_where(audit):
    own = decide(parse("accuracy_change < -0.01 at int8"), audit)
    low, high = group_accuracy.change(audit).loc[1, ["low", "high"]]
    assert own.failed
    assert own.sentence == (
        f"FAILED: {own.condition}: met, it is -0.0500 [{low:.4f}, {high:.4f}] of group 1 at int8"
    )
    passed = decide(parse("fvo > 0.9"), audit, confidently=True).sentence
    assert passed.startswith("passed: fvo > 0.9: confidently not met, it is 0.5000 [")
    assert passed.endswith("] at int2:mse")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy_change", "is not understood: write MEASURE"),
        ("fvo_change > 2 %", "is not understood"),
        ("fvo_change > 1.2.3", "is not understood"),
        ("fvo_change > 0.1 and loss > 3", "is not understood"),
        ("__import__('os').remove('x') > 1", "is not understood"),
        ("nowhere.txt", "is not understood"),
        ("accuracies < 0.1", "unknown measure in condition 'accuracies < 0.1' 'accuracies'; known: "),
        ("fvo[group 1] > 0.1", "fvo is of the whole model"),
        (
            "accuracy < 0.1 at int4",
            "unknown column in condition 'accuracy < 0.1 at int4' 'int4'; known: fp32, int2",
        ),
    ],
)
def test_wrong_conditions_are_refused_before_there_is_an_audit(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        conditions([text], COLUMNS)


def test_a_change_needs_something_to_compare():
    with pytest.raises(ValueError, match="needs a column beside the reference fp32"):
        conditions(["fvo_change > 0"], ["fp32"])
    alone = samples.exact_audit({"fp32": [0.9, 0.5]})
    assert failed("fvo > 0.3", alone)


def test_what_an_audit_cannot_decide_is_refused_and_does_not_pass(audit):
    with pytest.raises(ValueError, match=r"group in condition .* 'group 9'; known: group 0, gr"):
        failed("accuracy[group 9] < 0.1", audit)
    with pytest.raises(ValueError, match="this Audit has no "):
        failed("lambda_max > 1", audit)
    uneven = samples.uneven_audit()
    with pytest.raises(ValueError, match="cannot be decided: this Audit has no value for it"):
        failed("accuracy_change[none] < 0.1", uneven)
    with pytest.raises(ValueError, match="cannot be decided: this Audit has no interval for it"):
        failed("loss_change[one] > 0", uneven, confidently=True)
    # A group without images does not hide the others.
    assert failed("accuracy < 1.1", uneven)


def test_names_from_outside_are_names(audit):
    names = ("a] < 3", "x > 1 at b", "100 % [west]")
    columns = dict(zip(audit.precisions, audit.logits, strict=True))
    named = Audit.from_logits(columns, audit.labels, audit.groups, names)
    assert failed("accuracy[a] < 3] < 0.95 at int8", named)
    assert not failed("accuracy[x > 1 at b] > 0.95", named)
    assert failed("accuracy[100 % [west]] < 0.86 at int8", named)


def test_a_file_has_a_condition_a_line(tmp_path):
    path = tmp_path / "gate.txt"
    path.write_text("# what we promise\n\nfvo_change > 0.02\n  accuracy < 0.5 at int8\n", encoding="utf-8")
    found = conditions([str(path), "loss > 9"], COLUMNS)
    assert [own.text for own in found] == ["fvo_change > 0.02", "accuracy < 0.5 at int8", "loss > 9"]
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="a gate that looks at nothing cannot fail"):
        conditions([str(path)], COLUMNS)
    assert conditions([], COLUMNS) == []


def test_junit_counts_and_escapes():
    told = [Outcome("a < 1", True, 'FAILED: "<x>" & \x01\x0c日本'), Outcome("b < 1", False, "passed")]
    suite = ElementTree.fromstring(junit(told))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    first, second = suite
    assert first.get("name") == "a < 1"
    assert first[0].get("message") == 'FAILED: "<x>" & ��日本'
    assert len(second) == 0


def test_annotations_stay_on_one_line():
    assert annotation(Outcome("c", False, "a\nb\r::error::")) == (
        "::notice title=quantskew gate::a%0Ab%0D::error::"
    )


def test_nan_never_passes():
    logits = np.zeros((2, 4, 2), np.float32)
    audit = Audit.from_logits({"a": logits[0], "b": logits[1]}, [0] * 4, [0] * 4)
    with pytest.raises(ValueError, match="no value"):
        failed("fvo > 0.1", audit)
