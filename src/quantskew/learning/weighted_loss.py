"""The weighted cross-entropy WCR (section 5.1, Eq. 12 of the paper) and where its weights come from."""

import math

import torch
from torch.nn import functional


def check_class_weights(weights, num_classes=None):
    """Refuse weights that no loss can be made of.

    Parameters
    ----------
    weights : sequence of float
    num_classes : int, optional

    Raises
    ------
    ValueError
        If there is not one weight a class, one is negative or not finite, or all are 0.

    Examples
    --------
    >>> check_class_weights([0.4, 0.6], num_classes=2)
    """
    if num_classes is not None and len(weights) != num_classes:
        raise ValueError(f"{len(weights)} class weights for {num_classes} classes; give one a class")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"class weights must be finite and not negative; got {list(weights)}")
    if not any(weights):
        raise ValueError("all class weights are 0; at least one must be larger")


def weighted_cross_entropy(logits, labels, class_weights):
    """WCR as Eq. 12 prints it: -1/M sum_i a_{y_i} log p(x_i)_{y_i}, in nats.

    The sum is divided by the number of images M.  PyTorch's ``cross_entropy(..., weight=a)`` divides by the
    sum of the images' weights instead: its value is this one over the mean weight of the batch.

    Parameters
    ----------
    logits : Tensor of float, shape (M, C)
    labels : Tensor of int64, shape (M,)
    class_weights : Tensor of float, shape (C,)
        a_g of Eq. 12, whose groups are the classes.

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> even = torch.zeros(2, 2)
    >>> round(weighted_cross_entropy(even, torch.tensor([0, 1]), torch.tensor([0.4, 0.6])).item(), 4)
    0.3466
    """
    return functional.cross_entropy(logits, labels, weight=class_weights, reduction="sum") / len(labels)


def paper_weights(num_classes, hardest, weight=0.6):
    """The paper's scheme: `weight` for the hardest class, the rest shared equally.

    Parameters
    ----------
    num_classes : int
    hardest : int
        Id of the class.
    weight : float

    Returns
    -------
    tuple of float, length C, of sum 1

    Examples
    --------
    >>> [round(weight, 3) for weight in paper_weights(5, hardest=4)]
    [0.1, 0.1, 0.1, 0.1, 0.6]
    """
    if num_classes < 2:
        raise ValueError(f"weights compare classes; got {num_classes}")
    if not 0 <= hardest < num_classes:
        raise ValueError(f"hardest must be a class id below {num_classes}; got {hardest}")
    others = (1 - weight) / (num_classes - 1)
    return tuple(weight if c == hardest else others for c in range(num_classes))


def difficulty_weights(losses):
    """Weights that grow with each class's validation loss: what is hard weighs more.

    One half of the weight is shared equally, and one half in proportion to the losses: a class that is
    learned without an error would otherwise have no weight, and be forgotten.

    Parameters
    ----------
    losses : sequence of float, length C
        Mean validation loss of each class under a model trained without weights; NaN for a class without
        validation images, which gets the mean weight.

    Returns
    -------
    tuple of float, length C, of sum 1

    Raises
    ------
    ValueError
        If a loss is negative or infinite, or none is known.

    Examples
    --------
    >>> difficulty_weights([0.1, 0.3])
    (0.375, 0.625)
    """
    known = [loss for loss in losses if not math.isnan(loss)]
    if not known or not all(math.isfinite(loss) and loss >= 0 for loss in known) or not any(known):
        raise ValueError(
            f"difficulty is measured by finite, non-negative losses, not all 0; got {list(losses)}"
        )
    mean = sum(known) / len(known)
    filled = torch.tensor([mean if math.isnan(loss) else loss for loss in losses], dtype=torch.float64)
    return tuple(((filled / filled.sum() + 1 / len(losses)) / 2).tolist())
