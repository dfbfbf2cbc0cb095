"""False alarms and power: how often verdicts are right where the truth is known."""

import numpy as np
import pytest

from quantskew.claims.verdicts import made_effects, verdict_rates


def test_made_effects_are_as_asked():
    effects = made_effects(0.1, seeds=5, spread=0.05, images=2000, trials=2000)
    assert effects.shape == (5, 2000)
    assert effects.mean() == pytest.approx(0.1, abs=0.003)
    # Test images add little to what seeds differ by: 2 p (1 - p) / n.
    assert effects.std() == pytest.approx(
        np.hypot(0.05, np.sqrt((0.15 * 0.85 + 0.05 * 0.95) / 2000)), abs=0.002
    )


def rates(verdict, *args, **options):
    table = verdict_rates(*args, **options)
    return table[table["verdict"] == verdict].set_index("seeds")["value"]


@pytest.mark.parametrize("spread", [0.01, 0.03, 0.1])
def test_false_alarms_are_as_nominal(spread):
    table = verdict_rates([0.0], [3, 5, 10], spread, trials=4000)
    alarms = table.groupby("seeds")["value"].sum()
    assert alarms.between(0.03, 0.07).all(), alarms


def test_two_seeds_err_on_the_safe_side():
    assert verdict_rates([0.0], [2], 0.03, trials=4000)["value"].sum() < 0.06


def test_large_effects_are_found_and_not_reversed():
    holds, fails = (rates(name, [0.2], [3, 5], spread=0.03) for name in ("holds", "fails"))
    assert (holds > 0.9).all()
    assert (fails == 0).all()


def test_a_reversed_effect_fails():
    assert rates("fails", [-0.2], [3], spread=0.03).item() > 0.9
    assert rates("holds", [-0.2], [3], spread=0.03).item() == 0


def test_more_seeds_find_more():
    found = rates("holds", [0.06], [2, 3, 5, 10], spread=0.03)
    assert (np.diff(found) > 0.15).all()
    assert found[10] > 0.95
