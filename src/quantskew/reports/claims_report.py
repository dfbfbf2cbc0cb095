"""The claims judged on one experiment as text, CSV or JSON."""

import json

import numpy as np

FORMATS = ("text", "csv", "json")
_VERBS = {"holds": "hold", "fails": "fail", "undecided": "are undecided"}


def written(table, form="text"):
    """A table of `quantskew.claims.register.judged` in one of the forms.

    Parameters
    ----------
    table : pandas.DataFrame
    form : {"text", "csv", "json"}

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the form is not known.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"key": "fvo_grows", "effect": 0.25, "lacks": ""}
    >>> print(written(pd.DataFrame([row]), "csv"))
    key,effect,lacks
    fvo_grows,0.25,
    """
    if form not in FORMATS:
        raise ValueError(f"unknown format {form!r}; known: {', '.join(FORMATS)}")
    if form == "csv":
        return table.to_csv(index=False).rstrip()
    rows = table.to_dict("records")
    if form == "json":
        # JSON has no NaN.
        rows = [
            {name: None if isinstance(v, float) and np.isnan(v) else v for name, v in row.items()}
            for row in rows
        ]
        return json.dumps(rows, indent=1)
    return "\n".join([*map(_line, rows), "", _count(table)])


def _line(row):
    if row["seeds"] == 0:
        return f"{'not judged':10} {'':34} {row['at']:5} {row['claim']} ({row['section']}; {row['lacks']})"
    interval = (
        "" if np.isnan(row["low"]) or row["low"] == row["high"] else f" [{row['low']:.3g}, {row['high']:.3g}]"
    )
    seeds = f", {row['positive']} of {row['seeds']}" if row["seeds"] > 1 else ""
    effect = f"{row['effect']:.3g}{interval}{seeds}"
    return f"{row['verdict']:10} {effect:34} {row['at']:5} {row['claim']} ({row['section']})"


def _count(table):
    tested = table[table["seeds"] > 0]
    seeds = sorted(set(tested["seeds"]))
    counts = [f"{(tested['verdict'] == name).sum()} {verb}" for name, verb in _VERBS.items()]
    return (
        f"{', '.join(counts)}; {len(table) - len(tested)} not judged. Seeds: {', '.join(map(str, seeds))}. "
        "Effects with 95 % intervals and the number of seeds that are as claimed; verdicts are corrected for "
        "the number of claims."
    )
