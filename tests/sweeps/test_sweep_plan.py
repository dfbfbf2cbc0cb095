"""Jobs: chapters one by one, audits in batches that share models and keep every worker busy."""

from pathlib import Path

import pytest

from quantskew.book import chapters
from quantskew.sweeps.grid import Cell, audit_cell
from quantskew.sweeps.sweep import batch_size, described, jobs, pending


def audits(count, **given):
    return [audit_cell({"experiment": "digits", "seed": seed, **given}, Path()) for seed in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 9, 100, 1000])
def test_every_worker_has_a_batch_and_starts_cost_little(count, workers):
    size = batch_size(count, workers)
    batches = -(-count // size)
    assert batches <= count
    # A start costs three seconds and an audit may cost half a second more, unless workers would be idle.
    assert size >= 6 or batches >= min(count, 0.6 * workers)


def test_every_cell_is_in_one_job():
    cells = [
        *audits(20),
        Cell("04_loss", {"seed": 1}, {"seed": 0}),
        Cell("04_loss", {"seed": 2}, {"seed": 0}),
    ]
    planned = jobs(cells, 2)
    ids = [name for job in planned.values() for name in job["cells"]]
    assert sorted(ids) == sorted(cell.id for cell in cells)
    assert [job["cells"] for name, job in planned.items() if name.startswith("04_loss")] == [
        [cells[20].id],
        [cells[21].id],
    ]


def test_audits_of_one_model_are_neighbours():
    cells = [cell for scheme in ("banner", "mse") for cell in audits(8, scheme=scheme)]
    by_id = {cell.id: cell.model for cell in cells}
    for job in jobs(cells, 1).values():
        models = [by_id[name] for name in job["cells"]]
        assert len(set(models)) == len(models) / 2


def test_a_job_takes_a_gpu_where_there_is_one_and_it_may():
    free, bound = audits(1), audits(1, device="cpu")
    assert [job["gpu"] for job in jobs(free, 1, ["0"]).values()] == [1]
    assert [job["gpu"] for job in jobs(bound, 1, ["0"]).values()] == [0]
    assert [job["gpu"] for job in jobs(free, 1, []).values()] == [0]


def test_keys_follow_the_code_of_a_chapter(repository, tmp_path, monkeypatch):
    cell = Cell("04_loss", {"seed": 1}, {"seed": 0})
    key = described([cell], repository)[cell.id]["key"]
    assert described([cell], repository)[cell.id]["key"] == key
    monkeypatch.setattr("quantskew.sweeps.sweep.surroundings", lambda root: "other code")
    assert described([cell], repository)[cell.id]["key"] != key
    assert chapters.surroundings(repository) == chapters.surroundings(repository)
    assert pending(tmp_path, described([cell], repository)) == [cell.id]
