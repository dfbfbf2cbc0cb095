"""How far quantization moves the inputs of each batch norm from the statistics that it keeps."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from quantskew.datasets import normalise


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

    Raises
    ------
    ValueError
        If the model has no batch norm.
    """
    ratios, handles = {}, []

    def record(name):
        def hook(module, inputs):
            (features,) = inputs
            axes = [axis for axis in range(features.ndim) if axis != 1]
            ratio = features.double().var(axes, unbiased=False) / module.running_var.double()
            ratios[name] = float(ratio.clamp(min=1e-12).log().mean().exp())

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            handles.append(module.register_forward_pre_hook(record(name)))
    if not handles:
        raise ValueError("the model has no batch norm")
    try:
        model(normalise(split.images[:batch_size].to(next(model.parameters()).device)))
    finally:
        for handle in handles:
            handle.remove()
    return pd.DataFrame(
        {"layer": np.arange(1, len(ratios) + 1), "name": list(ratios), "value": list(ratios.values())}
    )
