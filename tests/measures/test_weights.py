import numpy as np
import pytest
from torch import nn

import samples
from quantskew.audits.model import audit_model
from quantskew.audits.statistics import collect_statistics
from quantskew.measures import weights
from quantskew.quantization.ptq import quantize_model, weight_parameters

PRECISIONS = ("fp32", "fp16", "int8", "int2")


@pytest.fixture(scope="module")
def parts():
    """The original's weights, each copy's weights, and an Audit of them."""
    model = samples.tiny_model()
    copies = [weight_parameters(quantize_model(model, precision)) for precision in PRECISIONS]
    arrays = [[w.detach().double().numpy() for w in copy.values()] for copy in copies]
    return arrays[0], arrays, audit_model(model, samples.tiny_data(), PRECISIONS)


def test_absolute_difference_is_eq_5(parts):
    original, copies, audit = parts
    sums = [[np.abs(w - v).sum() for w, v in zip(original, copy, strict=True)] for copy in copies]
    per_layer, total = (weights.absolute_difference(audit, per_layer=p) for p in (True, False))
    np.testing.assert_allclose(per_layer["value"], np.ravel(sums), rtol=1e-5)
    np.testing.assert_allclose(total["value"], np.sum(sums, axis=1), rtol=1e-5)
    sizes = [w.size for w in original]
    overall = weights.absolute_difference(audit, mean=True)
    np.testing.assert_allclose(overall["value"], np.sum(sums, axis=1) / sum(sizes), rtol=1e-5)
    mean = weights.absolute_difference(audit, per_layer=True, mean=True)
    np.testing.assert_allclose(mean["value"], np.ravel(np.array(sums) / sizes), rtol=1e-5)
    assert per_layer["layer"].tolist() == ["0.weight", "5.weight"] * 4
    assert per_layer["count"].tolist() == sizes * 4
    assert total["value"][0] == 0


def test_sparsity_is_eq_6(parts):
    original, copies, audit = parts
    zeros = [[int((v == 0).sum()) for v in copy] for copy in copies]
    sizes = np.array([w.size for w in original])
    np.testing.assert_allclose(
        weights.sparsity(audit, per_layer=True)["value"], np.ravel(np.array(zeros) / sizes)
    )
    np.testing.assert_allclose(weights.sparsity(audit)["value"], np.sum(zeros, axis=1) / sizes.sum())
    assert weights.sparsity(audit)["value"][0] == 0
    assert weights.sparsity(audit)["value"][3] > 0.2


def test_mean_magnitude(parts):
    _, copies, audit = parts
    expected = [np.abs(np.concatenate([v.ravel() for v in copy])).mean() for copy in copies]
    np.testing.assert_allclose(weights.mean_magnitude(audit)["value"], expected, rtol=1e-6)
    layers = [np.abs(v).mean() for copy in copies for v in copy]
    np.testing.assert_allclose(weights.mean_magnitude(audit, per_layer=True)["value"], layers, rtol=1e-6)


def test_the_histogram_holds_every_weight_once(parts):
    original, copies, audit = parts
    table = weights.weight_histogram(audit)
    edges = np.append(table["left"][:61], 4.0)
    for row, precision in enumerate(PRECISIONS):
        own = table[table["precision"] == precision]
        scaled = np.concatenate([(v / w.std()).ravel() for v, w in zip(copies[row], original, strict=True)])
        counts = np.histogram(np.clip(scaled, -4, 4), edges)[0]
        # A weight on an edge may be rounded into either bin.
        assert np.abs(own["value"] * len(scaled) - counts).sum() <= 2
        assert own["value"].sum() == pytest.approx(1)
        np.testing.assert_allclose(own["right"].to_numpy()[:-1], own["left"].to_numpy()[1:])


def test_zeros_fall_into_the_middle_of_a_bin():
    layer = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(layer.weight)
    statistics = collect_statistics([layer], [quantize_model(layer, "int4")])
    assert statistics.histogram[0, 30] == 4
    assert statistics.edges[30] == pytest.approx(-statistics.edges[31])
    assert statistics.zeros.tolist() == [[4]]


def test_an_audit_of_logits_has_no_weights():
    for table in (
        weights.absolute_difference,
        weights.sparsity,
        weights.mean_magnitude,
        weights.weight_histogram,
    ):
        with pytest.raises(ValueError, match="no weight statistics: it was made from logits"):
            table(samples.random_audit())
