"""Evidence: what the claims need is made once, or read from the records as far as it is there."""

import pytest

import samples
from quantskew.claims import evidence
from quantskew.claims.evidence import live_and_recorded_evidence, made_evidence, recorded_evidence
from quantskew.claims.register import CLAIMS
from quantskew.claims.verdicts import BASE
from quantskew.experiments import difficulty
from quantskew.experiments.runs import ACTIVATIONS, file_name


@pytest.fixture
def calls(monkeypatch):
    """Nothing is trained; what would be made is listed."""
    made = []

    def seeds(experiment, precisions, seeds, **options):
        made.append((BASE, list(seeds), options))
        return [samples.random_audit(seed=seed) for seed in seeds]

    def one(experiment, key, **options):
        made.append((key, experiment.recipe.seed, options))
        return samples.random_audit()

    monkeypatch.setattr(evidence, "made_seeds", seeds)
    monkeypatch.setattr(evidence, "mitigate", one)
    monkeypatch.setattr(evidence.catalogue, "audit", lambda e, _, **o: one(e, ACTIVATIONS, **o))
    monkeypatch.setattr(difficulty, "rotations", lambda e, chosen, **o: {chosen[0]: one(e, *chosen, **o)})
    return made


def test_only_what_the_claims_need_is_made(calls):
    made = made_evidence("digits", [CLAIMS["fvo_grows"]], range(2), device="cpu")
    assert list(made) == [BASE]
    assert calls == [(BASE, [0, 1], {"curvature": False, "data_dir": None, "device": "cpu"})]


def test_every_kind_of_evidence_is_made_for_every_seed(calls):
    keys = ["lambda_grows", "qat_alone", "difficult_test", "activations_alike"]
    made = made_evidence("digits", [CLAIMS[key] for key in keys], [3, 4], "somewhere", "cpu")
    expected = [BASE, "ptq", "mpqat", difficulty.BALANCED, ACTIVATIONS]
    assert list(made) == expected
    assert all(len(audits) == 2 for audits in made.values())
    where = {"data_dir": "somewhere", "device": "cpu"}
    assert calls[0] == (BASE, [3, 4], {"curvature": True, **where})
    assert calls[1:] == [(key, seed, where) for key in expected[1:] for seed in (3, 4)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "book" / "records"
    path.mkdir(parents=True)
    return path


def test_records_are_read_as_far_as_they_are_there(folder):
    samples.random_audit().save(folder / file_name("mine"))
    samples.random_audit(seed=1).save(folder / file_name("mine", 1))
    claims = [CLAIMS["fvo_grows"], CLAIMS["qat_alone"]]
    assert {key: len(own) for key, own in recorded_evidence("mine", claims).items()} == {BASE: 2}
    samples.random_audit().save(folder / file_name("mine-ptq"))
    found = recorded_evidence("mine", claims)
    assert {key: len(own) for key, own in found.items()} == {BASE: 2, "ptq": 1}


def test_an_unknown_record_is_refused_with_the_known_ones(folder):
    samples.random_audit().save(folder / file_name("mine"))
    with pytest.raises(FileNotFoundError, match="no record 'yours'; known: mine"):
        recorded_evidence("yours", CLAIMS.values())


def test_the_digits_are_judged_from_end_to_end(repository, monkeypatch):
    monkeypatch.chdir(repository)
    found = recorded_evidence("utkface", CLAIMS.values())
    assert {"ptq", "mpqat", "fair-qat", difficulty.BALANCED} <= found.keys()
    made = made_evidence("digits", [CLAIMS["fvo_grows"], CLAIMS["activations_alike"]], [0])
    assert [audit.precisions[-1] for audit in (made[BASE][0], made[ACTIVATIONS][0])] == ["int2", "W4A4"]


def test_a_further_experiment_without_a_record_is_left_out(calls, folder, capsys):
    samples.random_audit().save(folder / file_name("mine"))
    columns = live_and_recorded_evidence("digits", ["mine", "yours"], [CLAIMS["fvo_grows"]], [0])
    assert list(columns) == ["live: digits", "record: mine"]
    assert "no record 'yours'; known: mine: it is left out" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="no record 'yours'"):
        live_and_recorded_evidence("digits", ["yours"], [CLAIMS["fvo_grows"]], [0])


def test_where_the_images_are_the_record_is_made(calls, folder):
    samples.random_audit().save(folder / file_name("more"))
    columns = live_and_recorded_evidence("digits", ["mine", "more"], [CLAIMS["fvo_grows"]], [0], "images")
    assert list(columns) == ["live: digits", "as the record, live: mine", "record: more"]
    assert [options["data_dir"] for _, _, options in calls] == [None, "images"]
