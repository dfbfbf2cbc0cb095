"""Running cells in this process: results, logs, errors and what a second run leaves alone."""

import json
import os

import pytest

from quantskew.audits.audit import Audit
from quantskew.sweeps import cells
from quantskew.sweeps.cells import PLAN, cell_folder, result_of, run_job

QUICK = {"name": "digits", "epochs": 1}


@pytest.fixture
def folder(tmp_path, fresh_cache, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sweep"


def plan(folder, **parts):
    """A plan of audits: of each its options and whether its experiment has a label that there is."""
    made = {}
    for name, options in parts.items():
        experiment = QUICK | ({"label": "nobody"} if options is None else {})
        described = {"task": "audit", "parameters": options, "key": "k", "experiment": experiment}
        made[name] = {**described, "options": options or {"quantizers": ["fp32", "int8"]}}
    content = {"root": str(folder.parent), "timeout": None, "gpus": [], "cells": made}
    content["jobs"] = {"job": {"cells": list(made), "gpu": 0}}
    folder.mkdir(exist_ok=True)
    (folder / PLAN).write_text(json.dumps(content))


def test_a_batch_goes_on_after_a_cell_that_fails(folder):
    plan(folder, bad=None, good={"quantizers": ["fp32", "int3"]})
    run_job(folder, "job")
    assert (cell_folder(folder, "bad") / "error.txt").read_text() == (
        "ValueError: unknown label 'nobody' of digits; known: digit"
    )
    assert "Traceback" in (cell_folder(folder, "bad") / "log.txt").read_text()
    result = result_of(folder, "good", "k")
    assert [audit["audited"] for audit in result["audits"]] == ["digits seed 0"]
    assert result["seconds"] > 0
    assert Audit.load(cell_folder(folder, "good") / "audit.safetensors").precisions == ("fp32", "int3")
    assert "done in" in (cell_folder(folder, "good") / "log.txt").read_text()


def test_a_cell_that_is_done_or_has_failed_is_left_alone(folder, monkeypatch):
    plan(folder, bad=None, good={"quantizers": ["fp32"]})
    run_job(folder, "job")
    monkeypatch.setattr(cells, "_execute", lambda *_: pytest.fail("run again"))
    run_job(folder, "job")


def test_a_result_of_other_code_counts_as_none(folder):
    plan(folder, good={"quantizers": ["fp32"]})
    run_job(folder, "job")
    assert result_of(folder, "good", "k") is not None
    assert result_of(folder, "good", "another") is None
    assert result_of(folder, "nobody", "k") is None


def test_a_cell_in_which_the_process_was_killed_is_not_tried_again_by_the_same_job(folder, killed):
    plan(folder, deadly={"quantizers": ["fp32"]}, good={"quantizers": ["fp32"]})
    script = (
        "import os, signal, sys; from quantskew.experiments import catalogue;"
        "catalogue.audit = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL);"
        "from quantskew.sweeps.cells import run_job; run_job(sys.argv[1], 'job')"
    )
    killed(script, folder)
    run_job(folder, "job")
    assert "was killed while it ran" in (cell_folder(folder, "deadly") / "error.txt").read_text()
    assert result_of(folder, "good", "k") is not None


def test_output_of_child_processes_is_in_the_log(folder, monkeypatch, capfd):
    plan(folder, noisy={"quantizers": ["fp32"]})
    monkeypatch.setattr(cells, "_execute", lambda *_: os.system("echo from a child") and [])
    run_job(folder, "job")
    assert "from a child" in (cell_folder(folder, "noisy") / "log.txt").read_text()
    assert capfd.readouterr().out == ""
