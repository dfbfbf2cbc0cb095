"""What a chapter shows side by side, draws and glues; nothing is trained here."""

import json

import numpy as np
import pytest

import quantskew as qs
import samples
from quantskew import chapter
from quantskew.book import prose
from quantskew.chapter import Chapter
from quantskew.experiments.runs import BASE, Runs
from quantskew.figures import lines
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS

COUNTS = [90, 30, 10]


@pytest.fixture
def asked(monkeypatch):
    """What a chapter asks for; the record is run here where its images are, a further one is missing."""
    calls = []

    def beside(experiment, records, keys, seeds, *, data_dir, **options):
        calls.append((experiment, records, keys, list(seeds), data_dir, options))
        second = "as the record, live" if data_dir else "record"
        titles = {experiment: f"live: {experiment}", records[0]: f"{second}: {records[0]}"}
        return [
            Runs(
                name,
                title,
                {key: [samples.exact_audit(accuracies(key), train_counts=COUNTS)] for key in keys},
            )
            for name, title in titles.items()
        ]

    monkeypatch.setattr(chapter, "beside", beside)
    return calls


def accuracies(key):
    return {"fp32": (0.9, 0.8, 0.7), "int4": (0.9, 0.7, 0.4 if key == BASE else 0.5)}


@pytest.fixture
def glued(monkeypatch):
    store = {}
    monkeypatch.setattr(prose, "glue", lambda key, value, display: store.update({key: value}))
    return store


def test_parameters_reach_what_is_made(asked):
    page = Chapter("digits", "faces", ["fp32", "int4"], "mse", 2, 3, None, "cpu", curvature=True)
    options = {"precisions": ["fp32", "int4"], "scheme": "mse", "curvature": True, "device": "cpu"}
    assert asked == [("digits", ["faces"], (BASE,), [2, 3, 4], None, options)]
    assert list(page.audits) == ["live: digits", "record: faces"]
    assert [page.live, page.kept] == [own[BASE][0] for own in page.runs] == list(page.audits.values())


@pytest.mark.parametrize("data_dir", [None, "images"])
def test_an_experiment_is_found_by_its_name_wherever_it_was_made(asked, data_dir, tmp_path):
    data_dir = data_dir and str(tmp_path)
    page = Chapter("digits", ["faces", "gone"], data_dir=data_dir, keys=(BASE, "ptq"))
    (title,) = page.of("faces")
    assert title == ("as the record, live: faces" if data_dir else "record: faces")
    assert list(page.of("digits", "faces", key="ptq").values()) == [own["ptq"][0] for own in page.runs]
    assert page.of("gone") == page.of("faces", key="mse") == {}


def test_without_the_experiment_itself_its_runs_are_drawn(asked):
    page = Chapter("digits", "faces", keys=("ptq",))
    assert (page.live, page.kept, page.audits) == (None, None, {})
    seen = []
    page.draw(lambda runs, axes: seen.append(runs), legend=False)
    assert seen == page.runs


def test_measures_and_functions_are_drawn(asked):
    page = Chapter("digits", "faces")
    figure = page.draw([qs.group_accuracy, lambda audit, axes: axes.set_ylabel("own")], legend=False)
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", "accuracy", "own", "own"]
    assert [axes.get_title("left") for axes in figure.axes[:2]] == ["live: digits", "record: faces"]


def test_a_page_gets_every_seed_of_what_is_drawn(asked):
    page = Chapter("digits", "faces")
    page.runs[1][BASE].append(samples.exact_audit(accuracies("other"), train_counts=COUNTS))
    live, record = page.draw(qs.group_accuracy).numbers
    assert [len(live["seeds"]), len(record["seeds"])] == [1, 2]
    assert [group["images"] for group in record["groups"]] == COUNTS
    # By seed, precision and group.
    assert [seed[1][2][0] for seed in record["seeds"]] == pytest.approx([0.4, 0.5])
    assert [own["kind"] for own in page.draw(qs.cosine_distance).numbers] == ["map", "map"]
    # What no page draws has its picture alone.
    assert page.draw(lines.fvo, legend=False).numbers == ()


def test_where_a_record_is_missing_nothing_is_drawn(asked, capsys):
    page = Chapter("digits", ["faces", "gone"])
    assert page.draw(qs.group_accuracy, page.of("gone")) is None
    assert capsys.readouterr().out == "nothing to draw: there is no record\n"


def test_what_is_glued_has_the_name_of_its_column(asked, glued):
    page = Chapter("digits", "faces")
    page.glue(qs.overall_accuracy, gap=(qs.fvo, 3), images=lambda audit: len(audit.labels))
    page.glue(no_directions=lambda audit: dict(zip(audit.precisions, "ab", strict=True)))
    assert glued["live-all-fp32-value"] == glued["record-all-fp32-value"] == "0.80"
    assert glued["record-gap-int4-value"] == "0.500"
    assert glued["record-gap-int4"].startswith("0.500 [0.")
    assert glued["live-images"] == len(page.live.labels)
    assert (glued["live-no-directions-fp32"], glued["live-no-directions-int4"]) == ("a", "b")


def test_roles_are_glued_with_the_digits_of_their_measure(asked, glued):
    Chapter("digits", "faces").glue_roles(
        accuracy=qs.group_accuracy, change_=qs.group_accuracy.change, spread=qs.softmax_variance
    )
    assert glued["live-majority"] == "group 0"
    assert glued["record-minority-count"] == "10"
    assert glued["record-minority-accuracy-int4-value"] == "0.40"
    assert glued["record-minority-change-int4-value"] == "-0.30"
    assert len(glued["live-majority-spread-fp32-value"]) == len("0.123")


def test_words_stand_in_for_the_numbers_of_a_missing_record(asked, glued):
    page = Chapter("digits", ["faces", "gone"])
    page.glue_further("faces", "faces", qs.fvo, qs.group_accuracy)
    page.glue_further("gone", "gone", qs.fvo, by_group=qs.group_accuracy)
    assert glued["faces-group-2-int4-value"] == "0.40"
    assert {glued[f"gone-{name}"] for name in ("int4", "fp32-value", "by-group-group-2-int4")} == {
        "(no record)"
    }


def test_claims_are_judged_on_every_column(asked):
    shown = Chapter("digits", "faces").scorecard(["fvo_grows"], ["int4"])
    table = shown.data
    assert list(table.columns) == ["claim", "at", "live: digits, one seed", "record: faces, one seed"]
    assert table["record: faces, one seed"][0].startswith("one seed: ")
    drawn = json.loads(shown._repr_html_().split(">", 1)[1].split("</script>")[0])
    ((record,),) = [own for title, own in drawn.items() if title.startswith("record")]
    assert (record["verdict"], record["unit"], record["low"]) == ("one seed", "share of the images", None)


def test_a_measure_of_every_seed_is_read_at_every_precision(asked, monkeypatch, glued):
    seeds = [samples.exact_audit(accuracies(key), train_counts=COUNTS) for key in (BASE, "other")]
    monkeypatch.setattr(chapter, "read", lambda name, keys: {keys[0]: seeds} if name == "faces" else None)
    page = Chapter("digits", "faces", ["fp32"])
    accuracy, gap = page.recorded(qs.group_accuracy), page.recorded(qs.fvo)
    assert accuracy.columns.tolist() == gap.columns.tolist() == list(DEFAULT_PRECISIONS)
    assert accuracy["int4"].xs("majority", level="group").tolist() == pytest.approx([0.9, 0.9])
    assert accuracy["int4"].xs("minority", level="group").tolist() == pytest.approx([0.4, 0.5])
    assert gap["int4"].tolist() == pytest.approx([0.5, 0.4])
    assert gap["int8"].isna().all()
    page.glue_seeds(gap_of_half=gap["int4"] > 0.45)
    assert glued["gap-of-half"] == "1 of 2"


def test_a_sentence_that_is_not_true_of_the_record_is_refused(asked):
    sentences = {"all groups fall": lambda: True, "the moon is a cheese": lambda: False}
    with pytest.raises(ValueError, match="record utkface: the moon is a cheese"):
        Chapter("digits", "utkface").check(sentences)
    Chapter("digits", "utkface").check({"all groups fall": lambda: True})
    # A page that shows another record says nothing of this one.
    Chapter("digits", "faces").check(sentences)


def test_a_control_begins_with_what_the_chapter_has_measured(asked):
    page = Chapter("digits", "faces", scheme="mse")
    control = page.control("accuracy")
    assert (control.choice["precision"], control.choice["scheme"]) == ("int4", "mse")
    shown = control.numbers["live: digits"].query("group == 'FVO' and precision == 'int4'")["value"]
    assert shown.item() == pytest.approx(0.5)
    assert np.isfinite(shown.item())
