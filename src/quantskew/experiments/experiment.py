"""Experiments, as data: a data set, a model and a recipe; by name, or of the user's own files."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from quantskew.checks import check_known, shortened
from quantskew.training.recipe import Recipe


@dataclass(frozen=True)
class Own:
    """Images of the user's own and how their model is fed, in the words of commands and grids.

    Attributes
    ----------
    test : str
        A CSV file (file, label, groups) or a folder, see `quantskew.datasets.listed.read`.
    train : str, optional
        The same of training images, of which 15 % are for validation.
    image_root : str, optional
        Of the files in both, by default the folder of each.
    arch : str, optional
        See `quantskew.audits.shipped.load`.
    classes : str, optional
        Names in the order of the logits, with commas, or a file with one a line.
    mean, std, resize, interpolation, channels, range
        See `quantskew.datasets.listed.Preprocessing`; mean and std are numbers with commas.
    preprocessing : str, optional
        A JSON or TOML file of these.
    accuracy : float, optional
        That the model is known to have.
    """

    test: str
    train: str | None = None
    image_root: str | None = None
    arch: str | None = None
    classes: str | None = None
    mean: str | None = None
    std: str | None = None
    resize: int | None = None
    interpolation: str | None = None
    channels: str | None = None
    range: str | None = None
    preprocessing: str | None = None
    accuracy: float | None = None

    def given(self, size=None):
        """What `quantskew.audits.shipped.opened` is given, of those that are not left out."""
        found = {"size": size} | {name: getattr(self, name) for name in OWN[4:]}
        found = {name: value for name, value in found.items() if value is not None}
        if "classes" in found:
            found["classes"] = class_names(self.classes)
        for name in {"mean", "std"} & found.keys():
            try:
                found[name] = tuple(map(float, str(found[name]).split(",")))
            except ValueError:
                said = f"{name} is a number or one a channel, such as 0.485,0.456,0.406"
                raise ValueError(f"{said}; got {shortened(found[name])}") from None
        return found


def class_names(text):
    """Names of classes, with commas in the text or one a line in the file of that name."""
    lines = Path(text).read_text(encoding="utf-8").splitlines() if os.path.isfile(text) else text.split(",")
    return tuple(map(str.strip, lines))


OWN = tuple(field.name for field in dataclasses.fields(Own))


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
    start : str, optional
        File of the trained float model, which is then not trained here.
    own : Own, optional
        The images, where `start` is a model of the user's own.
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
    start: str | None = None
    own: Own | None = None


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

    With a field of `Own` it is the model in the file of that name.

    Examples
    --------
    >>> get("digits", seed=3, model="resnet18").recipe.seed
    3
    >>> get("runs/m.pt2", test="test.csv").name
    'm'
    """
    changes = {field: value for field, value in changes.items() if value is not None}
    if changes.keys() & {*OWN}:
        experiment = _of_file(name, changes)
    elif isinstance(name, str) and name not in EXPERIMENTS and os.path.isfile(name):
        raise ValueError(f"{name} is a file: give test images with --test (CSV or folder)")
    else:
        check_known("experiment", name, EXPERIMENTS)
        experiment = EXPERIMENTS[name]
    of_recipe = {field.name for field in dataclasses.fields(Recipe)}
    known = {field.name for field in dataclasses.fields(Experiment)} - {"name", "recipe", "own"} | of_recipe
    if not changes.keys() <= known:
        unknown = ", ".join(sorted(changes.keys() - known))
        raise ValueError(f"an experiment has no {unknown}; it has: {', '.join(sorted(known))}")
    if "model" in changes:
        # Only here, since it imports torch.
        from quantskew.training.models import check_name

        check_name(changes["model"])
    own = {field: changes.pop(field) for field in changes.keys() - of_recipe}
    return dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, **changes), **own)


def _of_file(path, changes):
    """The experiment of a model in a file; what it takes is removed from the changes."""
    if path in EXPERIMENTS or "test" not in changes:
        raise ValueError(f"{', '.join(changes.keys() & {*OWN})}: only with a model in a file, and --test")
    wrong = changes.keys() & {"model", "label", "start"}
    if wrong:
        raise ValueError(f"a model in a file has no {', '.join(wrong)}; its network is named by --arch")
    own = Own(**{name: changes.pop(name) for name in changes.keys() & {*OWN}})
    # It is not known which changes of an image keep its label.
    recipe = Recipe(flip=False, shift=0)
    return Experiment(Path(path).stem, "own", own.arch or "program", recipe, start=str(path), own=own)


def with_seed(experiment, seed):
    """The experiment, or the one of that name, with another seed of split, weights and training."""
    if isinstance(experiment, str):
        experiment = get(experiment)
    return dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, seed=seed))
