"""The curvature of each group's loss at fixed weights (section 4.5 of the paper).

The Hessian is that of the mean cross-entropy of a group's images with respect to all trainable parameters
(see `quantskew.derivatives.gradients`), in evaluation mode and full fp32, with torch's convention that a ReLU
has slope 0 at 0.  Products with it are exact; it is never formed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from tqdm.auto import tqdm

from quantskew.derivatives.lanczos import top_eigenvalue, trace_samples
from quantskew.derivatives.operator import group_operators
from quantskew.derivatives.problem import check_problem


@dataclass(frozen=True, eq=False)
class TopEigenvalues:
    """lambda_max of each group.

    Attributes
    ----------
    values : ndarray of float64, shape (G,)
        lambda_max; NaN for a group without images.
    residuals : ndarray of float64, shape (G,)
        ||H u - lambda u|| / |lambda|: an eigenvalue of H lies within this share of the value.
    matvecs : ndarray of int64, shape (G,)
        Hessian-vector products that were needed.
    vectors : tuple of (Tensor of shape (K,) or None)
        Eigenvectors, in the order of `quantskew.derivatives.gradients.parameter_vector`.
    gradient_norms : ndarray of float64, shape (G,)
        The norm of Eq. 10, which comes with the Hessian.
    """

    values: np.ndarray
    residuals: np.ndarray
    matvecs: np.ndarray
    vectors: tuple
    gradient_norms: np.ndarray


def top_eigenvalues(
    model, images, labels, groups, rtol=1e-2, *, num_groups=None, start=None, max_matvecs=100, **options
):
    """Largest algebraic eigenvalue lambda_max(H_g) of the Hessian of each group's loss.

    Lanczos with full re-orthogonalization (`quantskew.derivatives.lanczos.top_eigenvalue`), started from the
    group's gradient, which lies near the top eigenvector of a classifier, or from `start`.

    Parameters
    ----------
    model, images, labels, groups, num_groups
        See `quantskew.derivatives.gradients.group_gradient_norms`.
    rtol : float
        Relative residual to reach.
    start : TopEigenvalues, optional
        Of a similar model, such as the same at the next precision: its eigenvectors are the start.
    max_matvecs : int
        Most products a group; one that stops there has a residual above `rtol`.
    **options
        ``chunk_size`` and ``memory_budget``, see `quantskew.derivatives.operator.HessianOperator`.

    Returns
    -------
    TopEigenvalues

    Raises
    ------
    ValueError
        See `quantskew.derivatives.gradients.group_gradient_norms`; and if `start` has not G vectors of K
        parameters.

    Examples
    --------
    Softmax regression on one image x = 2 with p = (1/2, 1/2): H = (diag(p) - p p^T) x^2, of eigenvalues
    0 and 2.

    >>> layer = torch.nn.Linear(1, 2, bias=False).eval()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> top_eigenvalues(layer, torch.tensor([[2.0]]), [0], [1]).values
    array([nan,  2.])
    """
    num_groups = len(check_problem(model, images, labels, groups, num_groups).members)
    if start is not None and len(start.vectors) != num_groups:
        raise ValueError(f"start has {len(start.vectors)} groups, the images have {num_groups}")
    values, residuals, norms = np.full((3, num_groups), np.nan)
    matvecs, vectors = np.zeros(num_groups, dtype=np.int64), [None] * num_groups
    operators = group_operators(model, images, labels, groups, num_groups, **options)
    with tqdm(total=num_groups, desc="lambda_max", unit=" groups", leave=False) as bar:
        for group, operator in operators:
            norms[group] = torch.linalg.vector_norm(operator.gradient, dtype=torch.float64)
            before = None if start is None else start.vectors[group]
            pair = top_eigenvalue(operator, starting_vector(operator, before), rtol, max_matvecs)
            values[group], residuals[group], matvecs[group] = pair.value, pair.residual, pair.matvecs
            vectors[group] = pair.vector
            del operator  # before the next one is built
            bar.update()
    return TopEigenvalues(values, residuals, matvecs, tuple(vectors), norms)


def starting_vector(operator, neighbour=None):
    """Where Lanczos begins: the gradient, or a similar model's eigenvector with a tenth of the gradient.

    The tenth keeps the neighbour's eigenvector from hiding another one that has overtaken it.

    Parameters
    ----------
    operator : HessianOperator
    neighbour : Tensor of shape (K,), optional

    Returns
    -------
    Tensor of shape (K,)

    Raises
    ------
    ValueError
        If the neighbour has another number of parameters.
    """
    gradient = functional.normalize(operator.gradient, dim=0)
    if neighbour is None:
        return gradient
    if neighbour.shape != gradient.shape:
        raise ValueError(f"a start of {neighbour.numel()} parameters does not fit {gradient.numel()}")
    return neighbour.to(gradient) + 0.1 * gradient


@dataclass(frozen=True, eq=False)
class Traces:
    """Estimated trace of each group's Hessian.

    Attributes
    ----------
    values : ndarray of float64, shape (G,)
        NaN for a group without images.
    standard_errors : ndarray of float64, shape (G,)
        Standard deviation of the samples over the root of their number.
    samples : int
        Random vectors a group.
    """

    values: np.ndarray
    standard_errors: np.ndarray
    samples: int


def traces(model, images, labels, groups, samples=16, *, num_groups=None, deflate=None, seed=0, **options):
    """Trace of the Hessian of each group's loss by Hutchinson's estimator, with its standard error.

    tr H = E[z^T H z] for z of independent signs.  With a unit vector u, tr H = u^T H u + E[z^T P H P z],
    P = 1 - u u^T: where u is the top eigenvector, which holds much of the trace, less of it is left to
    chance.

    Parameters
    ----------
    model, images, labels, groups, num_groups
        See `quantskew.derivatives.gradients.group_gradient_norms`.
    samples : int
        Random vectors a group, at least 2; each costs one product.  Every group and every model with the
        same `seed` gets the same ones, so that differences are less uncertain than the values.
    deflate : TopEigenvalues, optional
        Its vectors are taken out as above, for one more product a group.
    seed : int
    **options
        See `top_eigenvalues`.

    Returns
    -------
    Traces

    Raises
    ------
    ValueError
        See `top_eigenvalues`; and if `samples` is below 2.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 2, bias=False).eval()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> top = top_eigenvalues(layer, torch.tensor([[2.0]]), [0], [0])
    >>> traces(layer, torch.tensor([[2.0]]), [0], [0], deflate=top).values.round(4)
    array([2.])
    """
    if samples < 2:
        raise ValueError(f"samples must be at least 2 for a standard error; got {samples}")
    num_groups = len(check_problem(model, images, labels, groups, num_groups).members)
    values, errors = np.full((2, num_groups), np.nan)
    operators = group_operators(model, images, labels, groups, num_groups, **options)
    with tqdm(total=num_groups, desc="trace", unit=" groups", leave=False) as bar:
        for group, operator in operators:
            vector = None if deflate is None else deflate.vectors[group].to(operator.gradient)
            drawn = trace_samples(operator, operator.gradient, samples, vector, seed)
            values[group] = drawn.mean()
            errors[group] = drawn.std(ddof=1) / np.sqrt(samples)
            del operator
            bar.update()
    return Traces(values, errors, samples)
