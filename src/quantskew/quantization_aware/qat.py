"""Training with quantized weights (QAT), as Nagel et al. (2022) do it.

Each convolution and linear layer computes with its weight on a grid whose step is learned; activations stay
in floating point and batch norm is not merged into the weights.  Oscillations of weights between two codes
are dampened by a loss or frozen, and batch norm is re-estimated before each evaluation.  Each part is a
switch of `quantskew.quantization_aware.qat_options.QATOptions`.
"""

import copy
import dataclasses
import hashlib

import torch
from torch import nn
from torch.nn.utils import parametrize

from quantskew.learning.training import Hooks, fit
from quantskew.quantization.ptq import QuantizedWeight, weight_parameters
from quantskew.quantization.quantizers import quantize_dequantize
from quantskew.quantization_aware.batchnorm import reestimate
from quantskew.quantization_aware.learned_step import LearnedStep
from quantskew.quantization_aware.oscillation import Oscillations, add_dampening_gradient, dampening_strength

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def layer_precisions(model, options):
    """The precision of each weight that is quantized, by its name, in order.

    Raises
    ------
    ValueError
        If the plan names a layer that the model does not have, or nothing is left to quantize.

    Examples
    --------
    >>> from quantskew.quantization_aware.qat_options import QATOptions
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    >>> layer_precisions(model, QATOptions("int4", plan={"2.weight": "fp32"}))
    {'0.weight': 'int8', '1.weight': 'int4'}
    """
    names, plan = list(weight_parameters(model)), options.plan or {}
    for name in plan:
        if name not in names:
            raise ValueError(f"the plan names an unknown layer {name!r}; known: {', '.join(names)}")
    inner = dict.fromkeys(names, options.precision)
    boundary = dict.fromkeys(names[:1] + names[-1:], options.boundary_precision or options.precision)
    chosen = {name: precision for name, precision in (inner | boundary | plan).items() if precision != "fp32"}
    if not chosen:
        raise ValueError("no convolution and no linear layer is left to quantize")
    return chosen


def prepare(model, options):
    """A copy of a model that computes with quantized weights; the model itself is not changed.

    Parameters
    ----------
    model : torch.nn.Module
        In floating point.
    options : QATOptions

    Returns
    -------
    torch.nn.Module
        Each quantized weight has a `LearnedStep` as its parametrization, with `Oscillations` where these are
        tracked.

    Raises
    ------
    ValueError
        If the model is prepared already, the plan does not fit it, or a weight is not finite (its layer is
        named).

    Examples
    --------
    >>> from quantskew.quantization_aware.qat_options import QATOptions
    >>> prepared = prepare(nn.Linear(2, 1), QATOptions("int2", boundary_precision=None))
    >>> len(torch.unique(prepared.weight)) <= 4
    True
    """
    if any(True for _ in _layers(model)):
        raise ValueError("the model is prepared already; prepare a float model")
    precisions = layer_precisions(model, options)
    prepared = copy.deepcopy(model)
    weights = weight_parameters(prepared)
    steps = {}
    for name, precision in precisions.items():
        weight = weights[name]
        try:
            step = LearnedStep(weight, precision, options.learn_steps)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if options.track or options.freezing is not None:
            step.oscillations = Oscillations(weight, step.step, step.low, step.high)
        steps[id(weight)] = step
    # A weight that several layers share has one step, in all of them.
    for module in list(prepared.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in steps:
                parametrize.register_parametrization(module, name, steps[id(parameter)])
                steps[id(parameter)].forget()
    return prepared


def _layers(model):
    """Each quantized weight: its name, its module, its name there, the parameter and its step."""
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for name, chain in module.parametrizations.items():
                if isinstance(chain[0], LearnedStep):
                    yield f"{path}.{name}" if path else name, module, name, chain.original, chain[0]


@torch.no_grad()
def convert(prepared):
    """The quantized model that a prepared one stands for, as `quantskew.quantization.ptq.quantize_model`
    makes them.

    Parameters
    ----------
    prepared : torch.nn.Module
        Made by `prepare`; it is not changed.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, with the float model's modules and the dequantized weights; its logits equal those
        of the prepared model.  Its ``quantized`` maps the name of each quantized weight to its
        `quantskew.quantization.ptq.QuantizedWeight`.

    Raises
    ------
    ValueError
        If the model is not prepared.
    """
    result = copy.deepcopy(prepared).eval()
    quantized = {}
    for name, module, own, weight, step in list(_layers(result)):
        if not any(weight is other for other, _ in quantized.values()):
            codes, values = quantize_dequantize(weight, step.grid)
            weight.copy_(values)
            quantized[name] = (weight, QuantizedWeight(codes, step.grid, step.precision))
        # A copied module shares the class that computes the weight; removing it must not reach the original.
        shared = type(module)
        module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
        parametrize.remove_parametrizations(module, own, leave_parametrized=False)
        # The weight comes back at the end; a float model has its biases there.
        for bias in [other for other in module._parameters if "bias" in other]:
            module.register_parameter(bias, module._parameters.pop(bias))
    if not quantized:
        raise ValueError("the model has no quantized weight; make it with qat.prepare")
    result.quantized = {name: record for name, (_, record) in quantized.items()}
    return result


def oscillating(prepared, threshold=0.005):
    """Share of the weights of each tracked layer that oscillate more often than a threshold.

    Parameters
    ----------
    prepared : torch.nn.Module
        Made by `prepare` with `QATOptions.track` or with freezing.
    threshold : float
        Frequency from which a weight counts; Nagel et al. (2022) use 0.005.

    Returns
    -------
    dict of str to float
    """
    tracked = {
        name: step.oscillations for name, *_, step in _layers(prepared) if hasattr(step, "oscillations")
    }
    return {name: float((kept.frequency > threshold).float().mean()) for name, kept in tracked.items()}


class QAT(Hooks):
    """What QAT adds to `quantskew.learning.training.fit`.

    Parameters
    ----------
    model : torch.nn.Module
        Made by `prepare` with the same options.
    options : QATOptions
    """

    def __init__(self, model, options):
        self.model, self.options = model, options
        self._quantized = []
        for _, module, _, weight, step in _layers(model):
            if not any(step is other for *_, other in self._quantized):
                channels = weight.shape[1 if isinstance(module, _TRANSPOSED) else 0]
                self._quantized.append((weight, channels, step))
        if not self._quantized:
            raise ValueError("the model has no quantized weight; make it with qat.prepare")
        if options.freezing is not None and not hasattr(self._quantized[0][-1], "oscillations"):
            raise ValueError("the model does not track oscillations; prepare it with the same options")

    def identity(self):
        """The options and the weights that training starts from."""
        content = hashlib.sha256()
        for value in self.model.state_dict().values():
            content.update(value.cpu().contiguous().numpy())
        return [dataclasses.asdict(self.options), content.hexdigest()]

    def own_optimizers(self):
        """Adam over the steps, where they are learned."""
        if not self.options.learn_steps:
            return []
        return [
            torch.optim.Adam([step.step for *_, step in self._quantized], self.options.step_learning_rate)
        ]

    def after_backward(self, progress):
        """Add the gradient of the dampening loss, and count oscillations."""
        strength = dampening_strength(self.options.dampening, self.options.ramp_start, progress)
        for weight, channels, step in self._quantized:
            if weight.grad is None:
                # Not trained, or not part of the loss.
                continue
            if strength > 0:
                add_dampening_gradient(
                    weight.grad, weight, step.quantized, step.step, step.low, step.high, channels, strength
                )
            if hasattr(step, "oscillations"):
                step.oscillations.observe(step.quantized, step.step)
            step.forget()

    def after_step(self, progress):
        """Keep the steps positive and frozen weights where they are pinned."""
        for weight, _, step in self._quantized:
            step.keep_positive()
            if self.options.freezing is not None:
                step.oscillations.freeze(self.options.threshold(progress))
                step.oscillations.pin(weight, step.step)

    def before_evaluation(self, split, recipe):
        """Re-estimate batch norm."""
        if self.options.reestimate_batches:
            reestimate(self.model, split, recipe, self.options.reestimate_batches)


def train(
    model, data, recipe, options, checkpoint=None, title="training with quantized weights", measure=None
):
    """Train a quantized copy of a model.

    Parameters
    ----------
    model : torch.nn.Module
        The float model to start from; it is not changed.
    data : Dataset
    recipe : Recipe
        Its weight decay acts on the weights, not on the steps.
    options : QATOptions
    checkpoint, title, measure
        See `quantskew.learning.training.fit`; training goes on only with the same options and the same start.

    Returns
    -------
    torch.nn.Module
        The prepared model, trained; see `convert`.
    list of dict
        The history, see `quantskew.learning.training.fit`.

    Raises
    ------
    ValueError
        As `prepare` and `quantskew.learning.training.fit`.
    """
    prepared = prepare(model, options)
    return prepared, fit(prepared, data, recipe, checkpoint, title, QAT(prepared, options), measure)
