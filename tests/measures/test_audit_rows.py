"""An Audit as tidy rows: every group and measure, with the values of the tables that they come from."""

import numpy as np
import pytest

import samples
from quantskew.measures import fairness, forward
from quantskew.measures.measure import audit_rows, audited


@pytest.fixture
def audit():
    return samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=200, train_counts=[9, 1])


def test_each_precision_group_and_measure_has_one_row(audit):
    rows = audit_rows(audit)
    assert not rows.duplicated(["precision", "group", "measure"]).any()
    assert len(rows) == 2 * (2 * 10 + 2)
    assert set(rows.loc[rows["group"] == "all", "measure"]) == {"accuracy", "fvo"}
    assert dict(zip(rows["group"], rows["trained_on"], strict=True)) == {
        audit.group_names[0]: 9,
        audit.group_names[1]: 1,
        "all": 10,
    }


def test_values_are_those_of_the_tables(audit):
    rows = audit_rows(audit).set_index(["measure", "precision", "group"])["value"]
    accuracy = forward.group_accuracy(audit).set_index(["precision", "group"])["value"]
    for key, value in accuracy.items():
        assert rows["accuracy", *key] == value
    np.testing.assert_array_equal(rows["fvo"], fairness.fvo(audit)["value"])


def test_an_audit_is_named_by_experiment_seed_and_method(audit):
    facts = {"experiment": {"name": "digits", "recipe": {"seed": 3}}}
    audit.provenance.update(facts)
    assert audited(audit) == "digits seed 3"
    audit.provenance["method"] = {"key": "mpqat"}
    assert audited(audit) == "digits seed 3 mpqat"
