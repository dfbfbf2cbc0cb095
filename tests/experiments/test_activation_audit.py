"""The Audit of weights, activations and both, column by column."""

import numpy as np
import pytest
import torch

from quantskew.audits.model import audit_models, calibration_images
from quantskew.datasets import normalise
from quantskew.experiments import catalogue
from quantskew.quantization.ptq import quantize_model
from quantskew.training import loop

NAMES = catalogue.ACTIVATION_COLUMNS
QUICK = catalogue.get("digits", epochs=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(folder, monkeypatch):
    """A cache that the tests here share."""
    monkeypatch.setenv("QUANTSKEW_CACHE", str(folder))
    return folder


@pytest.fixture
def audit(cache):
    """After one epoch of training."""
    return catalogue.audit(QUICK, NAMES, device="cpu")


def entries(cache):
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}


def test_columns_are_weights_activations_and_both(audit, digits):
    assert audit.precisions == NAMES
    assert audit.logits.shape == (7, len(digits.test), 10)
    assert audit.train_counts.tolist() == digits.train.group_counts.tolist()
    assert audit.group_names == digits.group_names
    assert audit.provenance["experiment"]["recipe"]["epochs"] == 1
    assert audit.provenance["quantizers"] == list(NAMES)


def test_weights_alone_are_the_ordinary_audit(audit):
    plain = catalogue.audit(QUICK, ["fp32", "int8", "int4"], device="cpu")
    np.testing.assert_array_equal(audit.logits[:3], plain.logits)


def test_both_are_the_ordinary_audit_with_activations(audit):
    for row, bits in ((5, 8), (6, 4)):
        both = catalogue.audit(QUICK, ["fp32", f"W{bits}A{bits}"], device="cpu")
        np.testing.assert_array_equal(audit.logits[row], both.logits[1])


def test_activations_alone_leave_the_weights(audit, digits):
    model, _ = catalogue.trained(QUICK, digits, "cpu")
    expected = audit_models(model, {"A4": quantize_model(model, "A4", calibration_images(digits))}, digits)
    np.testing.assert_array_equal(audit.logits[4], expected.logits[0])
    difference = dict(zip(NAMES, audit.weights.absolute_difference.sum(axis=1), strict=True))
    assert (difference["fp32"], difference["A8"], difference["A4"]) == (0, 0, 0)
    assert 0 < difference["int8"] == difference["W8A8"] < difference["int4"] == difference["W4A4"]


def test_fewer_bits_and_both_are_further_from_the_float_model(audit, digits):
    change = dict(zip(NAMES, np.linalg.norm(audit.logits - audit.logits[0], axis=(1, 2)), strict=True))
    assert 0 == change["fp32"] < change["A8"] < change["A4"] < change["W4A4"]
    assert change["int8"] < change["W8A8"] < change["int4"]
    model, _ = catalogue.trained(QUICK, digits, "cpu")
    with torch.no_grad():
        expected = model(normalise(digits.test.images)).numpy()
    np.testing.assert_allclose(audit.logits[0], expected, rtol=1e-4, atol=1e-4)


def test_a_second_audit_comes_from_the_cache(audit, cache, monkeypatch):
    before = entries(cache)
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = catalogue.audit(QUICK, NAMES, device="cpu")
    np.testing.assert_array_equal(again.logits, audit.logits)
    assert again.provenance == audit.provenance
    assert entries(cache) == before


def test_other_columns_make_a_new_entry(audit, cache):
    before = entries(cache)
    catalogue.audit(QUICK, NAMES[:-1], device="cpu")
    (added,) = entries(cache).keys() - before.keys()
    assert added.parent.name == "audits"


def test_unknown_experiments_are_refused():
    with pytest.raises(ValueError, match="unknown experiment 'digit'; known: digits"):
        catalogue.audit("digit", NAMES)


def test_the_live_model_loses_little_at_eight_bits(digits_model):
    audit = catalogue.audit("digits", NAMES, device="cpu")
    accuracy = dict(zip(NAMES, (audit.predictions == audit.labels).mean(axis=1), strict=True))
    assert accuracy["W8A8"] == pytest.approx(accuracy["fp32"], abs=0.01)
    assert accuracy["W4A4"] > 0.8
