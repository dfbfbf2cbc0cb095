"""Interventions on the chain from rounded weights to harm: one link is changed, and all else held equal.

Those on the weights and on the statistics of batch norm are copies of a model, the columns of one Audit
(`audit`).  Those on the logits make a new Audit of a given one, and need no model: whatever can be measured
of an Audit can be measured before and after.
"""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from quantskew.audits.audit import audit_once
from quantskew.audits.curvature import measure_expansion
from quantskew.audits.model import audit_models
from quantskew.cache import source_digest
from quantskew.checks import check_known
from quantskew.experiments import catalogue
from quantskew.files import digest
from quantskew.groups import group_means, largest_gap
from quantskew.measures.forward import group_accuracy, group_loss
from quantskew.measures.measure import Measure, once
from quantskew.quantization import batchnorm
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.quantization.quantizer import Quantizer

PRECISIONS = ("int4", "int3", "int2")
# A precision at which an expansion is still exact, its control.
_CONTROL = "int8"
_EXPANSION_IMAGES = 256
_MARGIN_BINS = 20


def _noise(weight, rounded, generator):
    noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    length = torch.linalg.vector_norm((rounded - weight).double())
    return weight + (noise * (length / torch.linalg.vector_norm(noise))).to(weight)


def _permuted(weight, rounded, generator):
    order = torch.randperm(weight.numel(), generator=generator)
    return weight + (rounded - weight).flatten()[order].view_as(weight)


# What a layer's weight becomes, out of itself, what it is rounded to, and a generator of random numbers.
WEIGHT_CHANGES = {
    "zeros": lambda weight, rounded, _: torch.where(rounded == 0, rounded, weight),
    "rest": lambda weight, rounded, _: torch.where(rounded == 0, weight, rounded),
    "permuted": _permuted,
    "mirrored": lambda weight, rounded, _: 2 * weight - rounded,
    "noise": _noise,
}


@torch.no_grad()
def intervene(model, quantizer, change, seed=0):
    """A copy of a model in which a part of what quantization does to the weights is done, or an equal of it.

    Parameters
    ----------
    model : torch.nn.Module
    quantizer : Quantizer or str
        Of integer weights, batch norm unfolded.
    change : {"zeros", "rest", "permuted", "mirrored", "noise"}
        Only the weights that become 0 do, or only the others are rounded (together these are all of it); the
        rounding errors of each layer change places, or their sign; or each layer gets Gaussian noise of the
        length of its errors.
    seed : int
        Of places and noise.

    Returns
    -------
    torch.nn.Module
        In evaluation mode; the weights are on no grid.

    Examples
    --------
    >>> layer = torch.nn.Linear(3, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.1, 0.7, -1.0]]))
    >>> intervene(layer, "int2", "zeros").weight.tolist()[0][0]
    0.0
    """
    check_known("change", change, WEIGHT_CHANGES)
    result = quantize_model(model, quantizer)
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(weight_parameters(model).values(), weight_parameters(result).values(), strict=True)
    for weight, rounded in pairs:
        own = WEIGHT_CHANGES[change](weight.detach().cpu().float(), rounded.detach().cpu(), generator)
        rounded.data = own.to(rounded)
    result.quantized = {}
    return result


def models(model, data, recipe, precisions=PRECISIONS):
    """The float model, and it under every intervention at every precision, by the names of the columns.

    A column is named by its precision, and what is done instead of plain quantization: ``int4``,
    ``int4 zeros``, ``int4 batch norm`` (re-estimated on training images), ``int4 bias`` (each channel's mean
    weight corrected).
    """
    made = {name: quantize_model(model, name) for name in ("fp32", _CONTROL, *precisions)}
    for precision in precisions:
        for change in WEIGHT_CHANGES:
            made[f"{precision} {change}"] = intervene(model, precision, change, recipe.seed)
        estimated = made[f"{precision} batch norm"] = copy.deepcopy(made[precision])
        batchnorm.reestimate(estimated, data.train, replace(recipe, compute="fp32"))
        made[f"{precision} bias"] = quantize_model(model, Quantizer(precision, bias_correction=True))
    return made


def audit(experiment, precisions=PRECISIONS, *, data_dir=None, device="auto"):
    """The Audit of an experiment under the interventions of `models`, from the cache or made now.

    Its curvature has the terms of Eq. 4 alone, for the plain precisions and int8, over a few hundred test
    images a group.
    """
    experiment, data, model, record = catalogue.ready(experiment, data_dir, device)
    parts = [record["key"], precisions, source_digest("quantskew.experiments.interventions")]

    def make(_):
        made = models(model, data, experiment.recipe, precisions)
        facts = catalogue.training_facts(experiment, data, record, device)
        own = audit_models(model, made, data, facts=facts)
        plain = {name: made[name] for name in (_CONTROL, *precisions)}
        return replace(own, curvature=measure_expansion(model, data.test, made, plain, _EXPANSION_IMAGES))

    return audit_once(f"{experiment.name}-causes", digest(parts), make)


def outcomes(audits, precision, interventions):
    """What interventions do to the loss and to the gap between groups, a row for each of them and each seed.

    Parameters
    ----------
    audits : sequence of Audit
        One a seed, with the columns of `models` or, for what acts on logits, with the plain ones alone.
    precision : str
    interventions : dict of str to (str or callable)
        By its title a column's name behind the precision (``""`` is plain quantization), or a function of the
        Audit.

    Returns
    -------
    pandas.DataFrame
        Columns ``intervention``, ``seed`` (position), ``added`` (mean loss above the reference's, in nats),
        ``gap`` (the same of the smallest group in training minus that of the largest) and ``fvo``.
    """
    rows = []
    for title, what in interventions.items():
        for seed, audit in enumerate(audits):
            other, name = (once(audit, what, what), "") if callable(what) else (audit, what)
            row = other.index(f"{precision} {name}".strip())
            loss = group_loss.of_samples(other)
            added, counts = loss[row] - loss[0], audit.train_counts
            groups = group_means(added, audit.groups, len(counts))
            gap = groups[counts.argmin()] - groups[counts.argmax()]
            right = group_means(group_accuracy.of_samples(other)[row], audit.groups, len(counts))
            own = {"added": added.mean(), "gap": gap, "fvo": largest_gap(right)}
            rows.append({"intervention": title, "seed": seed, **own})
    return pd.DataFrame(rows)


def fit_correction(logits, reference, turned=False):
    """The affine map of logits whose probabilities come closest to a reference's, in cross-entropy.

    Parameters
    ----------
    logits, reference : ndarray, shape (N, C)
        Of the same samples; their labels have no part in it.
    turned : bool
        Whether the logits are multiplied by a matrix too, or only get a number added for each class.

    Returns
    -------
    matrix : ndarray of float64, shape (C, C)
    bias : ndarray of float64, shape (C,)
        logits @ matrix + bias are the corrected ones.
    """
    logits, wanted = np.asarray(logits, dtype=np.float64), softmax(np.float64(reference), axis=1)
    samples, classes = logits.shape
    # The rows of the matrix and, as one more, the bias.
    start = np.eye(classes + 1, classes).ravel()
    fixed = 0 if turned else classes**2

    def of(free):
        *matrix, bias = np.append(start[:fixed], free).reshape(-1, classes)
        return np.array(matrix), bias

    def apart(free):
        matrix, bias = of(free)
        given = log_softmax(logits @ matrix + bias, axis=1)
        error = (np.exp(given) - wanted) / samples
        slope = np.append(logits.T @ error, error.sum(axis=0))
        return -(wanted * given).sum() / samples, slope[fixed:]

    matrix, bias = of(minimize(apart, start[fixed:], jac=True, method="L-BFGS-B").x)
    # A number for all classes alike changes no probability.
    return matrix, bias - bias.mean()


def corrected(audit, turned=False, seed=0):
    """An Audit whose logits are corrected towards the reference's, see `fit_correction`.

    The samples are halved at random, and each half is corrected by what was fitted on the other.
    """
    halves = np.random.default_rng(seed).permutation(len(audit.labels)) % 2
    logits = audit.logits.copy()
    for row in range(1, len(logits)):
        for half in (0, 1):
            others, own = halves != half, halves == half
            matrix, bias = fit_correction(audit.logits[row, others], audit.logits[0, others], turned)
            logits[row, own] = audit.logits[row, own] @ matrix + bias
    return replace(audit, logits=logits)


@torch.inference_mode()
def shift_answers(model, reference, images):
    """Add to a model's logits the number for each class that `fit_correction` finds on images, in place."""
    given, wanted = (
        torch.cat([own(batch) for batch in images.split(256)]).cpu() for own in (model, reference)
    )
    _, bias = fit_correction(given.numpy(), wanted.numpy())
    shift = torch.from_numpy(bias).float()
    model.register_forward_hook(lambda module, inputs, output: output + shift.to(output))


def mapped(audit):
    """As `corrected`, by a matrix too."""
    return corrected(audit, turned=True)


def shrunk(audit):
    """An Audit with the reference's directions of the logits, and each column's lengths alone.

    Directions and lengths are those of the logits minus their mean over the classes, on which alone the
    probabilities depend.
    """
    centred, lengths = _centred(audit)
    return replace(audit, logits=_of_length(centred[:1], lengths[:1], lengths))


def rotated(audit):
    """As `shrunk`, the other way round: each column's directions, with the reference's lengths."""
    centred, lengths = _centred(audit)
    return replace(audit, logits=_of_length(centred, lengths, lengths[:1]))


def _centred(audit):
    centred = audit.logits - audit.logits.mean(axis=2, keepdims=True, dtype=np.float64)
    return centred, np.linalg.norm(centred, axis=2, keepdims=True)


def _of_length(vectors, lengths, wanted):
    """Vectors as long as is wanted; those without a direction stay null."""
    return (vectors * (wanted / np.where(lengths > 0, lengths, 1))).astype(np.float32)


def _beyond_margin(values, audit):
    """Values of samples (P, N) minus their mean over all samples that are as near to the boundary at fp32."""
    top = np.partition(audit.logits[0], -2, axis=1)
    ranks = (top[:, -1] - top[:, -2]).argsort(kind="stable").argsort(kind="stable")
    bins = ranks * _MARGIN_BINS // len(ranks)
    return values - group_means(values, bins, _MARGIN_BINS)[:, bins]


def _changed(audit):
    return _beyond_margin((audit.predictions != audit.predictions[:1]).astype(np.float64), audit)


def _lost(audit):
    right = group_accuracy.of_samples(audit)
    return _beyond_margin(right[:1] - right, audit)


# What the margins at fp32 leave unsaid; no measures of their own, since their sum over all groups is zero.
CHANGED_BEYOND_MARGIN = Measure(
    _changed, "answers changed", "changed answers beyond\nwhat margins say (share)", of_samples=_changed
)
LOST_BEYOND_MARGIN = Measure(
    _lost, "accuracy lost", "lost accuracy beyond\nwhat margins say (share)", of_samples=_lost
)
