"""Bits by layer against enumeration, and calibration sets, on the digits."""

import copy
import dataclasses
import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import samples
from quantskew.audits.audit import Audit
from quantskew.audits.layers import audit_layers
from quantskew.audits.model import audit_model, calibration_images
from quantskew.claims import register
from quantskew.cli import main
from quantskew.experiments import allocation, catalogue
from quantskew.experiments.allocation import GOALS, allocate
from quantskew.figures import comparisons
from quantskew.measures.fairness import fvo
from quantskew.measures.forward import group_accuracy, group_loss
from quantskew.quantization import batchnorm
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.quantization.qat import QATOptions
from quantskew.training import loop

QUICK = catalogue.get("digits", epochs=2)
BITS = (2, 3, 8)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One empty cache for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSKEW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def audits():
    """Of the three layers of a made network, with more groups than classes."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), *(torch.nn.Linear(a, b) for a, b in ((36, 5), (5, 4), (4, 2)))
    )
    split = samples.tiny_split(90)
    groups = torch.arange(90) % 5
    split = dataclasses.replace(split, groups=groups, group_names=("a", "b", "c", "none", "d", "e"))
    split.groups[split.groups >= 3] += 1
    return {bits: audit_layers(model, split, f"int{bits}:mse") for bits in BITS}


@pytest.fixture(scope="module")
def tables(audits):
    """Value of each column and group, by measure and bits."""
    found = {
        (measure, bits): measure(audits[bits]) for measure in (group_loss, group_accuracy) for bits in BITS
    }
    return {
        key: table[table["count"] > 0].set_index(["precision", "group"])["value"]
        for key, table in found.items()
    }


def expected_values(tables, counts, plan, goal):
    """The goal's value of a plan, and its mean loss, where what layers add sums up."""
    totals = []
    for measure in (group_loss, group_accuracy):
        total = tables[measure, BITS[0]]["fp32"][list(counts)]
        for layer, bits in plan.items():
            own = tables[measure, bits]
            total = total + (own[f"int{bits}:mse in {layer}"] - own["fp32"])[list(counts)]
        totals.append(total)
    losses, accuracies = totals
    mean = float(np.average(losses, weights=list(counts.values())))
    spread = float(accuracies.max() - accuracies.min())
    return {"mean": mean, "worst-group": float(losses.max()), "fvo": spread}[goal], mean


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("budget", [2, 2.4, 3, 4.5, 8])
def test_the_plan_is_the_best_of_all(audits, tables, goal, budget):
    audit = audits[BITS[0]]
    counts = {n: c for n, c in zip(audit.group_names, audit.group_counts, strict=True) if c}
    sizes = dict(zip(("1", "2", "3"), (180, 20, 8), strict=True))
    best = min(
        expected_values(tables, counts, dict(zip(sizes, bits, strict=True)), goal)
        for bits in itertools.product(BITS, repeat=3)
        if np.dot([*sizes.values()], bits) <= budget * 208
    )
    plan = allocate(audits, budget, goal)
    assert list(plan) == ["1.weight", "2.weight", "3.weight"]
    own = {name.removesuffix(".weight"): int(precision[3:]) for name, precision in plan.items()}
    assert np.dot([*sizes.values()], [*own.values()]) <= budget * 208
    np.testing.assert_allclose(expected_values(tables, counts, own, goal), best, atol=1e-6)


@pytest.mark.parametrize(
    ("budget", "goal", "message"),
    [
        (1.9, "mean", "at least 2 bits a weight; got 1.9"),
        (3, "best", "unknown goal 'best'; known: mean, worst"),
    ],
)
def test_what_cannot_be_planned_is_refused(audits, budget, goal, message):
    with pytest.raises(ValueError, match=message):
        allocate(audits, budget, goal)


@pytest.mark.parametrize("name", ["int3", "int3:mse,per-channel", "W3A8:mse", "int3:gptq,bias-corrected"])
def test_a_uniform_plan_is_plain_ptq(model, name):
    images = samples.random_images(8)
    weights = weight_parameters(model)
    plain = quantize_model(model, name, images)
    planned = quantize_model(model, name.replace("3", "8", 1), images, dict.fromkeys(weights, "int3"))
    assert torch.equal(plain(images), planned(images))
    assert list(planned.quantized) == list(plain.quantized)
    assert {own.precision for own in planned.quantized.values()} == {"int3"}


def test_a_plan_goes_before_other_precisions_and_may_leave_layers_alone(model):
    first, second, *_, last = weights = weight_parameters(model)
    plan = {first: "int2", second: "fp32"}
    for scheme, images in (("mse", None), ("gptq", samples.random_images(8))):
        quantized = quantize_model(model, f"int4:{scheme},ends-int8", images, plan)
        assert list(quantized.quantized) == [name for name in weights if name != second]
        assert [quantized.quantized[name].precision for name in (first, last)] == ["int2", "int8"]
        assert torch.equal(weight_parameters(quantized)[second], weights[second])
    for wrong, message in (
        ({"stm": "int4"}, "unknown layer 'stm'; known: stem"),
        ({first: "fp16"}, "got fp16"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize_model(model, "int4", plan=wrong)


def test_the_front_has_plain_ptq_and_plans_chosen_on_validation_images(monkeypatch, tmp_path):
    monkeypatch.setattr(allocation, "BITS", (2, 4))
    goals = ("worst-group", "fvo")
    audit = allocation.front(QUICK, (2.5, 4), goals, "int4:mse", device="cpu")
    uniform = ["int2", "int4"]
    plans = [f"{budget} bits for {goal}" for budget in ("2.5", "4") for goal in goals]
    assert audit.precisions == ("fp32", *uniform, *plans)
    plain = catalogue.audit(QUICK, ["fp32", "int2:mse", "int4:mse"], device="cpu")
    np.testing.assert_array_equal(audit.logits[:3], plain.logits)
    _, data, model, _ = catalogue.ready(QUICK, device="cpu")
    known = {bits: audit_layers(model, data.validation, f"int{bits}:mse") for bits in allocation.BITS}
    assert len(data.validation) <= allocation._IMAGES_LAYERS
    for column, facts in audit.provenance["plans"].items():
        assert facts["plan"] == allocate(known, facts["mean_bits"], facts["for"])
        assert facts["spent_bits"] <= facts["mean_bits"]
        assert f"{facts['mean_bits']:g} bits for {facts['for']}" == column
    assert audit.provenance["plans"]["2.5 bits for fvo"]["precision"] == "int2"
    own = quantize_model(model, "int4:mse", plan=audit.provenance["plans"]["4 bits for fvo"]["plan"])
    assert (own.quantized.keys()) == audit.provenance["plans"]["4 bits for fvo"]["plan"].keys()
    assert fvo(audit)["value"].notna().all()
    # The map goes from the input to the output, and by budget, from a record too.
    audit.save(tmp_path / "front.safetensors")
    _, axes = plt.subplots()
    comparisons.bits_map([Audit.load(tmp_path / "front.safetensors")], axes)
    layers = [name.removesuffix(".weight") for name in weight_parameters(model)]
    assert [label.get_text() for label in axes.get_yticklabels()] == layers
    assert [label.get_text() for label in axes.get_xticklabels()] == plans
    plt.close()
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert allocation.front(QUICK, (2.5, 4), goals, "int4:mse", device="cpu").provenance == audit.provenance
    # The same plans and names of columns under another quantizer are no columns of this one.
    other = allocation.front(QUICK, (2.5, 4), goals, "int4:gptq", device="cpu")
    assert (other.precisions, other.provenance["plans"]) == (audit.precisions, audit.provenance["plans"])
    assert (other.logits[1:] != audit.logits[1:]).any(axis=(1, 2)).all()


def test_a_plan_from_the_command_line_is_what_methods_quantize_by(tmp_path, capsys):
    path, quick = tmp_path / "plan.json", ("digits", "--epochs", "2", "--device", "cpu")
    command = ["allocate", *quick, "--mean-bits", "3.5", "--for", "worst-group", "--output", str(path)]
    assert main(command) == 0
    assert "bits a weight, in" in capsys.readouterr().out
    plan = json.loads(path.read_text())
    assert (plan["precision"], plan["for"], plan["mean_bits"]) == ("int3", "worst-group", 3.5)
    assert (
        main(["mitigate", *quick, "--methods", "mse,mpqat", "--plan", str(path), "--output", str(tmp_path)])
        == 0
    )
    audit = Audit.load(tmp_path / "digits-mse.safetensors")
    assert audit.precisions == ("fp32", "int3")
    assert audit.provenance["plan"] == plan["plan"]
    _, data, model, _ = catalogue.ready(QUICK, device="cpu")
    quantized = quantize_model(model, "int3:mse", plan=plan["plan"])
    with torch.no_grad():
        expected = quantized(catalogue.normalise(data.test.images))
    np.testing.assert_allclose(audit.logits[1], expected, atol=1e-4)
    trained = Audit.load(tmp_path / "digits-mpqat.safetensors").provenance
    assert trained["qat"]["plan"] == plan["plan"]
    assert QATOptions(plan=plan["plan"]).precisions_of(model) == plan["plan"]


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"plan": {}}', '{"plan": {"a": "int99"}, "precision": "int4"}']
)
def test_what_is_no_plan_is_refused(tmp_path, text):
    if text:
        (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json is no plan .*; make one with `quantskew allocate`"):
        allocation.read_plan(tmp_path / "plan.json")


def test_what_calibrates_is_compared_in_one_audit(caplog, monkeypatch):
    monkeypatch.setattr(allocation, "IMAGES", 12)
    monkeypatch.setattr(allocation, "SIZES", (5,))
    audit = allocation.calibration_audit(QUICK, ("int2",), device="cpu")
    _, data, model, _ = catalogue.ready(QUICK, device="cpu")
    assert data.train.group_counts.min() < 12 <= data.train.group_counts.max()
    assert "minority is left out: it has 11 of 12 training images" in caplog.text
    mixes = ["balanced", "majority", "loss-weighted", "5"]
    expected = ["int2", "int2 batch norm", "int2 gptq", "int2 gptq batch norm"]
    expected += [f"int2 gptq {mix}" for mix in mixes]
    assert audit.precisions == ("fp32", *expected, "int2 adaround")
    assert list(audit.provenance["seconds"]) == list(audit.precisions)
    images = catalogue.normalise(data.test.images)
    few = calibration_images(data, "balanced", 12)
    made = {
        "int2": quantize_model(model, "int2:mse,per-channel,ends-int8"),
        "int2 gptq balanced": quantize_model(model, "int2:gptq,per-channel,ends-int8", few),
    }
    made["int2 batch norm"] = copy.deepcopy(made["int2"])
    batchnorm.reestimate(made["int2 batch norm"], data.train, QUICK.recipe)
    for column, quantized in made.items():
        with torch.no_grad():
            np.testing.assert_allclose(audit.logits[audit.index(column)], quantized(images), atol=1e-3)
    monkeypatch.setattr(allocation, "quantize_model", lambda *_, **__: pytest.fail("made again"))
    again = allocation.calibration_audit(QUICK, ("int2",), device="cpu")
    np.testing.assert_array_equal(again.logits, audit.logits)


def test_losses_are_known_of_some_images_alone(monkeypatch):
    monkeypatch.setattr(allocation, "_IMAGES_LAYERS", 30)
    _, data, model, _ = catalogue.ready(QUICK, device="cpu")
    losses = allocation._losses(model, data.train)
    everything = group_loss.of_samples(audit_model(model, data.train, ["fp32"]))[0]
    assert np.count_nonzero(losses) == 30
    np.testing.assert_allclose(losses[losses > 0], everything[losses > 0], rtol=1e-4)


def test_claims_of_remedies_compare_the_columns_that_they_name():
    columns = ["int3", "int3 batch norm", "int3 gptq", "int3 gptq batch norm", "3 bits for mean"]
    columns += [f"int3 gptq {mix}" for mix in ("minority", "majority", "balanced")]
    columns += ["3 bits for worst-group"]
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(range(3), (30, 20, 10)))
    logits = {name: rng.normal(size=(60, 3)) + 2 * np.eye(3)[groups] for name in ("fp32", *columns)}
    audit = Audit.from_logits(logits, groups, groups, ["a", "b", "c"])
    mpqat = Audit.from_logits(
        {"fp32": logits["fp32"], "int3": logits["int3 gptq majority"]}, groups, groups, ["a", "b", "c"]
    )
    evidence = {"calibration": [audit], "front": [audit], "mpqat": [mpqat]}
    table = register.judged(evidence, list(register.REMEDIES)).set_index("key")
    own = {
        name: np.array([(values.argmax(axis=1) == groups)[groups == group].mean() for group in range(3)])
        for name, values in logits.items()
    }
    least, gap = ({name: how(values) for name, values in own.items()} for how in (np.min, np.ptp))
    turned = own["int3 gptq minority"] - own["int3 gptq majority"]
    expected = {
        "inputs_serve": least["int3 gptq"] - least["int3"],
        "inputs_fairer": gap["int3"] - gap["int3 gptq"],
        "statistics_serve": least["int3 gptq batch norm"] - least["int3 gptq"],
        "mix_serves": turned[2],
        "mix_decides": turned[2] - turned[0],
        "balance_fairer": gap["int3 gptq"] - gap["int3 gptq balanced"],
        "pipeline_serves": least["int3 gptq batch norm"] - least["int3 gptq majority"],
        "pipeline_fairer": gap["int3 gptq majority"] - gap["int3 gptq batch norm"],
        "bits_serve": least["3 bits for worst-group"] - least["int3"],
        "goal_serves": least["3 bits for worst-group"] - least["3 bits for mean"],
    }
    assert table["effect"].to_dict() == pytest.approx(expected)
    (own,) = allocation.as_methods([audit])["calibrated"]
    assert own.precisions == ("fp32", "int3")
    np.testing.assert_array_equal(own.logits[1], audit.logits[audit.index("int3 gptq batch norm")])
