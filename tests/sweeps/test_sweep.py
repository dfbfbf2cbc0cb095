"""Real runs of Snakemake on small grids: killed, twice at once, with a failing cell, and dry on Slurm."""

import contextlib
import importlib.util
import re
import signal
import time

import pandas as pd
import psutil
import pytest

import sweep_runs
from quantskew.sweeps import sweep
from quantskew.sweeps.sweep import run_sweep

AUDITS = """
audit:
  product: {experiment: [digits], epochs: [1], scheme: [banner, mse], precisions: [[fp32, int3]]}
"""
# What no check can foresee.
FAILING = "  cells: [{experiment: digits, epochs: 1, learning_rate: 1.0e+30}]"
DEADLY = "00_made: {product: {target: [kernel, worker, scheduler], seed: [7]}}"
SHARED = "00_made: {product: {target: [a, b], seed: [7]}}"
ONE = "00_made: {product: {target: [a], seed: [7]}}"


@pytest.fixture
def root(tmp_path, fresh_cache):
    return sweep_runs.small_root(tmp_path / "root")


def grid(root, text):
    (root / "grid.yml").write_text(text)
    return root / "grid.yml"


def test_audits_are_run_gathered_and_not_run_again(root, tmp_path):
    path, folder = grid(root, AUDITS), tmp_path / "out"
    assert run_sweep(path, folder, 1, root) == {}
    table = pd.read_parquet(folder / "table.parquet")
    assert set(table["scheme"]) == {"banner", "mse"}
    assert set(table["epochs"]) == {1}
    first = (folder / "table.csv").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("result.json")}
    (folder / sweep._LOG).unlink()
    assert run_sweep(path, folder, 1, root) == {}
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("result.json")} == stamps
    assert (folder / "table.csv").read_bytes() == first
    assert not (folder / sweep._LOG).exists(), "Snakemake ran although nothing was to be done"
    # A grid that grows runs what is new.
    more = AUDITS.replace("mse]", "mse, symmetric]")
    failed = run_sweep(grid(root, more + FAILING), folder, 1, root)
    assert list(failed.values()) == [
        "ValueError: the training loss became nan in epoch 0; a lower learning_rate than 1e+30 may help"
    ]
    assert set(pd.read_parquet(folder / "table.parquet")["scheme"]) == {"banner", "mse", "symmetric"}
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_after_kill_9_of_anything_the_same_command_gives_the_same_table(root, tmp_path, monkeypatch):
    path = grid(root, DEADLY)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    with monkeypatch.context() as patch:
        patch.chdir(root)
        patch.setenv("TQDM_DISABLE", "1")
        sweep_runs.run_here(path, undisturbed, root)
    for victim in ("kernel", "worker", "scheduler"):
        (root / "armed" / victim).touch()
    errors, failed = [], True
    # Snakemake chooses the order; a worker may outlive its scheduler and end its cell all the same.
    while failed:
        try:
            failed = run_sweep(path, disturbed, 1, root)
        except RuntimeError as error:
            failed = {"scheduler": str(error)}
        errors += failed.values()
    assert list((root / "armed").iterdir()) == []
    for expected in ("its kernel died", "was killed while it ran"):
        assert expected in "".join(errors)
    for name in ("table.csv", "table.parquet"):
        assert (disturbed / name).read_bytes() == (undisturbed / name).read_bytes()


def test_after_kill_9_of_the_command_itself_no_process_stays(root, tmp_path):
    path, folder = grid(root, SHARED), tmp_path / "out"
    (root / "hold").touch()
    process = sweep_runs.start(path, folder, root, 1)
    until(lambda: list(folder.rglob("started")))
    # The kernel too, which is in a session of its own.
    until(lambda: any("ipykernel" in " ".join(one.cmdline()) for one in children(process)))
    family = [psutil.Process(process.pid), *children(process)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not any(map(lives, family)), 20)
    (root / "hold").unlink()
    second = sweep_runs.start(path, folder, root, 1)
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert pd.read_csv(folder / "table.csv")["target"].unique().tolist() == ["a", "b"]
    assert [path.name for path in folder.rglob("started")] == []
    assert (root / "made.txt").read_text() == "7\n"


def lives(process):
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_two_sweeps_at_once_make_what_they_share_once(root, tmp_path):
    path = grid(root, ONE)
    processes = [sweep_runs.start(path, tmp_path / name, root) for name in ("one", "two")]
    for process in processes:
        assert "Traceback" not in process.communicate(timeout=120)[1]
        assert process.returncode == 0
    assert (root / "made.txt").read_text() == "7\n"
    one, two = (tmp_path / name / "table.csv" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_dry_run_on_slurm_plans_every_job(root, tmp_path, capfd):
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("needs snakemake-executor-plugin-slurm")
    path = grid(root, DEADLY + AUDITS)
    assert run_sweep(path, tmp_path / "out", 4, root, "slurm", passed=["--dry-run"]) == {}
    printed = "".join(capfd.readouterr())
    assert re.search(r"^cells\s+5$", printed, re.MULTILINE), printed
    assert "mem_mb=4000" in printed
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.parametrize(
    ("executor", "gpus", "limited"), [(None, [], False), (None, ["0", "1"], True), ("slurm", [], False)]
)
def test_here_no_more_jobs_run_than_there_are_gpus(executor, gpus, limited, tmp_path):
    command = sweep._command(tmp_path, 8, executor, gpus, ["--retries", "1"])
    assert ("gpu=2" in command) == limited
    assert command[-2:] == ["--retries", "1"]


def test_a_dry_run_that_snakemake_refuses_says_so(root, tmp_path):
    with pytest.raises(RuntimeError, match="refused this dry run"):
        run_sweep(grid(root, AUDITS), tmp_path / "out", 1, root, passed=["--dry-run", "--no-such"])


def test_what_is_missing_is_named(root, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="--jobs must be at least 1; got 0"):
        run_sweep(grid(root, AUDITS), tmp_path / "out", 0, root)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=re.escape('pip install "quantskew[book,sweep]"')):
        run_sweep(grid(root, AUDITS), tmp_path / "out", 1, root)


def test_options_that_snakemake_refuses_are_shown(root, tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)2 of 2 cells to do.*unrecognized arguments: --no-such"):
        run_sweep(grid(root, AUDITS), tmp_path / "out", 1, root, passed=["--no-such"])


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
