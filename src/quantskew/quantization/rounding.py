"""Calibrated rounding: each weight goes to the code that serves what its layer gives, not to the nearest one.

Rounding to nearest changes every weight least, but what a layer gives are sums, over inputs that are
correlated.  From what a layer is fed on calibration images, GPTQ (Frantar et al. 2022) rounds one weight of
each output channel after the other and lets those that are left make up for the error, and AdaRound (Nagel et
al. 2020) learns for each weight whether it goes up or down.  The grids are those of the `mse` scheme.
"""

import contextlib
import math
from collections import Counter
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from quantskew.quantization import checked
from quantskew.quantization.activations import Enough, watch
from quantskew.quantization.grids import quantize_dequantize

# GPTQ: what is added to the diagonal, as a share of its mean, and inputs that are updated together.
_DAMPING, _BLOCK = 0.01, 128
# AdaRound: 300 steps at a rate of 0.1 in place of its authors' 10,000 at 0.01; the rest is theirs.
_STEPS, _RATE, _IMAGES = 300, 0.1, 32
_WARM_UP, _STRENGTH, _BETAS = 0.2, 0.01, (20.0, 2.0)
_LOW, _HIGH = -0.1, 1.1


def roundings(model, weights, scheme, images):
    """For each weight, in the order in which layers are called: its name, and what gives its codes on a grid.

    Whoever takes one writes the rounded weight into the model before the next, whose layer is fed by it.
    `weights` are the model's, in evaluation mode, by name.
    """
    reference = checked.copied(model) if scheme == "adaround" else None
    users = {
        name: [path for path, own in model.named_modules() if getattr(own, "weight", None) is weight]
        for name, weight in weights.items()
    }
    for name, times in _order(model, users, images[:1]).items():
        calls = _calls(model, users[name], times, images)
        if not all(bool(torch.isfinite(fed).all()) for _, fed in calls):
            raise ValueError(f"{name}: its layer is fed what is not finite on the calibration images")
        if scheme == "gptq":
            if any(getattr(layer, "transposed", False) for layer, _ in calls):
                raise ValueError(f"{name}: GPTQ cannot round a transposed convolution; adaround and mse can")
            yield name, partial(gptq, hessian=sum(layer_hessian(*call).double() for call in calls))
        else:
            targets = [layer(fed) for layer, fed in _calls(reference, users[name], times, images)]
            yield name, partial(adaround, calls=calls, targets=targets)


def _order(model, users, images):
    """How often the layers of each weight are called, in the order of the first calls; all must be."""
    called = []
    owners = {path: name for name, paths in users.items() for path in paths}
    watch(model, images, {path: lambda *_, own=own: called.append(own) for path, own in owners.items()})
    for name in users:
        if name not in called:
            raise ValueError(
                f"{name}: no layer with it is called on the calibration images, so what it is fed is not "
                "known (torch never calls the layers inside an attention layer one by one); choose mse"
            )
    return Counter(called)


def _calls(model, paths, times, images):
    """The calls of some layers over batches of images, `times` a batch: each layer and what it is fed."""
    calls = []

    def observe(layer, inputs):
        calls.append((layer, inputs[0]))
        if len(calls) % times == 0:
            raise Enough

    watch(model, images, dict.fromkeys(paths, observe))
    return calls


def layer_hessian(layer, fed):
    """Hessian of a layer's summed squared output error in the weights of an output channel, 2 X X^T.

    Parameters
    ----------
    layer : Module
        Linear, or a convolution.
    fed : Tensor
        What it is fed.

    Returns
    -------
    Tensor of shape (groups, D, D)
        All output channels of a group of the convolution share it; D is the number of weights of each.

    Examples
    --------
    >>> layer_hessian(nn.Linear(2, 1), torch.tensor([[1.0, 0.0], [1.0, 2.0]])).tolist()
    [[[4.0, 4.0], [4.0, 8.0]]]
    """
    if isinstance(layer, nn.Linear):
        rows = fed.reshape(1, -1, fed.shape[-1])
    else:
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        windows = functional.pad(fed, layer._reversed_padding_repeated_twice, mode)
        shape = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
        for axis, (size, stride, dilation) in enumerate(shape, 2):
            windows = windows.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        # Images, groups, channels of the group, positions, places of the kernel.
        windows = windows.reshape(
            len(fed), layer.groups, fed.shape[1] // layer.groups, -1, math.prod(layer.kernel_size)
        )
        rows = windows.permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)
    rows = rows if rows.dtype == torch.float64 else rows.float()
    return 2 * rows.mT @ rows


def gptq(weight, grid, hessian):
    """Codes of a weight by GPTQ, in the order of its inputs.

    Parameters
    ----------
    weight : Tensor of float, shape (O, ...)
    grid : QParams
    hessian : Tensor of float64, shape (groups, D, D)
        See `layer_hessian`; a factor in it is of no effect.  A hundredth of its mean diagonal is added to the
        diagonal.  The reference code sets weights whose input is always 0 to 0; here they go to the nearest.

    Returns
    -------
    Tensor of the grid's integer dtype, shape of `weight`

    Examples
    --------
    >>> from quantskew.quantization.grids import choose_qparams
    >>> weight = torch.tensor([[0.4, 0.4, 1.0]])
    >>> alike = torch.ones(1, 3, 3, dtype=torch.float64)
    >>> gptq(weight, choose_qparams(weight, "int2:symmetric"), alike)
    tensor([[0, 1, 1]], dtype=torch.int8)
    """
    groups, size, _ = hessian.shape
    mean = hessian.diagonal(dim1=1, dim2=2).mean(1)
    # Where all inputs are always 0 every code serves alike.
    damping = torch.where(mean > 0, _DAMPING * mean, 1.0)
    damped = hessian + torch.diag_embed(damping[:, None].expand(-1, size))
    # H = R R^T with R upper triangular, so that its inverse is the Cholesky factor of the inverse of H.
    triangle = torch.linalg.cholesky(damped.flip(1, 2)).flip(1, 2)
    factor = torch.linalg.solve_triangular(triangle, torch.eye(size).to(triangle), upper=True)
    shares = (factor / factor.diagonal(dim1=1, dim2=2)[..., None]).to(weight.dtype)
    left = weight.reshape(groups, -1, size).mT.contiguous()
    codes = torch.empty(left.shape, dtype=grid.code_dtype, device=left.device)
    if grid.scale.ndim:
        grid = replace(grid, scale=grid.scale.view(groups, -1), zero_point=grid.zero_point.view(groups, -1))
    for start in range(0, size, _BLOCK):
        block, rest = left[:, start : start + _BLOCK], left[:, start + _BLOCK :]
        for i in range(block.shape[1]):
            codes[:, start + i], rounded = quantize_dequantize(block[:, i], grid)
            # In place of the weights that are done stand their errors.
            block[:, i] -= rounded
            own = shares[:, start + i, start + i + 1 : start + block.shape[1], None]
            block[:, i + 1 :] -= own * block[:, i, None]
        done = slice(start, start + block.shape[1])
        rest -= shares[:, done, start + _BLOCK :].mT @ block
    return codes.mT.reshape(weight.shape)


def adaround(weight, grid, calls, targets):
    """Codes of a weight by AdaRound.

    Parameters
    ----------
    weight : Tensor of float
    grid : QParams
        Without an offset, signed.
    calls : list of (Module, Tensor)
        Layers with that weight, and what they are fed where what is before them is rounded.
    targets : list of Tensor
        What the layers of the float model give there.

    Returns
    -------
    Tensor of the grid's integer dtype, shape of `weight`
    """
    generator = torch.Generator().manual_seed(0)
    below = (weight / grid.scale).floor()
    share = weight / grid.scale - below
    chosen = torch.logit((share - _LOW) / (_HIGH - _LOW)).requires_grad_()
    optimizer = torch.optim.Adam([chosen], _RATE)
    for step in range(_STEPS):
        at = int(torch.randint(len(calls), (), generator=generator))
        (layer, fed), target = calls[at], targets[at]
        images = torch.randperm(len(fed), generator=generator)[:_IMAGES]
        with torch.enable_grad():
            up = (torch.sigmoid(chosen) * (_HIGH - _LOW) + _LOW).clamp(0, 1)
            soft = (below + up).clamp(grid.low, grid.high) * grid.scale
            given = functional_call(layer, {"weight": soft.to(fed.dtype)}, (fed[images],))
            loss = (given - target[images]).square().sum(1).mean()
            progress = (step / _STEPS - _WARM_UP) / (1 - _WARM_UP)
            if progress >= 0:
                first, last = _BETAS
                beta = last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
                loss = loss + _STRENGTH * (1 - (2 * up - 1).abs().pow(beta)).sum()
            (chosen.grad,) = torch.autograd.grad(loss, chosen)
        optimizer.step()
    return (below + (chosen >= 0)).clamp(grid.low, grid.high).to(grid.code_dtype)


@torch.inference_mode()
def output_errors(model, quantized, images):
    """Squared error of what each layer of a quantized model gives, as a share of what it should give.

    Each layer is fed what the float model feeds it on the images: the errors are of its own weights alone.

    Parameters
    ----------
    model, quantized : Module
        The second as `quantskew.quantization.ptq.quantize_model` makes it of the first.
    images : Tensor of float, shape (B, C, H, W)

    Returns
    -------
    dict of str to float
        By the name of the layer, in the order in which layers are called.
    """
    errors = {}

    def watch(name):
        def compare(layer, inputs, output):
            error = quantized.get_submodule(name)(*inputs) - output
            errors[name] = float(error.square().sum() / output.square().sum())

        return compare

    names = [name.removesuffix(".weight") for name in quantized.quantized]
    with contextlib.ExitStack() as hooks:
        for name in names:
            hooks.enter_context(model.get_submodule(name).register_forward_hook(watch(name)))
        model(images)
    return errors
