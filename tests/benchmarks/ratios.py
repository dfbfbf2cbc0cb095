"""Medians of interleaved runs in one process: what a ratio between two ways of computing is made of."""

import statistics
import time


def interleaved(ways, runs=9):
    """Median seconds of each way, run in turns.

    Parameters
    ----------
    ways : dict of str to callable
    runs : int
        Counted runs of each, after one that is not counted.
    """
    seconds = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title, seconds, floor, goal=None):
    """Print each way's time as a multiple of the floor's."""
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:44} {value * 1e3:9.1f} ms   {value / seconds[floor]:6.2f}")
    if goal:
        print(f"  asked for: {goal}")
