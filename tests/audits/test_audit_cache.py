"""Audits in the cache: made once, and written down for whoever listens."""

import pytest

import samples
from quantskew.audits.audit import LISTENER, audit_once, taken
from quantskew.experiments import catalogue
from quantskew.experiments.mitigation import mitigate


def test_an_audit_is_made_once(fresh_cache):
    audit = samples.exact_audit({"fp32": [0.9, 0.8]})
    first = audit_once("mine", "abc", lambda path: audit)
    again = audit_once("mine", "abc", lambda path: pytest.fail("made again"))
    assert (first.logits == again.logits).all()
    assert [path.name for path in (fresh_cache / "audits").iterdir()] == ["mine-abc.safetensors"]


def test_every_audit_is_written_down_once_in_order(fresh_cache, tmp_path, monkeypatch):
    monkeypatch.setenv(LISTENER, str(tmp_path / "taken.txt"))
    small = catalogue.get("digits", epochs=1)
    for _ in range(2):
        catalogue.audit(small, ["fp32", "int8"])
        mitigate(small, "ptq", ["fp32", "int4"])
        catalogue.audit(small, ["fp32", "W8A8"])
    names = [path.stem.rsplit("-", 1)[0] for path in taken(tmp_path / "taken.txt")]
    assert names == ["digits", "digits-ptq", "digits"]
    assert all(path.exists() for path in taken(tmp_path / "taken.txt"))


def test_nobody_listens_by_default(tmp_path):
    assert taken(tmp_path / "nowhere.txt") == []
