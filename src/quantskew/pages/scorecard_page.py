"""The scorecard as a page shows it: every claim with a link to the figure that shows it."""

import html
import re

import numpy as np
import pandas as pd

from quantskew.claims.register import CLAIMS
from quantskew.claims.verdicts import cell
from quantskew.pages.prose import show

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
