"""The Hessian of each group's loss at fixed weights (section 4.5 of the paper): products, lambda_max, trace.

It is that of the mean cross-entropy of a group's images with respect to all trainable parameters, in
evaluation mode and full fp32, with torch's convention that a ReLU has slope 0 at 0.  Products with it are
exact; it is never formed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from quantskew.derivatives.folding import DifferentiableModel
from quantskew.derivatives.gradients import batch_of_pixels, check_problem, flatten, full_precision, unflatten
from quantskew.derivatives.lanczos import top_eigenvalue, trace_samples

_PIXELS_PER_CHUNK = 64 * 64 * 64
_FEW_IMAGES = 8


class HessianOperator:
    """Hessian-vector products with the mean cross-entropy of some images under a `DifferentiableModel`.

    The graph of the gradient is built in chunks of `chunk_size` images (by default 64 of 64x64 pixels, and as
    many pixels of other sizes), once, and differentiated again for every product, as long as the graphs fit
    into `memory_budget` bytes; the chunks beyond it build theirs anew for each product, which then costs half
    as much again.  A by-product is `gradient`, that of the loss (Eq. 10), of shape (K,).
    """

    def __init__(self, model, images, labels, chunk_size=None, memory_budget=2**30):
        self.model = model
        if chunk_size is None:
            chunk_size = batch_of_pixels(images, _PIXELS_PER_CHUNK)
        count = -(-len(images) // chunk_size)
        self._chunks = list(zip(images.tensor_split(count), labels.tensor_split(count), strict=True))
        self.count, self._share = len(images), 1 / len(images)
        most = memory_budget // self._largest_graph()
        self._kept, total = [], None
        for chunk in self._chunks:
            gradient, graph = self._differentiate(*chunk)
            if len(self._kept) < most:
                self._kept.append(graph)
            total = _sum(total, gradient)
        with full_precision(images.device):
            pulled, self._differential = model.differential(total)
        self.gradient = flatten(pulled)
        if not bool(torch.isfinite(self.gradient).all()):
            raise ValueError("the gradient of the loss is not finite; check the weights and images")

    def __call__(self, vector):
        """H v, for v of shape (K,) in the order of `quantskew.derivatives.gradients.parameter_vector`."""
        with full_precision(vector.device):
            # In the memory format of the parameters, so that no chunk has to convert them.
            pairs = zip(self.model.parameters, unflatten(vector, self.model.parameters), strict=True)
            moved, own = self._differential([torch.empty_like(p).copy_(piece) for p, piece in pairs])
            total = None
            for index, chunk in enumerate(self._chunks):
                kept = index < len(self._kept)
                graph = self._kept[index] if kept else self._differentiate(*chunk)[1]
                total = _sum(total, self._product(graph, moved, kept))
            result = flatten(self.model.pull_back(total))
            return result if own is None else result.add_(flatten(own))

    def _product(self, graph, moved, kept):
        edges = [edge for edge in graph if edge is not None]
        directions = [m for m, edge in zip(moved, graph, strict=True) if edge is not None]
        if not edges:  # the loss does not depend on the parameters, or only linearly
            return [torch.zeros_like(leaf) for leaf in self.model.leaves]
        options = {"retain_graph": kept, "allow_unused": True, "materialize_grads": True}
        return torch.autograd.grad(edges, self.model.leaves, directions, **options)

    def _differentiate(self, images, labels):
        """A chunk's part of the gradient in the leaves, and where its graph begins for each leaf."""
        # The other kernels of attention cannot be differentiated twice.
        with full_precision(images.device), sdpa_kernel(SDPBackend.MATH):
            loss = functional.cross_entropy(self.model(images), labels, reduction="sum") * self._share
            options = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
            gradient = torch.autograd.grad(loss, self.model.leaves, **options)
        # The edges keep the graph alive without the gradient's own values.
        edges = [get_gradient_edge(g) if g.requires_grad else None for g in gradient]
        return [g.detach() for g in gradient], edges

    def _largest_graph(self):
        """Bytes that the graph of a chunk keeps, other than the parameters, from the graph of one image."""
        images, labels = self._chunks[0]
        known = self.model.graph_bytes
        if images.shape[1:] not in known:
            storages = {}

            def count(tensor):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor.detach()

            with saved_tensors_hooks(count, lambda tensor: tensor):
                self._differentiate(images[:1].clone(), labels[:1])
            for leaf in self.model.leaves:
                storages.pop(leaf.untyped_storage().data_ptr(), None)
            known[images.shape[1:]] = max(1, sum(storages.values()))
        return known[images.shape[1:]] * len(images)


def _sum(total, terms):
    # Not in place: autograd may hand out one tensor as the gradient of two leaves.
    return terms if total is None else [t + term for t, term in zip(total, terms, strict=True)]


def group_operators(model, images, labels, groups, num_groups=None, skip=(), **options):
    """The Hessian operator of each group's loss: pairs of a group that has images and a `HessianOperator`.

    An operator is built when its turn comes, and its memory is free again when the caller lets go of it.

    Parameters
    ----------
    model, images, labels, groups, num_groups
        See `quantskew.derivatives.gradients.group_gradient_norms`.
    skip : collection of int
        Groups to leave out, such as those that an interrupted run has done.
    **options
        ``chunk_size`` and ``memory_budget``, see `HessianOperator`.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 2, bias=False).eval()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> ((group, operator),) = group_operators(layer, torch.tensor([[2.0]]), [0], [1])
    >>> operator(torch.tensor([1.0, -1.0]))  # (diag(p) - p p^T) x^2 v with p = (1/2, 1/2)
    tensor([ 2., -2.])
    """
    problem = check_problem(model, images, labels, groups, num_groups)
    return _operators(problem, skip=skip, **options)


def _operators(problem, title=None, skip=(), **options):
    """The same of a checked problem; the model is rewritten once for all groups, a bar counts them."""
    rewritten, look = None, {"unit": " groups", "leave": False, "disable": not title}
    for group, members in enumerate(tqdm(problem.members, title, **look)):
        if not len(members) or group in skip:
            continue
        images = problem.images[members]
        if rewritten is None:
            rewritten = DifferentiableModel(problem.model, images[:2])
        yield group, HessianOperator(rewritten, images, problem.labels[members], **options)


@dataclass(frozen=True, eq=False)
class TopEigenvalues:
    """lambda_max of each of G groups: NaN, and no vector, for a group without images.

    An eigenvalue of H lies within the share `residuals`, ||H u - lambda u|| / |lambda|, of each of `values`;
    `matvecs` counts the Hessian-vector products, and `vectors` are the u of shape (K,), in the order of
    `quantskew.derivatives.gradients.parameter_vector`.
    """

    values: np.ndarray
    residuals: np.ndarray
    matvecs: np.ndarray
    vectors: tuple


def top_eigenvalues(model, images, labels, groups, rtol=1e-2, *, num_groups=None, max_matvecs=100, **options):
    """Largest algebraic eigenvalue lambda_max(H_g) of the Hessian of each group's loss.

    Lanczos with full re-orthogonalization (`quantskew.derivatives.lanczos.top_eigenvalue`), started from the
    group's gradient, which lies near the top eigenvector of a classifier.

    Parameters
    ----------
    model, images, labels, groups, num_groups
        See `quantskew.derivatives.gradients.group_gradient_norms`, likewise for what is refused.
    rtol : float
        Relative residual to reach.
    max_matvecs : int
        Most products a group; one that stops there has a residual above `rtol`.
    **options
        ``chunk_size`` and ``memory_budget``, see `HessianOperator`.

    Returns
    -------
    TopEigenvalues

    Examples
    --------
    Softmax regression on one image x = 2 with p = (1/2, 1/2): H = (diag(p) - p p^T) x^2, of eigenvalues
    0 and 2.

    >>> layer = torch.nn.Linear(1, 2, bias=False).eval()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> top_eigenvalues(layer, torch.tensor([[2.0]]), [0], [1]).values
    array([nan,  2.])
    """
    problem = check_problem(model, images, labels, groups, num_groups)
    num_groups = len(problem.members)
    values, residuals = np.full((2, num_groups), np.nan)
    matvecs, vectors = np.zeros(num_groups, dtype=np.int64), [None] * num_groups
    for group, operator in _operators(problem, "lambda_max", **options):
        pair = top_eigenpair(operator, rtol=rtol, max_matvecs=max_matvecs)
        values[group], residuals[group], matvecs[group] = pair.value, pair.residual, pair.matvecs
        vectors[group] = pair.vector
        del operator  # before the next one is built
    return TopEigenvalues(values, residuals, matvecs, tuple(vectors))


def top_eigenpair(operator, neighbour=None, rtol=1e-2, **options):
    """The `quantskew.derivatives.lanczos.Eigenpair` of lambda_max of a `HessianOperator`.

    Lanczos begins at the gradient, or at a similar model's eigenvector with a tenth of the gradient, which
    keeps it from hiding another one that has overtaken it.  Of few images the largest eigenvalues lie close
    together, and the second may be taken for the first: there the residual is to be ten times smaller.
    """
    gradient = functional.normalize(operator.gradient, dim=0)
    start = gradient if neighbour is None else neighbour.to(gradient) + 0.1 * gradient
    return top_eigenvalue(operator, start, rtol if operator.count >= _FEW_IMAGES else rtol / 10, **options)


def traces(model, images, labels, groups, samples=16, *, num_groups=None, deflate=None, seed=0, **options):
    """Trace of the Hessian of each group's loss by Hutchinson's estimator, and its standard error.

    tr H = E[z^T H z] for z of independent signs.  Every group and every model with the same `seed` gets the
    same z, so that differences are less uncertain than the values.

    Parameters
    ----------
    model, images, labels, groups, num_groups, **options
        See `top_eigenvalues`.
    samples : int
        Random vectors a group, at least 2; each costs one product.
    deflate : TopEigenvalues, optional
        Its vectors, which hold much of the trace, are not left to chance, for one more product a group.
    seed : int

    Returns
    -------
    values, standard_errors : ndarray of float64, shape (G,)
        NaN for a group without images.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 2, bias=False).eval()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> top = top_eigenvalues(layer, torch.tensor([[2.0]]), [0], [0])
    >>> traces(layer, torch.tensor([[2.0]]), [0], [0], deflate=top)[0].round(4)
    array([2.])
    """
    if samples < 2:
        raise ValueError(f"samples must be at least 2 for a standard error; got {samples}")
    problem = check_problem(model, images, labels, groups, num_groups)
    values, errors = np.full((2, len(problem.members)), np.nan)
    for group, operator in _operators(problem, "trace", **options):
        vector = None if deflate is None else deflate.vectors[group].to(operator.gradient)
        drawn = trace_samples(operator, operator.gradient, samples, vector, seed)
        values[group], errors[group] = drawn.mean(), drawn.std(ddof=1) / np.sqrt(samples)
        del operator
    return values, errors
