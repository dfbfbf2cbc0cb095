"""Named experiments: a data set, a model and a recipe; trained and audited once, cached by content.

A cache entry's name is a digest of everything that its content depends on: recipe, images, seed,
quantizer, torch's version and the package's own code.  Nothing in the cache is ever out of date, and it can
be deleted at any time.
"""

import dataclasses
import json
import time
from dataclasses import dataclass

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from quantskew import datasets, models, training
from quantskew.audit import Audit
from quantskew.files import cache_dir, digest, replacing
from quantskew.measure import audit_model
from quantskew.provenance import source_digest
from quantskew.ptq import check_options
from quantskew.quantizers import DEFAULT_PRECISIONS
from quantskew.training import Recipe


@dataclass(frozen=True)
class Experiment:
    """A data set, a model, and how the one is fitted to the other.

    Attributes
    ----------
    name : str
    dataset : str
        See `quantskew.datasets.load`; likewise `size`, `label` and `group`.
    model : str
        See `quantskew.models.build`.
    recipe : Recipe
    """

    name: str
    dataset: str
    model: str
    recipe: Recipe
    size: int | None = None
    label: str | None = None
    group: str | None = None


_PAPER = Recipe()
_SMALL = Recipe(epochs=40, batch_size=32, learning_rate=0.1, flip=False, shift=1, compute="fp32")
_EXPERIMENTS = (
    Experiment("digits", "digits", "small_resnet", _SMALL),
    Experiment("utkface", "utkface", "resnet18", _PAPER, size=64),
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
        ``history`` (see `quantskew.training.fit`), ``seconds`` of training and ``key``, the entry's name.
    """
    device = choose_device(device)
    key = digest(
        {
            "model": experiment.model,
            "recipe": dataclasses.asdict(experiment.recipe),
            "data": data.digest,
            "device": _device_name(device),
            "torch": torch.__version__,
            "code": source_digest("quantskew.training", "quantskew.models"),
        }
    )
    model = models.build(
        experiment.model, len(data.class_names), data.train.images.shape[1], experiment.recipe.seed
    ).to(device)
    path = model_path(experiment, key)
    if not path.exists():
        checkpoint = path.with_suffix(".checkpoint")
        start = time.perf_counter()
        title = f"training {experiment.name}, seed {experiment.recipe.seed}"
        history = training.fit(model, data, experiment.recipe, checkpoint, title)
        record = {"history": history, "seconds": round(time.perf_counter() - start, 1), "key": key}
        state = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
        with replacing(path) as partial:
            save_file(state, partial, metadata={"quantskew.record": json.dumps(record)})
        checkpoint.unlink(missing_ok=True)
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["quantskew.record"])
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    return model.eval(), record


def model_path(experiment, key):
    """Cache file of a trained model, by the key that `trained` gives."""
    return cache_dir() / "models" / f"{experiment.name}-{key}.safetensors"


def audit(
    experiment,
    precisions=DEFAULT_PRECISIONS,
    *,
    scheme="banner",
    per_channel=False,
    fold_batchnorm=False,
    boundary_precision=None,
    data_dir=None,
    device="auto",
    download=False,
    curvature=False,
    curvature_images=None,
):
    """The Audit of an experiment, from the cache or made now (the model is trained where it has to be).

    Parameters
    ----------
    experiment : Experiment or str
    precisions, scheme, per_channel, fold_batchnorm, boundary_precision, curvature, curvature_images
        See `quantskew.measure.audit_model`.
    data_dir, download
        See `quantskew.datasets.load`.
    device : str

    Returns
    -------
    Audit

    Examples
    --------
    >>> audit("digits", precisions=["fp32", "int2"]).logits.shape
    (2, 719, 10)
    """
    if isinstance(experiment, str):
        experiment = get(experiment)
    options = {
        "scheme": scheme,
        "per_channel": per_channel,
        "fold_batchnorm": fold_batchnorm,
        "boundary_precision": boundary_precision,
    }
    check_options(precisions, scheme, boundary_precision)
    data = load_data(experiment, data_dir, download)
    model, record = trained(experiment, data, device)
    extent = [curvature, curvature_images]
    key = digest([record["key"], list(precisions), options, extent, source_digest("quantskew.measure")])
    path = cache_dir() / "audits" / f"{experiment.name}-{key}.safetensors"
    if not path.exists():
        facts = {
            "experiment": dataclasses.asdict(experiment),
            "data_digest": data.digest,
            "left_out": len(data.skipped),
            "training_seconds": record["seconds"],
            "device": _device_name(choose_device(device)),
        }
        audit_model(
            model,
            data,
            precisions,
            **options,
            facts=facts,
            curvature=curvature,
            curvature_images=curvature_images,
            checkpoint=path.with_suffix(".curvature"),
        ).save(path)
    return Audit.load(path)


def _device_name(device):
    # The number of threads decides the order in which a processor adds, and with it the last digits.
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} cores"
