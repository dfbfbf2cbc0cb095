"""Groups crossed with classes: the same samples, counted otherwise."""

import json

import numpy as np
import pytest

import samples
from quantskew.audits.audit import Audit
from quantskew.figures import lines
from quantskew.figures.style import compare
from quantskew.measures import fairness, forward
from quantskew.measures.fairness import cell_counts, groups_are_classes, intersections
from quantskew.report import write_report

LABELS, GROUPS = [0, 1, 1, 0, 1, 1], [0, 0, 0, 2, 2, 2]


@pytest.fixture
def audit():
    """Two classes in three groups, the second of which has no samples."""
    rng = np.random.default_rng(0)
    logits = {p: rng.normal(size=(6, 2)) for p in ("fp32", "int2")}
    return Audit.from_logits(
        logits, LABELS, GROUPS, ("north", "east", "west"), ("man", "woman"), [30, 20, 10], {"source": "made"}
    )


def test_every_sample_is_in_the_cell_of_its_group_and_class(audit):
    crossed = intersections(audit)
    assert crossed.group_names == (
        "north, man", "north, woman", "east, man", "east, woman", "west, man", "west, woman",
    )  # fmt: skip
    expected = [
        f"{audit.group_names[g]}, {audit.class_names[y]}" for y, g in zip(LABELS, GROUPS, strict=True)
    ]
    assert [crossed.group_names[cell] for cell in crossed.groups] == expected
    assert crossed.groups.tolist() == [2 * g + y for g, y in zip(GROUPS, LABELS, strict=True)]


def test_counts_are_of_the_cells_and_an_absent_one_stays(audit):
    crossed = intersections(audit)
    assert crossed.group_counts.tolist() == [1, 2, 0, 0, 1, 2]
    assert cell_counts(audit).tolist() == [[1, 2], [0, 0], [1, 2]]
    assert crossed.train_counts.tolist() == crossed.group_counts.tolist()
    accuracy = forward.group_accuracy(crossed)
    assert accuracy["value"].isna().sum() == 2 * 2


def test_training_counts_by_cell_can_be_given(audit):
    counts = [20, 10, 10, 10, 5, 5]
    crossed = intersections(audit, counts)
    assert crossed.train_counts.tolist() == counts
    assert crossed.provenance["intersections"]["train_counts"] == "given"
    with pytest.raises(ValueError, match="2 training counts for 6 groups"):
        intersections(audit, [1, 2])


def test_what_is_not_by_group_is_the_same(audit):
    crossed = intersections(audit)
    assert crossed.logits is audit.logits
    assert crossed.labels is audit.labels
    assert (crossed.precisions, crossed.class_names) == (audit.precisions, audit.class_names)
    assert fairness.overall_accuracy(crossed).equals(fairness.overall_accuracy(audit))
    # The Audit that it came from is as it was.
    assert audit.provenance == {"source": "made"}
    assert audit.groups.tolist() == GROUPS


def test_provenance_is_kept_with_a_note(audit):
    provenance = json.loads(json.dumps(intersections(audit).provenance))
    assert provenance == {
        "source": "made",
        "intersections": {
            "groups": ["north", "east", "west"],
            "classes": ["man", "woman"],
            "train_counts": "test samples",
        },
    }


def test_weights_are_kept_and_curvature_is_not(curved_audit):
    parity = np.arange(len(curved_audit.labels)) % 2
    by_parity = type(curved_audit)(
        **{
            **vars(curved_audit),
            "groups": parity,
            "group_names": ("even", "odd"),
            "train_counts": None,
        }
    )
    crossed = intersections(by_parity)
    assert crossed.weights is curved_audit.weights
    assert crossed.curvature is None
    assert len(crossed.group_names) == 20


def test_measures_of_cells_make_up_those_of_their_group():
    audit = samples.random_audit()
    crossed = intersections(audit)
    counts = cell_counts(audit)
    for measure in (forward.group_accuracy, forward.group_loss):
        values = measure(crossed)["value"].to_numpy().reshape(3, 3, 4)
        whole = measure(audit)["value"].to_numpy().reshape(3, 3)
        np.testing.assert_allclose((values * counts).sum(axis=2) / counts.sum(axis=1), whole)
    # A part of a group can be served worse than the whole, never all of them.
    assert (fairness.fvo(crossed)["value"] >= fairness.fvo(audit)["value"]).all()


def test_the_gap_of_all_cells_is_no_smaller_than_that_within_a_class():
    audit = samples.random_audit(classes=2, groups=4, samples=400)
    within = fairness.equalized_odds(audit)["value"]
    assert (fairness.fvo(intersections(audit))["value"] >= within - 1e-9).all()


def test_every_table_and_figure_is_made_of_intersections(audit, tmp_path):
    names = {path.name for path in write_report(intersections(audit), tmp_path)}
    assert {"group_accuracy.csv", "group_accuracy.png", "fvo.csv", "fvo.png", "group_loss.png"} <= names


def test_saved_intersections_are_loaded(audit, tmp_path):
    crossed = intersections(audit)
    crossed.save(tmp_path / "a")
    loaded = Audit.load(tmp_path / "a")
    assert loaded.group_names == crossed.group_names
    assert loaded.provenance == crossed.provenance


def test_ten_groups_of_long_names_leave_room_for_the_axes():
    audit = samples.random_audit(samples=400, classes=2, groups=5)
    crossed = intersections(
        Audit(**{**vars(audit), "group_names": ("White", "Black", "Asian", "Indian", "Others")})
    )
    # Warnings are errors: matplotlib warns of a legend that takes all of the axes' room.
    figure = compare(lines.of(forward.group_accuracy), {"one": crossed, "two": crossed})
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert len(axes.containers) == 10
        assert axes.get_position().width * figure.get_figwidth() > 2
        assert axes.get_position().height * figure.get_figheight() > 1.5


@pytest.mark.parametrize("renumbered", [False, True])
def test_groups_that_are_the_classes_are_refused(renumbered):
    labels = np.array([0, 1, 2, 2])
    groups = 2 - labels if renumbered else labels
    audit = Audit.from_logits({"fp32": np.eye(3)[labels]}, labels, groups)
    assert groups_are_classes(audit)
    with pytest.raises(ValueError, match=r"groups of this Audit are its classes.*--group ethnicity"):
        intersections(audit)


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 1, 1], [0, 0, 0]),  # one group
        ([1, 1, 1], [0, 0, 1]),  # a single class
        ([0, 1, 2, 2], [0, 1, 2, 1]),  # one sample is of another class
    ],
)
def test_groups_that_differ_from_the_classes_are_crossed(labels, groups):
    audit = Audit.from_logits({"fp32": np.eye(3)[labels]}, labels, groups)
    assert not groups_are_classes(audit)
    assert intersections(audit).group_counts.sum() == len(labels)
