"""Gradients of each group's loss, and the loss along a line (section 4.4 of the paper).

The loss of a group is the mean cross-entropy of its images.  Its gradient is taken with respect to all
trainable parameters at their values in the model given: of a quantized copy, the dequantized weights.  It
is computed in full fp32 and evaluation mode; nothing about the model changes, its ``.grad`` included.
"""

import contextlib
import copy

import numpy as np
import torch
from torch.nn import functional

from quantskew.groups import check_group_ids
from quantskew.quantization.activations import InputQuantizer
from quantskew.quantization.ptq import HalfPrecision

_PIXELS_PER_BATCH = 128 * 64 * 64


def group_gradient_norms(model, images, labels, groups, num_groups=None, batch_size=None):
    """Gradient norm of each group's loss, Eq. 10, for all groups in one pass over the images.

    G(theta; D_g) = || grad of the mean cross-entropy of group g at theta ||_2, over all K parameters.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier in evaluation mode, on the device where it is to be computed.  One in half precision is
        differentiated at its rounded weights in fp32, since rounding between layers has no derivative.
    images : Tensor of float, shape (N, ...)
        Normalised inputs (see `quantskew.datasets.normalise`).
    labels, groups : array_like of int, shape (N,)
        Class and group id of each image.
    num_groups : int, optional
        Number of groups G; by default the largest id plus one.
    batch_size : int, optional
        Images that are differentiated together, about: a group is cut into batches of equal size.  By
        default 128 of 64x64 pixels, and as many pixels of other sizes.

    Returns
    -------
    Tensor of float64, shape (G,), on the processor
        NaN for a group without images.

    Raises
    ------
    ValueError
        If the model or a part of it is in training mode, none of its parameters requires a gradient, the
        arrays do not belong together, or a gradient is not finite.

    Examples
    --------
    Two classes and zero weights: the gradient is (p - y) x = (-1/2, 1/2) of an image of one pixel 2 and
    the biases' (-1/2, 1/2).

    >>> layer = torch.nn.Linear(1, 2).eval()
    >>> for parameter in layer.parameters():
    ...     _ = torch.nn.init.zeros_(parameter)
    >>> group_gradient_norms(layer, torch.tensor([[2.0]]), [0], [1])
    tensor([   nan, 1.5811], dtype=torch.float64)
    """
    ids, num_groups = check_group_ids(torch.as_tensor(groups).cpu(), num_groups)
    norms = torch.full((num_groups,), torch.nan, dtype=torch.float64)
    for group, gradient in group_gradients(model, images, labels, ids, num_groups, batch_size):
        norms[group] = torch.linalg.vector_norm(gradient, dtype=torch.float64)
        if not bool(torch.isfinite(norms[group])):
            raise ValueError(f"the gradient of group {group} is not finite; check the weights and images")
    return norms


def group_gradients(model, images, labels, groups, num_groups=None, batch_size=None):
    """Gradient of each group's loss: pairs of a group that has images and a vector (K,), one after another.

    Parameters are those of `group_gradient_norms`; vectors are in the order of `parameter_vector`.
    """
    model, images, labels, members = check_problem(model, images, labels, groups, num_groups)
    batch_size = batch_size or batch_of_pixels(images, _PIXELS_PER_BATCH)
    present = ((group, own) for group, own in enumerate(members) if len(own))
    return ((group, _gradient(model, images[own], labels[own], batch_size)) for group, own in present)


def _gradient(model, images, labels, batch_size):
    """Gradient of the mean loss of some images."""
    total, parameters = 0, trainable_parameters(model)
    # Equal batches near batch_size: a small rest would cost a whole batch's overhead.
    batches = max(1, round(len(images) / batch_size))
    for batch, own in zip(images.tensor_split(batches), labels.tensor_split(batches), strict=True):
        with full_precision(images.device):
            loss = functional.cross_entropy(model(batch), own, reduction="sum") / len(images)
            part = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        # Sums over batches are kept in float64.
        total = total + (flatten(part).double() if batches > 1 else flatten(part))
    return total.to(images.dtype)


def parameter_vector(model):
    """All trainable parameters of a model in one vector (K,), in the order of ``model.parameters()``.

    The difference of two of them, of a quantized copy and of its original, is the weight change d of
    `quantskew.measures.surface.excess_loss_bound`.
    """
    return flatten([p.detach() for p in trainable_parameters(model)])


def loss_along(model, images, labels, direction, steps, batch_size=256):
    """Mean cross-entropy in nats of at least one image with the weights theta + t d, for each t of `steps`.

    Parameters
    ----------
    model, images, labels
        See `group_gradient_norms`; the model is not changed.
    direction : Tensor of float, shape (K,)
        d, in the order of `parameter_vector`: an eigenvector, or the change that quantization makes.
    steps : array_like of float, shape (T,)
    batch_size : int

    Returns
    -------
    ndarray of float64, shape (T,)

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 2, bias=False).eval()
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> loss_along(layer, torch.tensor([[2.0]]), [0], torch.tensor([1.0, -1.0]), [0, 1]).round(3)
    array([0.693, 0.018])
    """
    one = np.zeros(len(images), dtype=np.int64)
    model, images, labels, _ = check_problem(model, images, labels, one, 1)
    start = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    pieces = unflatten(direction.to(next(iter(start.values()))), start.values())
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    losses = np.zeros(len(steps))
    for index, step in enumerate(steps):
        moved = zip(start.items(), pieces, strict=True)
        moved = {name: p + float(step) * piece for (name, p), piece in moved}
        with full_precision(images.device), torch.no_grad():
            for batch, own in batches:
                logits = torch.func.functional_call(model, moved, (batch,))
                losses[index] += float(functional.cross_entropy(logits.double(), own, reduction="sum"))
    return losses / len(images)


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
    return [piece.view_as(t) for piece, t in zip(vector.split([t.numel() for t in like]), like, strict=True)]


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


def check_problem(model, images, labels, groups, num_groups=None):
    """Check what `group_gradient_norms` and the like are given.

    Returns a model that can be differentiated, images, labels, and the indices of the images of each group.
    """
    training = [name or "the model" for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(f"{training[0]} is in training mode; call model.eval() before measuring")
    if any(isinstance(module, InputQuantizer) for module in model.modules()):
        why = "the loss cannot be differentiated through rounded activations"
        raise ValueError(f"{why}; measure the model with quantized weights alone")
    trainable_parameters(model)
    if not torch.is_tensor(images) or not images.is_floating_point():
        raise ValueError("images must be a tensor of normalised floats; see quantskew.datasets.normalise")
    labels = torch.as_tensor(labels, device=images.device).long()
    ids, num_groups = check_group_ids(torch.as_tensor(groups).cpu(), num_groups)
    for array, what in ((labels, "labels"), (ids, "groups")):
        if array.shape != (len(images),):
            raise ValueError(f"{len(images)} images but {what} of shape {tuple(array.shape)}")
    members = [torch.as_tensor(np.flatnonzero(ids == g), device=images.device) for g in range(num_groups)]
    return without_rounding(model), images, labels, members


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
