import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import oracles
import samples
from quantskew.audits.audit import Audit
from quantskew.measures import forward


def test_losses_equal_the_definition_and_torch():
    audit = samples.random_audit()
    expected = [
        [
            -math.log(oracles.probabilities(z.tolist())[label])
            for z, label in zip(rows, audit.labels, strict=True)
        ]
        for rows in audit.logits
    ]
    np.testing.assert_allclose(forward.group_loss.of_samples(audit), expected, rtol=1e-9)
    for row, rows in enumerate(torch.from_numpy(audit.logits).double()):
        by_torch = functional.cross_entropy(rows, torch.from_numpy(audit.labels), reduction="none")
        np.testing.assert_allclose(forward.group_loss.of_samples(audit)[row], by_torch, rtol=1e-12)


def test_group_losses_weighted_by_counts_give_torch_s_mean():
    audit = samples.random_audit()
    table = forward.group_loss(audit)
    for row, precision in enumerate(audit.precisions):
        own = table[table["precision"] == precision]
        overall = functional.cross_entropy(
            torch.from_numpy(audit.logits[row]).double(), torch.from_numpy(audit.labels)
        )
        assert (own["value"] * own["count"]).sum() / 120 == pytest.approx(float(overall))
        masked = oracles.group_means(forward.group_loss.of_samples(audit)[row], audit.groups, 3)
        np.testing.assert_allclose(own["value"], masked)


def test_a_certain_mistake_has_a_finite_loss():
    audit = Audit.from_logits({"a": [[1e4, 0.0]]}, [1], [0])
    assert forward.group_loss(audit)["value"].tolist() == [1e4]
