"""The Hessian of the mean cross-entropy of some images as an operator: v -> H v, exact, in chunks."""

import torch
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks
from torch.nn import functional

from quantskew.derivatives.folding import DifferentiableModel
from quantskew.derivatives.problem import batch_of_pixels, check_problem, flatten, full_precision

MEMORY_BUDGET = 2**30
_PIXELS_PER_CHUNK = 64 * 64 * 64


class HessianOperator:
    """Hessian-vector products with the mean cross-entropy of a set of images.

    The graph of each chunk's gradient is built once and differentiated again for every product, as long as
    the graphs fit into `memory_budget`; the chunks beyond it build theirs anew for each product, which then
    costs half as much again.

    Parameters
    ----------
    model : DifferentiableModel
    images : Tensor of float, shape (N, ...), N at least 1
    labels : Tensor of int64, shape (N,)
    chunk_size : int, optional
        Images differentiated together; by default 64 of 64x64 pixels, and as many pixels of other sizes.
    memory_budget : int
        Bytes that the graphs of all chunks may hold together.

    Attributes
    ----------
    size : int
        Number of parameters K.
    gradient : Tensor of shape (K,)
        Gradient of the loss (Eq. 10), a by-product of building the graphs.
    products : int
        Hessian-vector products computed so far.

    Raises
    ------
    ValueError
        If the gradient is not finite.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 2, bias=False).eval()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> images = torch.tensor([[2.0]])
    >>> operator = HessianOperator(DifferentiableModel(layer, images), images, torch.tensor([0]))
    >>> operator(torch.tensor([1.0, -1.0]))  # (diag(p) - p p^T) x^2 v with p = (1/2, 1/2)
    tensor([ 2., -2.])
    """

    def __init__(self, model, images, labels, chunk_size=None, memory_budget=MEMORY_BUDGET):
        self.model = model
        self.size = sum(p.numel() for p in model.parameters)
        self.products = 0
        if chunk_size is None:
            chunk_size = batch_of_pixels(images, _PIXELS_PER_CHUNK)
        count = -(-len(images) // chunk_size)
        self._chunks = list(zip(images.tensor_split(count), labels.tensor_split(count), strict=True))
        self._share = 1 / len(images)
        self._kept = [None] * min(count, int(memory_budget // self._largest_graph()))
        total = None
        for index in range(count):
            gradient, graph = self._differentiate(*self._chunks[index])
            if index < len(self._kept):
                self._kept[index] = graph
            total = _sum(total, gradient)
        with full_precision(images.device):
            pulled, self._differential = model.differential(total)
        self.gradient = flatten(pulled)
        if not bool(torch.isfinite(self.gradient).all()):
            raise ValueError("the gradient of the loss is not finite; check the weights and images")

    def __call__(self, vector):
        """H v.

        Parameters
        ----------
        vector : Tensor of shape (K,)
            In the order of `quantskew.derivatives.gradients.parameter_vector`.

        Returns
        -------
        Tensor of shape (K,)
        """
        self.products += 1
        with full_precision(vector.device):
            moved, own = self._differential(self._unflatten(vector))
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
        return torch.autograd.grad(
            edges,
            self.model.leaves,
            directions,
            retain_graph=kept,
            allow_unused=True,
            materialize_grads=True,
        )

    def _differentiate(self, images, labels):
        """A chunk's part of the gradient in the leaves, and where its graph begins for each leaf."""
        with full_precision(images.device):
            loss = functional.cross_entropy(self.model(images), labels, reduction="sum") * self._share
            gradient = torch.autograd.grad(
                loss, self.model.leaves, create_graph=True, allow_unused=True, materialize_grads=True
            )
        # The edges keep the graph alive without the gradient's own values.
        return (
            [g.detach() for g in gradient],
            [get_gradient_edge(g) if g.requires_grad else None for g in gradient],
        )

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

    def _unflatten(self, vector):
        pieces = vector.split([p.numel() for p in self.model.parameters])
        # In the memory format of the parameters, so that no chunk has to convert them.
        return [
            torch.empty_like(p).copy_(piece.view_as(p))
            for p, piece in zip(self.model.parameters, pieces, strict=True)
        ]


def group_operators(model, images, labels, groups, num_groups=None, skip=(), **options):
    """The Hessian operator of each group's loss, one after the other.

    Parameters
    ----------
    model, images, labels, groups, num_groups
        See `quantskew.derivatives.gradients.group_gradient_norms`.
    skip : collection of int
        Groups to leave out, such as those that an interrupted run has done.
    **options
        See `HessianOperator`.

    Returns
    -------
    iterator of (int, HessianOperator)
        Groups that have images; an operator is built when its turn comes, and its memory is free again when
        the caller lets go of it.

    Raises
    ------
    ValueError
        See `quantskew.derivatives.gradients.group_gradient_norms`.
    """
    problem = check_problem(model, images, labels, groups, num_groups)
    present = [g for g, members in enumerate(problem.members) if len(members) and g not in skip]
    return _operators(problem, present, options)


def _operators(problem, present, options):
    rewritten = None
    for group in present:
        members = problem.members[group]
        images = problem.images[members]
        if rewritten is None:
            rewritten = DifferentiableModel(problem.model, images[:2])
        yield group, HessianOperator(rewritten, images, problem.labels[members], **options)


def _sum(total, terms):
    # Not in place: autograd may hand out one tensor as the gradient of two leaves.
    return terms if total is None else [t + term for t, term in zip(total, terms, strict=True)]
