"""Running cells in this process: results, logs, errors, what a second run leaves alone, and a GPU for each.

GPUs are names here, since the choice of one is an environment variable.
"""

import json
import logging
import os
import subprocess
import sys
import threading

import pytest
import torch

import samples
from quantskew.audits.audit import Audit
from quantskew.sweeps import cells
from quantskew.sweeps.cells import PLAN, cell_folder, one_gpu, result_of, run_job, visible_gpus

HOLDER = """
import os, sys, time
from quantskew.sweeps.cells import one_gpu
with one_gpu(["0", "1"]) as name:
    print(name, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.read()
"""
QUICK = {"name": "digits", "epochs": 1}


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch, fresh_cache):
    # It comes back after the test, also where it was not there.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


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


def test_two_processes_take_different_gpus_and_a_killed_one_frees_its_own():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holders = [subprocess.Popen([sys.executable, "-c", HOLDER], **pipes) for _ in range(2)]
    held = [holder.stdout.readline().split() for holder in holders]
    assert sorted(held) == [["0", "0"], ["1", "1"]]
    holders[0].kill()
    holders[0].wait()
    with one_gpu(["0", "1"]) as name:
        assert name == held[0][0] == os.environ["CUDA_VISIBLE_DEVICES"]
    holders[1].communicate("")
    for holder in holders:
        holder.stdin.close()
        holder.stdout.close()


def test_who_waits_for_a_gpu_says_so_once(caplog):
    caplog.set_level(logging.INFO)
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=-1, stdout=-1, text=True) as first:
        held = first.stdout.readline().split()[0]
        threading.Timer(2.5, first.stdin.close).start()
        with one_gpu([held]):
            pass
    assert caplog.text.count(f"waiting for a GPU: other processes have {held}") == 1


def test_what_comes_from_the_cache_is_in_the_log_of_a_cell(folder):
    plan(folder, quick={"quantizers": ["fp32", "int8"]})
    run_job(folder, "job")
    (cell_folder(folder, "quick") / "result.json").unlink()
    subprocess.run([sys.executable, "-m", "quantskew.sweeps.cells", str(folder), "job"], check=True)
    assert "from the cache, made on" in (cell_folder(folder, "quick") / "log.txt").read_text()


def test_without_a_gpu_nothing_is_held(fresh_cache):
    with one_gpu([]) as name:
        assert name is None
    assert not (fresh_cache / "gpus").exists()


@pytest.mark.parametrize(
    ("count", "choice", "names"),
    [(0, None, []), (2, None, ["0", "1"]), (2, "2,3", ["2", "3"]), (1, "GPU-a,GPU-b", ["GPU-a"])],
)
def test_visible_gpus_are_those_that_were_chosen(count, choice, names, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if choice:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", choice)
    assert visible_gpus() == names


def test_a_cell_whose_result_or_audit_is_gone_or_damaged_is_not_done(folder, caplog):
    plan(folder, good={"quantizers": ["fp32"]})
    run_job(folder, "job")
    result = result_of(folder, "good", "k")
    for name in ("result.json", "audit.safetensors"):
        path = cell_folder(folder, "good") / name
        whole = path.read_bytes()
        for content in (*samples.damaged(whole, places=10), None):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            found = result_of(folder, "good", "k")
            # The last digits of a number may be others of the same number.
            if found is not None:
                assert name == "result.json"
                assert found == result
                continue
            if content is not None or name != "result.json":
                assert "cell good counts as not done" in caplog.records[-1].getMessage()
        path.write_bytes(whole)
        assert result_of(folder, "good", "k") == result
