"""A classifier written so that its loss can be differentiated twice at little cost.

Two rewritings make a Hessian-vector product cheap, and both are exact:

- Each batch norm that follows a convolution is folded into its weight.  The folded weight is a function of
  the original parameters, and derivatives go through it by the chain rule, so that the Hessian is the one
  with respect to the original parameters.
- A convolution keeps only its input and the gradient of its output for the second derivative, from which
  it computes the same six convolutions that a hand-written R-operator (Pearlmutter, 1994) would.
"""

import torch
from torch import nn

from quantskew.derivatives.differentiation import full_precision, trainable_parameters, without_rounding
from quantskew.derivatives.lean_convolution import LeanConvolution

_CHECK_TOLERANCE = 1e-3


class DifferentiableModel:
    """A model, the parameters of its Hessian, and the leaves that its graphs are built on.

    Attributes
    ----------
    parameters : list of Parameter
        The trainable parameters of the model given (those that require a gradient), in their order.
    leaves : list of Tensor
        What the graphs are built on: folded weights and biases, and the parameters that were not folded.
    folded : bool
        Whether any batch norm was folded; otherwise the leaves are the parameters.
    graph_bytes : dict
        What `quantskew.derivatives.hessian_operator` has found a graph to keep, by shape of the image.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; it is not changed.  One that torch.fx cannot trace is taken as it is, and then
        products cost more.
    example : Tensor, shape (B, ...)
        A few images: a rewritten model is used only if it gives the same logits.
    """

    def __init__(self, model, example):
        model = without_rounding(model)
        self.parameters = trainable_parameters(model)
        self.graph_bytes = {}
        self._call, pairs = _rewrite(model, example)
        self.folded = bool(pairs)
        if not self.folded:
            self.leaves = self.parameters
            return
        kept = [p for p in self._call.parameters() if p.requires_grad]
        own = [leaf for pair in pairs for leaf in (pair.weight, pair.bias) if leaf.requires_grad]
        self.leaves = own + kept
        with full_precision(example.device):
            kernels = [kernel for pair in pairs for kernel in pair.kernels]
            # As views, since a leaf is no function of itself to autograd.
            self._functions = [k for k in kernels if k.requires_grad] + [p.view_as(p) for p in kept]

    def __call__(self, images):
        """Logits (B, C) of images, differentiable twice in the leaves."""
        return self._call(images)

    def pull_back(self, cotangents):
        """J^T c, with J the derivative of the leaves in the parameters and c a cotangent of the leaves."""
        if not self.folded:
            return cotangents
        return torch.autograd.grad(
            self._functions, self.parameters, cotangents, retain_graph=True, materialize_grads=True
        )

    def differential(self, gradient):
        """The fold's share of gradient and Hessian-vector products, at the gradient g in the leaves.

        Returns
        -------
        pulled : sequence of Tensor
            J^T g, the gradient in the parameters.
        along : callable
            Maps a change v of the parameters to J v, the change of the leaves, and to
            sum_i g_i (Hessian of leaf i) v, the curvature of the fold itself (None where nothing is folded).
        """
        if not self.folded:
            return gradient, lambda tangents: (tangents, None)
        gradient = [g.detach().requires_grad_() for g in gradient]
        pulled = torch.autograd.grad(
            self._functions, self.parameters, gradient, create_graph=True, materialize_grads=True
        )
        curved = [index for index, p in enumerate(pulled) if p.requires_grad]

        def along(tangents):
            moved = torch.autograd.grad(
                [pulled[index] for index in curved],
                [*gradient, *self.parameters],
                [tangents[index] for index in curved],
                retain_graph=True,
                materialize_grads=True,
            )
            return moved[: len(gradient)], moved[len(gradient) :]

        return [p.detach() for p in pulled], along


def _rewrite(model, example):
    """The model with lean convolutions, and those of them that swallowed a batch norm."""
    try:
        traced = torch.fx.symbolic_trace(model)
    except Exception:  # tracing runs the model's own code, which may raise anything
        return model, []
    calls = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(id(traced.get_submodule(node.target)), []).append(node)
    pairs = []
    for node, *others in calls.values():
        conv = traced.get_submodule(node.target)
        if others or not _is_plain(conv):
            continue
        norm_node = _batch_norm_after(traced, node, calls)
        if norm_node is None:
            traced.set_submodule(node.target, LeanConvolution(conv, conv.weight, conv.bias))
            continue
        pair = _FoldedConvolution(conv, traced.get_submodule(norm_node.target))
        traced.set_submodule(node.target, pair)
        traced.set_submodule(norm_node.target, nn.Identity())
        pairs.append(pair)
    with torch.no_grad():
        expected, found = model(example), traced(example)
    if not bool((found - expected).abs().max() <= _CHECK_TOLERANCE * expected.abs().max()):
        return model, []
    return traced, pairs


def _is_plain(module):
    return (
        type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    )


def _batch_norm_after(traced, node, calls):
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    norm = traced.get_submodule(users[0].target)
    fits = type(norm) is nn.BatchNorm2d and norm.affine and norm.running_var is not None
    return users[0] if fits and len(calls[id(norm)]) == 1 else None


class _FoldedConvolution(LeanConvolution):
    def __init__(self, conv, norm):
        with torch.enable_grad():
            kernels = _folded_kernels(conv, norm)
        super().__init__(conv, *(k.detach().requires_grad_(k.requires_grad) for k in kernels))
        # As functions of the parameters; the leaves share their memory.
        self.kernels = kernels


def _folded_kernels(conv, norm):
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    return conv.weight * scale.view(-1, 1, 1, 1), norm.bias + shift * scale
