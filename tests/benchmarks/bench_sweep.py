"""What a sweep adds to the computing of its cells, and what a second worker gains.

Run as ``python tests/benchmarks/bench_sweep.py`` in the repository, with nothing else running.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import yaml

CHAPTER = "03_softmax"
EPOCHS = 1


def seconds(grid, workers=1):
    """Wall time of a sweep of its own, and its folder."""
    from quantskew.sweeps.sweep import run_sweep

    folder = Path(tempfile.mkdtemp())
    (folder / "grid.yml").write_text(yaml.safe_dump(grid))
    start = time.perf_counter()
    failed = run_sweep(folder / "grid.yml", folder / "out", workers)
    assert not failed, failed
    return time.perf_counter() - start, folder / "out"


def of_chapters():
    """Of one more cell: its time, and its own computing, which papermill has measured of its code."""
    grids = [{CHAPTER: {"product": {"seed": list(range(n)), "seeds": [1]}}} for n in (1, 4)]
    seconds(grids[1])
    (few, _), (many, folder) = map(seconds, grids)
    own = []
    for path in (folder / "cells").rglob(f"{CHAPTER}.ipynb"):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        own.append(sum(cell["metadata"]["papermill"]["duration"] for cell in cells))
    return (many - few) / 3, statistics.mean(own)


def of_audits():
    """Of one of 96 cells: its time with the start of everything, and `catalogue.audit` alone."""
    from quantskew.experiments import catalogue
    from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, Quantizer

    options = {"scheme": ["banner", "symmetric", "mse"], "boundary_precision": [None, "int8"]}
    models = {"experiment": ["digits"], "epochs": [EPOCHS], "seed": list(range(16))}
    seconds({"audit": {"product": models}}, 2)
    whole, _ = seconds({"audit": {"product": {**models, **options, "per_channel": [True]}}})
    own = []
    for seed in range(16):
        start = time.perf_counter()
        for boundary in (None, "int8"):
            for scheme in options["scheme"]:
                experiment = catalogue.get("digits", epochs=EPOCHS, seed=seed)
                chosen = {"scheme": scheme, "boundary_precision": boundary, "fold_batchnorm": True}
                catalogue.audit(experiment, Quantizer.each(DEFAULT_PRECISIONS, **chosen))
        own.append((time.perf_counter() - start) / 6)
    return whole / 96, statistics.median(own)


def of_workers(runs=3):
    """Trainings on one thread by one worker and by two, in turns; of each run the seeds are new."""
    found = {1: [], 2: []}
    for run in range(runs):
        for workers in found:
            first = 100 * run + 50 * workers
            seeds = {"experiment": ["digits"], "seed": list(range(first, first + 16))}
            found[workers].append(seconds({"audit": {"product": seeds}}, workers)[0])
    return [statistics.median(values) for values in found.values()]


def main():
    os.environ.update(QUANTSKEW_CACHE=tempfile.mkdtemp(), TQDM_DISABLE="1", OMP_NUM_THREADS="1")
    whole, own = of_chapters()
    print(
        f"a chapter: {whole:.2f} s a cell, {own:.2f} s its own, overhead {whole - own:.2f} s (asked for: 3)"
    )
    whole, own = of_audits()
    print(
        f"an audit: {whole:.2f} s a cell, {own:.2f} s its own, overhead {whole - own:.2f} s (asked for: 0.5)"
    )
    one, two = of_workers()
    print(f"16 trainings: {one:.1f} s by one worker, {two:.1f} s by two: {one / two:.2f} (asked for: 1.7)")


if __name__ == "__main__":
    main()
