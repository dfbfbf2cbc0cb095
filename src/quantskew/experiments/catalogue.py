"""Named experiments, trained and audited once, cached by content.

A cache entry's name is a digest of everything that its content depends on: recipe, images, seed,
quantizer, torch's version and the package's own code.  Nothing in the cache is ever out of date, and it can
be deleted at any time.
"""

import dataclasses
import functools
import math
import sys
from pathlib import Path

import numpy as np
import torch

from quantskew import datasets
from quantskew.audits.audit import audit_once
from quantskew.audits.layers import audit_layers, check_layers
from quantskew.audits.model import audit_model, check_audit
from quantskew.audits.runtimes import beside
from quantskew.audits.shipped import opened, told
from quantskew.cache import go_on, source_digest
from quantskew.checks import in_brief, shortened
from quantskew.datasets import listed, normalise
from quantskew.derivatives.gradients import group_gradient_norms
from quantskew.experiments.experiment import EXPERIMENTS, Experiment, get, with_seed  # noqa: F401
from quantskew.files import digest, digest_of
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS
from quantskew.training import loop, models
from quantskew.training.checkpoint import model_path, train_once
from quantskew.training.sampling import resample

# Training images of each group whose gradient is followed through the epochs, and how often about.
_GRADIENT_IMAGES = 32
_GRADIENT_EPOCHS = 13
_DEVICES = ("cpu", "cuda", "mps", "xpu")
# Weights alone, activations alone, and both (section 6 of the paper expects activations to "resemble that of
# weight quantization or expand the disparity").
ACTIVATION_COLUMNS = ("fp32", "int8", "int4", "A8", "A4", "W8A8", "W4A4")


@functools.lru_cache(1)
def _opened(path, own, size):
    """A model in a file, with its test images; how it is fed and what speaks against it is said once."""
    found = opened(path, listed.read(own.test, own.image_root), own.arch, own.given(size))
    tried = audit_model(found.network(), found.dataset("test").test, ["fp32"])
    found.doubt(tried.predictions[0], tried.labels)
    print(*told(found.facts), sep="\n", file=sys.stderr)
    return found


def load_data(experiment, data_dir=None, download=False):
    """The experiment's `Dataset`, split by its seed."""
    if experiment.own:
        own = experiment.own
        train = listed.read(own.train, own.image_root) if own.train else None
        found = _opened(experiment.start, own, experiment.size)
        return found.dataset(experiment.name, train, experiment.group, experiment.recipe.seed)
    own = (experiment.dataset, data_dir, experiment.size, experiment.label, experiment.group)
    return datasets.load(*own, seed=experiment.recipe.seed, download=download)


def sampled(experiment, data):
    """The data set with the training images that the experiment's `targets` ask for."""
    targets = experiment.targets
    return data if targets is None else resample(data, targets, experiment.recipe.seed)


def choose_device(name="auto", here=True):
    """The device of that name, ``auto`` a GPU if torch sees one; refused where it cannot be used `here`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if here:
            torch.empty(1, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        said = f"device {shortened(name)} cannot be used here ({in_brief(error)})"
        raise ValueError(f"{said}; use auto or cpu") from error
    if device.type not in _DEVICES:
        raise ValueError(f"device {name!r} cannot be used here; use auto, {', '.join(_DEVICES)}")
    return device


def check(experiment, data_dir=None, device="auto", *, here=True):
    """Refuse what no data set, model or device can be made of, before any work; `here` is where it runs."""
    if experiment.own:
        if data_dir is not None:
            raise ValueError("data_dir is of named experiments; a model in a file has --test and --train")
        _opened(experiment.start, experiment.own, experiment.size).network()
    else:
        datasets.check(experiment.dataset, experiment.size, experiment.label, experiment.group)
        models.check_name(experiment.model)
    if data_dir is not None and not Path(data_dir).expanduser().exists():
        raise ValueError(f"data_dir: {data_dir} does not exist; name the folder or archive")
    choose_device(device, here)


def untrained(experiment, data):
    """The experiment's model with its initial weights; one that cannot take the images is refused."""
    if experiment.own:
        return _opened(experiment.start, experiment.own, experiment.size).network(experiment.own.arch)
    channels = data.train.images.shape[1]
    model = models.build(experiment.model, len(data.class_names), channels, experiment.recipe.seed)
    models.check_takes(model, experiment.model, normalise(data.train.images[:2]))
    return model


def trained(experiment, data, device="auto"):
    """The trained model, in evaluation mode on `device`, and its record; from the cache or trained now.

    The record has ``history`` (see `quantskew.training.loop.fit`; ``measured`` are the gradient norms of the
    groups on a few of their training images, in some of the epochs), ``seconds`` of training and ``key``, the
    entry's name.
    """
    device = choose_device(device)
    if experiment.start:
        return _started(experiment, data, device)
    trained_on = sampled(experiment, data)
    code = source_digest("quantskew.training.loop.fit", "quantskew.training.models.build")
    key = digest([code, *what_decides(experiment, data, device)])
    model = untrained(experiment, data).to(device)
    title = f"training {experiment.name}, seed {experiment.recipe.seed}"
    measure = _gradient_measure(data, experiment.recipe.epochs)

    def train(checkpoint):
        return loop.fit(model, trained_on, experiment.recipe, checkpoint, title, measure=measure)

    record = train_once(model, model_path(experiment.name, key), train)
    return model.eval(), record | {"key": key}


def _started(experiment, data, device):
    """The trained model out of its file, as `trained` gives it."""
    fed, model = None, untrained(experiment, data)
    if experiment.own:
        found = _opened(experiment.start, experiment.own, experiment.size)
        fed, model = str(found.how), found.network()
    else:
        models.load_weights(model, experiment.start)
    parts = [digest_of(experiment.start), fed, *what_decides(experiment, data, device)]
    return model.to(device).eval(), {"history": [], "seconds": 0.0, "key": digest(parts)}


def what_decides(experiment, data, device):
    """What a trained model depends on beside the code: part of the key of all that is made from it."""
    device = choose_device(device)
    recipe = dataclasses.asdict(loop.on_device(experiment.recipe, device))
    where = device_name(device), torch.__version__
    return experiment.model, recipe, experiment.targets, data.digest, *where


def _gradient_measure(data, epochs):
    """Eq. 10 on the first training images of each group, in one epoch of a few; None in the others."""
    interval = math.ceil(epochs / _GRADIENT_EPOCHS)
    groups = data.train.groups.numpy()
    first = [np.flatnonzero(groups == g)[:_GRADIENT_IMAGES] for g in range(len(data.group_names))]
    images = data.train.subset(np.concatenate(first))

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
    runtimes=(),
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
    runtimes : sequence of str
        Of `quantskew.audits.runtimes.RUNTIMES`: further columns, which are never taken from the cache.

    Returns
    -------
    Audit

    Examples
    --------
    >>> audit("digits", ["fp32", "int2"]).logits.shape
    (2, 719, 10)
    """
    chosen = check_audit(quantizers, curvature)
    if runtimes and curvature:
        raise ValueError("curvature is of weights, which other runtimes do not show; leave out one of both")
    experiment, data, model, record = ready(experiment, data_dir, device, download)
    names = [own.name for own in chosen]
    key = digest([record["key"], names, curvature, source_digest("quantskew.audits.model")])

    def make(path):
        facts, checkpoint = training_facts(experiment, data, record, device), path.with_suffix(".curvature")
        options = {"facts": facts, "curvature": curvature}
        return go_on(lambda kept: audit_model(model, data, chosen, checkpoint=kept, **options), checkpoint)

    made = audit_once(experiment.name, key, make)
    return beside(made, runtimes, model, data) if runtimes else made


def ready(experiment, data_dir=None, device="auto", download=False):
    """The experiment, its data, its trained model and the record of that."""
    experiment = get(experiment) if isinstance(experiment, str) else experiment
    check(experiment, None if download else data_dir, device)
    data = load_data(experiment, data_dir, download)
    return experiment, data, *trained(experiment, data, device)


def layer_audit(experiment, precision="int4", *, data_dir=None, device="auto", download=False):
    """The Audit of one layer of an experiment at a time, from the cache or made now, as that of `audit`.

    Parameters
    ----------
    experiment : Experiment or str
    precision : Quantizer or str
        See `quantskew.audits.layers.audit_layers`.
    data_dir, device, download
        See `audit`.

    Returns
    -------
    Audit

    Examples
    --------
    >>> layer_audit("digits", "int3").precisions[-2:]
    ('int3 except head', 'int3')
    """
    chosen = check_layers(precision)
    experiment, data, model, record = ready(experiment, data_dir, device, download)
    facts = training_facts(experiment, data, record, device)
    key = digest([record["key"], chosen.name, source_digest("quantskew.audits.layers")])
    of_layers = f"{experiment.name}-layers"
    return audit_once(of_layers, key, lambda path: audit_layers(model, data, chosen, facts=facts))


def training_facts(experiment, data, record, device="auto"):
    """What the provenance of an Audit says of the experiment: `data` and `record` are those of `trained`."""
    device = choose_device(device)
    chosen = dataclasses.replace(experiment, recipe=loop.on_device(experiment.recipe, device))
    facts = {"experiment": dataclasses.asdict(chosen), "data_digest": data.digest}
    facts |= {"left_out": len(data.skipped), "device": device_name(device)}
    if experiment.start:
        facts["start_digest"] = digest_of(experiment.start)
    if experiment.own:
        facts |= _opened(experiment.start, experiment.own, experiment.size).facts
    return facts | {"training_seconds": record["seconds"], "history": record["history"]}


def device_name(device):
    """Name of what computes, as far as its results differ from another's."""
    # The number of threads decides the order in which a processor adds, and with it the last digits.
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} cores"
