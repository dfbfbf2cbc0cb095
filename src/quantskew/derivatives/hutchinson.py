"""The trace of a symmetric operator from random vectors (Hutchinson, 1990)."""

import numpy as np
import torch


def trace_samples(operator, like, samples, known=None, seed=0):
    """Unbiased samples of the trace: z^T H z for vectors z of independent signs.

    A unit vector u that holds much of the trace can be taken out of the sampling:
    tr H = u^T H u + E[z^T P H P z] with P = 1 - u u^T, exactly and for any u.

    Parameters
    ----------
    operator : callable
        v -> H v for tensors of shape (K,); symmetric.
    like : Tensor of shape (K,)
        Of the type and on the device that the operator takes.
    samples : int
    known : Tensor of shape (K,), optional
        The unit vector u; it costs one more product.
    seed : int

    Returns
    -------
    ndarray of float64, shape (samples,)

    Examples
    --------
    >>> spectrum = torch.tensor([1.0, 2.0, 4.0])
    >>> trace_samples(lambda v: spectrum * v, torch.ones(3), samples=2)
    array([7., 7.])
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
