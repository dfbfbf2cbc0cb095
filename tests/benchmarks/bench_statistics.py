"""Seconds and memory of ``quantskew audit --logits`` on one thread, beside what is asked for.

Run as ``python tests/benchmarks/bench_statistics.py [SAMPLESxCLASSESxGROUPS ...]``; by default all rows.
"""

import contextlib
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time

import numpy as np
from ratios import enter

# Samples, classes, groups: seconds and GB that are asked for.
ROWS = {
    "200000x10x5": (10, 1),
    "10000x100x100": (15, 1),
    "200000x100x20": (60, 4),
    "200000x1000x5": (60, 4),
    "50000x1000x1000": (60, 4),
    "1000000x10x8": (60, 3),
}
CHANGE = (0.2, 0.3)


def main():
    os.environ["OMP_NUM_THREADS"] = "1"
    print("audit --logits at two precisions, 1 thread: samples x classes x groups")
    for row in sys.argv[1:] or ROWS:
        say(row, run(report, run(made, *map(int, row.split("x")))), ROWS.get(row))
    if not sys.argv[1:]:
        say("fvo_change of 100,000 samples, above what the Audit takes", run(change), CHANGE)


def say(what, measured, goal):
    name = f"audit of {what}" if "x" in what.split(" ")[0] else what.partition(",")[0]
    line = f"  {what:60} {measured[0]:7.2f} s {measured[1]:6.2f} GB"
    if goal:
        for value, limit, unit in zip(measured, goal, ("s of one processor", "GB"), strict=True):
            enter(f"{name}, {'memory' if unit == 'GB' else 'time'}", value, unit, limit)
        reached = measured[0] <= goal[0] and measured[1] <= goal[1]
        line += f"   goal {goal[0]:g} s {goal[1]:g} GB   {'reached' if reached else 'not reached'}"
    print(line, flush=True)


def run(what, *sizes):
    """What a function gives in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(what, sizes)


def made(samples, classes, groups):
    """Files of logits that are better than chance, at two precisions that differ a little."""
    rng, folder = np.random.default_rng(0), tempfile.mkdtemp()
    logits, labels = rng.standard_normal((samples, classes), np.float32), rng.integers(0, classes, samples)
    logits[np.arange(samples), labels] += 2
    np.save(f"{folder}/fp32.npy", logits)
    logits += 0.3 * rng.standard_normal((samples, classes), np.float32)
    np.save(f"{folder}/int8.npy", logits)
    np.save(f"{folder}/labels.npy", labels)
    np.save(f"{folder}/groups.npy", rng.integers(0, groups, samples))
    return folder


def report(folder):
    """Seconds of the processor (of one thread, so that a busy machine counts less) and largest memory."""
    from quantskew import cli

    start = time.process_time()
    command = ["audit"]
    for name in ("fp32", "int8"):
        command += ["--logits", f"{name}={folder}/{name}.npy"]
    for name in ("labels", "groups", "output"):
        command += [f"--{name}", f"{folder}/{name}" + ".npy" * (name != "output")]
    with contextlib.redirect_stdout(io.StringIO()):
        assert not cli.main(command)
    return time.process_time() - start, peak()


def change():
    from quantskew.audits.audit import Audit
    from quantskew.measures.fairness import fvo

    rng = np.random.default_rng(0)
    logits = rng.standard_normal((100_000, 10), np.float32)
    audit = Audit.from_logits(
        {"fp32": logits, "int8": logits + 0.3 * rng.standard_normal(logits.shape, np.float32)},
        rng.integers(0, 10, 100_000),
        rng.integers(0, 5, 100_000),
    )
    before, start = peak(), time.process_time()
    fvo.change(audit)
    return time.process_time() - start, peak() - before


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
