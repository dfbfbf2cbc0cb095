"""What a symmetric operator is known by: its largest eigenvalue, certified by a residual, and its trace.

Power iteration finds the eigenvalue of largest magnitude, which may be a negative one; Lanczos finds both
ends of the spectrum, and the upper one is taken.  Operators map tensors of shape (K,) to such tensors.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

# Share of the spectrum's size; rounding leaves far less.
_ASYMMETRY = 0.01


@dataclass(frozen=True, eq=False)
class Eigenpair:
    """An approximate eigenvalue theta with its eigenvector u (K,) of length 1.

    An eigenvalue of H lies within the share `residual` = ||H u - theta u|| / |theta| of it; `matvecs` is the
    number of products with H.
    """

    value: float
    vector: torch.Tensor
    residual: float
    matvecs: int


def top_eigenvalue(operator, start, rtol=1e-2, max_matvecs=100, seed=0):
    """Largest algebraic eigenvalue of a symmetric operator, by Lanczos with full re-orthogonalization.

    Each step multiplies once, makes the product orthogonal to all vectors before it (twice) and keeps the
    coefficients h, so that H Q = Q h + beta q e^T holds to rounding.  The residual of the Ritz pair
    (theta, Q s) follows from them without another product: ||h s - theta s||^2 + (beta s_k)^2, squared.

    It certifies that there is an eigenvalue near theta.  That it is the largest rests, as in every Krylov
    method, on a start that has a part along its eigenvector; where the start turns out to lie in an invariant
    subspace, the search goes on from a random vector.

    Parameters
    ----------
    operator : callable
        v -> H v.
    start : Tensor of float, shape (K,)
        The gradient, or the eigenvector of a similar operator; zeros stand for a random vector.
    rtol : float
        Relative residual at which to stop.
    max_matvecs : int
        Products after which to stop in any case; the residual tells.
    seed : int
        Of the random vectors.

    Returns
    -------
    Eigenpair

    Examples
    --------
    >>> spectrum = torch.tensor([-9.0, 1.0, 4.0])
    >>> pair = top_eigenvalue(lambda v: spectrum * v, torch.ones(3))
    >>> round(pair.value, 4), pair.matvecs
    (4.0, 3)
    """
    generator = torch.Generator().manual_seed(seed)
    eps = torch.finfo(start.dtype).eps
    vector = start if bool(start.any()) else _random(start, generator)
    basis, coefficients = [], np.zeros((max_matvecs + 1, max_matvecs))
    restart = 0  # step from which on the basis comes from a random vector
    while True:
        basis.append(vector / _norm(vector))
        vector = product = None  # not kept while the operator needs memory
        steps = len(basis)
        product = operator(basis[-1])
        if not bool(torch.isfinite(product).all()):
            raise ValueError("a product with the operator is not finite")
        vector, coefficients[:steps, steps - 1] = _orthogonalize(product, basis)
        coefficients[steps, steps - 1] = beta = _norm(vector)
        value, weights, residual, scale = _ritz_pair(coefficients[: steps + 1, :steps])
        # What a symmetric operator makes of the basis is tridiagonal.
        if np.abs(np.triu(coefficients[:steps, :steps], 2)).max() > _ASYMMETRY * scale:
            what = "the products are not those of a symmetric matrix"
            why = "so a second derivative is wrong, as torch's of weight_norm is"
            raise ValueError(f"{what}, {why}: remove_parametrizations first, or write the layer plainly")
        noise = 32 * eps * scale  # what rounding leaves of a product with an eigenvector
        if steps in (start.numel(), max_matvecs):
            break
        if beta <= noise:
            # The basis is invariant: exact for what the start has a part of, blind to the rest.
            if restart:
                break
            coefficients[steps, steps - 1] = 0.0
            restart = steps
            vector, _ = _orthogonalize(_random(start, generator), basis)
        elif residual <= max(rtol * abs(value), noise):
            # After a restart, what the random vector has found must have settled too.
            *_, rest, _ = _ritz_pair(coefficients[restart : steps + 1, restart:steps])
            if rest <= max(rtol * abs(value), noise):
                break
    vector = sum(float(weight) * q for weight, q in zip(weights, basis, strict=True))
    if abs(value) <= noise and residual <= noise:
        relative = 0.0  # lambda_max is 0, as far as can be told
    else:
        relative = residual / abs(value) if value else math.inf
    return Eigenpair(value, vector / _norm(vector), relative, steps)


def _ritz_pair(hessenberg):
    """Largest Ritz value, its weights in the basis, its residual, and the spectrum's size."""
    square, beta = hessenberg[:-1], hessenberg[-1, -1]
    values, vectors = np.linalg.eigh((square + square.T) / 2)
    value, weights = values[-1], vectors[:, -1]
    residual = np.hypot(np.linalg.norm(square @ weights - value * weights), beta * weights[-1])
    return float(value), weights, float(residual), float(np.abs(values).max())


def _orthogonalize(vector, basis):
    """`vector` minus its part in the span of `basis`, and its coefficients there."""
    coefficients = np.zeros(len(basis))
    vector = vector.clone()
    for _ in range(2):  # once leaves rounding errors that a second time removes
        for index, q in enumerate(basis):
            coefficient = float(torch.dot(q, vector))
            vector.sub_(q, alpha=coefficient)
            coefficients[index] += coefficient
    return vector, coefficients


def _random(like, generator):
    return torch.randn(like.numel(), generator=generator).to(like)


def _norm(vector):
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def trace_samples(operator, like, samples, known=None, seed=0):
    """Unbiased samples of the trace of a symmetric operator: z^T H z for vectors z of independent signs.

    A unit vector u, given as `known`, that holds much of the trace is taken out of the sampling for one more
    product: tr H = u^T H u + E[z^T P H P z] with P = 1 - u u^T, exactly and for any u.
    """
    generator = torch.Generator().manual_seed(seed)
    exact = 0.0 if known is None else _quadratic_form(operator, known)
    drawn = np.empty(samples)
    for index in range(samples):
        signs = torch.randint(0, 2, (like.numel(),), generator=generator).to(like).mul_(2).sub_(1)
        if known is not None:
            signs -= torch.dot(known, signs) * known
        drawn[index] = _quadratic_form(operator, signs)
    return exact + drawn


def _quadratic_form(operator, vector):
    return float((vector * operator(vector)).sum(dtype=torch.float64))
