"""Rotations of the digits, and their tables on Audits whose accuracies are known."""

import numpy as np
import pandas as pd
import pytest

import samples
from quantskew.experiments import catalogue, difficulty
from quantskew.experiments.difficulty import BALANCED, CUT
from quantskew.measures.forward import group_accuracy
from quantskew.training import loop

NAMES = ("group 0", "group 1", "group 2")
ONCE = [10, 20, 30]
KEYS = (BALANCED, *(f"{CUT}{digit}" for digit in range(10)))


def rotation(experiment, key):
    return difficulty.rotation(experiment, key, device="cpu", precisions=("fp32", "int2"))


@pytest.fixture(scope="module")
def rotated(tmp_path_factory):
    """The rotations after one epoch, and the training images of each group that each was trained on."""
    fit, counts = loop.fit, []

    def spy(model, data, *rest, **more):
        counts.append(data.train.group_counts.tolist())
        return fit(model, data, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSKEW_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(loop, "fit", spy)
        experiment = catalogue.get("digits", epochs=1)
        audits, again = ({key: rotation(experiment, key) for key in KEYS} for _ in range(2))
    for name, audit in audits.items():
        np.testing.assert_array_equal(again[name].logits, audit.logits)
    return audits, counts


def test_one_group_after_another_is_cut_to_the_minority_s_share(rotated, digits):
    _, counts = rotated
    own = digits.train.group_counts
    whole = round(own.mean())
    cut = round(whole * own.min() / own.max())
    assert (whole, cut) == (40, 5)
    assert counts[0] == [40] * 10
    assert counts[1:] == [[5 if g == group else 40 for g in range(10)] for group in range(10)]


def test_rotations_are_of_the_same_test_images(rotated, digits):
    audits, _ = rotated
    for audit in audits.values():
        assert audit.precisions == ("fp32", "int2")
        assert audit.labels.tolist() == digits.test.labels.tolist()
        assert audit.train_counts.tolist() == digits.train.group_counts.tolist()


def test_tables_of_one_seed_are_its_accuracies(rotated):
    audits, _ = rotated
    runs = {name: [audit] for name, audit in audits.items()}
    table = difficulty.rotation_table(runs, "int2").set_index(["cut", "group"])["value"]
    for key, audit in audits.items():
        accuracy = group_accuracy(audit).query("precision == 'int2'").set_index("group")["value"]
        for group in audit.group_names:
            assert table[key.removeprefix(CUT), group] == pytest.approx(accuracy[group])
    epochs, _ = difficulty.learning_curves(runs[BALANCED])
    history = audits[BALANCED].provenance["history"]
    assert epochs["value"].tolist() == pytest.approx(history[0]["train"]["accuracy"])
    gradients = difficulty.gradient_curves(runs[BALANCED])
    assert gradients["value"].tolist() == pytest.approx(history[0]["measured"])


def exact(fp32, int2=(0.25, 0.25, 0.25), history=None):
    return samples.exact_audit({"fp32": fp32, "int2": int2}, train_counts=ONCE, history=history)


@pytest.fixture
def runs():
    """Two seeds of three groups: balanced, and each of them cut."""
    return {
        BALANCED: [exact((0.9, 0.8, 0.7)), exact((0.7, 0.8, 0.9), (0.5, 0.25, 0.0))],
        "cut-group 0": [exact((0.5, 0.8, 0.8)), exact((0.3, 0.9, 0.9), (0.1, 0.5, 0.5))],
        "cut-group 1": [exact((0.9, 0.6, 0.7)), exact((0.7, 0.4, 0.9), (0.1, 0.2, 0.3))],
        "cut-group 2": [exact((0.9, 0.8, 0.7)), exact((0.7, 0.8, 0.8), (0.1, 0.5, 0.6))],
    }


def test_the_two_way_table_has_the_means_over_seeds(runs):
    table = difficulty.rotation_table(runs)
    assert len(table) == 12
    assert set(table["seeds"]) == {2}
    values = table.pivot(index="cut", columns="group", values="value")
    assert values.loc[BALANCED].tolist() == pytest.approx([0.8, 0.8, 0.8])
    assert values.loc["group 0"].tolist() == pytest.approx([0.4, 0.85, 0.85])
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_a_seed_that_a_rotation_lacks_is_left_out(runs):
    more = runs | {BALANCED: [*runs[BALANCED], exact((0.1, 0.1, 0.1))]}
    pd.testing.assert_frame_equal(difficulty.rotation_table(more), difficulty.rotation_table(runs))
    pd.testing.assert_frame_equal(difficulty.size_effect(more), difficulty.size_effect(runs))


def test_the_effect_of_size_is_what_the_cut_group_loses(runs):
    table = difficulty.size_effect(runs)
    assert table["group"].tolist() == list(NAMES)
    assert table["value"].tolist() == pytest.approx([0.4, 0.3, 0.05])
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_the_effect_of_the_group_is_from_the_mean_of_the_balanced_set(runs):
    seeds = [exact((0.6 + gap, 0.6, 0.6 - gap)) for gap in (0.2, 0.25, 0.3)]
    table = difficulty.group_effect({BALANCED: seeds})
    assert table["value"].tolist() == pytest.approx([0.25, 0.0, -0.25])
    assert table["low"][0] > 0 > table["high"][2]
    assert difficulty.group_effect(runs)["value"].tolist() == pytest.approx([0, 0, 0], abs=1e-12)


def test_the_harm_of_quantization_is_of_balanced_and_of_cut_groups(runs):
    table = difficulty.harm(runs, "int2").set_index(["trained", "group"])["value"]
    balanced, cut = ([table[trained, name] for name in NAMES] for trained in (BALANCED, "cut"))
    assert balanced == pytest.approx([0.8 - 0.375, 0.8 - 0.25, 0.8 - 0.125])
    assert cut == pytest.approx([0.4 - 0.175, 0.5 - 0.225, 0.75 - 0.425])


def test_a_set_that_loses_nothing_has_no_effect_of_size():
    same = [exact((0.9, 0.8, 0.7)), exact((0.5, 0.6, 0.7))]
    table = difficulty.size_effect(dict.fromkeys((BALANCED, *(f"{CUT}{name}" for name in NAMES)), same))
    assert (table[["value", "low", "high"]] == 0).all(axis=None)


def history(accuracies, norms):
    return [
        samples.epoch_entry(epoch, accuracy, norm)
        for epoch, (accuracy, norm) in enumerate(zip(accuracies, norms, strict=True))
    ]


def test_learning_curves_are_those_of_the_provenance():
    first = [(0.1, 0.2, 0.3), (0.4, 0.5, 0.6)]
    second = [(0.3, 0.2, 0.1), (0.8, 0.5, 0.2)]
    audits = [exact((0.9, 0.8, 0.7), history=history(h, [None, None])) for h in (first, second)]
    epochs, end = difficulty.learning_curves(audits)
    for _, row in epochs.iterrows():
        group = NAMES.index(row["group"])
        seen = [h[row["epoch"] - 1][group] for h in (first, second)]
        assert (row["value"], row["low"], row["high"]) == pytest.approx((np.mean(seen), min(seen), max(seen)))
    assert epochs["epoch"].tolist() == [1, 2] * 3
    assert end["value"].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert end["group"].tolist() == list(NAMES)


def test_gradient_curves_are_geometric_means_where_they_were_measured():
    accuracies = [(0.1, 0.2, 0.3)] * 3
    norms = [(None, (1.0, 2.0, 3.0), (4.0, 5.0, None)), (None, (4.0, 8.0, 3.0), (9.0, 5.0, None))]
    audits = [exact((0.9, 0.8, 0.7), history=history(accuracies, own)) for own in norms]
    table = difficulty.gradient_curves(audits)
    assert table["epoch"].tolist() == [2, 3] * 3
    expected = [2, 6, 4, 5, 3, np.nan]
    assert table["value"].tolist() == pytest.approx(expected, nan_ok=True)
    assert table["low"].tolist() == pytest.approx([1, 4, 2, 5, 3, np.nan], nan_ok=True)
    assert table["high"].tolist() == pytest.approx([4, 9, 8, 5, 3, np.nan], nan_ok=True)
