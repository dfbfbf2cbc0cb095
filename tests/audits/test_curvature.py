"""The backward half on a real model: values, resuming, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

import samples
from quantskew.audits import curvature as module
from quantskew.audits.curvature import CurvatureState, measure_curvature
from quantskew.datasets import normalise
from quantskew.derivatives.gradients import group_gradient_norms
from quantskew.derivatives.hessian import top_eigenvalues
from quantskew.quantization.ptq import quantize_model

PRECISIONS = ["fp32", "int8", "int2"]


@pytest.fixture(scope="module")
def split(digits):
    return digits.test.subset(range(120))


@pytest.fixture(scope="module")
def measured(digits_model, split):
    return measure_curvature(digits_model, split, PRECISIONS, images=6, samples=4)


def same(a, b):
    return all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(a.arrays().values(), b.arrays().values(), strict=True)
    )


def test_values_are_those_of_the_functions(measured, digits_model, split):
    quantized = quantize_model(digits_model, "int8")
    inputs = normalise(split.images)
    norms = group_gradient_norms(quantized, inputs, split.labels, split.groups, 10)
    assert measured.gradient_norms[1] == pytest.approx(norms.numpy(), rel=1e-5)
    chosen = torch.cat([torch.nonzero(split.groups == g).flatten()[:6] for g in range(10)])
    top = top_eigenvalues(quantized, inputs[chosen], split.labels[chosen], split.groups[chosen], 1e-4)
    assert measured.lambda_max[1] == pytest.approx(top.values, rel=0.02)
    assert (measured.residuals <= 0.01).all()


def test_the_terms_of_the_expansion_are_those_of_the_dense_hessian(digits):
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    split = digits.test.subset(range(60))
    terms = measure_curvature(layer, split, ["fp32", "int4", "int2"], images=3, samples=2)
    inputs = normalise(split.images).flatten(1)
    linear = layer[1]

    def loss_of(own):
        def loss(flat):
            weight, bias = flat[:640].view(10, 64), flat[640:]
            return functional.cross_entropy(inputs[own] @ weight.T + bias, split.labels[own])

        return loss

    start = torch.cat([linear.weight.detach().flatten(), linear.bias.detach()])
    for row, precision in enumerate(["fp32", "int4", "int2"]):
        moved = quantize_model(layer, precision)[1]
        change = torch.cat([moved.weight.detach().flatten(), moved.bias.detach()]) - start
        for group in (0, 7):
            loss = loss_of(torch.nonzero(split.groups == group).flatten()[:3])
            gradient = torch.autograd.functional.jacobian(loss, start)
            dense = torch.autograd.functional.hessian(loss, start)
            assert terms.slopes[row, group] == pytest.approx(float(gradient @ change), abs=1e-5)
            assert terms.bends[row, group] == pytest.approx(float(change @ dense @ change) / 2, abs=1e-5)


def test_terms_that_only_one_of_two_has_are_left_out_when_they_are_joined(measured):
    older = dataclasses.replace(measured, slopes=None, bends=None)
    assert measured.join(measured).slopes.shape == (2 * len(PRECISIONS), 10)
    assert older.join(measured).slopes is older.select([0]).slopes is measured.join(older).bends is None


def test_nothing_moves_at_the_reference(measured):
    assert measured.change_norms[0] == 0
    assert (np.diff(measured.change_norms) > 0).all()


def test_profiles_meet_the_models(measured, digits_model, split):
    start = np.flatnonzero(measured.profile_steps == 0)
    assert measured.profile_losses[:, 0, start] == pytest.approx(measured.profile_losses[:, 1, start])
    assert measured.profile_precision == "int2"


def test_a_run_that_ended_between_vector_and_numbers_gives_the_same(
    measured, digits_model, split, tmp_path, monkeypatch
):
    put, steps = CurvatureState.put, []

    def interrupted(self, where, **values):
        steps.append(where)
        if len(steps) in (8, 25):
            raise KeyboardInterrupt
        put(self, where, **values)

    monkeypatch.setattr(CurvatureState, "put", interrupted)
    options = {"images": 6, "samples": 4, "checkpoint": tmp_path / "curvature"}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            measure_curvature(digits_model, split, PRECISIONS, **options)
    assert same(measured, measure_curvature(digits_model, split, PRECISIONS, **options))
    # Each of 3 rows and 30 groups once, but for the two in which it ended.
    assert len(steps) == 3 + 10 + 30 + 2
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_state_is_refused_by_name(tmp_path):
    path = tmp_path / "curvature"
    state = CurvatureState(2, [2] * 3, path, "a run")
    state.put_vector(0, 1, torch.arange(30.0))
    state.put((0, 1), trace_errors=1.0)
    for own in (path, tmp_path / "curvature-1"):
        whole = own.read_bytes()
        for content in samples.damaged(whole, places=20):
            own.write_bytes(content)
            message = (
                rf"{own.name} is not a whole checkpoint .*; delete .*e to begin|curvature belongs.*delete it"
            )
            with pytest.raises(ValueError, match=message):
                CurvatureState(2, [2] * 3, path, "a run")
        own.write_bytes(whole)
    assert torch.equal(CurvatureState(2, [2] * 3, path, "a run").vectors[1], torch.arange(30.0))


def test_an_interrupted_run_goes_on_where_it_stood(measured, digits_model, split, tmp_path, monkeypatch):
    done, real = [], module.top_eigenpair

    def interrupted(*arguments):
        if len(done) == 14:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments)

    checkpoint = tmp_path / "curvature"
    options = {"images": 6, "samples": 4, "checkpoint": checkpoint}
    monkeypatch.setattr(module, "top_eigenpair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_curvature(digits_model, split, PRECISIONS, **options)
    assert checkpoint.exists()
    counted = []
    monkeypatch.setattr(module, "top_eigenpair", lambda *a: counted.append(1) or real(*a))
    resumed = measure_curvature(digits_model, split, PRECISIONS, **options)
    # The sixteen groups that were missing.
    assert len(counted) == 16
    assert list(tmp_path.iterdir()) == []
    assert same(measured, resumed)


def test_the_same_run_gives_the_same_numbers(measured, digits_model, split):
    again = measure_curvature(digits_model, split, PRECISIONS, images=6, samples=4)
    assert same(measured, again)


def test_checkpoints_of_other_runs_and_broken_ones_are_refused(digits_model, split, tmp_path):
    checkpoint = tmp_path / "curvature"
    checkpoint.write_bytes(b"half")
    with pytest.raises(ValueError, match="is not a whole checkpoint"):
        measure_curvature(digits_model, split, PRECISIONS, images=2, samples=2, checkpoint=checkpoint)
    state = CurvatureState(3, [2] * 10, checkpoint.with_suffix(".other"), "another run")
    state.put((0, 0), traces=1.0)
    with pytest.raises(ValueError, match="belongs to another model"):
        measure_curvature(
            digits_model, split, PRECISIONS, images=2, samples=2, checkpoint=checkpoint.with_suffix(".other")
        )


def test_an_absent_group_is_nan_and_counted(digits_model, split):
    some = split.subset(torch.nonzero(split.groups != 3).flatten())
    curvature = measure_curvature(digits_model, some, ["fp32", "int2"], images=3, samples=2)
    assert curvature.images[3] == 0
    for name in ("gradient_norms", "lambda_max", "traces"):
        values = getattr(curvature, name)
        assert np.isnan(values[:, 3]).all()
        assert np.isfinite(np.delete(values, 3, axis=1)).all()


def test_the_model_is_left_alone(digits_model, split):
    before = {name: value.clone() for name, value in digits_model.state_dict().items()}
    gradients = [parameter.grad for parameter in digits_model.parameters()]
    measure_curvature(digits_model, split, ["fp32", "int2"], images=2, samples=2)
    assert all(torch.equal(before[name], value) for name, value in digits_model.state_dict().items())
    assert all(p.grad is g for p, g in zip(digits_model.parameters(), gradients, strict=True))


def test_statistics_are_frozen(measured):
    with pytest.raises(dataclasses.FrozenInstanceError):
        measured.images = None
