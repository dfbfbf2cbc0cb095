"""Where records come from; the record of the digits is made again here."""

import dataclasses

import numpy as np
import pytest

import samples
from quantskew.audits.audit import Audit
from quantskew.book.reproduction import agreement, overview
from quantskew.cache import provenance
from quantskew.experiments import catalogue


def write(folder, name, **facts):
    audit = dataclasses.replace(samples.random_audit(), provenance=facts)
    audit.save(folder / f"{name}.safetensors")
    return audit


def row_of(folder, **facts):
    write(folder, "mine", **facts)
    (row,) = overview(folder).to_dict("records")
    return row


def test_every_record_of_the_book_is_listed(repository, monkeypatch):
    monkeypatch.chdir(repository / "notebooks")
    table = overview()
    files = {path.name for path in (repository / "book" / "records").glob("*.safetensors")}
    assert set(table["file"]) == files
    assert len(table) == len(files)
    rows = table.set_index("file")
    first = rows.loc["utkface.safetensors"]
    assert (first["model"], first["seed"], first["images"], first["curvature"]) == ("resnet18", 0, 4741, 256)
    assert first["precisions"] == "fp32, fp16, int8, int4, int3, int2"
    assert first["method"] == "PTQ, scheme banner"
    assert rows.loc["utkface-mpqat.safetensors", "method"] == "MPQAT"
    assert (
        rows.loc["utkface-cut-Asian.safetensors", "method"] == "PTQ, Asian cut to 185 of 1,100, scheme banner"
    )
    assert rows.loc["digits.safetensors", "threads"] == "1"
    # PTQ and MPQAT start from one float model, U-O has another.
    references = rows["reference"]
    assert references["utkface-ptq.safetensors"] == references["utkface-mpqat.safetensors"]
    assert references["utkface-ptq.safetensors"] != references["utkface-u-o.safetensors"]


def test_seeds_stand_behind_each_other(tmp_path):
    for name in ("a-1", "a_gender", "a-ptq", "a", "a-ptq-1", "b"):
        write(tmp_path, name)
    files = [name.removesuffix(".safetensors") for name in overview(tmp_path)["file"]]
    assert files == ["a", "a-1", "a-ptq", "a-ptq-1", "a_gender", "b"]


def test_a_record_of_logits_says_what_is_not_known(tmp_path):
    row = row_of(tmp_path, source="logits")
    unknown = {name for name, value in row.items() if value == "not recorded"}
    assert unknown == {
        *("experiment", "model", "method", "seed"),
        *("machine", "threads", "versions", "command"),
    }
    assert np.isnan(row["minutes"])
    assert row["other"] == "none"
    assert (row["precisions"], row["images"]) == ("fp32, int8, int2", 120)


def test_training_and_retraining_take_minutes(tmp_path):
    row = row_of(tmp_path, training_seconds=90.0)
    assert (row["minutes"], row["retraining"]) == (1.5, 0)
    row = row_of(tmp_path, training_seconds=90.0, retraining_seconds=30.0)
    assert (row["minutes"], row["retraining"]) == (1.5, 0.5)


def test_other_versions_are_reported(tmp_path):
    facts = provenance()
    assert row_of(tmp_path, **facts)["other"] == "none"
    facts["versions"] |= {"torch": "1.0", "gone": "2"}
    row = row_of(tmp_path, **facts)
    assert row["other"] == "gone 2, torch 1.0"
    assert "torch 1.0" in row["versions"]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"method": {"title": "Fair QAT"}, "quantization": {"scheme": "mse"}}, "Fair QAT"),
        (
            {"quantization": {"scheme": "mse", "per_channel": True, "fold_batchnorm": False}},
            "PTQ, per channel, scheme mse",
        ),
        ({"quantization": {"boundary_precision": "int8", "columns": {}}}, "PTQ, boundary precision int8"),
        ({"quantization": {"calibration_images": 256}}, "PTQ, calibration images 256"),
        ({"quantizers": ["fp32", "int4:mse,per-channel"]}, "PTQ, per channel, scheme mse"),
        ({"quantizers": ["fp32", "int4", "int4:mse"]}, "PTQ, columns fp32 int4 int4:mse"),
        ({"experiment": {"targets": "mean"}}, "PTQ"),
        ({"experiment": {"targets": [50, 50, 50]}}, "PTQ, 50 training images per group"),
        ({"experiment": {"targets": [5000, 9, 5000]}}, "PTQ, group 1 cut to 9 of 5,000"),
    ],
)
def test_methods_are_told_in_words(facts, expected, tmp_path):
    assert row_of(tmp_path, **{"experiment": {}, **facts})["method"] == expected


def test_experiments_are_told_with_their_attributes(tmp_path):
    gender = catalogue.get("utkface", label="gender", group="ethnicity", model="mobilenet_v2", seed=3)
    row = row_of(tmp_path, experiment=dataclasses.asdict(gender), device="NVIDIA H200")
    assert row["experiment"] == "utkface, label gender, group ethnicity"
    assert (row["model"], row["seed"], row["threads"]) == ("mobilenet_v2", 3, "NVIDIA H200")


def test_what_cannot_be_listed_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no records in .*; run from within the repository"):
        overview(tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"broken\.safetensors is not a whole Audit"):
        overview(tmp_path)


def test_an_audit_agrees_with_itself():
    audit = samples.random_audit()
    table = agreement(audit, audit.select(["int2", "fp32"]))
    assert table["precision"].tolist() == ["fp32", "int2"]
    assert table["identical"].tolist() == [1, 1]
    assert table["difference"].tolist() == [0, 0]
    assert table["outside"].tolist() == ["none", "none"]


def test_the_last_bit_counts():
    audit = samples.random_audit()
    logits = audit.logits.copy()
    logits[1, :30] = np.nextafter(logits[1, :30], np.float32(np.inf))
    table = agreement(audit, dataclasses.replace(audit, logits=logits))
    assert table["identical"].tolist() == [1, 0.75, 1]
    assert table["difference"].tolist() == [0, 0, 0]


def test_groups_that_differ_are_named():
    kept = samples.exact_audit({"fp32": (0.9, 0.9, 0.5), "int8": (0.9, 0.9, 0.5)})
    again = samples.exact_audit({"fp32": (0.85, 1.0, 0.5), "int8": (0.2, 0.9, 1.0)})
    table = agreement(kept, again)
    assert table["outside"].tolist() == ["none", "group 0, group 2"]
    np.testing.assert_allclose(table["difference"], [0.1, 0.7])


def test_equal_accuracies_seldom_seem_to_differ():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        pair = [
            samples.exact_audit({p: rng.binomial(60, 0.8, 8) / 60 for p in ("fp32", "int8")}, count=60)
            for _ in range(2)
        ]
        alarms += any(agreement(*pair)["outside"] != "none")
    assert alarms <= 0.08 * 200


def test_other_images_are_refused():
    audit = samples.random_audit()
    with pytest.raises(ValueError, match="not of the same test images"):
        agreement(audit, samples.random_audit(seed=1))
    with pytest.raises(ValueError, match="share no precision; one has fp32, the other int8"):
        agreement(audit.select(["fp32"]), audit.select(["int8"]))


def test_no_group_is_not_missed():
    audit = samples.uneven_audit()
    assert agreement(audit, audit)["outside"].tolist() == ["none", "none"]


@pytest.fixture(scope="module")
def made_twice(tmp_path_factory):
    """The experiment of the record, trained and audited in two empty caches."""
    audits = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("QUANTSKEW_CACHE", str(tmp_path_factory.mktemp("cache")))
            audits.append(catalogue.audit("digits", device="cpu"))
    return audits


def test_what_is_made_twice_on_one_machine_is_equal_to_the_last_bit(made_twice):
    first, second = made_twice
    for name in ("logits", "labels", "groups", "train_counts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    arrays = second.weights.arrays()
    assert len(arrays) == 6
    for name, array in first.weights.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
    assert first.provenance["history"] == second.provenance["history"]


def test_the_record_of_the_digits_is_made_again(made_twice, repository):
    kept = Audit.load(repository / "book" / "records" / "digits.safetensors")
    table = agreement(kept.select(["fp32", "int8"]), made_twice[0])
    assert table["outside"].tolist() == ["none", "none"]
    # The comparison can fail: a model that is broken by two bits is told from a whole one.
    broken = dataclasses.replace(kept.select(["int2"]), precisions=("fp32",))
    assert agreement(kept, broken)["outside"].tolist() != ["none"]


def test_the_record_of_the_digits_is_small_and_of_the_named_experiment(repository):
    path = repository / "book" / "records" / "digits.safetensors"
    assert path.stat().st_size < 400_000
    recipe = Audit.load(path).provenance["experiment"]["recipe"]
    assert recipe == dataclasses.asdict(catalogue.get("digits").recipe)
