"""What a sweep has to do: the cells of a grid that are not done yet, in jobs for Snakemake."""

import math

import torch

from quantskew.base.files import digest
from quantskew.base.provenance import source_digest
from quantskew.pages.chapters import chapter_key, surroundings
from quantskew.pages.text_notebooks import read_text_notebook
from quantskew.sweeps.cells import AUDIT, result_of
from quantskew.sweeps.grid_cells import split_audit

# Starting a process costs some three seconds, so that of eight audits each bears less than half a second.
_LEAST_AUDITS = 8
# Batches for each worker: enough that all end at about the same time.
_BATCHES_EACH = 4


def described(cells, root):
    """The cells as a plan has them.

    Parameters
    ----------
    cells : list of Cell
    root : pathlib.Path

    Returns
    -------
    dict of str to dict
        By id: ``task``, ``parameters`` (see `quantskew.sweeps.grid_cells.Cell`), ``given``, ``settings``
        (defaults included), ``key``, a digest of all that the result depends on, and of an audit
        ``experiment`` and ``options`` (see `quantskew.sweeps.grid_cells.split_audit`).
    """
    code = source_digest("quantskew.studies.experiments", "quantskew.measures.audit_rows")
    surrounding = surroundings(root)
    plan = {}
    for cell in cells:
        settings = {**cell.defaults, **cell.given}
        facts = {"task": cell.task, "parameters": cell.parameters, "given": cell.given, "settings": settings}
        if cell.task == AUDIT:
            facts["experiment"], facts["options"] = split_audit(cell.parameters)
            facts["key"] = digest([cell.parameters, code, torch.__version__])
        else:
            text = read_text_notebook(root / "notebooks" / f"{cell.task}.md")
            facts["key"] = chapter_key(text, cell.parameters, surrounding)
        plan[cell.id] = facts
    return plan


def pending(folder, plan):
    """Ids of the cells that have no result yet."""
    return [name for name, cell in plan.items() if result_of(folder, name, cell["key"]) is None]


def jobs(cells, workers, gpus=()):
    """The cells that are to be run, in jobs: each chapter is one, audits come in batches.

    Parameters
    ----------
    cells : list of Cell
        Those to be run.
    workers : int
        How many jobs run at once.
    gpus : sequence of str
        Names of those that jobs have to share.

    Returns
    -------
    dict of str to dict
        By name: ``cells``, a list of ids, and ``gpu``, how many the job holds: 0 or 1.
    """
    # Audits of the same model stand together, so that fewer batches wait for it to be trained.
    first = {}
    audits = [cell for cell in cells if cell.task == AUDIT]
    audits.sort(key=lambda cell: first.setdefault(cell.model, len(first)))
    size = batch_size(len(audits), workers)
    batches = {cell.id: [cell.id] for cell in cells if cell.task != AUDIT}
    for start in range(0, len(audits), size):
        ids = [cell.id for cell in audits[start : start + size]]
        batches[f"audits-{digest(ids)[:10]}"] = ids
    on_gpu = {cell.id for cell in cells if gpus and cell.given.get("device", "auto") != "cpu"}
    return {job: {"cells": ids, "gpu": int(not on_gpu.isdisjoint(ids))} for job, ids in batches.items()}


def batch_size(count, workers):
    """How many of `count` audits share a process.

    Enough that its start costs little, but not so many that a worker has nothing to do.

    Examples
    --------
    >>> batch_size(1000, workers=2), batch_size(6, workers=2), batch_size(40, workers=2)
    (125, 3, 8)
    """
    enough = min(_LEAST_AUDITS, math.ceil(count / workers))
    return max(enough, math.ceil(count / (_BATCHES_EACH * workers)), 1)
