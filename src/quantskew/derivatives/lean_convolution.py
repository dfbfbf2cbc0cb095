"""A convolution whose second derivative keeps and computes only what is needed.

torch's own second derivative of a convolution keeps more tensors and is slower.  This one keeps the input
and the gradient of the output, and computes from them the convolutions of the R-operator (Pearlmutter, 1994):
two for the change of the output, two for that of the input's gradient and two for the weight's.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable


class LeanConvolution(nn.Module):
    """A convolution that can be differentiated twice, at the cost of six convolutions for the second time.

    Parameters
    ----------
    conv : torch.nn.Conv2d
        Its stride, padding by zeros, dilation and groups are taken over.
    weight : Tensor
    bias : Tensor or None

    Examples
    --------
    >>> conv = nn.Conv2d(1, 2, 3)
    >>> images = torch.ones(1, 1, 4, 4)
    >>> torch.equal(LeanConvolution(conv, conv.weight, conv.bias)(images), conv(images))
    True
    """

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
