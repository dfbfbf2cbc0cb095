"""Quantization-aware training: a model that computes with quantized weights while it is trained.

`prepare` makes one of a float model, `quantskew.training.loop.fit` trains it with the hooks of `QAT`, and
`convert` makes of it the quantized model that it stands for.  Each part is a switch of `QATOptions`.
"""

import copy
import dataclasses
import hashlib
from dataclasses import dataclass

import torch
from torch.nn.utils import parametrize

from quantskew.checks import check_number, check_whole
from quantskew.quantization import checked, learned_step
from quantskew.quantization.batchnorm import reestimate
from quantskew.quantization.grids import quantize_dequantize
from quantskew.quantization.learned_step import LearnedStep, Oscillations, trainable_bits
from quantskew.quantization.ptq import TRANSPOSED, QuantizedWeight, layer_precisions, weight_parameters
from quantskew.training.loop import Hooks


@dataclass(frozen=True)
class QATOptions:
    """How weights are quantized while they are trained.

    Attributes
    ----------
    precision : str
        ``int2`` to ``int16``.
    boundary_precision : str, optional
        Of the first and the last layer; None gives them `precision`.
    plan : dict of str to str, optional
        Precisions of single layers, see `quantskew.quantization.ptq.layer_precisions`.
    learn_steps : bool
        Whether the steps are learned or keep their first values, those of least squared error.
    step_learning_rate : float
        Of the steps' own Adam, which has no weight decay and no schedule.
    dampening : float
        lambda at the end of training; 0 for none.
    ramp_start : float
        Share of all steps after which lambda rises from 0, in [0, 1).
    freezing : None, float or pair of float
        Weights that oscillate more often than this are frozen; a pair moves the threshold from its first to
        its second value by half a cosine (Nagel et al.: 0.1, 0.01).
    reestimate_batches : int
        Batches from which batch norm is re-estimated at the end of each epoch; 0 keeps the running averages.

    Raises
    ------
    ValueError
        If a precision cannot be trained or a number is out of range.

    Examples
    --------
    >>> QATOptions("int2", plan={"fc.weight": "fp32"}).boundary_precision
    'int8'
    """

    precision: str = "int4"
    boundary_precision: str | None = "int8"
    plan: dict | None = None
    learn_steps: bool = True
    step_learning_rate: float = 1e-5
    dampening: float = 0.1
    ramp_start: float = 0.25
    freezing: float | tuple | None = None
    reestimate_batches: int = 50

    def __post_init__(self):
        ends = {"precision": self.precision, "boundary_precision": self.boundary_precision or self.precision}
        for name, precision in (ends | (self.plan or {})).items():
            if precision != "fp32" or name in ends:
                try:
                    trainable_bits(precision)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        check_number("step_learning_rate", self.step_learning_rate, above=True)
        check_number("dampening", self.dampening)
        check_number("ramp_start", self.ramp_start, below=1)
        check_whole("reestimate_batches", self.reestimate_batches)
        if self.freezing is not None:
            if len(self._thresholds) != 2:
                raise ValueError(f"freezing is None, a number or a pair of numbers; got {self.freezing!r}")
            for threshold in self._thresholds:
                check_number("freezing", threshold, below=1, above=True)

    def precisions_of(self, model):
        """The precision of each weight that is quantized, by its name; refuses a plan that does not fit."""
        return layer_precisions(model, self.precision, self.boundary_precision, self.plan)

    @property
    def _thresholds(self):
        return self.freezing if isinstance(self.freezing, tuple | list) else (self.freezing,) * 2

    def threshold(self, progress):
        """Frequency above which a weight is frozen when `progress` of the steps are done."""
        return learned_step.cosine(*self._thresholds, progress)


def prepare(model, options):
    """A copy of a float model that computes with quantized weights; the model itself is not changed.

    Each quantized weight has a `LearnedStep` as its parametrization, with `Oscillations` for freezing.

    Parameters
    ----------
    model : torch.nn.Module
    options : QATOptions

    Raises
    ------
    ValueError
        If the model is prepared already, the plan does not fit it, or a weight is not finite (its layer is
        named).

    Examples
    --------
    >>> prepared = prepare(torch.nn.Linear(2, 1), QATOptions("int2", boundary_precision=None))
    >>> len(torch.unique(prepared.weight)) <= 4
    True
    """
    if any(True for _ in _layers(model)):
        raise ValueError("the model is prepared already; prepare a float model")
    # Weights that were computed from other tensors are baked in.
    prepared, steps = checked.copied(checked.plain(model)), {}
    weights = weight_parameters(prepared)
    for name, precision in options.precisions_of(prepared).items():
        weight = weights[name]
        try:
            step = steps[id(weight)] = LearnedStep(weight, precision, options.learn_steps)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if options.freezing is not None:
            step.oscillations = Oscillations(weight, step.step, step.low, step.high)
    # A weight that several layers share has one step, in all of them.
    for module in list(prepared.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in steps:
                parametrize.register_parametrization(module, name, steps[id(parameter)])
                steps[id(parameter)].forget()
    return prepared


def _layers(model):
    """Each quantized weight, once where layers share it: its name, its layer, the parameter and its step."""
    seen = set()
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for name, chain in module.parametrizations.items():
                if isinstance(chain[0], LearnedStep) and chain[0] not in seen:
                    seen.add(chain[0])
                    yield f"{path}.{name}" if path else name, module, chain.original, chain[0]


@torch.no_grad()
def convert(prepared):
    """The quantized model that one of `prepare` stands for, like those of `quantskew.quantization.ptq`.

    Parameters
    ----------
    prepared : torch.nn.Module
        It is not changed.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, with the float model's modules and the dequantized weights; its logits equal those
        of the prepared model.  Its ``quantized`` maps the name of each quantized weight to its
        `quantskew.quantization.ptq.QuantizedWeight`.
    """
    result = copy.deepcopy(prepared).eval()
    result.quantized = {}
    for name, _, weight, step in _layers(result):
        codes, values = quantize_dequantize(weight, step.grid)
        weight.copy_(values)
        result.quantized[name] = QuantizedWeight(codes, step.grid, step.precision)
    for module in [own for own in result.modules() if parametrize.is_parametrized(own)]:
        weights = {name: chain.original for name, chain in module.parametrizations.items()}
        checked.unparametrize(module, weights)
    if not result.quantized:
        raise ValueError("the model has no quantized weight; make it with qat.prepare")
    return result


class QAT(Hooks):
    """What QAT adds to `quantskew.training.loop.fit` of a model that `prepare` made with the same options."""

    def __init__(self, model, options):
        self.model, self.options = model, options
        self._quantized = [
            (weight, weight.shape[1 if isinstance(layer, TRANSPOSED) else 0], step)
            for _, layer, weight, step in _layers(model)
        ]

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
        steps = [step.step for *_, step in self._quantized]
        return [torch.optim.Adam(steps, self.options.step_learning_rate)]

    def after_backward(self, progress):
        """Add the gradient of the dampening loss, and count oscillations."""
        ramp = self.options.dampening, self.options.ramp_start
        strength = learned_step.dampening_strength(*ramp, progress)
        for weight, channels, step in self._quantized:
            if weight.grad is None:  # not trained, or not part of the loss
                continue
            if strength > 0:
                step.dampen(weight, channels, strength)
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
