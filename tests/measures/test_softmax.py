import numpy as np
import pytest
import torch

import oracles
import samples
from quantskew.audits.audit import Audit
from quantskew.measures import forward


def test_probabilities_equal_the_definition_and_torch():
    audit = samples.random_audit()
    expected = oracles.by_sample(oracles.probabilities, audit.logits)
    np.testing.assert_allclose(forward.probabilities(audit), expected, rtol=1e-12)
    by_torch = torch.softmax(torch.from_numpy(audit.logits).double(), dim=2)
    np.testing.assert_allclose(forward.probabilities(audit), by_torch, rtol=1e-12)


@pytest.mark.parametrize("logits", [[1e30, -1e30, 0.0], [-1e38, -1e38, -1e38], [1000.0, 1000.0, 0.0]])
def test_extreme_logits_have_probabilities(logits):
    audit = Audit.from_logits({"a": [logits]}, [0], [0])
    probabilities = forward.probabilities(audit)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1)


def test_samples_equal_their_oracles():
    audit = samples.random_audit()
    probabilities = oracles.by_sample(oracles.probabilities, audit.logits)
    own = [[row[label] for row, label in zip(rows, audit.labels, strict=True)] for rows in probabilities]
    np.testing.assert_allclose(forward.dtdb.of_samples(audit), own, rtol=1e-12)
    spread = [[oracles.variance(list(row)) for row in rows] for rows in probabilities]
    np.testing.assert_allclose(forward.softmax_variance.of_samples(audit), spread, rtol=1e-9)


@pytest.mark.parametrize(
    ("table", "measure"),
    [
        (forward.dtdb, lambda p, label: p[label]),
        (forward.top_probability, lambda p, label: max(p)),
        (forward.softmax_variance, lambda p, label: oracles.variance(p)),
    ],
)
def test_tables_are_group_means_of_the_samples(table, measure):
    audit = samples.random_audit()
    result = table(audit)
    for row, precision in enumerate(audit.precisions):
        values = [
            measure(oracles.probabilities(z.tolist()), label)
            for z, label in zip(audit.logits[row], audit.labels, strict=True)
        ]
        own = result[result["precision"] == precision]
        np.testing.assert_allclose(own["value"], oracles.group_means(values, audit.groups, 3))
        assert own["count"].tolist() == audit.group_counts.tolist()


def test_knowing_nothing_and_everything():
    audit = Audit.from_logits({"a": [[3.0] * 4, [0.0, 900.0, 0.0, 0.0]]}, [1, 1], [0, 1])
    assert forward.dtdb(audit)["value"].tolist() == [0.25, 1]
    assert forward.softmax_variance(audit)["value"].tolist() == pytest.approx([0, 3 / 16])


def test_the_histogram_holds_every_sample_once():
    audit = samples.random_audit()
    table = forward.dtdb_histogram(audit, bins=8)
    distances = forward.dtdb.of_samples(audit)
    assert len(table) == 3 * 3 * 8
    for (group, precision), own in table.groupby(["group", "precision"]):
        row, number = audit.precisions.index(precision), audit.group_names.index(group)
        values = distances[row, audit.groups == number]
        inside = [
            ((values >= left) & (values < right)).mean()
            for left, right in zip(own["left"], own["right"], strict=True)
        ]
        np.testing.assert_allclose(own["value"], inside, atol=1e-12)
        assert own["value"].sum() == pytest.approx(1)
        assert (own["count"] == len(values)).all()
