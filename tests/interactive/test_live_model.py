"""A live model gives the Audits that `audit_model` gives, and makes each part of them once."""

import numpy as np
import pytest

from quantskew.audits.model import audit_model
from quantskew.datasets import normalise
from quantskew.derivatives.gradients import group_gradient_norms
from quantskew.derivatives.hessian import top_eigenvalues
from quantskew.interactive import live_model
from quantskew.measures import fairness
from quantskew.quantization.ptq import quantize_model


@pytest.fixture(scope="module")
def model(digits_model):
    # The fixture has trained what this takes from the cache.
    return live_model.LiveModel("digits")


@pytest.mark.parametrize("scheme", ["banner", "mse"])
def test_it_is_the_audit_of_both_precisions(scheme, model, digits_model, digits):
    audit = model.audit(f"int3:{scheme}")
    whole = audit_model(digits_model, digits, ["fp32", f"int3:{scheme}"])
    assert audit.precisions == whole.precisions
    assert np.array_equal(audit.logits, whole.logits)
    assert np.array_equal(audit.train_counts, whole.train_counts)
    assert np.array_equal(audit.weights.zeros, whole.weights.zeros)
    assert audit.provenance["quantizers"] == whole.provenance["quantizers"]
    assert fairness.fvo(audit).equals(fairness.fvo(whole))


def test_options_of_the_quantizer_reach_it(model, digits_model, digits):
    audit = model.audit("int2:per-channel,ends-int8,folded")
    whole = audit_model(digits_model, digits, ["fp32:folded", "int2:per-channel,ends-int8,folded"])
    assert np.array_equal(audit.logits, whole.logits)


def test_what_was_made_is_not_made_again(digits_model, monkeypatch):
    audited = []

    def audit(own, data, quantizers, **options):
        audited.extend(map(str, quantizers))
        return audit_model(own, data, quantizers, **options)

    monkeypatch.setattr(live_model, "audit_model", audit)
    model = live_model.LiveModel("digits")
    for quantizer in ("int3", "int2", "int3:mse", "int3", "fp32"):
        model.audit(quantizer)
    # The reference has no grid: it is one for every scheme.
    assert sorted(audited) == ["fp32", "int2", "int3", "int3:mse"]


def test_the_reference_comes_alone_and_can_be_another(model):
    assert model.audit("fp32").precisions == ("fp32",)
    assert model.audit("int2", reference="int8").precisions == ("int8", "int2")


def test_gradient_norms_are_those_of_both_precisions(model, digits_model, digits):
    audit = model.audit("int2", surface="gradients")
    test = digits.test
    inputs = normalise(test.images)
    for row, precision in enumerate(audit.precisions):
        quantized = quantize_model(digits_model, precision)
        norms = group_gradient_norms(quantized, inputs, test.labels, test.groups)
        assert audit.curvature.gradient_norms[row] == pytest.approx(norms.numpy())
    assert np.isnan(audit.curvature.lambda_max).all()


def test_eigenvalues_are_of_the_first_images_of_each_group(model, digits_model, digits):
    few = live_model.LiveModel("digits", curvature_images=2)
    audit = few.audit("fp32", surface="hessian")
    assert audit.curvature.images.tolist() == [2] * 10
    groups = digits.test.groups.numpy()
    chosen = np.concatenate([np.flatnonzero(groups == g)[:2] for g in range(10)])
    own = digits.test.subset(chosen)
    expected = top_eigenvalues(digits_model, normalise(own.images), own.labels, own.groups)
    assert audit.curvature.lambda_max[0] == pytest.approx(expected.values)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"quantizer": "int99"}, "int99"),
        ({"quantizer": "int4:best"}, "unknown option 'best'; known: banner"),
        ({"quantizer": "int4", "surface": "slope"}, "unknown surface 'slope'; known: gradients, hessian"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_loaded(choice, message):
    untouched = live_model.LiveModel("digits")
    with pytest.raises(ValueError, match=message):
        untouched.audit(**choice)
    assert "model" not in vars(untouched)
