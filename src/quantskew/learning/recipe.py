"""How a model is trained, as data: the `Recipe`."""

from dataclasses import dataclass

from quantskew.learning.weighted_loss import check_class_weights

_OPTIMIZERS = ("sgd", "adamw")
_SCHEDULES = ("one-cycle", "cosine", "constant")
_COMPUTE = ("fp32", "bf16")


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
    compute : {"fp32", "bf16"}
        bf16 trains in autocast, about three times as fast where the processor has it; weights, optimizer and
        whatever is measured later stay in fp32.
    class_weights : tuple of float, optional
        Of the weighted cross-entropy WCR (see `quantskew.learning.weighted_loss`), one a class.  The loss is
        divided by the mean weight of the training images, so that the learning rate means what it means
        without.
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
    compute: str = "bf16"
    class_weights: tuple | None = None
    seed: int = 0

    def __post_init__(self):
        for name, known in (("optimizer", _OPTIMIZERS), ("schedule", _SCHEDULES), ("compute", _COMPUTE)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        for name, least in (("epochs", 1), ("batch_size", 2), ("shift", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be larger than 0; got {self.learning_rate}")
        if self.class_weights is not None:
            check_class_weights(self.class_weights)
