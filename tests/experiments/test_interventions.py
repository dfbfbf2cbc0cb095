"""Interventions, against small networks and Audits whose answer is known by hand."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn
from torch.func import functional_call

import samples
from quantskew import datasets
from quantskew.audits.audit import Audit
from quantskew.audits.curvature import measure_expansion
from quantskew.claims import register
from quantskew.derivatives.gradients import parameter_vector
from quantskew.experiments import catalogue, interventions, mitigation
from quantskew.measures import forward
from quantskew.quantization.ptq import quantize_model, weight_parameters

QUICK = catalogue.get("digits", epochs=1)


def weights_of(model):
    return [weight.detach().double() for weight in weight_parameters(model).values()]


def less(model, other):
    return [new - old for new, old in zip(weights_of(other), weights_of(model), strict=True)]


def changes(model, *args):
    return less(model, interventions.intervene(model, *args))


@pytest.fixture
def network():
    return samples.small_resnet().eval()


def test_zeros_and_the_rest_are_together_what_quantization_does(network):
    full = less(network, quantize_model(network, "int3"))
    zeros, rest = (changes(network, "int3", name) for name in ("zeros", "rest"))
    for whole, first, second in zip(full, zeros, rest, strict=True):
        assert (first.abs() > 0).any()
        assert (second.abs() > 0).any()
        assert not ((first != 0) & (second != 0)).any()
        assert torch.allclose(first + second, whole, rtol=0, atol=1e-7)


@pytest.mark.parametrize("change", ["permuted", "mirrored", "noise"])
def test_an_equal_of_the_error_has_its_length_in_each_layer(network, change):
    full = less(network, quantize_model(network, "int3"))
    for whole, own in zip(full, changes(network, "int3", change), strict=True):
        assert float(own.norm()) == pytest.approx(float(whole.norm()), rel=1e-5)
        assert not torch.allclose(own, whole, atol=1e-4)
        if change == "mirrored":
            assert torch.allclose(own, -whole, atol=1e-6)
        if change == "permuted":
            assert torch.allclose(own.flatten().sort()[0], whole.flatten().sort()[0], atol=1e-6)


def test_the_same_seed_gives_the_same_noise_and_another_one_another(network):
    first, again, other = (changes(network, "int2", "noise", seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


def test_the_model_itself_stays_and_an_unknown_change_is_refused(network):
    before = [weight.clone() for weight in weights_of(network)]
    interventions.intervene(network, "int2", "zeros")
    assert all(map(torch.equal, before, weights_of(network)))
    with pytest.raises(ValueError, match="change"):
        interventions.intervene(network, "int2", "halved")


def test_where_every_small_weight_turns_to_zero_zeroing_does_all():
    layer = nn.Linear(3, 2, bias=False)
    # On the grid but for the small ones, which become 0.
    layer.weight.data = torch.tensor([[1.0, 0.1, 0.0], [-1.0, 0.0, 0.2]])
    inputs = torch.eye(3)
    full, zeros, rest = (
        quantize_model(layer, "int2:symmetric")(inputs),
        interventions.intervene(layer, "int2:symmetric", "zeros")(inputs),
        interventions.intervene(layer, "int2:symmetric", "rest")(inputs),
    )
    assert torch.equal(full, zeros)
    assert not torch.equal(full, rest)


def made(reference, *others, labels=None):
    logits = dict(zip(("fp32", "int4", "int3"), (reference, *others), strict=False))
    samples_, classes = reference.shape
    labels = np.zeros(samples_, dtype=int) if labels is None else labels
    return Audit.from_logits(logits, labels, np.arange(samples_) % 2, class_names=list("abcd")[:classes])


@pytest.fixture
def reference():
    return np.random.default_rng(0).normal(scale=2, size=(400, 3))


def test_a_pure_shift_is_found_and_undone(reference):
    shift = np.array([1.0, -0.5, -0.5])
    matrix, bias = interventions.fit_correction(reference + shift, reference)
    assert np.allclose(matrix, np.eye(3))
    assert np.allclose(bias, -shift, atol=1e-3)
    found = interventions.corrected(made(reference, reference + shift))
    assert np.allclose(softmax(found.logits[1], axis=1), softmax(reference, axis=1), atol=1e-3)
    assert np.array_equal(found.logits[0], np.float32(reference))


def test_a_matrix_undoes_a_turn_that_a_shift_cannot(reference):
    turn = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    audit = made(reference, reference @ turn)

    def distance(own):
        given = log_softmax(np.float64(own.logits[1]), axis=1)
        return -(softmax(reference, axis=1) * given).sum(axis=1).mean()

    least = -(softmax(reference, axis=1) * log_softmax(reference, axis=1)).sum(axis=1).mean()
    assert distance(interventions.mapped(audit)) == pytest.approx(least, abs=1e-3)
    assert distance(interventions.corrected(audit)) > least + 0.05


def test_a_fit_sees_neither_labels_nor_its_own_half(reference):
    rng = np.random.default_rng(1)
    other = reference + rng.normal(size=reference.shape)
    found = interventions.corrected(made(reference, other))
    again = interventions.corrected(made(reference, other, labels=rng.integers(0, 3, len(other))))
    assert np.array_equal(found.logits, again.logits)
    # What happens to a sample's reference in one half changes only the other half.
    changed = reference.copy()
    changed[0] += [5, -5, 0]
    moved = interventions.corrected(made(changed, other)).logits[1] != found.logits[1]
    half = np.random.default_rng(0).permutation(len(other)) % 2
    assert not moved[half == half[0]].any()
    assert moved[half != half[0]].any()


def test_a_fit_is_the_least_cross_entropy_from_any_start(reference):
    other = reference + np.random.default_rng(1).normal(size=reference.shape)
    _, bias = interventions.fit_correction(other, reference)
    wanted = softmax(reference, axis=1)

    def loss(own):
        return -(wanted * log_softmax(other + own, axis=1)).sum(axis=1).mean()

    steps = 1e-2 * np.random.default_rng(2).normal(size=(20, 3))
    assert all(loss(bias) < loss(bias + step) for step in steps)


def test_a_pure_temperature_shortens_and_does_not_turn(reference):
    centred = reference - reference.mean(axis=1, keepdims=True)
    audit = made(centred, 0.5 * centred + 3.0)
    assert np.allclose(interventions.shrunk(audit).logits[1], 0.5 * centred, atol=1e-5)
    assert np.allclose(interventions.rotated(audit).logits[1], centred, atol=1e-5)


def test_a_pure_turn_keeps_lengths(reference):
    centred = reference - reference.mean(axis=1, keepdims=True)
    turned = centred[:, [1, 2, 0]]
    audit = made(centred, turned, np.zeros_like(centred))
    assert np.allclose(interventions.shrunk(audit).logits[1], centred, atol=1e-5)
    assert np.allclose(interventions.rotated(audit).logits[1], turned, atol=1e-5)
    # Null logits have no direction, and stay.
    assert not interventions.rotated(audit).logits[2].any()


def test_what_margins_say_is_the_mean_of_samples_as_near(reference):
    rng = np.random.default_rng(3)
    audit = made(reference, reference + rng.normal(size=reference.shape), labels=rng.integers(0, 3, 400))
    top = np.sort(audit.logits[0], axis=1)
    nearest = np.argsort(top[:, -1] - top[:, -2], kind="stable")
    changed = audit.predictions[1] != audit.predictions[0]
    expected = np.empty(400)
    for start in range(0, 400, 20):
        expected[nearest[start : start + 20]] = changed[nearest[start : start + 20]].mean()
    found = interventions.CHANGED_BEYOND_MARGIN.of_samples(audit)
    assert np.allclose(found[1], changed - expected)
    assert not found[0].any()
    table = interventions.LOST_BEYOND_MARGIN(audit)
    weighed = (table["value"] * table["count"]).groupby(table["precision"]).sum()
    assert np.allclose(weighed, 0)


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSKEW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield interventions.audit(QUICK, ("int3",), device="cpu")


def test_an_audit_has_a_column_for_each_intervention(audit, digits):
    names = ("zeros", "rest", "permuted", "mirrored", "noise", "batch norm", "bias")
    assert audit.precisions == ("fp32", "int8", "int3", *(f"int3 {name}" for name in names))
    model, _ = catalogue.trained(QUICK, digits, "cpu")
    zeroed = interventions.intervene(model, "int3", "zeros", QUICK.recipe.seed)
    with torch.inference_mode():
        logits = zeroed(datasets.normalise(digits.test.images[:64]))
    assert np.allclose(audit.logits[audit.index("int3 zeros"), :64], logits, atol=1e-5)


def test_the_terms_of_the_expansion_are_those_of_the_dense_hessian():
    model, split = samples.tiny_model().eval(), samples.tiny_split(40)
    changed = {"int3": quantize_model(model, "int3"), "int2": quantize_model(model, "int2")}
    found = measure_expansion(model, split, ["fp32", "int3", "int2"], changed)
    names, start = [name for name, _ in model.named_parameters()], parameter_vector(model).double()
    shapes = [own.shape for own in model.parameters()]
    assert np.isnan(found.slopes[0]).all()
    assert np.isnan(found.slopes[:, 1]).all()
    for group in (0, 2):
        own = split.groups == group
        images, labels = datasets.normalise(split.images[own]).double(), split.labels[own]

        def loss(vector, images=images, labels=labels):
            parts = vector.split([shape.numel() for shape in shapes])
            weights = {n: p.view(shape) for n, p, shape in zip(names, parts, shapes, strict=True)}
            given = functional_call(copy.deepcopy(model).double(), weights, (images,))
            return nn.functional.cross_entropy(given, labels)

        gradient = torch.autograd.functional.jacobian(loss, start)
        hessian = torch.autograd.functional.hessian(loss, start)
        for row, other in enumerate(changed.values(), start=1):
            change = parameter_vector(other).double() - start
            assert found.slopes[row, group] == pytest.approx(float(change @ gradient), rel=1e-4)
            assert found.bends[row, group] == pytest.approx(float(change @ hessian @ change) / 2, rel=1e-3)


def test_outcomes_are_means_over_images_and_groups(reference):
    other = reference + np.array([1.0, 0.0, -1.0])
    audit = dataclasses.replace(made(reference, other), train_counts=np.array([9, 1]))
    table = interventions.outcomes([audit], "int4", {"plain": "", "undone": interventions.corrected})
    loss = forward.group_loss.of_samples(audit)
    added = loss[1] - loss[0]
    plain, undone = table.to_dict("records")
    assert plain["added"] == pytest.approx(added.mean())
    assert plain["gap"] == pytest.approx(added[1::2].mean() - added[::2].mean())
    assert abs(undone["added"]) < 1e-2 < abs(plain["added"])


def test_a_method_that_shifts_answers_comes_closer_to_the_float_model(fresh_cache):
    plain, shifted = (
        mitigation.mitigate(QUICK, key, ("fp32", "int2"), device="cpu") for key in ("ptq", "shift")
    )
    assert np.array_equal(plain.logits[0], shifted.logits[0])
    moved = shifted.logits[1] - plain.logits[1]
    assert np.allclose(moved, moved[0], atol=1e-4)
    assert np.abs(moved).max() > 0.01

    def distance(own):
        wanted, given = softmax(own.logits[0], axis=1), log_softmax(own.logits[1], axis=1)
        return -(wanted * given).sum(axis=1).mean()

    assert distance(shifted) < distance(plain)


def test_claims_of_cause_are_this_books_and_stand_apart_from_the_papers(audit):
    assert not register.OWN.keys() & register.CLAIMS.keys()
    assert register.OWN == register.CAUSES | register.REMEDIES
    assert {own.source for own in register.OWN.values()} == {"this book"}
    assert not any(own.quote for own in register.OWN.values())
    keys = list(register.CAUSES)
    table = register.judged({"base": [audit], "causes": [audit]}, keys, ["int3"]).set_index("key")
    assert (table["verdict"] == "one seed").all()
    loss = dict(zip(audit.precisions, forward.group_loss.of_samples(audit).mean(axis=1), strict=True))
    found = table.loc["zeros_alone", "effect"]
    assert found == pytest.approx(loss["int3 zeros"] - loss["int3 rest"])
