"""Cells of a grid: ids by content, and every parameter of an audit declared."""

import dataclasses
from pathlib import Path

from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, Quantizer
from quantskew.sweeps.grid import audit_cell, split_audit


def cell(**given):
    return audit_cell({"experiment": "digits", **given}, Path())


def test_an_id_depends_on_the_content_alone():
    assert cell().id == cell(seed=0, scheme="banner", per_channel=False).id
    assert cell(seed=1, scheme="mse").id == cell(scheme="mse", seed=1).id
    assert cell(learning_rate=1).id == cell(learning_rate=1.0).id
    assert (
        len({cell(seed=seed, scheme=scheme).id for seed in range(50) for scheme in ("banner", "mse")}) == 100
    )


def test_an_id_can_be_read_and_be_a_folder():
    name = cell(seed=1, precisions=["fp32", "int4"], model="resnet18").id
    assert name.startswith("audit-digits-resnet18-seed-1-precisions-fp32-int4-")
    assert len(cell(experiment="folder", group="a/b c" * 50).id) < 80


def test_audits_that_differ_in_their_quantization_share_a_model():
    assert cell(scheme="mse", per_channel=True).model == cell(precisions=["fp32", "int2"]).model
    assert cell(seed=1).model != cell().model != cell(epochs=2).model


def test_every_parameter_of_an_audit_can_be_given():
    declared = set(cell().defaults)
    assert {own.name for own in dataclasses.fields(Quantizer)} - {"precision"} <= declared
    assert {"precisions", "data_dir", "device", "curvature", "curvature_images"} <= declared
    assert {"seed", "epochs", "model", "size", "label", "group", "learning_rate"} <= declared
    own, rest = split_audit(cell(seed=1, model="resnet18", curvature=True, curvature_images=3).parameters)
    assert own == {"name": "digits", "seed": 1, "model": "resnet18"}
    assert rest == {"quantizers": list(DEFAULT_PRECISIONS), "curvature": 3}
