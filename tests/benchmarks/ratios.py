"""Medians of interleaved runs in one process, and the table of all benchmarks, which the book shows.

Run as ``python tests/benchmarks/ratios.py`` it prints the table.
"""

import csv
import os
import platform
import statistics
import time
from pathlib import Path

RECORD = Path(__file__).parents[2] / "book" / "records" / "speed.csv"
FIELDS = ("work", "measured", "unit", "goal", "reached", "machine")


def interleaved(ways, runs=9, clock=time.perf_counter):
    """Median seconds of each way, run in turns.

    Parameters
    ----------
    ways : dict of str to callable
    runs : int
        Counted runs of each, after one that is not counted.
    clock : callable
        What the seconds are of.
    """
    seconds = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if run:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title, seconds, floor, goal=None):
    """Print each way's time as a multiple of the floor's."""
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:44} {value * 1e3:9.1f} ms   {value / seconds[floor]:6.2f}")
    if goal:
        print(f"  asked for: {goal}")


def enter(work, measured, unit, goal):
    """Put a line into the table, in the place of that of the same work; `unit`: a floor, a peer, s or GB."""
    rows = {row["work"]: row for row in table()}
    reached = "yes" if measured <= goal else "no"
    values = (work, f"{measured:.2f}", unit, f"{goal:g}", reached, machine())
    rows[work] = dict(zip(FIELDS, values, strict=True))
    with RECORD.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def table():
    """The lines of the record, dicts of text."""
    return list(csv.DictReader(RECORD.read_text(encoding="utf-8").splitlines())) if RECORD.exists() else []


def machine():
    """Processor, cores, threads, and how many processes wanted the cores in the last minutes."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    threads, load = os.environ.get("OMP_NUM_THREADS", "all"), os.getloadavg()[1]
    name = names[0] if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {threads} thread(s), load {load:.0f}"


def _lines(path):
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def main():
    for row in [dict(zip(FIELDS, FIELDS, strict=True)), *table()]:
        print(f"{row['work']:58} {row['measured']:>8} {row['unit']:26} {row['goal']:>6} {row['reached']}")


if __name__ == "__main__":
    main()
