import numpy as np
import pytest
import torch
from torch import nn

import curvature_oracles as oracles
from quantskew.datasets import normalise
from quantskew.derivatives.gradients import group_gradient_norms
from quantskew.derivatives.hessian import (
    HessianOperator,
    group_operators,
    top_eigenpair,
    top_eigenvalues,
)
from quantskew.derivatives.lanczos import top_eigenvalue, trace_samples
from quantskew.quantization.ptq import quantize_model
from quantskew.training import models

PRESENT = [0, 1, 3]


def traces(model, images, labels, groups, samples, deflate=None):
    """Samples of the trace of each present group's Hessian."""
    operators = group_operators(model, images, labels, groups)
    known = {} if deflate is None else dict(enumerate(deflate.vectors))
    return {g: trace_samples(own, own.gradient, samples, known.get(g)) for g, own in operators}


@pytest.mark.parametrize("name", oracles.networks())
@pytest.mark.parametrize(
    "options", [{}, {"chunk_size": 3}, {"chunk_size": 3, "memory_budget": 0}, {"chunk_size": 1}]
)
def test_products_are_those_of_the_dense_hessian(name, options):
    model, (images, labels, _) = oracles.networks()[name], oracles.problem()
    dense = oracles.hessian(model, images, labels)
    operator = HessianOperator(model, images, labels, **options)
    for _ in range(2):
        vector = torch.randn(len(dense), dtype=torch.float64)
        torch.testing.assert_close(operator(vector), dense @ vector)
    torch.testing.assert_close(operator.gradient, oracles.gradient(model, images, labels))


@pytest.mark.parametrize("name", ["conv-bn-relu", "residual", "untraceable"])
@pytest.mark.parametrize("frozen", ["conv", "bn", "weight", "bias", "head"])
def test_frozen_parameters_have_no_part_in_the_hessian(name, frozen):
    model, (images, labels, _) = oracles.networks()[name], oracles.problem()
    kinds = {"conv": nn.Conv2d, "bn": nn.BatchNorm2d, "head": nn.Linear}
    for module in model.modules():
        if isinstance(module, kinds.get(frozen, ())):
            module.requires_grad_(False)
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not path.endswith(frozen))
    flags = [p.requires_grad for p in model.parameters()]
    dense = oracles.hessian(model, images, labels)
    operator = HessianOperator(model, images, labels, chunk_size=5)
    vector = torch.randn(len(dense), dtype=torch.float64)
    torch.testing.assert_close(operator(vector), dense @ vector)
    assert flags == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("name", oracles.networks())
def test_lambda_max_is_that_of_the_dense_hessian_with_its_true_residual(name):
    model, (images, labels, groups) = oracles.networks()[name], oracles.problem(20)
    top = top_eigenvalues(model, images, labels, groups, rtol=1e-4, num_groups=5)
    assert np.isnan(top.values[[2, 4]]).all()
    assert np.isnan(top.residuals[[2, 4]]).all()
    assert list(top.matvecs[[2, 4]]) == [0, 0]
    assert top.vectors[2] is None
    for group in PRESENT:
        dense = oracles.hessian(model, images[groups == group], labels[groups == group])
        largest = torch.linalg.eigvalsh(dense)[-1].item()
        assert top.values[group] == pytest.approx(largest, rel=1e-4)
        vector = top.vectors[group]
        residual = (dense @ vector - top.values[group] * vector).norm().item() / top.values[group]
        assert residual == pytest.approx(top.residuals[group], rel=1e-3, abs=1e-12)
        assert top.residuals[group] <= 1e-4
    norms = group_gradient_norms(model, images, labels, groups)
    for group, operator in group_operators(model, images, labels, groups):
        torch.testing.assert_close(operator.gradient.norm(), norms[group], rtol=1e-10, atol=0)


def test_it_is_the_largest_even_where_a_negative_one_is_larger_in_magnitude():
    # Images that are all classified wrongly and with certainty: p does not move, so that the curvature is
    # that of the logits alone, here mostly downwards.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Softplus(), nn.Linear(4, 3)).double().eval()
    images, labels, _ = oracles.problem(10)
    labels[:] = 2
    with torch.no_grad():
        model[3].weight[2].uniform_(0, 3)
        model[3].bias.copy_(torch.tensor([30.0, 0.0, -9.0]))
    spectrum = torch.linalg.eigvalsh(oracles.hessian(model, images, labels))
    assert spectrum[0] < -3 * spectrum[-1]
    top = top_eigenvalues(model, images, labels, labels * 0, rtol=1e-5)
    assert top.values[0] == pytest.approx(spectrum[-1].item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # at curvlinops' import
def test_against_curvlinops_and_scipy_on_the_digits_model(digits, digits_model):
    curvlinops = pytest.importorskip("curvlinops")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    quantized = quantize_model(digits_model, "int4")
    images, labels, groups = normalise(digits.test.images), digits.test.labels, digits.test.groups
    chosen = torch.isin(groups, torch.tensor([0, 9]))
    images, labels, groups = images[chosen], labels[chosen], groups[chosen]
    top = top_eigenvalues(quantized, images, labels, groups, rtol=1e-3)
    for group in (0, 9):
        data = [(images[groups == group], labels[groups == group])]
        parameters = list(quantized.parameters())
        hessian = curvlinops.HessianLinearOperator(quantized, nn.CrossEntropyLoss(), parameters, data)
        value = linalg.eigsh(hessian.to_scipy(), k=1, which="LA", tol=1e-4, return_eigenvectors=False)[0]
        assert top.values[group] == pytest.approx(value, rel=1e-3)


def test_a_neighbours_eigenvectors_are_a_start(digits, digits_model):
    test = digits.test.subset(torch.nonzero(digits.test.groups < 4).flatten())
    problem = normalise(test.images), test.labels, test.groups
    first = top_eigenvalues(digits_model, *problem)
    fp16 = quantize_model(digits_model, "fp16")
    expected, again = top_eigenvalues(fp16, *problem), 0
    for group, operator in group_operators(fp16, *problem):
        pair = top_eigenpair(operator, first.vectors[group])
        assert pair.residual <= 1e-2
        assert pair.value == pytest.approx(expected.values[group], rel=2e-3)
        again += pair.matvecs
    assert again < first.matvecs.sum()


@pytest.mark.parametrize("name", ["mlp", "conv-bn-softplus", "residual"])
def test_a_neighbours_eigenvector_does_not_hide_one_that_has_overtaken_it(name):
    model, (images, labels, groups) = oracles.networks()[name], oracles.problem(20)
    values, vectors = torch.linalg.eigh(oracles.hessian(model, images, labels))
    ((_, operator),) = group_operators(model, images, labels, groups * 0)
    found = top_eigenpair(operator, vectors[:, -2])
    assert found.value == pytest.approx(values[-1].item(), rel=1e-2)


def test_a_run_goes_on_at_the_next_group():
    model, (images, labels, groups) = oracles.networks()["residual"], oracles.problem()
    whole = top_eigenvalues(model, images, labels, groups, rtol=1e-6)
    done = {0: None}
    for group, operator in group_operators(model, images, labels, groups, skip=done):
        done[group] = top_eigenvalue(operator, operator.gradient, rtol=1e-6).value
    assert list(done) == PRESENT
    assert [done[1], done[3]] == pytest.approx(list(whole.values[[1, 3]]))


def test_the_order_of_the_images_does_not_matter():
    model, (images, labels, groups) = oracles.networks()["conv-bn-relu"], oracles.problem(30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    first = top_eigenvalues(model, images, labels, groups, rtol=1e-8)
    second = top_eigenvalues(model, images[order], labels[order], groups[order], rtol=1e-8, chunk_size=3)
    np.testing.assert_allclose(first.values, second.values, rtol=1e-8)


def test_one_image():
    model, (images, labels, groups) = oracles.networks()["mlp"], oracles.problem()
    top = top_eigenvalues(model, images[:1], labels[:1], groups[:1], rtol=1e-6)
    largest = torch.linalg.eigvalsh(oracles.hessian(model, images[:1], labels[:1]))[-1].item()
    assert top.values[0] == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize("every_layer", [False, True])
def test_layers_of_zeros(every_layer):
    model, (images, labels, groups) = models.build("small_resnet", 3, 1).eval(), oracles.problem()
    nn.init.zeros_(model.stages[1].conv1.weight)
    quantized = quantize_model(model, "int2")
    assert not quantized.stages[1].conv1.weight.any()
    if every_layer:
        for parameter in quantized.parameters():
            nn.init.zeros_(parameter)
    top = top_eigenvalues(quantized, images.float(), labels, groups)
    assert (top.residuals[PRESENT] <= 1e-2).all()
    assert np.isfinite(top.values[PRESENT]).all()
    found = traces(quantized, images.float(), labels, groups, 2)
    assert np.isfinite([found[group] for group in PRESENT]).all()


def test_a_loss_without_curvature_is_zero():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5))

        def forward(self, x):
            return x.flatten(1)[:, :3] + 0 * self.weight.sum()

    images, labels, groups = oracles.problem()
    top = top_eigenvalues(Constant().eval(), images.float(), labels, groups)
    assert list(top.values[PRESENT]) == [0, 0, 0]
    assert list(top.residuals[PRESENT]) == [0, 0, 0]


def test_the_model_is_left_as_it_was():
    model, (images, labels, groups) = oracles.networks()["conv-bn-relu"], oracles.problem()
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    modules = [type(module) for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        top = top_eigenvalues(model, images, labels, groups)
    traces(model, images, labels, groups, 2, deflate=top)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert (model[0].weight.grad == 7).all()
    assert model[1].weight.grad is None
    assert [type(module) for module in model.modules()] == modules
    assert all(p.requires_grad for p in model.parameters())


def test_traces_are_those_of_the_dense_hessian_within_their_error():
    model, (images, labels, groups) = oracles.networks()["conv-bn-softplus"], oracles.problem(20)
    top = top_eigenvalues(model, images, labels, groups, num_groups=5)
    plain = traces(model, images, labels, groups, 100)
    deflated = traces(model, images, labels, groups, 100, deflate=top)
    assert list(plain) == list(deflated) == PRESENT
    for group in PRESENT:
        exact = oracles.hessian(model, images[groups == group], labels[groups == group]).trace().item()
        errors = [own[group].std(ddof=1) / 10 for own in (plain, deflated)]
        assert abs(plain[group].mean() - exact) < 4 * errors[0]
        assert abs(deflated[group].mean() - exact) < 4 * errors[1]
        assert errors[1] < errors[0]
    once, again = (traces(model, images, labels, groups, 3) for _ in range(2))
    np.testing.assert_equal(once, again)


def test_half_precision_is_measured_at_its_rounded_weights():
    model, (images, labels, groups) = models.build("small_resnet", 3, 1).eval(), oracles.problem()
    half = quantize_model(model, "fp16")
    found = top_eigenvalues(half, images.float(), labels, groups, rtol=1e-3)
    expected = top_eigenvalues(model, images.float(), labels, groups, rtol=1e-3)
    np.testing.assert_allclose(found.values, expected.values, rtol=2e-2)


def test_bad_input_is_refused():
    model, (images, labels, groups) = oracles.networks()["residual"], oracles.problem()
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        top_eigenvalues(model.train(), images, labels, groups)
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        group_operators(model.train(), images, labels, groups)
    model.eval()
    with pytest.raises(ValueError, match="gradient of the loss is not finite"):
        top_eigenvalues(model, images * torch.inf, labels, groups)


class _Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.lstm(x[:, 0])[0][:, -1])


def _small(kind):
    if kind == "lstm":
        return _Recurrent().eval()
    conv = nn.Conv2d(1, 4, 3)
    conv = nn.utils.parametrizations.weight_norm(conv) if kind == "weight_norm" else conv
    return nn.Sequential(conv, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


@pytest.mark.parametrize("kind", ["lstm", "convolution"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_of_few_images_the_largest_eigenvalue_is_not_mistaken_for_the_second(kind, count):
    for seed in range(6):
        torch.manual_seed(seed)
        model, images = _small(kind), torch.randn(count, 1, 6, 6)
        labels = torch.randint(0, 3, (count,))
        dense = oracles.hessian(model.double(), images.double(), labels)
        expected = torch.linalg.eigvalsh(dense)[-1].item()
        found = top_eigenvalues(model.float(), images, labels, [0] * count).values[0]
        assert found == pytest.approx(expected, rel=1e-3)


def test_many_images_are_served_as_before():
    model, (images, labels, groups) = oracles.networks()["mlp"], oracles.problem(20)
    ((_, operator),) = group_operators(model, images, labels, groups * 0)
    plain = top_eigenvalue(operator, nn.functional.normalize(operator.gradient, dim=0), 1e-2)
    found = top_eigenvalues(model, images, labels, groups * 0)
    assert (found.values[0], found.matvecs[0]) == (plain.value, plain.matvecs)


def test_a_second_derivative_that_is_wrong_is_refused():
    torch.manual_seed(0)
    images, labels = torch.randn(3, 1, 6, 6), torch.tensor([0, 1, 2])
    model = _small("weight_norm")
    with pytest.raises(ValueError, match=r"not those of a symmetric matrix.*remove_parametrizations"):
        top_eigenvalues(model, images, labels, [0] * 3)
    nn.utils.parametrize.remove_parametrizations(model[0], "weight")
    dense = oracles.hessian(model.double(), images.double(), labels)
    found = top_eigenvalues(model.float(), images, labels, [0] * 3).values[0]
    assert found == pytest.approx(torch.linalg.eigvalsh(dense)[-1].item(), rel=1e-3)
