"""What gradients and Hessians share: checked inputs, the parameters, and arithmetic in full fp32."""

import contextlib
import copy
from dataclasses import dataclass

import numpy as np
import torch

from quantskew.groups import check_group_ids
from quantskew.quantization.activations import InputQuantizer
from quantskew.quantization.ptq import HalfPrecision


def trainable_parameters(model):
    """The parameters of a model that require a gradient, the K of Eq. 10; ValueError where there are none."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("no parameter of the model requires a gradient; call model.requires_grad_(True)")
    return parameters


def flatten(tensors):
    """Tensors one behind the other in one vector of a single floating-point type."""
    return torch.cat([t.reshape(-1) for t in tensors])


def unflatten(vector, like):
    """The pieces of a vector, as views in the shapes of the tensors that it was made of."""
    pieces = vector.split([t.numel() for t in like])
    return [piece.view_as(t) for piece, t in zip(pieces, like, strict=True)]


@contextlib.contextmanager
def full_precision(device):
    """Gradients on; autocast and the GPU's TF32 convolutions off."""
    with (
        torch.enable_grad(),
        torch.autocast(torch.device(device).type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        yield


def batch_of_pixels(images, pixels, largest=512):
    """How many images make up a number of pixels: small ones need many, for a step is never free."""
    each = images[0].numel() // images.shape[1] if images.ndim > 2 and len(images) else 1
    return min(max(1, pixels // max(1, each)), largest)


@dataclass(frozen=True, eq=False)
class Problem:
    """A model that can be differentiated, images, labels, and the indices of the images of each group."""

    model: torch.nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    members: list


def check_problem(model, images, labels, groups, num_groups=None):
    """Check what `gradients.group_gradient_norms` and the like are given, as a `Problem`."""
    training = [name or "the model" for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(f"{training[0]} is in training mode; call model.eval() before measuring")
    if any(isinstance(module, InputQuantizer) for module in model.modules()):
        raise ValueError(
            "the loss cannot be differentiated through rounded activations; measure the model with quantized "
            "weights alone"
        )
    trainable_parameters(model)
    if not torch.is_tensor(images) or not images.is_floating_point():
        raise ValueError("images must be a tensor of normalised floats; see quantskew.datasets.normalise")
    labels = torch.as_tensor(labels, device=images.device).long()
    ids, num_groups = check_group_ids(torch.as_tensor(groups).cpu(), num_groups)
    for array, what in ((labels, "labels"), (ids, "groups")):
        if array.shape != (len(images),):
            raise ValueError(f"{len(images)} images but {what} of shape {tuple(array.shape)}")
    members = [torch.as_tensor(np.flatnonzero(ids == g), device=images.device) for g in range(num_groups)]
    return Problem(without_rounding(model), images, labels, members)


def without_rounding(model):
    """The model, or for one in half precision a view of its layers that does not round between them."""
    if not isinstance(model, HalfPrecision):
        return model
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    plain = copy.deepcopy(model.model, shared)
    for module in plain.modules():
        for key, hook in list(module._forward_hooks.items()):
            if hook.__module__ == HalfPrecision.__module__:
                del module._forward_hooks[key]
    return plain
