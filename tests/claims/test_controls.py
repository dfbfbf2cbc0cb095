"""Controls: no effect with shuffled groups, the same every time, none where groups play no role."""

import dataclasses

import numpy as np
import pytest

import samples
from quantskew.audits.statistics import Curvature
from quantskew.claims.register import CLAIMS
from quantskew.claims.verdicts import BASE, control, judge

FVO = CLAIMS["fvo_grows"]


def widening():
    return samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=100)


def test_the_control_has_no_effect():
    placebo = control(FVO, {BASE: [widening()]})
    assert placebo["low"] < 0.1
    assert abs(placebo["effect"]) < 0.15 < judge(FVO, {BASE: [widening()]})["low"]
    assert control(CLAIMS["sparsity_grows"], {BASE: [widening()]}) is None


def test_the_control_of_an_order_of_groups_is_a_random_order():
    rng = np.random.default_rng(0)
    precisions, groups = 2, 6
    surface = rng.random((precisions, groups))
    shape = {"images": np.ones(groups, dtype=int), "matvecs": np.ones_like(surface, dtype=int)}
    curvature = Curvature(
        **shape,
        gradient_norms=surface,
        lambda_max=surface,
        residuals=surface,
        traces=surface,
        trace_errors=surface,
        change_norms=np.zeros(precisions),
        profile_groups=np.array([0, 1]),
        profile_steps=np.zeros(1),
        profile_lengths=np.zeros(2),
        profile_losses=np.zeros((2, 2, 1)),
        profile_precision="int4",
    )
    audit = samples.exact_audit({"fp32": [0.5] * groups, "int4": [0.4] * groups})
    evidence = {BASE: [dataclasses.replace(audit, curvature=curvature)]}
    claim = CLAIMS["lambda_gradient"]
    assert judge(claim, evidence)["effect"] == pytest.approx(1.0)
    placebo = control(claim, evidence, shuffles=200)
    assert abs(placebo["effect"]) < 0.1
    assert placebo["low"] < -0.5
    assert placebo["high"] > 0.5


def test_the_control_is_the_same_every_time():
    evidence = {BASE: [widening()]}
    assert control(FVO, evidence) == control(FVO, evidence)


def test_what_cannot_be_judged_has_no_control():
    assert control(FVO, {}) is None
    assert control(FVO, {BASE: [widening()]}, "int3") is None
