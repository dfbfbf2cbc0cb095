import json
import platform
import sys
from pathlib import Path

import numpy
import pytest
import torch

import quantskew.training.loop
from quantskew.cache import provenance, source_digest


def test_versions_are_those_that_run():
    versions = provenance()["versions"]
    assert versions["torch"] == torch.__version__.split("+")[0]
    assert versions["numpy"] == numpy.__version__
    assert versions["python"] == platform.python_version()


def test_facts_and_the_command_are_kept(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/quantskew", "audit", "my data"])
    record = provenance(seed=3, quantization={"scheme": "mse"})
    assert record["seed"] == 3
    assert record["command"] == "quantskew audit 'my data'"
    assert json.loads(json.dumps(record)) == record


@pytest.fixture
def digest_of(tmp_path, monkeypatch):
    """The digest of a module with the code given; the module is a real file that Python can find."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(code):
        (tmp_path / "probe_module.py").write_text(code)
        return source_digest.__wrapped__("probe_module")

    return digest


def test_code_counts_and_comments_do_not(digest_of):
    base = digest_of('"""One."""\ndef f():\n    """Two."""\n    return 1\n')
    assert digest_of('"""Three."""\n# Four.\ndef f():\n    """Five."""\n\n    return 1\n') == base
    assert digest_of("def f():\n    return 2\n") != base


def test_the_code_of_imported_modules_counts(digest_of, tmp_path, monkeypatch):
    alone = digest_of("import numpy\n")
    assert digest_of("import numpy\nfrom quantskew.measures import losses\n") != alone
    importing = "from quantskew.training.loop import fit\n"
    before = digest_of(importing)
    # A changed copy of a module that `training` imports, found in place of the real one.
    changed = tmp_path / "files.py"
    changed.write_text(Path(quantskew.cache.__file__).read_text() + "\nEXTRA = 1\n")
    find_spec = quantskew.cache.importlib.util.find_spec

    def find(name):
        spec = find_spec(name)
        if name == "quantskew.cache":
            spec.origin = str(changed)
        return spec

    monkeypatch.setattr(quantskew.cache.importlib.util, "find_spec", find)
    assert digest_of(importing) != before
