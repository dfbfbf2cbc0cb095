"""Numbers for the prose of a chapter: glued by name, so that none is ever typed."""

import html
import re

import numpy as np
import pandas as pd
from myst_nb import glue
from pandas.io.formats.style import Styler

from quantskew.claims.register import CLAIMS
from quantskew.claims.verdicts import cell
from quantskew.figures.style import group_order, number

_KEYS = ("method", "cut", "trained", "group", "precision", "measure")


def glue_table(prefix, table, digits=2):
    """Glue every value of a table by what its row is of, as ``prefix-group-precision``.

    A key is lower case, with a hyphen for every run of other signs than letters and digits.

    The text is the value with its interval, as ``0.70 [0.66, 0.73]``; below the same key followed by
    ``-value`` it is the value alone.

    Parameters
    ----------
    prefix : str
    table : pandas.DataFrame
        With a column ``value``, those of `_KEYS` that have a meaning, and ``low`` and ``high`` where it has
        intervals.
    digits : int
        After the decimal point.
    """
    for row in table.to_dict("records"):
        parts = [prefix, *(row[name] for name in _KEYS if name in row)]
        key = re.sub(r"[^a-z0-9]+", "-", "-".join(str(part) for part in parts).lower())
        value = number(row["value"], digits)
        interval = f" [{number(row['low'], digits)}, {number(row['high'], digits)}]" if "low" in row else ""
        glue(key, value + interval, display=False)
        glue(f"{key}-value", value, display=False)


def glue_roles(prefix, audit):
    """Glue the names of the largest and the smallest group in training, and how large they are."""
    for role, group in (("majority", group_order(audit)[0]), ("minority", group_order(audit)[-1])):
        glue(f"{prefix}-{role}", audit.group_names[group], display=False)
        glue(f"{prefix}-{role}-count", f"{audit.train_counts[group]:,}", display=False)


def of_role(audit, table, role):
    """Rows of the ``majority`` or the ``minority`` in training, without the group column."""
    group = group_order(audit)[0 if role == "majority" else -1]
    return table[table["group"] == audit.group_names[group]].drop(columns="group")


class Shown(Styler):
    """A table as a page shows it; Markdown is its form where HTML has no place, as in the book as a PDF.

    Examples
    --------
    >>> import pandas as pd
    >>> print(show(pd.DataFrame({"bits": [2], "FVO": [0.5]}), digits=2)._repr_markdown_())
    | bits | FVO |
    |---|---|
    | 2 | 0.50 |
    """

    def _repr_markdown_(self):
        separator = "\x1f"
        text = self.to_string(delimiter=separator).replace("|", "\\|").replace("<br>", " ")
        head, *rows = (line.split(separator) for line in text.splitlines())
        # Names of rows have a line of their own, which Markdown has no place for.
        rows = [row for row in rows if "".join(row) != self.index.name]
        lines = ["| " + " | ".join(cell.strip() for cell in row) + " |" for row in (head, *rows)]
        lines.insert(1, "|" + "---|" * len(head))
        return "\n".join([f"{self.caption}\n"] * bool(self.caption) + lines)


def captioned(title, table):
    """A table with its row names and a title above it."""
    return Shown(table, caption=title, table_attributes='class="dataframe"')


def show(table, digits=4):
    """A table as a page shows it: every word of every cell, no row numbers."""
    return Shown(table, precision=digits, table_attributes='class="dataframe"').hide(axis="index")


VERDICTS = ("holds", "fails", "undecided")


def linked(tables):
    """Claims by row, experiments by column; verdict, effect and interval in each cell.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        By the title of the column, see `quantskew.claims.register.judged`; all of the same claims.

    Returns
    -------
    pandas.io.formats.style.Styler
    """
    first = next(iter(tables.values()))
    rows = []
    for position, key in enumerate(first["key"]):
        claim = CLAIMS[key]
        page, _, figure = claim.shown.partition("#")
        rows.append(
            {
                "claim": f'<a href="{page}.md#{figure}">{html.escape(claim.statement)}</a>',
                "paper": claim.source.replace("section ", ""),
                "at": claim.at,
                **{title: _marked(table.iloc[position]) for title, table in tables.items()},
            }
        )
    return show(pd.DataFrame(rows))


def _marked(row):
    """A cell whose verdict is a word of its own class, so that the page can set it apart."""
    if np.isnan(row["effect"]):
        return '<span class="verdict">not judged</span>'
    verdict, _, rest = cell(row).partition(": ")
    # A line may break before an interval and before the seeds, and nowhere else.
    rest = re.sub(r"\[(\S+), (\S+)\]", "[\\1,\N{NO-BREAK SPACE}\\2]", rest)
    rest = rest.replace(" of ", "\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}")
    return f'<span class="verdict verdict-{verdict}">{verdict}</span><br>{rest}'


def counts(tables):
    """How many claims hold, fail, are undecided, and are not judged, by experiment.

    Returns
    -------
    pandas.DataFrame
        A row an experiment, columns `VERDICTS` and ``not judged``.
    """
    rows = {}
    for title, table in tables.items():
        tested = table[table["effect"].notna()]
        own = {verdict: int((tested["verdict"] == verdict).sum()) for verdict in VERDICTS}
        rows[title] = {**own, "not judged": len(table) - len(tested)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("experiment").reset_index()


def beside_control(table):
    """Effects about groups beside the same effects with shuffled groups.

    Returns
    -------
    pandas.DataFrame
        Columns ``claim``, ``at``, ``effect`` and ``groups shuffled`` (middle 95 %).
    """
    own = table[table["control"].notna()]
    shuffled = [
        f"{low:.2g} to {high:.2g}" for low, high in zip(own["control_low"], own["control_high"], strict=True)
    ]
    return pd.DataFrame(
        {
            "claim": own["claim"],
            "at": own["at"],
            "effect": [f"{effect:.2g}" for effect in own["effect"]],
            "groups shuffled": shuffled,
        }
    )
