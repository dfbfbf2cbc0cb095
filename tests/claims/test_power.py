"""False alarms and power: how often verdicts are right where the truth is known."""

import numpy as np
import pytest

from quantskew.claims.register import made_audit, verdict_rates


def test_a_made_audit_has_the_effect_that_was_asked_for():
    audit = made_audit(0.2, np.random.default_rng(0), images=50_000)
    right = audit.predictions == audit.labels
    falls = [right[0, audit.groups == g].mean() - right[1, audit.groups == g].mean() for g in (0, 1)]
    assert falls[1] - falls[0] == pytest.approx(0.2, abs=0.01)
    assert audit.train_counts.tolist() == [900, 100]


def test_seeds_spread_as_asked():
    rng = np.random.default_rng(0)
    effects = []
    for _ in range(200):
        audit = made_audit(0.1, rng, spread=0.05, images=2000)
        right = audit.predictions == audit.labels
        falls = [right[0, audit.groups == g].mean() - right[1, audit.groups == g].mean() for g in (0, 1)]
        effects.append(falls[1] - falls[0])
    assert np.mean(effects) == pytest.approx(0.1, abs=0.015)
    assert np.std(effects) == pytest.approx(0.05, abs=0.012)


def rate(table, **where):
    chosen = table
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    (value,) = chosen["value"]
    return value


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_false_alarms_are_rare_with_several_seeds(spread):
    table = verdict_rates([0.0], [2, 3], spread, images=200, trials=150)
    for seeds in (2, 3):
        alarms = sum(rate(table, seeds=seeds, verdict=name) for name in ("holds", "fails"))
        # 5 % are allowed; 17 or more of 150 would then have a probability of 0.2 %.
        assert alarms * 150 < 17


def test_one_seed_cannot_speak_for_others():
    table = verdict_rates([0.0], [1], spread=0.1, trials=60)
    assert rate(table, verdict="holds") + rate(table, verdict="fails") > 0.5


def test_large_effects_are_found_and_not_reversed():
    table = verdict_rates([0.2], [1, 3], spread=0.03, trials=60)
    for seeds in (1, 3):
        assert rate(table, seeds=seeds, verdict="holds") > 0.9
        assert rate(table, seeds=seeds, verdict="fails") == 0


def test_a_reversed_effect_fails():
    table = verdict_rates([-0.2], [3], spread=0.03, trials=60)
    assert rate(table, verdict="fails") > 0.9
    assert rate(table, verdict="holds") == 0


def test_more_seeds_find_more():
    table = verdict_rates([0.06], [2, 5], spread=0.03, trials=60)
    assert rate(table, seeds=5, verdict="holds") > rate(table, seeds=2, verdict="holds") + 0.3
