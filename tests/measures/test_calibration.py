"""Calibration, KL divergence and flips against loops over images, scikit-learn and torch."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from torch.nn import functional

import oracles
import samples
from quantskew.audits.audit import Audit
from quantskew.measures import fairness
from quantskew.measures.forward import calibration_error, group_accuracy, kl_divergence, top_probability
from quantskew.measures.harm import harm


def binned(confidence, right):
    """Expected calibration error, bin by bin."""
    error = 0.0
    for number in range(15):
        own = [k for k, c in enumerate(confidence) if min(int(c * 15), 14) == number]
        if own:
            gap = sum(confidence[k] for k in own) / len(own) - sum(right[k] for k in own) / len(own)
            error += len(own) / len(confidence) * abs(gap)
    return error


def made(count, temperature, rng):
    """An Audit of one group whose logits of two classes are too large by this factor."""
    size = np.abs(rng.normal(0, 2, count))
    right = rng.random(count) < 1 / (1 + np.exp(-size / temperature))
    return Audit.from_logits(
        {"made": np.stack([size, 0 * size], axis=1)}, np.where(right, 0, 1), np.zeros(count, dtype=int)
    )


def test_calibration_is_that_of_a_loop_over_bins():
    audit = samples.random_audit(samples=300)
    table = calibration_error(audit)
    table = table.set_index(["precision", "group"])
    for row, precision in enumerate(audit.precisions):
        for group, name in enumerate(audit.group_names):
            own = audit.groups == group
            logits = audit.logits[row, own].astype(float).tolist()
            right = (audit.predictions[row] == audit.labels)[own].tolist()
            expected = binned([max(oracles.probabilities(z)) for z in logits], right)
            found = table.loc[precision, name]
            assert found["value"] == pytest.approx(expected, abs=1e-12)
            assert (found["low"] <= found["value"] <= found["high"], found["count"]) == (True, own.sum())


def test_calibration_is_that_of_scikit_learns_curve():
    audit = made(500, 2.0, np.random.default_rng(0))
    confidence = top_probability.of_samples(audit)[0]
    right = audit.predictions[0] == audit.labels
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    share = np.bincount((confidence * 15).astype(int), minlength=15) / len(confidence)
    expected = (share[share > 0] * np.abs(accuracy - mean)).sum()
    assert calibration_error(audit)["value"].item() == pytest.approx(expected)


@pytest.mark.parametrize(("temperature", "count"), [(1.0, 60), (2.0, 300)])
def test_the_interval_has_the_error_of_endless_images_and_0_where_there_is_none(temperature, count):
    rng, hits, zeros = np.random.default_rng(0), 0, 0
    endless = calibration_error(made(10**5, temperature, rng))["value"].item()
    for _ in range(30):
        row = calibration_error(made(count, temperature, rng)).iloc[0]
        hits += row["low"] <= endless <= row["high"]
        zeros += row["low"] == 0
    assert hits >= 26
    assert zeros > 22 if temperature == 1 else zeros < 8


def test_a_change_of_calibration_is_on_the_same_images():
    rng = np.random.default_rng(0)
    audit = made(400, 2.0, rng)
    pair = {"fp32": audit.logits[0], "hotter": audit.logits[0] * 1.5}
    both = Audit.from_logits(pair, audit.labels, audit.groups)
    change, table = calibration_error.change(both).iloc[0], calibration_error(both)
    assert change["value"] == pytest.approx(table["value"][1] - table["value"][0])
    assert change["low"] < change["value"] < change["high"]
    assert change["high"] - change["low"] < 0.6 * (table["high"] - table["low"]).max()


def test_the_same_seed_draws_the_same_and_groups_are_apart():
    audit = samples.random_audit(samples=300)
    alone = Audit.from_logits(
        dict(zip(audit.precisions, audit.logits[:, audit.groups == 1], strict=True)),
        audit.labels[audit.groups == 1],
        np.zeros((audit.groups == 1).sum(), dtype=int),
    )
    names = ["value", "low", "high"]
    whole = calibration_error(audit).query("group == 'group 1'")[names].to_numpy()
    np.testing.assert_allclose(calibration_error(alone)[names], whole, rtol=1e-12)


def test_kl_divergence_is_torchs():
    audit = samples.random_audit()
    logs = torch.log_softmax(torch.from_numpy(audit.logits).double(), dim=2)
    expected = functional.kl_div(logs, logs[:1].expand_as(logs), reduction="none", log_target=True).sum(2)
    np.testing.assert_allclose(kl_divergence.of_samples(audit), expected.numpy(), atol=1e-12)
    extreme = Audit.from_logits({"a": [[1e4, 0.0]], "b": [[0.0, 1e4]]}, [0], [0])
    assert kl_divergence(extreme)["value"].tolist() == [0, 1e4]


def test_flips_both_ways_make_the_change_of_accuracy():
    audit = samples.random_audit(samples=300)
    harmed, helped = (measure(audit).iloc[3:] for measure in (fairness.harmed, fairness.helped))
    change = group_accuracy.change(audit)["value"]
    np.testing.assert_allclose(helped["value"].to_numpy() - harmed["value"].to_numpy(), change)
    counted = harm(audit)
    for own, name in ((harmed, "harmed"), (helped, "helped")):
        assert (own["value"] * own["count"]).to_numpy() == pytest.approx(counted[name].to_numpy())
        assert (own["low"] < own["value"]).all()
        assert (own["value"] < own["high"]).all()
