"""Runs the methods of `experiments.methods`: from an experiment to the Audit of its mitigated models.

Every model that is trained on the way is kept in the cache, so that methods share what they have in common
and a killed run goes on where it stood.
"""

import copy
import dataclasses
import time

import numpy as np

from quantskew.audits.audit import audit_once
from quantskew.audits.model import audit_models, calibration_images
from quantskew.cache import source_digest
from quantskew.experiments import catalogue, methods
from quantskew.experiments.interventions import shift_answers
from quantskew.files import digest
from quantskew.quantization import batchnorm, qat
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.qat import QATOptions
from quantskew.quantization.quantizer import integer_bits
from quantskew.training import loop
from quantskew.training.checkpoint import model_path, train_once
from quantskew.training.recipe import difficulty_weights, paper_weights

PRECISIONS = ("fp32", "int8", "int4", "int3", "int2")


def mitigate(experiment, method, precisions=PRECISIONS, data_dir=None, device="auto", options=None):
    """The Audit of an experiment under a method, from the cache or made now.

    Parameters
    ----------
    experiment : Experiment or str
        Without sampling or class weights of its own: these are the method's.  Where it has a `start`, for
        methods without any.
    method : str
        Key of `quantskew.experiments.methods.METHODS`.
    precisions : sequence of str
        ``fp32``, which is the float model, and then integer precisions: the columns, whatever the method's
        own quantizer makes of them.
    data_dir, device
        See `quantskew.experiments.catalogue.audit`.
    options : QATOptions, optional
        Of training with quantized weights; its precision is replaced by each of `precisions`, and what the
        method changes by the method's own.  Its plan is that of PTQ too.

    Returns
    -------
    Audit
        Its training counts are those before any sampling.

    Raises
    ------
    ValueError
        Before any training: if a name is not known, the experiment has sampling or weights already, a
        precision cannot be trained, a plan names an unknown layer, or the experiment's `start` does not fit.
    """
    method, precisions = methods.get(method), tuple(precisions)
    if isinstance(experiment, str):
        experiment = catalogue.get(experiment)
    options = dataclasses.replace(options or QATOptions(), **method.qat)
    if experiment.targets is not None or experiment.recipe.class_weights is not None:
        raise ValueError("the experiment has sampling or class weights of its own; methods bring theirs")
    if precisions[:1] != ("fp32",) or None in [integer_bits(p) for p in precisions[1:]]:
        raise ValueError(f"give fp32 and then integer precisions; got {', '.join(precisions)}")
    if len(set(precisions)) < len(precisions):
        raise ValueError(f"each precision is named once; got {', '.join(precisions)}")
    if why := refusal(experiment, method):
        raise ValueError(why)
    data = catalogue.load_data(experiment, data_dir)
    untrained = catalogue.untrained(experiment, data)
    if method.trains_quantized:
        for precision in precisions[1:]:
            dataclasses.replace(options, precision=precision).precisions_of(untrained)
    start = float_experiment(experiment, method, data, device)
    model, record = catalogue.trained(start, data, device)
    parts = [record["key"], dataclasses.asdict(method), dataclasses.asdict(options), precisions]
    key = digest([*parts, source_digest("quantskew.experiments.mitigation")])

    def make(_):
        facts = catalogue.training_facts(start, data, record, device)
        facts["method"] = dataclasses.asdict(method) | {"quantizer": method.quantizer.name}
        retraining = _Retraining(start, method, data, device, options)
        quantized = retraining.models(model, record["key"], precisions)
        facts["seconds"] = retraining.costs
        if method.retraining:
            facts["retraining"] = dataclasses.asdict(retraining.recipe)
            facts["retraining_seconds"] = round(retraining.seconds, 1)
        if options.plan:
            facts["plan"] = options.plan
        if method.trains_quantized:
            facts["qat"] = dataclasses.asdict(options)
        return audit_models(quantized["fp32"], quantized, data, facts=facts)

    return audit_once(f"{experiment.name}-{method.key}", key, make)


def refusal(experiment, method):
    """Why a method cannot go on from the trained model that an experiment starts from, or None."""
    own, title = experiment.own, method.title
    if experiment.start and (method.targets or method.weights):
        return f"{title} trains a float model of its own, which {experiment.start} cannot replace"
    if own and not own.arch and (method.retraining or method.reestimate):
        return f"{title} trains the network, which {experiment.start} is not: give a checkpoint with --arch"
    return f"{title} needs training images: give --train" if own and not own.train else None


def float_experiment(experiment, method, data, device="auto"):
    """The experiment whose trained float model a method starts from: sampled, weighted, or as it is."""
    weights = _class_weights(experiment, method, data, device)
    recipe = dataclasses.replace(experiment.recipe, class_weights=weights)
    return dataclasses.replace(experiment, targets=method.targets, recipe=recipe)


def _class_weights(experiment, method, data, device):
    if method.weights is None:
        return None
    if data.class_names != data.group_names:
        what = "weighs classes as its groups (Eq. 12)"
        raise ValueError(f"{method.title} {what}, but here the groups are not the classes")
    if method.weights == "paper":
        return paper_weights(len(data.class_names), int(np.argmin(data.train.group_counts)))
    _, record = catalogue.trained(experiment, data, device)
    return difficulty_weights(record["history"][-1]["validation"]["loss"])


class _Retraining:
    """What a method does to a float model, with the seconds that training took, and a processor in all."""

    def __init__(self, experiment, method, data, device, options):
        self.experiment, self.method, self.data, self.options = experiment, method, data, options
        self.sampled = catalogue.sampled(experiment, data)
        self.device = catalogue.choose_device(device)
        self.recipe = methods.tuning_recipe(experiment.recipe)
        if method.retraining == "qat from scratch":
            # As many epochs as float training and retraining have together.
            epochs = experiment.recipe.epochs + self.recipe.epochs
            self.recipe = dataclasses.replace(experiment.recipe, epochs=epochs)
        self.recipe = loop.on_device(self.recipe, self.device)
        self.seconds, self.costs = 0.0, {}

    def models(self, model, key, precisions):
        """The models by precision; the first one is the float model that they are compared with."""
        if self.method.retraining == "fp32":
            model = self._trained(copy.deepcopy(model), key, "fp32", None)
        quantized = {}
        for precision in precisions:
            start = time.process_time()
            if self.method.trains_quantized and precision != "fp32":
                options = dataclasses.replace(self.options, precision=precision)
                quantized[precision] = self._quantized(model, key, options)
            else:
                own = self.method.quantizer.at(precision)
                images = calibration_images(self.sampled) if own.needs_images else None
                quantized[precision] = quantize_model(model, own, images, self.options.plan)
            if self.method.reestimate and precision != "fp32":
                recipe = dataclasses.replace(self.experiment.recipe, compute="fp32")
                batchnorm.reestimate(quantized[precision], self.sampled.train, recipe)
            if self.method.shift and precision != "fp32":
                images = calibration_images(self.sampled).to(self.device)
                shift_answers(quantized[precision].to(self.device), quantized["fp32"], images)
            self.costs[precision] = round(time.process_time() - start, 1)
        return quantized

    def _quantized(self, model, key, options):
        if self.method.retraining == "qat from scratch":
            model = catalogue.untrained(self.experiment, self.data)
        prepared = qat.prepare(model.to(self.device), options)
        return qat.convert(self._trained(prepared, key, options.precision, options))

    def _trained(self, model, key, precision, options):
        parts = [key, self.method.retraining, dataclasses.asdict(self.recipe)]
        parts += [dataclasses.asdict(options)] if options else []
        parts.append(source_digest("quantskew.quantization.qat", "quantskew.training.loop.fit"))
        hooks = qat.QAT(model, options) if options else None
        name, seed = self.experiment.name, self.recipe.seed
        title = f"{self.method.title} of {name} at {precision}, seed {seed}"

        def train(checkpoint):
            return loop.fit(model, self.sampled, self.recipe, checkpoint, title, hooks)

        path = model_path(self.experiment.name, digest(parts))
        self.seconds += train_once(model, path, train)["seconds"]
        return model.eval()
