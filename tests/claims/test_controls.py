"""Controls: no effect with shuffled groups, the same every time, none where groups play no role."""

import dataclasses

import numpy as np
import pytest

import samples
from quantskew.audits.statistics import Curvature
from quantskew.claims import effects
from quantskew.claims.effects import BASE
from quantskew.claims.register import CLAIMS
from quantskew.claims.verdicts import judge, mean_test

FVO = CLAIMS["fvo_grows"]


def widening():
    return samples.exact_audit({"fp32": [0.9, 0.8], "int4": [0.9, 0.4]}, count=100)


def test_the_control_has_no_effect():
    result = judge(FVO, {BASE: [widening()] * 3})
    assert result["control_low"] < 0.1
    assert abs(result["control"]) < 0.15 < result["low"]


def test_what_is_not_about_groups_has_no_control(digits_audit):
    result = judge(CLAIMS["sparsity_grows"], {BASE: [digits_audit] * 2})
    assert result["seeds"] == 2
    assert np.isnan(result["control"])


def test_the_control_of_an_extreme_is_below_zero():
    rng = np.random.default_rng(0)
    seeds = []
    for _ in range(3):
        audit = samples.random_audit(groups=5, precisions=("fp32", "int4"), seed=int(rng.integers(1000)))
        seeds.append(dataclasses.replace(audit, train_counts=np.arange(5, 0, -1)))
    # One group of five is seldom above each of the four others: that is what "fails" has to be held against.
    assert judge(CLAIMS["loss_minority"], {BASE: seeds})["control"] < 0


def surface_audit(norms, eigenvalues):
    groups, rows = len(norms), np.tile(norms, (2, 1))
    curvature = Curvature(
        images=np.ones(groups, dtype=int),
        matvecs=np.ones_like(rows, dtype=int),
        gradient_norms=rows,
        lambda_max=np.tile(eigenvalues, (2, 1)),
        residuals=rows,
        traces=rows,
        trace_errors=rows,
        change_norms=np.zeros(2),
        profile_groups=np.array([0, 1]),
        profile_steps=np.zeros(1),
        profile_lengths=np.zeros(2),
        profile_losses=np.zeros((2, 2, 1)),
        profile_precision="int4",
    )
    audit = samples.exact_audit({"fp32": [0.5] * groups, "int4": [0.4] * groups})
    return dataclasses.replace(audit, curvature=curvature)


def test_the_control_of_an_order_of_groups_is_a_random_order(monkeypatch):
    monkeypatch.setattr(effects, "SHUFFLES", 300)
    surface = np.random.default_rng(0).random(6)
    claim = CLAIMS["lambda_gradient"]
    alone = judge(claim, {BASE: [surface_audit(surface, surface)]})
    assert alone["effect"] == pytest.approx(1.0)
    assert abs(alone["control"]) < 0.1
    assert alone["control_low"] < -0.5
    assert alone["control_high"] > 0.5
    # Each seed has an order of its own: their mean is nearer to zero.
    several = judge(claim, {BASE: [surface_audit(surface, surface) for _ in range(9)]})
    assert several["control_high"] - several["control_low"] < 0.6 * (
        alone["control_high"] - alone["control_low"]
    )


def test_the_control_is_the_same_every_time():
    first, again = (judge(FVO, {BASE: [widening()]}) for _ in range(2))
    for name in ("effect", "control", "control_low", "control_high"):
        assert first[name] == again[name]


@pytest.mark.parametrize(
    "key", ["fvo_grows", "minority_loses_accuracy", "dtdb_left_more", "l1_separates_less"]
)
def test_chance_seldom_decides_shuffled_groups(key, digits_audit, monkeypatch):
    monkeypatch.setattr(effects, "SHUFFLES", 400)
    fresh = [
        dataclasses.replace(digits_audit, groups=np.roll(digits_audit.groups, shift)) for shift in range(4)
    ]
    claim = CLAIMS[key]
    drawn = effects.effects(claim, {BASE: fresh}, "int4")[:, 1:, 0]
    test = mean_test(drawn, claim.unit)
    decided = (2 * np.minimum(test["above"], test["below"]) <= 0.05).sum()
    # 20 of 400 are expected; more than 36 have a probability of 0.03 %.
    assert decided <= 36
