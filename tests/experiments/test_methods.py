import dataclasses
import itertools

import pytest
import torch

import samples
from quantskew.datasets import load
from quantskew.experiments import methods
from quantskew.experiments.methods import METHODS, tuning_recipe
from quantskew.figures.style import shaded
from quantskew.quantization import qat
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.qat import QATOptions
from quantskew.training.recipe import Recipe
from quantskew.training.sampling import target_counts


def test_keys_and_titles_are_told_apart():
    assert list(METHODS) == [method.key for method in METHODS.values()]
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    assert len({style["marker"] for style in shaded(METHODS).values()}) == len(METHODS)


@pytest.mark.parametrize(
    "keys",
    [methods.PAPER, methods.CONTROLLED, methods.FIXES, methods.LADDER, methods.RECORDED, methods.REPEATED],
)
def test_every_list_is_of_known_methods(keys):
    assert [methods.get(key).key for key in keys] == list(keys)
    assert len(set(keys)) == len(keys)
    assert "ptq" in keys


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_every_method_can_be_carried_out(method):
    images = samples.random_images(4, 1, 6)
    assert quantize_model(samples.tiny_model(), method.quantizer.at("int4"), images).quantized
    if method.targets is not None:
        assert target_counts(load("digits").train.group_counts, method.targets)
    assert method.retraining in (None, "fp32", "qat", "qat from scratch")
    assert method.trains_quantized == ("qat" in (method.retraining or ""))


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown method 'qat'; known: ptq, .*no-training"):
        methods.get("qat")


def test_a_set_by_its_titles():
    audits = {"mpqat": ["b"], "ptq": ["a"], "wcr": ["c"]}
    assert list(methods.titled(audits, ("ptq", "u-o", "mpqat")).items()) == [("PTQ", ["a"]), ("MPQAT", ["b"])]
    assert list(methods.counted(audits, ("ptq", "mpqat"))) == ["PTQ (1)", "MPQAT (1)"]


@pytest.mark.parametrize(("epochs", "tuned"), [(1, 1), (2, 1), (13, 2), (40, 6)])
def test_a_model_is_tuned_for_a_seventh_of_the_epochs(epochs, tuned):
    recipe = Recipe(epochs=epochs, learning_rate=0.1, class_weights=(1.0, 2.0), seed=3)
    expected = dataclasses.replace(recipe, epochs=tuned, learning_rate=0.02, schedule="cosine")
    assert tuning_recipe(recipe) == expected


def test_a_rung_differs_from_the_one_before_it_in_what_it_adds():
    rungs = [dataclasses.asdict(methods.get(key)) for key in methods.LADDER]
    changed = [
        {name for name in below if below[name] != above[name]} - {"key", "title"}
        for below, above in itertools.pairwise(rungs)
    ]
    # QAT brings its quantizer and its batch norms in its options.
    of_qat = {"retraining", "quantizer", "reestimate", "qat"}
    quantizer = {"quantizer"}
    assert changed == [quantizer, quantizer, {"reestimate"}, {"retraining"}, of_qat, *[{"qat"}] * 3]
    options = [QATOptions(**methods.get(key).qat) for key in list(methods.LADDER)[5:]]
    parts = [(own.learn_steps, own.dampening > 0, own.freezing is not None) for own in options]
    assert parts == [(False,) * 3, (True, False, False), (True, True, False), (True,) * 3]


@pytest.mark.parametrize("precision", ["int4", "int3", "int2"])
def test_the_control_has_the_grids_that_qat_starts_from(precision):
    model = samples.tiny_model()
    control = quantize_model(model, methods.get("fine-tuned-equal").quantizer.at(precision))
    start = qat.convert(qat.prepare(model, QATOptions(precision)))
    assert control.quantized.keys() == start.quantized.keys()
    for name, value in start.state_dict().items():
        assert torch.equal(control.state_dict()[name], value), name
    for name, own in control.quantized.items():
        assert own.precision == start.quantized[name].precision
