"""Records are found by name and by path, and shown beside a live Audit."""

import pytest

import samples
from quantskew import records


def test_records_are_found_from_within_the_repository(tmp_path, monkeypatch):
    folder = tmp_path / "book" / "records"
    folder.mkdir(parents=True)
    samples.random_audit().save(folder / "first.safetensors")
    (tmp_path / "book" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "book" / "deep")
    assert records.record("first").precisions == ("fp32", "int8", "int2")
    assert records.record(str(folder / "first.safetensors")).group_names[0] == "group 0"
    with pytest.raises(FileNotFoundError, match="no record 'second'; known: first"):
        records.record("second")
    with pytest.raises(FileNotFoundError, match="no Audit at"):
        records.record(str(folder / "second.safetensors"))


def test_a_record_is_shown_at_the_precisions_that_it_has(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    pair = records.live_and_record("digits", "utkface", ["fp32", "int6", "int3"])
    assert [audit.precisions for audit in pair.values()] == [("fp32", "int6", "int3"), ("fp32", "int3")]
    assert "the record utkface has no int6" in capsys.readouterr().out


def test_a_pair_without_a_record_names_the_known_ones(repository, monkeypatch):
    monkeypatch.chdir(repository)
    with pytest.raises(FileNotFoundError, match="no record 'nobody'; known: utkface"):
        records.live_and_record("digits", "nobody", ["fp32", "int3"])
