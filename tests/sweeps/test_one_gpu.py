"""One process a GPU; the GPUs are names here, since the choice is an environment variable."""

import os
import subprocess
import sys

import pytest
import torch

from quantskew.sweeps.cells import one_gpu, visible_gpus

HOLDER = """
import os, sys, time
from quantskew.sweeps.cells import one_gpu
with one_gpu(["0", "1"]) as name:
    print(name, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch, fresh_cache):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_two_processes_take_different_gpus_and_a_killed_one_frees_its_own():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holders = [subprocess.Popen([sys.executable, "-c", HOLDER], **pipes) for _ in range(2)]
    held = [holder.stdout.readline().split() for holder in holders]
    assert sorted(held) == [["0", "0"], ["1", "1"]]
    holders[0].kill()
    holders[0].wait()
    with one_gpu(["0", "1"]) as name:
        assert name == held[0][0] == os.environ["CUDA_VISIBLE_DEVICES"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    holders[1].communicate("")
    for holder in holders:
        holder.stdin.close()
        holder.stdout.close()


def test_a_choice_that_was_made_before_comes_back(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with one_gpu(["3"]):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


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
