"""How a model is trained, as data: the recipe, and the weights of the classes in its loss (WCR, Eq. 12)."""

import math
from dataclasses import dataclass

from quantskew.checks import MOST_SEED, check_flag, check_known, check_number, check_whole

_OPTIMIZERS = ("sgd", "adamw")
_SCHEDULES = ("one-cycle", "cosine", "constant")
_COMPUTE = ("auto", "fp32", "bf16")
# The least and the largest value; images have at most 2048 pixels a side, and a shift stays on them.
_WHOLE = {"epochs": (1, 10**6), "batch_size": (2, 10**6), "shift": (0, 64), "seed": (0, MOST_SEED)}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes
    ----------
    epochs : int
    batch_size : int
        Images a step.
    optimizer : {"sgd", "adamw"}
        SGD has Nesterov momentum.
    learning_rate : float
        The largest of the schedule.
    momentum : float
        Of SGD.
    weight_decay : float
    schedule : {"one-cycle", "cosine", "constant"}
        Of the learning rate, over the steps of the whole run.
    flip : bool
        Whether each image is mirrored left to right with probability one half.
    shift : int
        Each image is moved by up to so many pixels in each direction, its border filled with its edge.
    compute : {"auto", "fp32", "bf16"}
        bf16 trains in autocast; weights, optimizer and whatever is measured later stay in fp32.  auto is bf16
        where the processor or GPU computes it, which is about twice as fast, and fp32 elsewhere.
    class_weights : tuple of float, optional
        Of `weighted_cross_entropy`, one a class.  The loss is divided by the mean weight of the training
        images, so that the learning rate means what it means without.
    seed : int
        Of the initial weights, the order of the images and the augmentation.

    Raises
    ------
    ValueError
        If a value is out of range or a name is not known.
    """

    epochs: int = 13
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    flip: bool = True
    shift: int = 4
    compute: str = "auto"
    class_weights: tuple | None = None
    seed: int = 0

    def __post_init__(self):
        for name, known in (("optimizer", _OPTIMIZERS), ("schedule", _SCHEDULES), ("compute", _COMPUTE)):
            check_known(name, getattr(self, name), known)
        for name, (least, most) in _WHOLE.items():
            check_whole(name, getattr(self, name), least, most)
        check_number("learning_rate", self.learning_rate, above=True)
        check_number("momentum", self.momentum, below=1)
        check_number("weight_decay", self.weight_decay)
        check_flag("flip", self.flip)
        if self.class_weights is not None:
            check_class_weights(self.class_weights)


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
    >>> import torch
    >>> even = torch.zeros(2, 2)
    >>> round(weighted_cross_entropy(even, torch.tensor([0, 1]), torch.tensor([0.4, 0.6])).item(), 4)
    0.3466
    """
    # Here, so that recipes can be listed without torch.
    from torch.nn import functional

    return functional.cross_entropy(logits, labels, weight=class_weights, reduction="sum") / len(labels)


def check_class_weights(weights, num_classes=None):
    """Refuse weights that no loss can be made of: not one a class, negative, not finite, or all 0."""
    if num_classes is not None and len(weights) != num_classes:
        raise ValueError(f"{len(weights)} class weights for {num_classes} classes; give one a class")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"class weights must be finite and not negative; got {list(weights)}")
    if not any(weights):
        raise ValueError("all class weights are 0; at least one must be larger")


def paper_weights(num_classes, hardest, weight=0.6):
    """The paper's class weights: `weight` for the class with the id `hardest`, the rest shared equally."""
    others = (1 - weight) / (num_classes - 1)
    return tuple(weight if c == hardest else others for c in range(num_classes))


def difficulty_weights(losses):
    """Class weights of sum 1 that grow with each class's validation loss: what is hard weighs more.

    One half of the weight is shared equally, and one half in proportion to the losses: a class that is
    learned without an error would otherwise have no weight, and be forgotten.  A class whose loss is NaN, for
    want of validation images, gets the mean weight.
    """
    import torch

    known = [loss for loss in losses if not math.isnan(loss)]
    if not known or not all(math.isfinite(loss) and loss >= 0 for loss in known) or not any(known):
        raise ValueError(f"difficulty needs finite, non-negative losses, not all 0; got {list(losses)}")
    mean = sum(known) / len(known)
    filled = torch.tensor([mean if math.isnan(loss) else loss for loss in losses], dtype=torch.float64)
    return tuple(((filled / filled.sum() + 1 / len(losses)) / 2).tolist())
