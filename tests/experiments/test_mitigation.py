"""Methods from end to end, on the digits and for an epoch or two."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import samples
from quantskew.experiments import catalogue, methods, mitigation
from quantskew.experiments.methods import METHODS
from quantskew.experiments.mitigation import mitigate
from quantskew.quantization import rounding
from quantskew.quantization.qat import QATOptions
from quantskew.training import loop
from quantskew.training.recipe import difficulty_weights

QUICK = catalogue.get("digits", epochs=2)
QUICKER = catalogue.get("digits", epochs=1)
PRECISIONS = ("fp32", "int2")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One empty cache for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSKEW_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(rounding, "_STEPS", 10)
        yield


@pytest.fixture
def no_training(monkeypatch):
    """Nothing may be trained."""
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("trained"))


def run(method, precisions=PRECISIONS, experiment=QUICK, **more):
    return mitigate(experiment, method, precisions, device="cpu", **more)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_an_audit_and_is_cached(method, digits, monkeypatch):
    audit = run(method)
    assert audit.precisions == PRECISIONS
    assert audit.logits.shape == (2, len(digits.test), 10)
    assert audit.train_counts.tolist() == digits.train.group_counts.tolist()
    assert audit.weights is not None
    assert audit.provenance["method"]["key"] == method
    assert len(audit.provenance["history"]) == 2
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = run(method)
    np.testing.assert_array_equal(again.logits, audit.logits)
    assert again.provenance == audit.provenance


def test_ptq_is_the_plain_audit():
    plain = catalogue.audit(QUICK, mitigation.PRECISIONS, device="cpu")
    np.testing.assert_array_equal(run("ptq", mitigation.PRECISIONS).logits, plain.logits)


def test_methods_without_training_share_the_float_model(monkeypatch):
    reference = run("ptq")
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("trained"))
    for key in methods.FIXES:
        audit = run(key, ("fp32", "int3"))
        np.testing.assert_array_equal(audit.logits[0], reference.logits[0])
        if key != "ptq":
            assert not np.array_equal(audit.logits[1], run("ptq", ("fp32", "int3")).logits[1])


@pytest.mark.parametrize("method", ["mpqat", "qat-scratch"])
def test_quantized_training_is_compared_with_the_float_model(method):
    np.testing.assert_array_equal(run(method).logits[0], run("ptq").logits[0])
    assert not np.array_equal(run(method).logits[1], run("ptq").logits[1])


def test_fine_tuning_moves_the_float_model():
    assert not np.array_equal(run("fine-tuned").logits[0], run("ptq").logits[0])


class Stopped(Exception):
    pass


@pytest.mark.parametrize("method", ["fine-tuned", "mpqat"])
def test_retraining_starts_from_the_float_model(method, digits, monkeypatch):
    trained, _ = catalogue.trained(QUICKER, digits, "cpu")

    def stop(model, data, recipe, *_):
        # A weight that is quantized in training has its floating-point values in a parametrization.
        started.update(
            {
                n.replace("parametrizations.", "").replace(".original", ""): v
                for n, v in model.state_dict().items()
            }
        )
        assert recipe == methods.tuning_recipe(QUICKER.recipe)
        raise Stopped

    started = {}
    monkeypatch.setattr(loop, "fit", stop)
    with pytest.raises(Stopped):
        run(method, ("fp32", "int5"), QUICKER)
    for name, value in trained.state_dict().items():
        assert torch.equal(started[name], value), name


def test_training_from_scratch_has_the_epochs_of_both(monkeypatch):
    run("ptq", experiment=QUICKER)

    def stop(model, data, recipe, *_):
        assert recipe == dataclasses.replace(QUICKER.recipe, epochs=2)
        raise Stopped

    monkeypatch.setattr(loop, "fit", stop)
    with pytest.raises(Stopped):
        run("qat-scratch", ("fp32", "int5"), QUICKER)


def test_provenance_tells_the_retraining_from_the_float_training():
    tuned = run("mpqat").provenance
    assert tuned["retraining"]["epochs"] == 1
    assert tuned["retraining"]["schedule"] == "cosine"
    assert tuned["retraining_seconds"] >= 0
    assert tuned["qat"]["boundary_precision"] == "int8"
    assert tuned["experiment"]["recipe"]["epochs"] == 2
    assert [entry["epoch"] for entry in tuned["history"]] == [0, 1]
    assert tuned["history"] == run("ptq").provenance["history"]
    assert {"retraining", "qat"}.isdisjoint(run("ptq").provenance)
    assert "qat" not in run("fine-tuned").provenance
    assert run("qat-scratch").provenance["retraining"]["epochs"] == 3


def test_sampling_and_weights_are_those_of_the_method(digits):
    assert run("u-o").provenance["experiment"]["targets"] == "mean"
    assert run("u-o").provenance["experiment"]["recipe"]["class_weights"] is None
    weights = run("u-o+wcr").provenance["experiment"]["recipe"]["class_weights"]
    # The last digit has fewest images.
    assert weights == pytest.approx([0.4 / 9] * 9 + [0.6])
    losses = run("ptq").provenance["history"][-1]["validation"]["loss"]
    weights = run("wcr-difficulty").provenance["experiment"]["recipe"]["class_weights"]
    assert weights == pytest.approx(difficulty_weights(losses))


def test_a_float_model_from_a_file_is_not_trained(digits, tmp_path, monkeypatch):
    trained, _ = catalogue.trained(QUICK, digits, "cpu")
    state = {name: value.contiguous() for name, value in trained.state_dict().items()}
    save_file(state, tmp_path / "start.safetensors")
    expected = run("per-channel")
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("trained"))
    audit = run(
        "per-channel", experiment=dataclasses.replace(QUICK, start=str(tmp_path / "start.safetensors"))
    )
    np.testing.assert_array_equal(audit.logits, expected.logits)
    assert audit.provenance["history"] == []
    content = (tmp_path / "start.safetensors").read_bytes()
    assert audit.provenance["start_digest"] == hashlib.sha256(content).hexdigest()


def relabelled(data):
    """The same images, with the names of two classes exchanged."""
    names = (data.class_names[1], data.class_names[0], *data.class_names[2:])
    parts = {part: dataclasses.replace(getattr(data, part), class_names=names) for part in PARTS}
    return dataclasses.replace(data, **parts)


PARTS = ("train", "validation", "test")
CHANGED = {
    "seed": {"experiment": catalogue.get("digits", epochs=2, seed=1)},
    "epochs": {"experiment": QUICKER},
    "size": {"experiment": catalogue.get("digits", epochs=2, size=9)},
    "data": {"experiment": dataclasses.replace(QUICK, dataset="balanced_digits")},
    "classes": {},
    "method": {"method": "fine-tuned"},
    "precisions": {"precisions": ("fp32", "int3")},
    "options": {"options": QATOptions(dampening=0.2)},
    "weights": {"start": "other"},
}


@pytest.mark.parametrize("change", CHANGED)
def test_whatever_changes_the_result_changes_the_key(change, tmp_path, monkeypatch):
    """Of the Audit, and of each model that is trained again, from weights that the user gives."""
    for number, name in enumerate(("start", "other")):
        model = catalogue.untrained(catalogue.with_seed(QUICK, number), catalogue.load_data(QUICK))
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / name)
    keys = []

    def audit_once(name, key, make):
        keys.append(key)
        make(None)

    def train_once(model, path, train):
        keys.append(path.stem)
        return {"seconds": 0.0}

    monkeypatch.setattr(mitigation, "audit_once", audit_once)
    monkeypatch.setattr(mitigation, "train_once", train_once)
    monkeypatch.setattr(mitigation, "audit_models", lambda *_, **__: None)

    def keys_of(method="mpqat", precisions=PRECISIONS, start="start", experiment=QUICK, **more):
        keys.clear()
        experiment = dataclasses.replace(experiment, start=str(tmp_path / start))
        run(method, precisions, experiment, **more)
        return tuple(keys)

    first = keys_of()
    assert keys_of() == first
    if change == "classes":
        load_data = catalogue.load_data
        monkeypatch.setattr(catalogue, "load_data", lambda *given: relabelled(load_data(*given)))
    other = keys_of(**CHANGED[change])
    assert len(first) == len(other) == 2
    assert not set(first) & set(other)


def test_freezing_is_an_option_that_a_method_brings():
    frozen, plain = run("mpqat-freezing"), run("mpqat")
    assert frozen.provenance["qat"] == plain.provenance["qat"] | {"freezing": [0.1, 0.01]}
    assert frozen.provenance["qat"]["dampening"] == 0.1
    np.testing.assert_array_equal(frozen.logits[0], plain.logits[0])


def test_options_of_training_make_an_audit_of_their_own():
    frozen = run("mpqat", options=QATOptions(learn_steps=False, dampening=0.0, reestimate_batches=0))
    assert frozen.provenance["qat"]["learn_steps"] is False
    assert not np.array_equal(frozen.logits[1], run("mpqat").logits[1])


@pytest.mark.parametrize("method", ["mpqat", "qat-scratch"])
def test_a_killed_run_goes_on_to_the_same_logits(tmp_path, monkeypatch, method):
    tune, train_epoch, runs = methods.tuning_recipe, loop._train_epoch, []

    def interrupt(model, split, recipe, epoch, *rest):
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(model, split, recipe, epoch, *rest)

    monkeypatch.setattr(methods, "tuning_recipe", lambda r: dataclasses.replace(tune(r), epochs=2))
    for name in ("whole", "killed"):
        monkeypatch.setenv("QUANTSKEW_CACHE", str(tmp_path / name))
        if name == "killed":
            with monkeypatch.context() as patch:
                patch.setattr(loop, "_train_epoch", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    run(method, experiment=QUICKER)
            assert len(list((tmp_path / name).rglob("*.checkpoint"))) == 1
        runs.append(run(method, experiment=QUICKER))
        assert not list((tmp_path / name).rglob("*.checkpoint"))
    np.testing.assert_array_equal(runs[0].logits, runs[1].logits)


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("magic", {}, "unknown method 'magic'; known: ptq, u-o"),
        ("mpqat", {"precisions": ("fp32", "int4", "int1")}, "int1 .*cannot be trained"),
        ("ptq", {"precisions": ("fp32", "fp16")}, "give fp32 and then integer precisions; got fp32, fp16"),
        ("mpqat", {"precisions": ("fp32", "fp16")}, "integer precisions"),
        ("ptq", {"precisions": ("int8", "int4")}, "give fp32"),
        ("ptq", {"precisions": ()}, "give fp32"),
        ("ptq", {"precisions": ("fp32", "int99")}, "unknown precision 'int99'"),
        ("ptq", {"experiment": "nowhere"}, "unknown experiment"),
        ("ptq", {"precisions": ("fp32", "int4", "int4")}, "named once; got fp32, int4, int4"),
        (
            "wcr",
            {"experiment": dataclasses.replace(QUICK, start="x.safetensors")},
            "WCR trains a float model of its own",
        ),
        ("mpqat", {"options": QATOptions(plan={"nowhere": "int2"})}, "unknown layer 'nowhere'"),
        (
            "ptq",
            {"experiment": catalogue.get("digits", targets="mean")},
            "sampling or class weights of its",
        ),
        (
            "ptq",
            {"experiment": catalogue.get("digits", class_weights=(1.0,) * 10)},
            "sampling or class weights of its own",
        ),
    ],
)
def test_bad_input_is_refused_before_any_training(no_training, method, more, message):
    with pytest.raises(ValueError, match=message):
        run(method, **more)


@pytest.mark.parametrize("method", ["wcr", "wcr-difficulty", "fair-qat"])
def test_class_weights_need_groups_that_are_classes(no_training, monkeypatch, method):
    monkeypatch.setattr(catalogue, "load_data", lambda *_: samples.tiny_data())
    with pytest.raises(ValueError, match="the groups are not the classes"):
        run(method)
