"""Small sweeps: a chapter that makes an Audit in no time and can kill, and a process that runs a sweep."""

import json
import os
import subprocess
import sys

from quantskew.sweeps.cells import PLAN, run_job
from quantskew.sweeps.grid import read_grid
from quantskew.sweeps.sweep import described, jobs
from quantskew.sweeps.table import write_table

CHAPTER = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
---

```{code-cell} ipython3
:tags: [parameters]

target: str = "nobody"  # whom to kill, once
seed: int = 0
```

```{code-cell} ipython3
import os, signal, time
from pathlib import Path

import numpy as np
import psutil

from quantskew.audits.audit import Audit
from quantskew.audits.audit import audit_once
```

```{code-cell} ipython3
armed = Path("armed") / target
if armed.exists():
    armed.unlink()
    here = psutil.Process()
    scheduler = [p for p in here.parents() if "snakemake" in p.cmdline()][0]
    victim = {"kernel": here, "worker": here.parent(), "scheduler": scheduler}[target]
    victim.send_signal(signal.SIGKILL)
while Path("hold").exists():
    time.sleep(0.05)
```

```{code-cell} ipython3
def make(_):
    with open("made.txt", "a") as notes:
        notes.write(f"{seed}\\\\n")
    time.sleep(0.5)
    rng = np.random.default_rng(seed)
    labels, facts = rng.integers(0, 3, 60), {"experiment": {"name": "made", "recipe": {"seed": seed}}}
    logits = {name: rng.normal(size=(60, 3)) for name in ("fp32", "int4")}
    return Audit.from_logits(logits, labels, rng.integers(0, 2, 60), provenance=facts)
```

```{code-cell} ipython3
audit = audit_once("made", str(seed), make)
```
"""


def small_root(folder):
    """A repository with one chapter, `00_made`."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "00_made.md").write_text(CHAPTER.replace("\\\\n", "\\n"))
    (folder / "armed").mkdir()
    return folder


def run_here(grid, folder, root):
    """Run the cells of a grid one after the other in this process, and write their table."""
    cells = read_grid(grid, root)
    plan = {"root": str(root), "timeout": None, "gpus": [], "cells": described(cells, root)}
    plan["jobs"] = jobs(cells, 1)
    folder.mkdir()
    (folder / PLAN).write_text(json.dumps(plan))
    for job in plan["jobs"]:
        run_job(folder, job)
    write_table(folder)


def start(grid, folder, root, workers=2):
    """The command line in a process of its own."""
    script = (
        "import sys; from quantskew.sweeps.sweep import run_sweep; run_sweep(*sys.argv[1:3], 2, sys.argv[3])"
    )
    command = [sys.executable, "-c", script.replace("2, sys", f"{workers}, sys"), grid, folder, root]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=os.environ)
