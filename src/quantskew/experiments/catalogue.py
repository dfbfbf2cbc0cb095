"""Named experiments: a data set, a model and a recipe; trained and audited once, cached by content.

A cache entry's name is a digest of everything that its content depends on: recipe, images, seed,
quantizer, torch's version and the package's own code.  Nothing in the cache is ever out of date, and it can
be deleted at any time.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch

from quantskew import datasets
from quantskew.audits.audit import audit_once
from quantskew.audits.model import audit_model, check_audit
from quantskew.cache import digest, source_digest
from quantskew.datasets import normalise
from quantskew.derivatives.gradients import group_gradient_norms
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS
from quantskew.training import loop, models
from quantskew.training.checkpoint import model_path, train_once
from quantskew.training.recipe import Recipe
from quantskew.training.sampling import resample

# Training images of each group whose gradient is followed through the epochs, and how often about.
_GRADIENT_IMAGES = 32
_GRADIENT_EPOCHS = 13
# Weights alone, activations alone, and both (section 6 of the paper expects activations to "resemble that of
# weight quantization or expand the disparity").
ACTIVATION_COLUMNS = ("fp32", "int8", "int4", "A8", "A4", "W8A8", "W4A4")


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
    Experiment("svhn", "svhn", "small_resnet", Recipe(epochs=10, flip=False)),
    Experiment("folder", "folder", "resnet18", _PAPER, size=64),
)
EXPERIMENTS = {experiment.name: experiment for experiment in _EXPERIMENTS}


def get(name, **changes):
    """The experiment of that name, with changes.

    Parameters
    ----------
    name : str
    **changes
        Fields of `Experiment` or of `Recipe`; None leaves a field as it is.

    Raises
    ------
    ValueError
        If the name or a field is not known; the message lists the known ones.

    Examples
    --------
    >>> get("digits", seed=3, model="resnet18").recipe.seed
    3
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    recipe_fields = {field.name for field in dataclasses.fields(Recipe)}
    own_fields = {field.name for field in dataclasses.fields(Experiment)} - {"name", "recipe"}
    changes = {field: value for field, value in changes.items() if value is not None}
    unknown = changes.keys() - recipe_fields - own_fields
    if unknown:
        known = ", ".join(sorted(recipe_fields | own_fields))
        raise ValueError(f"an experiment has no {', '.join(sorted(unknown))}; it has: {known}")
    models.check_name(changes.get("model", experiment.model))
    recipe = dataclasses.replace(
        experiment.recipe, **{f: v for f, v in changes.items() if f in recipe_fields}
    )
    return dataclasses.replace(
        experiment, recipe=recipe, **{f: v for f, v in changes.items() if f in own_fields}
    )


def with_seed(experiment, seed):
    """The experiment, or the one of that name, with another seed of split, weights and training."""
    if isinstance(experiment, str):
        experiment = get(experiment)
    return dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, seed=seed))


def load_data(experiment, data_dir=None, download=False):
    """The experiment's `Dataset`, split by its seed."""
    return datasets.load(
        experiment.dataset,
        data_dir,
        experiment.size,
        experiment.label,
        experiment.group,
        seed=experiment.recipe.seed,
        download=download,
    )


def sampled(experiment, data):
    """The data set with the training images that the experiment's `targets` ask for."""
    if experiment.targets is None:
        return data
    return resample(data, experiment.targets, experiment.recipe.seed)


def choose_device(name="auto"):
    """The device of that name; ``auto`` is a GPU where torch sees one, else the processor.

    Raises
    ------
    ValueError
        If torch cannot use it here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); use auto or cpu") from error
    return device


def untrained(experiment, data):
    """The experiment's model with its initial weights."""
    channels = data.train.images.shape[1]
    return models.build(experiment.model, len(data.class_names), channels, experiment.recipe.seed)


def trained(experiment, data, device="auto"):
    """The trained model and its history, from the cache or trained now.

    Parameters
    ----------
    experiment : Experiment
    data : Dataset
    device : str

    Returns
    -------
    model : torch.nn.Module
        In evaluation mode, on `device`.
    record : dict
        ``history`` (see `quantskew.training.loop.fit`; ``measured`` are the gradient norms of the groups
        on a few of their training images, in some of the epochs), ``seconds`` of training and ``key``, the
        entry's name.
    """
    device = choose_device(device)
    trained_on = sampled(experiment, data)
    key = digest(
        {
            "model": experiment.model,
            "recipe": dataclasses.asdict(experiment.recipe),
            "data": trained_on.digest,
            "device": device_name(device),
            "torch": torch.__version__,
            "code": source_digest("quantskew.training.loop", "quantskew.training.models"),
        }
    )
    model = untrained(experiment, data).to(device)
    title = f"training {experiment.name}, seed {experiment.recipe.seed}"
    measure = _gradient_measure(data, experiment.recipe.epochs)

    def train(checkpoint):
        return loop.fit(model, trained_on, experiment.recipe, checkpoint, title, measure=measure)

    record = train_once(model, model_path(experiment.name, key), train)
    return model.eval(), record | {"key": key}


def _gradient_measure(data, epochs):
    """Eq. 10 on the first training images of each group, in one epoch of a few; None in the others."""
    interval = math.ceil(epochs / _GRADIENT_EPOCHS)
    groups = data.train.groups.numpy()
    index = np.concatenate(
        [np.flatnonzero(groups == g)[:_GRADIENT_IMAGES] for g in range(len(data.group_names))]
    )
    images = data.train.subset(index)

    def measure(model, epoch):
        if (epoch + 1) % interval:
            return None
        inputs = normalise(images.images).to(next(model.parameters()).device)
        norms = group_gradient_norms(model, inputs, images.labels, images.groups, len(images.group_names))
        return [None if np.isnan(norm) else norm for norm in norms.tolist()]

    return measure


def audit(
    experiment,
    quantizers=DEFAULT_PRECISIONS,
    *,
    data_dir=None,
    device="auto",
    download=False,
    curvature=False,
):
    """The Audit of an experiment, from the cache or made now (the model is trained where it has to be).

    Parameters
    ----------
    experiment : Experiment or str
    quantizers, curvature
        See `quantskew.audits.model.audit_model`.
    data_dir, download
        See `quantskew.datasets.load`.
    device : str

    Returns
    -------
    Audit

    Examples
    --------
    >>> audit("digits", ["fp32", "int2"]).logits.shape
    (2, 719, 10)
    """
    if isinstance(experiment, str):
        experiment = get(experiment)
    chosen = check_audit(quantizers, curvature)
    data = load_data(experiment, data_dir, download)
    model, record = trained(experiment, data, device)
    names = [own.name for own in chosen]
    key = digest([record["key"], names, curvature, source_digest("quantskew.audits.model")])

    def make(path):
        return audit_model(
            model,
            data,
            chosen,
            facts=training_facts(experiment, data, record, device),
            curvature=curvature,
            checkpoint=path.with_suffix(".curvature"),
        )

    return audit_once(experiment.name, key, make)


def training_facts(experiment, data, record, device="auto"):
    """What the provenance of an Audit says of the experiment: `data` and `record` are those of `trained`."""
    return {
        "experiment": dataclasses.asdict(experiment),
        "data_digest": data.digest,
        "left_out": len(data.skipped),
        "training_seconds": record["seconds"],
        "history": record["history"],
        "device": device_name(choose_device(device)),
    }


def device_name(device):
    """Name of what computes, as far as its results differ from another's."""
    # The number of threads decides the order in which a processor adds, and with it the last digits.
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} cores"
