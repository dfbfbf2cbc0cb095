"""What is decided without training: whose images calibrate, and how many bits each layer has.

A budget of bits is spent where a goal asks for it (as Dong et al. 2019 do for the mean loss, with HAWQ): by
what quantizing each layer alone adds to the loss of each group, or takes from its accuracy, on validation
images.  What layers add is taken to sum up.
"""

import copy
import functools
import itertools
import json
import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from quantskew.audits.audit import Audit, audit_once
from quantskew.audits.layers import audit_layers
from quantskew.audits.model import MIXES, audit_models, calibration_images
from quantskew.cache import provenance, source_digest
from quantskew.checks import check_known, in_brief
from quantskew.experiments import catalogue
from quantskew.files import digest, write_bytes
from quantskew.groups import group_means
from quantskew.measures.forward import group_accuracy, group_loss
from quantskew.quantization import batchnorm
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.quantizer import CALIBRATED, PRECISIONS, Quantizer, integer_bits

_LOG = logging.getLogger(__name__)
BITS = (2, 3, 4, 6, 8)
GOALS = ("mean", "worst-group", "fvo")
# Calibration images by default, and other numbers of them.
IMAGES, SIZES = 256, (16, 64)
# Validation images that say what a layer adds, and training images whose losses are known.
_IMAGES_LAYERS = 1024
# By which value a solution may differ from an equally good one.
_EQUAL = 1e-9


def calibration_audit(experiment, precisions=("int3", "int4"), *, data_dir=None, device="auto"):
    """The Audit of what can be done without labels and training, from the cache or made now.

    All has a grid a channel, of least squared error, and 8 bits at both ends, as MPQAT has.  Each column is
    kept as soon as it is there.

    Parameters
    ----------
    experiment : Experiment or str
    precisions : sequence of str
        All of it is done at the first; at the others what is below without a mix and a size, AdaRound apart.
    data_dir, device
        See `quantskew.experiments.catalogue.audit`.

    Returns
    -------
    Audit
        Its columns are ``fp32``, and at ``int3`` (where weights go to the nearest) also ``int3 batch norm``
        (re-estimated), ``int3 gptq`` (on 256 images in proportion), ``int3 gptq batch norm``; then such as
        ``int3 gptq minority`` of each other mix of `quantskew.audits.model.calibration_images`,
        ``int3 gptq 16`` of each other of `SIZES`, and ``int3 adaround``.  Mixes and sizes that lack images
        are left out, which is said.  The ``seconds`` of its provenance are those of a processor that each
        took to be made.
    """
    experiment, data, model, _ = ready = catalogue.ready(experiment, data_dir, device)
    full = {"fp32": partial(quantize_model, model, "fp32")}

    @functools.lru_cache(1)
    def rounded(name, mix=MIXES[0], count=IMAGES):
        losses = _losses(model, data.train) if mix == "loss-weighted" else None
        own = Quantizer.parse(f"{name},per-channel,ends-int8")
        images = calibration_images(data, mix, count, losses=losses) if own.needs_images else None
        return quantize_model(model, own, images)

    def normed(*what):
        made = copy.deepcopy(rounded(*what))
        batchnorm.reestimate(made, data.train, replace(experiment.recipe, compute="fp32"))
        return made

    for at in precisions:
        for name, scheme in ((at, "mse"), (f"{at} gptq", "gptq")):
            full |= {name: partial(rounded, f"{at}:{scheme}")}
            full |= {f"{name} batch norm": partial(normed, f"{at}:{scheme}")}
    at, counts = precisions[0], data.train.group_counts
    for mix in MIXES[1:]:
        only = {"majority": counts.max(), "minority": counts[counts > 0].min()}.get(mix, IMAGES)
        if only < IMAGES:
            _LOG.warning("%s is left out: it has %d of %d training images", mix, only, IMAGES)
        else:
            full[f"{at} gptq {mix}"] = partial(rounded, f"{at}:gptq", mix)
    full |= {f"{at} gptq {size}": partial(rounded, f"{at}:gptq", MIXES[0], size) for size in SIZES}
    full[f"{at} adaround"] = partial(rounded, f"{at}:adaround")
    return _joined("calibration_audit", full, *ready, device)


def as_methods(audits):
    """Audits of `calibration_audit` as those of methods that are among their columns, by key."""

    def of(audit, end):
        names = {at: at + end for at in audit.precisions if " " not in at and at + end in audit.precisions}
        return replace(audit.select(["fp32", *names.values()]), precisions=("fp32", *names))

    ends = {"no-training": " batch norm", "calibrated": " gptq batch norm"}
    return {key: [of(audit, end) for audit in audits] for key, end in ends.items()} if audits else {}


def _losses(model, split):
    """Loss of some thousand training images at random; 0 of the others, which then are not drawn."""
    some = np.random.default_rng(0).permutation(len(split))[:_IMAGES_LAYERS]
    losses, chosen = np.zeros(len(split)), split.subset(some)
    float_model = {"fp32": quantize_model(model, "fp32")}
    losses[some] = group_loss.of_samples(audit_models(model, float_model, chosen))[0]
    return losses


def _joined(what, columns, experiment, data, model, record, device, **more):
    """An Audit of many models, of which one at a time is in memory; `columns` has what makes them."""
    facts = catalogue.training_facts(experiment, data, record, device) | more
    code = source_digest(f"{__name__}.{what}")

    def audited(name, make):
        def of_column(_):
            start = time.process_time()
            made = {name: make()}
            return audit_models(model, made, data, facts={"seconds": time.process_time() - start})

        key = digest([record["key"], name, more, code])
        return audit_once(f"{experiment.name}-{what}", key, of_column)

    audits = {name: audited(name, make) for name, make in columns.items()}
    facts["seconds"] = {name: round(own.provenance["seconds"], 1) for name, own in audits.items()}
    joined = functools.reduce(Audit.join, audits.values())
    return replace(joined, provenance=provenance(**facts))


def allocate(audits, mean_bits, goal):
    """The bits of each layer within a budget that serve a goal best, by an exact integer program.

    Parameters
    ----------
    audits : dict of int to Audit
        Those of `quantskew.audits.layers` at each number of bits that a layer may have, on images that no
        result is measured on.
    mean_bits : float
        Most bits of a weight, in the mean over all weights.
    goal : {"mean", "worst-group", "fvo"}
        What is made least: the mean loss over samples, the largest loss of a group, or the largest difference
        between the accuracies of two groups.  Of plans that are equal in it, that of least mean loss.

    Returns
    -------
    dict of str to str
        Precision of each weight.

    Raises
    ------
    ValueError
        If the goal is not known, or no plan is within the budget.
    """
    check_known("goal", goal, GOALS)
    if not mean_bits >= min(audits):
        raise ValueError(f"a budget has at least {min(audits)} bits a weight; got {mean_bits}")
    first = next(iter(audits.values()))
    names, sizes, present = first.weights.layers, first.weights.sizes, first.group_counts > 0

    def means(measure, groups, count):
        """By what is quantized (nothing, or one layer), number of bits and group."""
        values = [measure.of_samples(own)[: len(names) + 1].astype(np.float64) for own in audits.values()]
        return np.stack([group_means(own, groups, count) for own in values], axis=1)

    mean = means(group_loss, np.zeros_like(first.groups), 1)
    values = mean
    if goal != "mean":
        measure = group_accuracy if goal == "fvo" else group_loss
        values = means(measure, first.groups, len(present))[..., present]
    added, base = values[1:] - values[:1], values[0, 0]
    layers, choices, groups = added.shape
    # Whether a layer has so many bits (0 or 1), and what is above and below the values of all groups.
    picks, by_group = layers * choices, added.reshape(-1, groups).T
    size = np.kron(sizes / sizes.sum(), [*audits])
    once_each = np.kron(np.eye(layers), np.ones(choices))
    one, none = np.ones((groups, 1)), np.zeros((groups, 1))
    constraints = [
        LinearConstraint(np.hstack([once_each, np.zeros((layers, 2))]), 1, 1),
        LinearConstraint([*size, 0, 0], ub=mean_bits + _EQUAL),
        LinearConstraint(np.hstack([by_group, -one, none]), ub=-base),
        LinearConstraint(np.hstack([by_group, none, -one]), lb=-base),
    ]
    bounds = Bounds([0] * picks + [-np.inf] * 2, [1] * picks + [np.inf] * 2)
    spread = np.array([*np.zeros(picks), 1, -1 if goal == "fvo" else 0])
    for cost in (spread, np.array([*(mean[1:] - mean[:1]).ravel(), 0, 0])):
        exact = {"integrality": [1] * picks + [0, 0], "options": {"mip_rel_gap": 0}}
        found = milp(cost, bounds=bounds, constraints=constraints, **exact)
        constraints.append(LinearConstraint(cost, ub=found.fun + _EQUAL))
    picked = found.x[:picks].reshape(layers, choices).argmax(axis=1)
    return {name: f"int{[*audits][pick]}" for name, pick in zip(names, picked, strict=True)}


def planned(experiment, mean_bits, goals=GOALS, quantizer="int4:mse", **where):
    """Plans of an experiment for several goals, by what its layers add on validation images.

    Parameters
    ----------
    experiment : Experiment or str
    mean_bits : sequence of float
    goals : sequence of str
        See `allocate`.
    quantizer : Quantizer or str
        How layers are quantized, their bits apart.  What they add is measured with rounding to nearest, float
        activations and all layers alike.
    **where
        ``data_dir`` and ``device``, see `quantskew.experiments.catalogue.audit`.

    Returns
    -------
    dict of (float, str) to dict
        By budget and goal: of JSON-able facts; ``plan`` has the precision of each weight, ``precision`` is
        that of the largest uniform model within the budget.
    """
    experiment, data, model, record = catalogue.ready(experiment, **where)
    own = Quantizer.of(quantizer)
    scheme = "mse" if own.scheme in CALIBRATED else own.scheme
    nearest = replace(own, scheme=scheme, activation_precision=None, boundary_precision=None)

    some = np.random.default_rng(0).permutation(len(data.validation))[:_IMAGES_LAYERS]
    split = data.validation.subset(np.sort(some))

    def audit(bits):
        each = nearest.at(f"int{bits}")
        key = digest([record["key"], each.name, len(split), source_digest("quantskew.audits.layers")])
        of_layers = f"{experiment.name}-validated-layers"
        return audit_once(of_layers, key, lambda _: audit_layers(model, split, each, others=False))

    audits, plans = {bits: audit(bits) for bits in BITS}, {}
    sizes = audits[BITS[0]].weights.sizes
    for budget, goal in itertools.product(mean_bits, goals):
        chosen = allocate(audits, budget, goal)
        spent = sizes @ [integer_bits(own) for own in chosen.values()] / sizes.sum()
        facts = {"experiment": experiment.name, "seed": experiment.recipe.seed, "quantizer": nearest.name}
        facts |= {"for": goal, "mean_bits": budget, "spent_bits": round(float(spent), 4)}
        uniform = f"int{min(int(budget), max(BITS))}"
        plans[budget, goal] = facts | {"precision": uniform, "plan": chosen}
    return plans


def write_plan(path, plan):
    """Write a plan as JSON."""
    write_bytes(path, (json.dumps(plan, indent=2) + "\n").encode())


def read_plan(path):
    """The plan that `write_plan` wrote; what is none is refused."""
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
        for precision in (plan["precision"], *plan["plan"].values()):
            check_known("precision", precision, PRECISIONS)
        return plan
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        said = f"{path} is no plan ({in_brief(error)})"
        raise ValueError(f"{said}; make one with `quantskew allocate`") from error


def front(experiment, budgets=(2.5, 3, 3.5), goals=GOALS, quantizer="int4:mse,per-channel", **where):
    """The Audit of uniform bits and of plans within budgets, from the cache or made now.

    For the parameters see `planned`.  Its columns are ``fp32``, those such as ``int2`` of each of `BITS`, and
    such as ``3.5 bits for worst-group``; the ``plans`` of its provenance have the plan of each of these.
    """
    experiment, data, model, _ = ready = catalogue.ready(experiment, **where)
    own = Quantizer.of(quantizer)
    plans = planned(experiment, budgets, goals, own, **where)
    plans = {f"{budget:g} bits for {goal}": plan for (budget, goal), plan in plans.items()}
    images = calibration_images(data) if own.needs_images else None
    columns = {"fp32": partial(quantize_model, model, "fp32")}
    columns |= {f"int{bits}": partial(quantize_model, model, own.at(f"int{bits}"), images) for bits in BITS}
    for name, plan in plans.items():
        columns[name] = partial(quantize_model, model, own, images, plan["plan"])
    # Plans of two quantizers may be the same, and so are the names of the columns.
    facts = {"plans": plans, "quantizer": own.name}
    return _joined("front", columns, *ready, where.get("device", "auto"), **facts)
