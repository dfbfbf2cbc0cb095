"""Named experiments, as data: a data set, a model and a recipe."""

import dataclasses
from dataclasses import dataclass

from quantskew.checks import check_known
from quantskew.training.recipe import Recipe


@dataclass(frozen=True)
class Experiment:
    """A data set, a model, and how the one is fitted to the other.

    Attributes
    ----------
    name : str
    dataset : str
        See `quantskew.datasets.load`; likewise `size`, `label` and `group`.
    model : str
        See `quantskew.training.models.build`.
    recipe : Recipe
    targets : int, tuple of int or str, optional
        Training images that each group is sampled to, see `quantskew.training.sampling.target_counts`; by
        default every image is used once.
    whole : str, optional
        Data set with the training images that `dataset` leaves out to be imbalanced.
    """

    name: str
    dataset: str
    model: str
    recipe: Recipe
    size: int | None = None
    label: str | None = None
    group: str | None = None
    targets: int | tuple | str | None = None
    whole: str | None = None


_PAPER = Recipe()
_SMALL = Recipe(epochs=40, batch_size=32, learning_rate=0.1, flip=False, shift=1, compute="fp32")
_EXPERIMENTS = (
    Experiment("digits", "digits", "small_resnet", _SMALL, whole="balanced_digits"),
    Experiment("balanced_digits", "balanced_digits", "small_resnet", _SMALL),
    Experiment("utkface", "utkface", "resnet18", _PAPER, size=64),
    Experiment("utkface_gender", "utkface", "resnet18", _PAPER, size=64, label="gender", group="ethnicity"),
    Experiment("utkface_mobilenet", "utkface", "mobilenet_v2", _PAPER, size=64),
    Experiment("fashion_mnist", "fashion_mnist", "small_resnet", Recipe(epochs=10, shift=2)),
    Experiment("cifar10", "cifar10", "small_resnet", Recipe(epochs=15)),
    Experiment("cifar10_long_tail", "folder", "small_resnet", Recipe(epochs=15), size=32),
    Experiment("svhn", "svhn", "small_resnet", Recipe(epochs=10, flip=False)),
    Experiment("folder", "folder", "resnet18", _PAPER, size=64),
)
EXPERIMENTS = {experiment.name: experiment for experiment in _EXPERIMENTS}


def get(name, **changes):
    """The experiment of that name with changed fields, its own or its recipe's; None leaves one as it is.

    Examples
    --------
    >>> get("digits", seed=3, model="resnet18").recipe.seed
    3
    """
    check_known("experiment", name, EXPERIMENTS)
    experiment = EXPERIMENTS[name]
    of_recipe = {field.name for field in dataclasses.fields(Recipe)}
    known = {field.name for field in dataclasses.fields(Experiment)} - {"name", "recipe"} | of_recipe
    changes = {field: value for field, value in changes.items() if value is not None}
    if not changes.keys() <= known:
        unknown = ", ".join(sorted(changes.keys() - known))
        raise ValueError(f"an experiment has no {unknown}; it has: {', '.join(sorted(known))}")
    if "model" in changes:
        # Only here, since it imports torch.
        from quantskew.training.models import check_name

        check_name(changes["model"])
    own = {field: changes.pop(field) for field in changes.keys() - of_recipe}
    return dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, **changes), **own)


def with_seed(experiment, seed):
    """The experiment, or the one of that name, with another seed of split, weights and training."""
    if isinstance(experiment, str):
        experiment = get(experiment)
    return dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, seed=seed))
