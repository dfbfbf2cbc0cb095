"""The results of a sweep in one tidy table: a row for each cell, Audit, precision, group and measure."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from quantskew.files import replacing, write_bytes
from quantskew.report import as_csv
from quantskew.sweeps.cells import PLAN, result_of


def gather(folder):
    """The table of the cells of a sweep, by its folder, that are done, in the order of the grid.

    Returns
    -------
    pandas.DataFrame
        Columns ``cell`` (its id), ``task`` (``audit`` or a chapter), one for each parameter that the grid
        names (empty where the task has none of that name; a list is joined by commas), ``audit`` (its name in
        the cache), ``audited`` (experiment, seed and method), and those of
        `quantskew.measures.measure.audit_rows`.
    """
    named, cells = _cells(folder)
    parts = []
    for facts, result in cells:
        for audit in result["audits"] if result else ():
            of_audit = {"audit": audit["audit"], "audited": audit["audited"]}
            parts.append(pd.DataFrame({**facts, **of_audit, **audit["rows"]}))
    if not parts:
        return pd.DataFrame(columns=["cell", "task", *named])
    table = pd.concat(parts, ignore_index=True)
    # Parameters keep their types, also where some cells have none.
    table[named] = table[named].convert_dtypes()
    return table


def overview(folder):
    """The cells of a sweep, by its folder: a row for each.

    Returns
    -------
    pandas.DataFrame
        Columns ``task``, one for each parameter that differs between cells, ``audits`` (how many it made or
        took from the cache) and ``seconds`` (its own, without the start of its process; empty where it is
        not done).
    """
    named, cells = _cells(folder)
    nothing = {"audits": [], "seconds": None}
    made = [(facts, result or nothing) for facts, result in cells]
    rows = [facts | {"audits": len(own["audits"]), "seconds": own["seconds"]} for facts, own in made]
    table = pd.DataFrame(rows)
    return table[["task", *_varied(table, named), "audits", "seconds"]].convert_dtypes()


def _cells(folder):
    """Every parameter that the grid gives to any cell; and what each cell is of, with its result or None."""
    plan = json.loads((Path(folder) / PLAN).read_text(encoding="utf-8"))["cells"]
    named, cells = list(dict.fromkeys(name for cell in plan.values() for name in cell["given"])), []
    for name, cell in plan.items():
        values = {own: cell["settings"].get(own) for own in named}
        facts = {own: ",".join(map(str, v)) if isinstance(v, list) else v for own, v in values.items()}
        facts = {"cell": name, "task": cell["task"], **facts}
        cells.append((facts, result_of(folder, name, cell["key"])))
    return named, cells


def _varied(table, parameters):
    return [name for name in parameters if table[name].nunique(dropna=False) > 1]


def _in_words(name, value):
    if isinstance(value, (bool, np.bool_)):
        return name if value else f"no {name}"
    return value if isinstance(value, str) else f"{name} {value}"


def write_table(folder):
    """Write what `gather` gives into the sweep's folder as ``table.parquet`` and ``table.csv``; give it."""
    folder, table = Path(folder), gather(folder)
    with replacing(folder / "table.parquet") as partial:
        table.to_parquet(partial, index=False)
    write_bytes(folder / "table.csv", as_csv(table).encode())
    return table


def named_runs(table):
    """The table of `gather` with a column ``run``: in a few words, which Audit of which cell a row is of.

    A run is named by the parameters that vary over the sweep, and by what was audited where a cell made
    several Audits.  Precisions are not among them, since every figure shows them.

    Examples
    --------
    >>> facts = {"task": "audit", "experiment": "digits", "audited": "digits seed 0"}
    >>> rows = [{"cell": s, "seed": s, "audit": s, **facts} for s in (0, 1)]
    >>> named_runs(pd.DataFrame(rows)[["cell", "task", "experiment", "seed", "audit", "audited"]])["run"]
    0    seed 0
    1    seed 1
    Name: run, dtype: object
    """
    parameters = list(table.columns[1 : table.columns.get_loc("audit")])
    several = table.groupby("cell")["audit"].nunique().max() > 1
    runs = table.drop_duplicates(["cell", "audit"])
    varied = [name for name in _varied(runs, parameters) if name != "precisions"]
    names, seen = {}, {}
    for row in runs.to_dict("records"):
        words = [_in_words(name, row[name]) for name in varied if not pd.isna(row[name])]
        words = ", ".join(words + ([row["audited"]] if several or not words else []))
        # Audits that differ in what these words leave out are told apart by number.
        seen[words] = seen.get(words, 0) + 1
        names[row["cell"], row["audit"]] = words if seen[words] == 1 else f"{words} ({seen[words]})"
    keys = zip(table["cell"], table["audit"], strict=True)
    return table.assign(run=pd.Series([names[key] for key in keys], index=table.index, dtype=object))
