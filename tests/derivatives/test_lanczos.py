import numpy as np
import pytest
import torch

from quantskew.derivatives.lanczos import top_eigenvalue, trace_samples


def quadratic(spectrum, seed=0, dtype=torch.float64):
    """A dense symmetric matrix of that spectrum in a random basis, and a random start."""
    generator = torch.Generator().manual_seed(seed)
    size = len(spectrum)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    matrix = (basis * torch.as_tensor(spectrum, dtype=torch.float64)) @ basis.T
    return (
        matrix.to(dtype),
        torch.randn(size, generator=generator, dtype=torch.float64).to(dtype),
        basis.to(dtype),
    )


@pytest.mark.parametrize(
    "spectrum",
    [
        np.linspace(0, 1, 30),
        np.r_[np.linspace(-1, 1, 28), 5.0, 20.0],
        np.r_[np.linspace(-1, 1, 29), -50.0],  # the largest magnitude is negative
        np.r_[np.full(20, 3.0), np.zeros(10)],  # degenerate
        -np.linspace(1, 2, 12),  # all negative
        [7.0],
    ],
)
@pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_algebraic_eigenvalue_of_a_known_spectrum(spectrum, rtol, dtype):
    if dtype == torch.float32:
        rtol = max(rtol, 1e-4)
    matrix, start, _ = quadratic(spectrum, dtype=dtype)
    pair = top_eigenvalue(lambda v: matrix @ v, start, rtol)
    rounding = 1e-6 * max(np.abs(spectrum))
    assert pair.residual <= rtol
    # What the residual certifies: there is an eigenvalue this near.
    assert min(abs(pair.value - np.asarray(spectrum))) <= pair.residual * abs(pair.value) + rounding
    if rtol <= 1e-2:
        assert abs(pair.value - max(spectrum)) <= rtol * abs(pair.value) + rounding
    assert pair.vector.norm().item() == pytest.approx(1, abs=1e-6)
    true_residual = (matrix @ pair.vector - pair.value * pair.vector).norm().item() / abs(pair.value)
    assert true_residual == pytest.approx(pair.residual, rel=1e-2, abs=20 * torch.finfo(dtype).eps * 50)


def test_the_residual_is_honest_after_many_steps_in_fp32():
    # A clustered top: the coefficients of dozens of fp32 vectors must still give the true residual.
    matrix, start, _ = quadratic(np.r_[np.linspace(0, 9.9, 400), 10.0], dtype=torch.float32)
    for rtol in (1e-2, 1e-3, 1e-4):
        pair = top_eigenvalue(lambda v: matrix @ v, start, rtol)
        true = (
            matrix.double() @ pair.vector.double() - pair.value * pair.vector.double()
        ).norm() / pair.value
        assert true.item() == pytest.approx(pair.residual, rel=1e-2)
        assert pair.matvecs > 5


def test_a_start_within_an_invariant_subspace_does_not_hide_the_top():
    matrix, _, basis = quadratic([1.0, 2.0, 3.0, 4.0, 5.0])
    for column in range(5):  # each is an eigenvector
        assert top_eigenvalue(lambda v: matrix @ v, basis[:, column], 1e-8).value == pytest.approx(5)
    plane = basis[:, 0] + basis[:, 1]
    assert top_eigenvalue(lambda v: matrix @ v, plane, 1e-8).value == pytest.approx(5)


def test_a_zero_operator_is_zero_and_a_zero_start_is_random():
    pair = top_eigenvalue(lambda v: 0 * v, torch.ones(10), 1e-2)
    assert (pair.value, pair.residual) == (0, 0)
    matrix, _, _ = quadratic([1.0, 2.0, 3.0])
    assert top_eigenvalue(
        lambda v: matrix @ v, torch.zeros(3, dtype=torch.float64), 1e-8
    ).value == pytest.approx(3)


def test_a_negative_semidefinite_operator_has_lambda_max_zero():
    matrix, start, _ = quadratic([-4.0, -1.0, 0.0, 0.0])
    pair = top_eigenvalue(lambda v: matrix @ v, start, 1e-2)
    assert pair.value == pytest.approx(0, abs=1e-12)
    assert pair.residual == 0


def test_the_products_are_counted_and_limited():
    matrix, start, basis = quadratic(np.linspace(0, 1, 200))
    calls = []

    def operator(vector):
        calls.append(vector)
        return matrix @ vector

    pair = top_eigenvalue(operator, start, 1e-9, max_matvecs=7)
    assert pair.matvecs == len(calls) == 7
    true = (matrix @ pair.vector - pair.value * pair.vector).norm().item() / pair.value
    assert pair.residual == pytest.approx(true)
    assert pair.residual > 1e-9
    near = top_eigenvalue(operator, basis[:, -1] + 1e-3 * start, 1e-1)
    assert near.matvecs <= 2


def test_the_same_input_gives_the_same_output():
    matrix, start, _ = quadratic(np.linspace(-1, 1, 50))
    first, second = (top_eigenvalue(lambda v: matrix @ v, start) for _ in range(2))
    assert first.value == second.value
    assert torch.equal(first.vector, second.vector)


def test_what_is_not_finite_is_refused():
    for start in (torch.ones(2), torch.tensor([1.0, torch.nan])):
        with pytest.raises(ValueError, match="product with the operator is not finite"):
            top_eigenvalue(lambda v: v * torch.inf, start)


def test_trace_samples_are_unbiased_and_deflation_narrows_them():
    matrix, _, basis = quadratic(np.r_[np.linspace(-1, 1, 40), 30.0])
    operator, like = (lambda v: matrix @ v), basis[:, 0]
    plain = trace_samples(operator, like, 2000)
    deflated = trace_samples(operator, like, 2000, known=basis[:, -1])
    for drawn in (plain, deflated):
        assert abs(drawn.mean() - 30) < 4 * drawn.std() / np.sqrt(2000)
    assert deflated.std() < plain.std() / 3
    # Any unit vector leaves the estimate right, not only an eigenvector.
    other = torch.nn.functional.normalize(basis[:, -1] + basis[:, 0], dim=0)
    drawn = trace_samples(operator, like, 2000, known=other)
    assert abs(drawn.mean() - 30) < 4 * drawn.std() / np.sqrt(2000)
