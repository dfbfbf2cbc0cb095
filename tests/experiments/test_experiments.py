import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import samples
from quantskew.datasets import utkface
from quantskew.experiments import catalogue
from quantskew.measures.fairness import groups_are_classes
from quantskew.quantization.quantizer import Quantizer
from quantskew.training.models import known_models

QUICK = {"epochs": 1, "batch_size": 128}
AUDIT_AND_PRINT = """
import hashlib
from quantskew.experiments import catalogue
audit = catalogue.audit(catalogue.get("digits", epochs=6), ["fp32", "int2"])
print(hashlib.sha256(audit.logits.tobytes()).hexdigest())
"""


def entries(cache):
    """Modification times of every cached model and Audit."""
    return {path: path.stat().st_mtime_ns for path in sorted(cache.rglob("*.safetensors"))}


def quick_audit(precisions=("fp32", "int2"), options=(), **changes):
    return catalogue.audit(catalogue.get("digits", **{**QUICK, **changes}), precisions, **dict(options))


def test_what_every_audit_imports_leaves_out_what_is_slow_to_import():
    slow = {"torchvision", "sklearn", "scipy.stats"}
    code = f"import sys, quantskew.experiments.catalogue; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_second_audit_comes_from_the_cache(fresh_cache):
    first = quick_audit()
    before = entries(fresh_cache)
    assert {path.parent.name for path in before} == {"models", "audits"}
    second = quick_audit()
    assert entries(fresh_cache) == before
    np.testing.assert_array_equal(first.logits, second.logits)
    assert first.provenance == second.provenance
    assert [path for path in fresh_cache.rglob("*") if path.is_file() and path not in before] == []


@pytest.mark.parametrize(
    ("change", "new_model"),
    [
        ({"seed": 1}, True),
        ({"epochs": 2}, True),
        ({"learning_rate": 0.05}, True),
        ({"size": 9}, True),
        ({"precisions": ("fp32", "int3")}, False),
        ({"precisions": ("int2", "fp32")}, False),
        ({"precisions": ("fp32", "int2:symmetric")}, False),
        ({"precisions": ("fp32", "int2:per-channel")}, False),
        ({"precisions": ("fp32:folded", "int2:folded")}, False),
        ({"precisions": ("fp32", "int2:ends-int8")}, False),
        ({"precisions": ("fp32", "W2A4")}, False),
    ],
)
def test_a_change_makes_a_new_entry(fresh_cache, change, new_model):
    first = quick_audit()
    before = entries(fresh_cache)
    second = quick_audit(**change)
    added = sorted(path.parent.name for path in entries(fresh_cache).keys() - before.keys())
    assert added == (["audits", "models"] if new_model else ["audits"])
    assert entries(fresh_cache).items() >= before.items()
    assert not np.array_equal(first.logits, second.logits)


def test_an_option_that_is_off_makes_no_new_entry(fresh_cache):
    quick_audit()
    before = entries(fresh_cache)
    quick_audit(Quantizer.each(("fp32", "int2:banner"), activation_precision=None))
    assert entries(fresh_cache) == before


def test_options_that_do_not_go_together_are_refused_before_training(fresh_cache):
    for precisions, options, message in (
        (("fp32", "W2A8"), {"curvature": True}, "leave out curvature or W2A8"),
        (("fp32", "int4:folded"), {"curvature": 3}, "fp32 and int4:folded differ in folding"),
        (("fp32", "int4"), {"curvature": -1}, "True, False or a number of images"),
        (("fp32", "int4:ends-fp16"), {}, "must be an integer precision"),
        (("fp32", "int4:banana"), {}, "known: banner, symmetric, mse"),
        (("fp32", "fp32"), {}, "each precision is named once"),
    ):
        with pytest.raises(ValueError, match=message):
            quick_audit(precisions, options)
    assert entries(fresh_cache) == {}


@pytest.mark.parametrize(
    ("module", "added"),
    [("quantskew.training.loop.fit", ["audits", "models"]), ("quantskew.audits.model", ["audits"])],
)
def test_changed_code_makes_a_new_entry(fresh_cache, monkeypatch, module, added):
    quick_audit()
    before, digest = entries(fresh_cache), catalogue.source_digest
    monkeypatch.setattr(
        catalogue, "source_digest", lambda *names: "changed" if module in names else digest(*names)
    )
    quick_audit()
    assert sorted(path.parent.name for path in entries(fresh_cache).keys() - before.keys()) == added


def test_a_cached_model_is_the_trained_one(fresh_cache):
    experiment = catalogue.get("digits", **QUICK)
    data = catalogue.load_data(experiment)
    once, again = (catalogue.trained(experiment, data, "cpu") for _ in range(2))
    assert once[1] == again[1]
    assert len(once[1]["history"]) == 1
    for value, expected in zip(once[0].state_dict().values(), again[0].state_dict().values(), strict=True):
        assert torch.equal(value, expected)
    assert not again[0].training


def test_two_processes_at_once_give_the_same_result(fresh_cache):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", AUDIT_AND_PRINT],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sorted(path.parent.name for path in fresh_cache.rglob("*") if path.is_file()) == [
        "audits",
        "models",
    ]


def test_key_and_provenance_say_in_what_was_computed(monkeypatch):
    experiment, said = catalogue.get("digits", compute="auto"), []
    data = catalogue.load_data(experiment)
    record = {"seconds": 0.0, "history": []}
    for units in ({}, {"avx512_bf16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units)
        key = catalogue.what_decides(experiment, data, "cpu")
        facts = catalogue.training_facts(experiment, data, record, "cpu")
        said.append((key[1]["compute"], facts["experiment"]["recipe"]["compute"]))
    assert said == [("fp32", "fp32"), ("bf16", "bf16")]


def test_provenance_says_what_was_done(fresh_cache):
    provenance = quick_audit().provenance
    assert provenance["experiment"]["recipe"]["epochs"] == 1
    assert provenance["quantizers"] == ["fp32", "int2"]
    assert {"data_digest", "versions", "command", "training_seconds", "left_out", "device"} <= set(provenance)


def test_changes_go_to_the_recipe_or_the_experiment():
    experiment = catalogue.get("utkface", seed=4, label="age", model="resnet34", epochs=None)
    assert experiment.recipe.seed == 4
    assert (experiment.label, experiment.model) == ("age", "resnet34")
    assert experiment.recipe.epochs == catalogue.EXPERIMENTS["utkface"].recipe.epochs
    assert catalogue.EXPERIMENTS["utkface"].recipe.seed == 0


@pytest.mark.parametrize(
    ("name", "class_names", "group_names"),
    [
        ("utkface_gender", utkface.GENDERS, utkface.ETHNICITIES),
        ("utkface_mobilenet", utkface.ETHNICITIES, utkface.ETHNICITIES),
    ],
)
def test_another_label_and_another_model_on_faces(name, class_names, group_names, fresh_cache, tmp_path):
    archive = samples.write_archive(tmp_path / "UTKFace.tar.gz", samples.face_files(60))
    experiment = catalogue.get(name, epochs=1, size=32)
    audit = catalogue.audit(experiment, ("fp32", "int3"), data_dir=archive, device="cpu")
    assert (audit.class_names, audit.group_names) == (class_names, group_names)
    assert audit.provenance["experiment"]["name"] == name
    assert groups_are_classes(audit) == (class_names == group_names)
    own, paper = catalogue.EXPERIMENTS[name], catalogue.EXPERIMENTS["utkface"]
    assert (own.dataset, own.size, own.recipe) == (paper.dataset, paper.size, paper.recipe)
    model = catalogue.untrained(experiment, catalogue.load_data(experiment, archive))
    assert type(model).__name__ == ("ResNet" if name == "utkface_gender" else "MobileNetV2")


@pytest.mark.parametrize(
    ("call", "known"),
    [
        (lambda: catalogue.get("mnist"), catalogue.EXPERIMENTS),
        (lambda: catalogue.get("digits", bits=3), ["batch_size", "epochs", "model", "seed"]),
        (lambda: catalogue.get("digits", model="resnet19"), known_models()),
        (lambda: catalogue.get("digits", optimizer="adam"), ["sgd", "adamw"]),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(call, known):
    with pytest.raises(ValueError, match=r"unknown|has no") as error:
        call()
    assert all(name in str(error.value) for name in known)


@pytest.mark.parametrize("name", ["nonsense", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused(name):
    with pytest.raises(ValueError, match=f"device '{name}' cannot be used here"):
        catalogue.choose_device(name)
    assert catalogue.choose_device("cpu").type == "cpu"


def test_a_device_is_named_by_what_computes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert catalogue.device_name(torch.device("cuda:1")) == "GPU 1"
    assert catalogue.device_name(torch.device("cpu")) == f"{torch.get_num_threads()} cores"


def test_an_audit_of_layers_is_made_once_and_says_what_was_done(fresh_cache, monkeypatch):
    experiment = catalogue.get("digits", **QUICK)
    audit = catalogue.layer_audit(experiment, "int3", device="cpu")
    assert len(audit.precisions) == 2 + 2 * 10
    assert (audit.provenance["experiment"]["recipe"]["epochs"], audit.provenance["passes"]) == (1, "shared")
    whole = catalogue.audit(experiment, ["fp32", "int3"], device="cpu")
    np.testing.assert_array_equal(audit.logits[[0, -1]], whole.logits)
    assert audit.train_counts.tolist() == whole.train_counts.tolist()
    monkeypatch.setattr(catalogue, "audit_layers", lambda *_, **__: pytest.fail("made again"))
    assert catalogue.layer_audit(experiment, "int3", device="cpu").precisions == audit.precisions
    with pytest.raises(ValueError, match="not fp16"):
        catalogue.layer_audit(experiment, "fp16")
