import numpy as np
import pytest
import torch

import samples
from quantskew.audits.audit import Audit
from quantskew.audits.model import audit_model, audit_models, calibration_images
from quantskew.datasets import Dataset, normalise
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.quantization.quantizer import Quantizer

PRECISIONS = ("fp32", "fp16", "int4", "int2")


@pytest.mark.parametrize(
    "options",
    [{}, {"scheme": "mse", "per_channel": True}, {"fold_batchnorm": True, "boundary_precision": "int8"}],
)
def test_logits_are_those_of_the_quantized_models(digits, digits_model, options):
    quantizers = Quantizer.each(PRECISIONS, **options)
    audit = audit_model(digits_model, digits.test.subset(range(50)), quantizers)
    for row, quantizer in enumerate(quantizers):
        with torch.no_grad():
            expected = quantize_model(digits_model, quantizer)(normalise(digits.test.images[:50]))
        np.testing.assert_allclose(audit.logits[row], expected, rtol=1e-5, atol=1e-5)
    assert audit.logits.dtype == np.float32
    assert audit.precisions == tuple(audit.provenance["quantizers"]) == tuple(map(str, quantizers))
    assert audit.plain().precisions == PRECISIONS


def test_permuting_the_images_permutes_the_logits(digits, digits_model):
    order = torch.randperm(len(digits.test), generator=torch.Generator().manual_seed(0))
    audit = audit_model(digits_model, digits.test, ["fp32", "int3"])
    shuffled = audit_model(digits_model, digits.test.subset(order), ["fp32", "int3"])
    np.testing.assert_allclose(shuffled.logits, audit.logits[:, order], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(shuffled.labels, audit.labels[order])
    np.testing.assert_array_equal(shuffled.groups, audit.groups[order])


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_is_irrelevant(batch_size):
    model, data = samples.tiny_model(), samples.tiny_data()
    expected = audit_model(model, data, PRECISIONS).logits
    measured = audit_model(model, data, PRECISIONS, batch_size=batch_size).logits
    np.testing.assert_allclose(measured, expected, rtol=1e-5, atol=1e-5)


def test_a_data_set_gives_its_test_split_and_training_counts():
    model, data = samples.tiny_model(), samples.tiny_data()
    whole, split = (audit_model(model, part, ["fp32"]) for part in (data, data.test))
    np.testing.assert_array_equal(whole.logits, split.logits)
    assert whole.train_counts.tolist() == data.train.group_counts.tolist()
    assert split.train_counts.tolist() == data.test.group_counts.tolist()
    assert whole.class_names == ("dark", "bright")
    assert whole.group_names == ("even", "absent", "odd")


def test_the_model_is_left_as_it_was():
    model = samples.tiny_model(dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    audit_model(model, samples.tiny_data(), PRECISIONS)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_facts_are_kept_through_the_file(tmp_path):
    audit = audit_model(samples.tiny_model(), samples.tiny_data(), ["fp32"], facts={"seed": 5})
    audit.save(tmp_path / "a.safetensors")
    assert Audit.load(tmp_path / "a.safetensors").provenance["seed"] == 5


def test_models_that_are_quantized_already_are_audited_alike():
    model, data = samples.tiny_model(), samples.tiny_data()
    quantized = {precision: quantize_model(model, precision) for precision in PRECISIONS}
    audit = audit_models(model.eval(), quantized, data, facts={"seed": 5})
    expected = audit_model(model, data, PRECISIONS)
    assert audit.precisions == PRECISIONS
    np.testing.assert_array_equal(audit.logits, expected.logits)
    np.testing.assert_array_equal(audit.train_counts, expected.train_counts)
    for name, array in audit.weights.arrays().items():
        np.testing.assert_array_equal(array, expected.weights.arrays()[name])
    assert audit.provenance["seed"] == 5


def test_a_precision_is_named_once():
    with pytest.raises(ValueError, match="each precision is named once; got fp32, int8, fp32"):
        audit_model(samples.tiny_model(), samples.tiny_data(), ["fp32", "int8", "fp32"])


def test_nothing_to_measure():
    data = samples.tiny_data()
    assert audit_model(samples.tiny_model(), data.test.subset([]), PRECISIONS).logits.shape == (4, 0, 2)
    with pytest.raises(ValueError, match="give 1 to 64 precisions"):
        audit_model(samples.tiny_model(), data, [])


def test_logits_that_are_not_finite_name_sample_and_precision():
    model, data = samples.tiny_model().eval(), samples.tiny_data()
    # Small enough for fp16 itself, too large once multiplied by an image.
    model[5].weight.data[:] = 6e4
    model[1].bias.data[:] = 1.0
    with pytest.raises(ValueError, match="not finite; the first is sample 0 at fp16"):
        audit_model(model, data, ["fp32", "fp16"])
    model[5].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="sample 0 at fp32"):
        audit_model(model, data, ["fp32"])


def test_activations_are_quantized_where_weights_are_integers(digits, digits_model):
    precisions = ("fp32", "fp16", "int8:ends-int8", "int3:ends-int8")
    audit = audit_model(digits_model, digits, Quantizer.each(precisions, activation_precision="int4"))
    plain = audit_model(digits_model, digits, precisions)
    images, calibration = normalise(digits.test.images), calibration_images(digits)
    np.testing.assert_array_equal(audit.logits[:2], plain.logits[:2])
    for row in (2, 3):
        with torch.no_grad():
            expected = quantize_model(digits_model, audit.precisions[row], calibration)(images)
        # Another batch size may round an activation near a tie to the neighbouring code.
        differing = np.abs(audit.logits[row] - expected.numpy()) > 1e-3
        assert differing.mean() < 0.01
        assert np.abs(audit.logits[row] - plain.logits[row]).mean() > 0.01
    for name, array in audit.weights.arrays().items():
        np.testing.assert_array_equal(array, plain.weights.arrays()[name])
    assert audit.precisions == ("fp32", "fp16", "W8A4:ends-int8", "W3A4:ends-int8")


def test_calibration_is_on_training_images_alone():
    model, data = samples.tiny_model(), samples.tiny_data()
    expected = audit_model(model, data, ["fp32", "W8A4"]).logits
    dark = data.test.subset(range(len(data.test)))
    dark.images[5:] = 0
    changed = Dataset("tiny", data.train, data.validation.subset([0]), dark)
    measured = audit_model(model, changed, ["fp32", "W8A4"]).logits
    np.testing.assert_array_equal(measured[:, :5], expected[:, :5])
    bright = data.train.subset(range(len(data.train)))
    bright.images[:] = 255
    changed = Dataset("tiny", bright, data.validation, data.test)
    measured = audit_model(model, changed, ["fp32", "W8A4"]).logits
    np.testing.assert_array_equal(measured[0], expected[0])
    assert not np.allclose(measured[1], expected[1], atol=1e-2)


def calibration_rows(data, **options):
    """Which training images are chosen; no image is in the data twice."""
    images = calibration_images(data, **options)
    assert torch.equal(images, calibration_images(data, **options))
    known = normalise(data.train.images)
    rows = [int(torch.nonzero((known == image).flatten(1).all(1))[0]) for image in images]
    assert len(set(rows)) == len(rows)
    return rows


def test_calibration_images_have_the_groups_shares(digits):
    def counts(number):
        return digits.train.subset(calibration_rows(digits, count=number)).group_counts

    total = len(digits.train)
    assert counts(10).tolist() == [1] * 10
    np.testing.assert_allclose(counts(200), 200 * digits.train.group_counts / total, atol=1)
    assert counts(1000).tolist() == digits.train.group_counts.tolist()


def test_calibration_images_of_each_mix(digits):
    train, sizes = digits.train, digits.train.group_counts
    least, most = int(sizes.argmin()), int(sizes.argmax())

    def counts(count, mix, **options):
        return train.subset(calibration_rows(digits, mix=mix, count=count, **options)).group_counts

    assert counts(30, "balanced").tolist() == [3] * 10
    # What a group lacks the others give.
    whole = counts(200, "balanced")
    assert whole.sum() == 200
    assert (whole >= np.minimum(sizes, whole.max() - 1)).all()
    for mix, group in (("minority", least), ("majority", most)):
        assert counts(int(sizes[least]), mix).tolist() == [
            sizes[least] if own == group else 0 for own in range(10)
        ]
    with pytest.raises(ValueError, match=rf"the minority, .*, has {sizes[least]} training images; calibrate"):
        counts(int(sizes[least]) + 1, "minority")
    losses = np.zeros(len(train))
    losses[7::9] = np.arange(len(losses[7::9])) + 1.0
    rows = calibration_rows(digits, mix="loss-weighted", count=20, losses=losses)
    assert all(row % 9 == 7 for row in rows)
    draws = [calibration_rows(digits, mix="loss-weighted", count=5, losses=losses, seed=s) for s in range(60)]
    assert losses[np.concatenate(draws)].mean() > 1.2 * losses[7::9].mean()
    assert draws[0] != draws[1]
    assert calibration_rows(digits, count=9) != calibration_rows(digits, count=9, seed=1)
    for options, message in (
        ({"mix": "loss-weighted"}, "needs the losses of the training images"),
        ({"mix": "even"}, "unknown mix 'even'; known: proportional, balanced, majority"),
        ({"count": 0}, "count"),
    ):
        with pytest.raises(ValueError, match=message):
            calibration_images(digits, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": samples.tiny_data().test}, "give the whole Dataset, not one split of it"),
        ({"curvature": True}, "cannot be differentiated through rounded activations; leave out curvature"),
        ({"quantizers": ["fp32", "W8A99"]}, "unknown precision 'int99'"),
        (
            {"data": Dataset("none", *[samples.tiny_data().train.subset([])] * 3)},
            "calibration is on training images",
        ),
    ],
)
def test_activations_that_cannot_be_quantized_are_refused(options, message):
    options = {"data": samples.tiny_data(), "quantizers": ["fp32", "W8A8"], **options}
    with pytest.raises(ValueError, match=message):
        audit_model(samples.tiny_model(), **options)


def test_the_same_bits_stand_side_by_side_under_different_schemes(digits, digits_model, tmp_path):
    names = ("fp32", "int4", "int4:mse", "int4:mse,per-channel", "W4A4", "int4:folded", "int3:ends-int8")
    audit = audit_model(digits_model, digits, names)
    assert audit.precisions == names
    assert audit.provenance["quantizers"] == list(names)
    for row, name in enumerate(names):
        alone = audit_model(digits_model, digits, [name])
        np.testing.assert_array_equal(audit.logits[row], alone.logits[0])
        for what in alone.weights.PER_PRECISION:
            own = getattr(audit.weights, what)[row]
            np.testing.assert_array_equal(own, getattr(alone.weights, what)[0], err_msg=f"{name} {what}")
    audit.save(tmp_path / "a.safetensors")
    assert Audit.load(tmp_path / "a.safetensors").precisions == names


def test_folded_weights_are_compared_with_folded_ones(digits, digits_model):
    model, data = digits_model, digits.test.subset(range(9))
    names = ["fp32", "fp32:folded", "int4:folded"]
    audit = audit_model(model, data, names)
    difference = audit.weights.absolute_difference
    assert (difference[:2] == 0).all()
    folded, quantized = (quantize_model(model, name) for name in names[1:])
    pairs = zip(weight_parameters(folded).values(), weight_parameters(quantized).values(), strict=True)
    expected = [float((w - v).detach().abs().sum()) for w, v in pairs]
    np.testing.assert_allclose(difference[2], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="but fp32 and fp32:folded, int4:folded differ"):
        audit_model(model, data, names, curvature=True)
