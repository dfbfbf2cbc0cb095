"""A model rewritten so that second derivatives cost less: lean convolutions, with batch norms folded in.

torch's own second derivative of a convolution keeps more tensors and is slower.  The lean one keeps the input
and the gradient of the output, and computes from them the convolutions of the R-operator (Pearlmutter, 1994):
two for the change of the output, two for that of the input's gradient and two for the weight's.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from quantskew.derivatives.gradients import full_precision, trainable_parameters, without_rounding


class LeanConvolution(nn.Module):
    """A convolution (padded by zeros) that can be differentiated twice, at the cost of six for the second."""

    def __init__(self, conv, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, bias
        self.options = (conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups)

    def forward(self, x):
        """The convolution of images (B, C, H, W)."""
        return _Convolution.apply(x, self.weight, self.bias, self.options)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, options):
        ctx.save_for_backward(x, weight)
        ctx.options, ctx.has_bias = options, bias is not None
        return torch.ops.aten.convolution(x, weight, bias, *options)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        mask = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.has_bias and ctx.needs_input_grad[2])
        return *_ConvolutionBackward.apply(grad, x, weight, mask, ctx.options), None


class _ConvolutionBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, x, weight, mask, options):
        ctx.save_for_backward(grad, x, weight)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return _transposed(grad, x, weight, mask, options)

    @staticmethod
    @once_differentiable
    def backward(ctx, x_dot, weight_dot, bias_dot):
        # x_dot is the change of the input along the direction, weight_dot that of the weight: this is the
        # R-operator's forward step, and its two terms of the backward step that need no later layer.
        grad, x, weight = ctx.saved_tensors
        needs_grad, needs_x, needs_weight = ctx.needs_input_grad[:3]
        grad_out = x_out = weight_out = None
        if needs_grad:
            if x_dot is not None:
                grad_out = torch.ops.aten.convolution(x_dot, weight, bias_dot, *ctx.options)
                bias_dot = None
            if weight_dot is not None:
                term = torch.ops.aten.convolution(x, weight_dot, bias_dot, *ctx.options)
                grad_out = term if grad_out is None else grad_out.add_(term)
            elif grad_out is None and bias_dot is not None:
                grad_out = bias_dot.view(1, -1, 1, 1).expand_as(grad)
        if needs_x and weight_dot is not None:
            x_out = _transposed(grad, x, weight_dot, (True, False, False), ctx.options)[0]
        if needs_weight and x_dot is not None:
            weight_out = _transposed(grad, x_dot, weight, (False, True, False), ctx.options)[1]
        return grad_out, x_out, weight_out, None, None


def _transposed(grad, x, weight, mask, options):
    return torch.ops.aten.convolution_backward(grad, x, weight, [weight.shape[0]], *options, mask)


_CHECK_TOLERANCE = 1e-3


class DifferentiableModel:
    """A model in evaluation mode, its trainable `parameters`, and the `leaves` that its graphs are built on.

    The leaves are folded weights and biases and the parameters that were not folded; where nothing is
    `folded` they are the parameters.  A rewritten model is used only if it gives the same logits for the
    images `example`; one that torch.fx cannot trace is taken as it is, and then products cost more.
    """

    def __init__(self, model, example):
        model = without_rounding(model)
        self.parameters = trainable_parameters(model)
        self.graph_bytes = {}  # what the operator has found a graph to keep, by shape of the image
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
        options = {"retain_graph": True, "materialize_grads": True}
        return torch.autograd.grad(self._functions, self.parameters, cotangents, **options)

    def differential(self, gradient):
        """The fold's share of gradient and Hessian-vector products, at the gradient g in the leaves.

        Returns J^T g, the gradient in the parameters, and a function that maps a change v of the parameters
        to J v, the change of the leaves, and to sum_i g_i (Hessian of leaf i) v, the curvature of the fold
        itself (None where nothing is folded).
        """
        if not self.folded:
            return gradient, lambda tangents: (tangents, None)
        gradient = [g.detach().requires_grad_() for g in gradient]
        options = {"retain_graph": True, "materialize_grads": True}
        pulled = torch.autograd.grad(self._functions, self.parameters, gradient, create_graph=True, **options)
        curved = [index for index, p in enumerate(pulled) if p.requires_grad]

        def along(tangents):
            functions, directions = ([own[index] for index in curved] for own in (pulled, tangents))
            moved = torch.autograd.grad(functions, [*gradient, *self.parameters], directions, **options)
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
    zeros = type(module) is nn.Conv2d and module.padding_mode == "zeros"
    return zeros and not isinstance(module.padding, str)


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
