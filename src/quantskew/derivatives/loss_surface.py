"""What steepness means: the loss along a direction, and a bound on what a change of weights adds."""

import numpy as np
import torch
from torch.nn import functional

from quantskew.derivatives.differentiation import check_problem, full_precision, trainable_parameters


def excess_loss_bound(gradient_norm, lambda_max, change_norm):
    """Bound on what a change d of the weights adds to a group's loss, to second order.

    R(a) <= ||g_a|| ||d|| + 1/2 lambda_max(H_a) ||d||^2 + O(||d||^3) (Tran et al., 2022, for pruning; the
    second-order expansion of Eq. 4 of the paper).  For quantization d is the dequantized less the original
    weights; the gradient and lambda_max are those of the original model.

    The last term is left out, so that the excess loss of a large change can exceed the bound.

    Parameters
    ----------
    gradient_norm : array_like of float, shape (G,)
        ||g_a||, see `quantskew.derivatives.gradients.group_gradient_norms`.
    lambda_max : array_like of float, shape (G,)
        See `quantskew.derivatives.hessian.top_eigenvalues`.  With a negative one the quadratic term is
        negative too.
    change_norm : float or array_like of shape (G,)
        ||d||, the l2 norm over the parameters that gradient and Hessian are taken with respect to.

    Returns
    -------
    ndarray of float64, shape (G,)
        In nats; NaN where a group has no images.

    Raises
    ------
    ValueError
        If a norm is negative.

    Examples
    --------
    >>> excess_loss_bound([0.5, 1.0], [8.0, 2.0], change_norm=0.5)
    array([1.25, 0.75])
    """
    gradient_norm, lambda_max, change_norm = (
        np.asarray(value, dtype=np.float64) for value in (gradient_norm, lambda_max, change_norm)
    )
    for norm, what in ((gradient_norm, "gradient_norm"), (change_norm, "change_norm")):
        if (norm < 0).any():
            raise ValueError(f"{what} is a norm and cannot be negative; got {norm.min()}")
    return gradient_norm * change_norm + 0.5 * lambda_max * change_norm**2


def loss_along(model, images, labels, direction, steps, batch_size=256):
    """Mean cross-entropy of some images with the weights theta + t d, for each t.

    Parameters
    ----------
    model, images, labels
        See `quantskew.derivatives.gradients.group_gradient_norms`; the model is not changed.
    direction : Tensor of float, shape (K,)
        d, in the order of `quantskew.derivatives.gradients.parameter_vector`: an eigenvector, or the change
        that quantization makes.
    steps : array_like of float, shape (T,)
        The values of t.
    batch_size : int

    Returns
    -------
    ndarray of float64, shape (T,)

    Raises
    ------
    ValueError
        See `quantskew.derivatives.gradients.group_gradient_norms`; and if there are no images, or `direction`
        has another number of parameters than the model.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 2, bias=False).eval()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> loss_along(layer, torch.tensor([[2.0]]), [0], torch.tensor([1.0, -1.0]), [0, 1]).round(3)
    array([0.693, 0.018])
    """
    problem = check_problem(model, images, labels, np.zeros(len(images), dtype=np.int64), 1)
    if not len(images):
        raise ValueError("there are no images whose loss could be computed")
    names = {id(p): name for name, p in problem.model.named_parameters()}
    parameters = trainable_parameters(problem.model)
    sizes = [p.numel() for p in parameters]
    if direction.shape != (sum(sizes),):
        raise ValueError(
            f"direction has shape {tuple(direction.shape)}; the model has {sum(sizes)} parameters"
        )
    pieces = direction.to(parameters[0]).split(sizes)
    losses = np.zeros(len(steps))
    for index, step in enumerate(steps):
        moved = {
            names[id(p)]: p.detach() + float(step) * piece.view_as(p)
            for p, piece in zip(parameters, pieces, strict=True)
        }
        losses[index] = _mean_loss(problem, moved, batch_size)
    return losses


def _mean_loss(problem, parameters, batch_size):
    total = 0.0
    with full_precision(problem.images.device), torch.no_grad():
        for images, labels in zip(
            problem.images.split(batch_size), problem.labels.split(batch_size), strict=True
        ):
            logits = torch.func.functional_call(problem.model, parameters, (images,))
            total += float(functional.cross_entropy(logits.double(), labels, reduction="sum"))
    return total / len(problem.images)
