"""The Hessian of each group's loss at fixed weights (section 4.5 of the paper): products and lambda_max.

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

from quantskew.derivatives.gradients import batch_of_pixels, check_problem, flatten, full_precision, unflatten
from quantskew.derivatives.lanczos import top_eigenvalue
from quantskew.groups import check_group_ids

_PIXELS_PER_CHUNK = 64 * 64 * 64
_FEW_IMAGES = 8


class HessianOperator:
    """Hessian-vector products with the mean cross-entropy of some images.

    The graph of the gradient is built in chunks of `chunk_size` images (by default 64 of 64x64 pixels, and as
    many pixels of other sizes), once, and differentiated again for every product, as long as the graphs fit
    into `memory_budget` bytes; the chunks beyond it build theirs anew for each product, which then costs half
    as much again.  A by-product is `gradient`, that of the loss (Eq. 10), of shape (K,).
    """

    def __init__(self, model, images, labels, chunk_size=None, memory_budget=2**30):
        self.model, self.parameters = model, [p for p in model.parameters() if p.requires_grad]
        self.count = len(images)
        chunks = -(-self.count // (chunk_size or batch_of_pixels(images, _PIXELS_PER_CHUNK)))
        self._chunks = list(zip(images.tensor_split(chunks), labels.tensor_split(chunks), strict=True))
        most = memory_budget // self._largest_graph()
        self._graphs, self.gradient = [], 0
        for index, chunk in enumerate(self._chunks):
            gradient, graph = self._differentiate(*chunk)
            self._graphs.append(graph if index < most else None)
            self.gradient = self.gradient + gradient
        if not bool(torch.isfinite(self.gradient).all()):
            raise ValueError("the gradient of the loss is not finite; check the weights and images")

    def __call__(self, vector):
        """H v, for v of shape (K,) in the order of `quantskew.derivatives.gradients.parameter_vector`."""
        # In the memory format of the parameters, so that no chunk has to convert them.
        pairs = zip(self.parameters, unflatten(vector, self.parameters), strict=True)
        directions = [torch.empty_like(p).copy_(piece) for p, piece in pairs]
        chunks = zip(self._chunks, self._graphs, strict=True)
        return sum(self._product(chunk, graph, directions) for chunk, graph in chunks)

    def _product(self, chunk, kept, directions):
        graph = kept or self._differentiate(*chunk)[1]
        edges = [edge for edge in graph if edge is not None]
        if not edges:  # the loss does not depend on the parameters, or only linearly
            return flatten([torch.zeros_like(p) for p in self.parameters])
        along = [own for own, edge in zip(directions, graph, strict=True) if edge is not None]
        options = {"retain_graph": kept is not None, "allow_unused": True, "materialize_grads": True}
        with full_precision(chunk[0].device):
            return flatten(torch.autograd.grad(edges, self.parameters, along, **options))

    def _differentiate(self, images, labels):
        """A chunk's part of the gradient, and where its graph begins for each parameter."""
        # The other kernels of attention cannot be differentiated twice.
        with full_precision(images.device), sdpa_kernel(SDPBackend.MATH):
            loss = functional.cross_entropy(self.model(images), labels, reduction="sum") / self.count
            options = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
            gradient = torch.autograd.grad(loss, self.parameters, **options)
        # The edges keep the graph alive without the gradient's own values.
        edges = [get_gradient_edge(g) if g.requires_grad else None for g in gradient]
        return flatten([g.detach() for g in gradient]), edges

    def _largest_graph(self):
        """Bytes that the graph of a chunk keeps, other than the parameters, from the graph of one image."""
        (images, labels), storages = self._chunks[0], {}

        def count(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        with saved_tensors_hooks(count, lambda tensor: tensor):
            self._differentiate(images[:1].clone(), labels[:1])
        for parameter in self.parameters:
            storages.pop(parameter.untyped_storage().data_ptr(), None)
        return max(1, sum(storages.values())) * len(images)


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
    model, images, labels, members = check_problem(model, images, labels, groups, num_groups)
    present = ((group, own) for group, own in enumerate(members) if len(own) and group not in skip)
    return ((group, HessianOperator(model, images[own], labels[own], **options)) for group, own in present)


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
    operators = group_operators(model, images, labels, groups, num_groups, **options)
    _, num_groups = check_group_ids(torch.as_tensor(groups).cpu(), num_groups)
    values, residuals = np.full((2, num_groups), np.nan)
    matvecs, vectors = np.zeros(num_groups, dtype=np.int64), [None] * num_groups
    with tqdm(total=num_groups, desc="lambda_max", unit=" groups", leave=False) as bar:
        for group, operator in operators:
            pair = top_eigenpair(operator, rtol=rtol, max_matvecs=max_matvecs)
            values[group], residuals[group], matvecs[group] = pair.value, pair.residual, pair.matvecs
            vectors[group] = pair.vector
            bar.update()
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
