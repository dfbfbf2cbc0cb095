"""Batch norm after quantization: how far its statistics are off, and statistics from training images instead.

Quantized weights give other activations than the float weights whose statistics batch norm has kept, and
while weights oscillate its running averages mix several quantized networks (Nagel et al. 2022).
"""

import functools

import numpy as np
import pandas as pd
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from quantskew.datasets import normalise
from quantskew.quantization.activations import watch
from quantskew.training.loop import autocast


@torch.no_grad()
def reestimate(model, split, recipe, batches=50):
    """Set the statistics of every batch norm to their average over batches of training images, in place.

    The images are drawn without repetition and not augmented; everything but batch norm computes as in
    evaluation.  A model without batch norm is left as it is.

    Parameters
    ----------
    model : torch.nn.Module
        Float, quantized, or prepared for training with quantized weights.
    split : Split
        Of at least two images.
    recipe : Recipe
        Gives the batch size, the seed of the images drawn, and whether they are computed in bf16.
    batches : int
        At most so many: a smaller split is seen once, without the images left over after the last whole batch
        (a split smaller than one batch makes up one).

    Examples
    --------
    >>> from quantskew import datasets
    >>> from quantskew.training import models, recipe
    >>> model = models.build("small_resnet", num_classes=10, in_channels=1)
    >>> reestimate(model, datasets.load("digits").train, recipe.Recipe(compute="fp32"), batches=2)
    >>> model.bn.num_batches_tracked
    tensor(2)
    """
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    if not norms:
        return
    batch_size = min(recipe.batch_size, len(split))
    count = min(batches, len(split) // batch_size) * batch_size
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(recipe.seed))[:count]
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            # Without a momentum torch keeps the plain average of all batches.
            norm.momentum = None
            norm.train()
        with autocast(device, recipe.compute):
            for batch in order.split(batch_size):
                model(normalise(split.images[batch].to(device)))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def variance_ratios(model, split, batch_size=256):
    """Variance of what enters each batch norm, over the running variance that it divides by.

    A ratio of 1 is what batch norm expects.  Below 1 its output is too small, and the next layer receives
    less than it was trained with.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, with batch norm.
    split : Split
    batch_size : int
        Images whose statistics are taken together, from the first on.

    Returns
    -------
    pandas.DataFrame
        Columns ``layer`` (number, from the input on), ``name`` and ``value`` (geometric mean over channels).
    """
    ratios = {}

    def record(name, norm, inputs):
        (features,) = inputs
        axes = [axis for axis in range(features.ndim) if axis != 1]
        ratio = features.double().var(axes, unbiased=False) / norm.running_var.double()
        ratios[name] = float(ratio.clamp(min=1e-12).log().mean().exp())

    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    hooks = {name: functools.partial(record, name) for name in norms}
    watch(model, normalise(split.images[:batch_size]), hooks, batch_size)
    layers = np.arange(1, len(ratios) + 1)
    return pd.DataFrame({"layer": layers, "name": list(ratios), "value": list(ratios.values())})
