import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import oracles
import samples
from quantskew.audits.audit import Audit
from quantskew.measures import forward


def audit_of(*rows):
    """Two precisions whose samples are given as pairs of logits, all in one group."""
    reference, other = zip(*rows, strict=True)
    return Audit.from_logits({"fp32": reference, "int8": other}, [0] * len(rows), [0] * len(rows))


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 2.0], [3.0, 6.0], 0),
        ([1.0, 0.0], [0.0, 5.0], 1),
        ([1.0, -2.0], [-2.0, 4.0], 2),
        ([1e-30, 0.0], [1e30, 1e30], 1 - math.sqrt(0.5)),
        ([0.0, 0.0], [1.0, 2.0], math.nan),
        ([1.0, 2.0], [0.0, 0.0], math.nan),
    ],
)
def test_cosine_distance_cases(reference, other, expected):
    distance = forward.cosine_distance.of_samples(audit_of((reference, other)))[1, 0]
    assert distance == pytest.approx(expected, abs=1e-7, nan_ok=True)


def test_cosine_distance_equals_eq_7_and_torch():
    audit = samples.random_audit()
    distances = forward.cosine_distance.of_samples(audit)
    expected = [
        [oracles.cosine_distance(a, b) for a, b in zip(audit.logits[0].tolist(), rows.tolist(), strict=True)]
        for rows in audit.logits
    ]
    np.testing.assert_allclose(distances, expected, atol=1e-12)
    rows = torch.from_numpy(audit.logits).double()
    similarity = functional.cosine_similarity(rows[1], rows[0], dim=1)
    np.testing.assert_allclose(distances[1], 1 - similarity.numpy(), atol=1e-12)
    assert (distances[0] == 0).all()


@pytest.mark.parametrize("factor", [2.0**-40, 0.3, 7.0, 2.0**30])
def test_cosine_distance_does_not_see_scale(factor):
    audit = samples.random_audit()
    scaled = dict(
        zip(audit.precisions, audit.logits * np.float32([1, factor, factor])[:, None, None], strict=True)
    )
    scaled = Audit.from_logits(scaled, audit.labels, audit.groups)
    np.testing.assert_allclose(
        forward.cosine_distance.of_samples(scaled), forward.cosine_distance.of_samples(audit), atol=1e-6
    )


def test_small_angles_keep_their_digits():
    audit = audit_of(([1.0, 0.0], [1.0, 2.0**-20]))
    assert forward.cosine_distance(audit)["value"][1] == pytest.approx(2.0**-41, rel=1e-6)


def test_null_logits_are_left_out_and_counted():
    audit = audit_of(([1.0, 0.0], [0.0, 3.0]), ([1.0, 1.0], [0.0, 0.0]), ([0.0, 0.0], [1.0, 0.0]))
    np.testing.assert_array_equal(forward.null_logits(audit), [[False, False, True], [False, True, False]])
    reference, other = forward.cosine_distance(audit).itertuples()
    assert (other.value, other.count, other.undefined) == (pytest.approx(1), 1, 2)
    assert (reference.value, reference.count, reference.undefined) == (0, 2, 1)
    assert forward.l1_distance(audit)["count"].tolist() == [3, 3]


def test_distances_equal_torch():
    audit = samples.random_audit()
    rows, groups = torch.from_numpy(audit.logits).double(), audit.groups
    for table, power in ((forward.l1_distance(audit), 1), (forward.l2_distance(audit), 2)):
        for row, precision in enumerate(audit.precisions):
            norms = torch.linalg.vector_norm(rows[row] - rows[0], power, dim=1).tolist()
            own = table[table["precision"] == precision]
            np.testing.assert_allclose(own["value"], oracles.group_means(norms, groups, 3), atol=1e-12)


def test_variance_equals_eq_9():
    audit = samples.random_audit()
    expected = oracles.by_sample(oracles.variance, audit.logits)
    np.testing.assert_allclose(forward.logit_variance.of_samples(audit), expected, rtol=1e-12)
    table = forward.logit_variance(audit)
    for row, precision in enumerate(audit.precisions):
        own = table[table["precision"] == precision]
        np.testing.assert_allclose(own["value"], oracles.group_means(expected[row], audit.groups, 3))
