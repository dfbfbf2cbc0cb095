"""Numbers for the prose of a chapter: glued by name, so that none is ever typed."""

import html
import json
import re
from typing import NamedTuple

import numpy as np
import pandas as pd
from myst_nb import glue
from pandas.io.formats.style import Styler

from quantskew.claims.effects import effects
from quantskew.claims.register import CLAIMS, compared, get, with_seeds
from quantskew.claims.verdicts import VERDICTS, cell
from quantskew.experiments.methods import METHODS, TAKES
from quantskew.figures.style import group_looks, number
from quantskew.measures.seeds import MEASURES, paired

_DRAWN = ["claim", "at", "unit", "verdict", "lacks", "effect", "low", "high", "control_low", "control_high"]
_KEYS = ("method", "cut", "trained", "group", "layer", "precision", "measure")


def glue_value(name, value):
    """Glue one value."""
    glue(name, value, display=False)


def glue_table(prefix, table, digits=2, words=None):
    """Glue every value of a table by what its row is of, as ``prefix-group-precision``.

    A key is lower case, with a hyphen for every run of other signs than letters and digits.  The text is the
    value with its interval where the table has one, as ``0.70 [0.66, 0.73]``, or the `words` instead; below
    the same key followed by ``-value`` it is the value alone.
    """
    for row in table.to_dict("records"):
        parts = [prefix, *(row[name] for name in _KEYS if name in row)]
        key = re.sub(r"[^a-z0-9]+", "-", "-".join(str(part) for part in parts).lower())
        value, *interval = (number(row[name], digits) for name in ("value", "low", "high") if name in row)
        glue_value(key, words or (f"{value} [{', '.join(interval)}]" if interval else value))
        glue_value(f"{key}-value", words or value)


def roles(audit):
    """Ids of the groups with most and with fewest images in training, by what they are called."""
    order = [look.group for look in group_looks(audit)]
    return {"majority": order[0], "minority": order[-1]}


def glue_roles(prefix, audit):
    """Glue the names of the largest and the smallest group in training, and how large they are."""
    for role, group in roles(audit).items():
        glue_value(f"{prefix}-{role}", audit.group_names[group])
        glue_value(f"{prefix}-{role}-count", f"{audit.train_counts[group]:,}")


def of_role(audit, table, role):
    """Rows of the ``majority`` or the ``minority`` in training, without the group column."""
    return table[table["group"] == audit.group_names[roles(audit)[role]]].drop(columns="group")


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

    # What the page draws in its place, of `for_page`: without a script it stands there open.
    drawn = ""

    def _repr_html_(self):
        fold = "<details open><summary>All numbers</summary>", "</details>"
        return self.drawn + self.to_html().join(fold if self.drawn else ("", ""))

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
    return _shown(table, caption=html.escape(title))


def show(table, digits=4, markup=False):
    """A table as a page shows it: every word of every cell, no row numbers; cells may be `markup`."""
    return _shown(table, None if markup else "html", precision=digits).hide(axis="index")


def _shown(table, escape="html", **look):
    # A row of Markdown is one line.
    table = table.map(_line).rename(index=_line, columns=_line)
    shown = Shown(table, escape=escape, table_attributes='class="dataframe"', **look)
    return shown.format_index(escape="html", axis=0).format_index(escape="html", axis=1)


def _line(value):
    return " ".join(value.splitlines()) if isinstance(value, str) else value


def chooser(table):
    """Methods of `quantskew.measures.seeds.comparison`, of which a page shows those for one's bits and means.

    The worst-served group stands beside FVO; without scripts (``chooser.js``) the page shows all rows.
    """
    low, high, value = (table[name].map(lambda own: number(own, 2)) for name in ("low", "high", "value"))
    takes = {own.title: TAKES.index(own.takes) for own in METHODS.values()}
    table = table.assign(text=value + " [" + low + ", " + high + "]", takes=table["method"].map(takes))
    names = {"precision": "bits", "takes": "it takes", **MEASURES}
    wide = table.pivot(index=["precision", "takes", "method", "seeds"], columns="measure", values="text")
    wide = wide.reset_index().sort_values(["precision", "takes", "fvo"], ascending=[False, True, True])
    wide = wide[[*names, "method", "seeds"]].assign(takes=wide["takes"].map(TAKES.__getitem__))
    shown = show(wide.rename(columns=names)[["bits", "it takes", "method", *MEASURES.values(), "seeds"]])
    return shown.set_table_attributes(f'class="dataframe chooser" data-takes="{"|".join(TAKES)}"')


class _Finding(NamedTuple):
    words: str
    picture: str

    def __repr__(self):
        return self.words

    def _repr_html_(self):
        return self.picture


def glue_finding(row, evidence):
    """Glue how a claim came out, as ``finding-KEY``: verdict, seeds, and the effect of each beside none.

    Parameters
    ----------
    row : Series
        Of `quantskew.claims.register.judged`.
    evidence : mapping of str to sequence of Audit
        What was judged.
    """
    claim, words, picture = get(row["key"]), row["verdict"], _word(row["verdict"])
    if row["seeds"] > 1:
        words += f", {row['seeds']} seeds"
        parts = effects(claim, paired({own: evidence[own] for own in claim.needs}), claim.at)[:, 0]
        # Of several parts the verdict is on the weakest.
        seeds = parts[:, np.abs(parts.mean(axis=0) - row["effect"]).argmin()]
        picture += f" {row['seeds']}\N{NO-BREAK SPACE}seeds {_strip(seeds, row)}"
    glue_value(f"finding-{row['key'].replace('_', '-')}", _Finding(words, picture))


def _strip(seeds, row):
    """A dot a seed, the interval of their mean as a line, and a dashed line where there is no effect."""
    values = [row["low"], row["high"], 0, *seeds]
    low, high, nothing, *dots = np.interp(values, [min(values), max(values)], [5, 135]).round(1)
    told = f"effect {row['effect']:.2g} [{row['low']:.2g}, {row['high']:.2g}], in {row['unit']}; "
    told += f"{row['positive']} of {row['seeds']} seeds are right of the dashed line, as claimed"
    marks = f'<path d="M{nothing} 0V20" stroke-dasharray="2 2"/><path d="M{low} 10H{high}" stroke-width="2"/>'
    marks += "".join(f'<circle cx="{own}" cy="10" r="3" fill="currentColor" opacity="0.5"/>' for own in dots)
    look = f'class="strip" width="140" height="20" stroke="currentColor" role="img" aria-label="{told}"'
    return f"<svg {look}>{marks}</svg>"


def for_page(kind, numbers):
    """Numbers for ``record.js``, as HTML that shows nothing; `kind` says what it draws from them."""
    # No text ends the script before its end.
    text = json.dumps(numbers, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="{kind}-numbers">{text}</script>'


def forest(tables):
    """The `quantskew.claims.register.compared` of tables, of which a page makes a forest plot."""
    shown = show(compared(tables))
    numbers = {with_seeds(title, own): own[_DRAWN].to_json(orient="records") for title, own in tables.items()}
    shown.drawn = for_page("forest", {title: json.loads(text) for title, text in numbers.items()})
    return shown


def linked(tables):
    """Claims by row, experiments by column: tables of `quantskew.claims.register.judged` by their titles."""
    rows = []
    for position, key in enumerate(next(iter(tables.values()))["key"]):
        claim = CLAIMS[key]
        link = f'<a href="{claim.shown.replace("#", ".md#")}">{html.escape(claim.statement)}</a>'
        quote = f"<br><q>{html.escape(claim.quote)}</q>"
        row = {"claim": link + quote, "paper": claim.source.replace("section ", ""), "at": claim.at}
        cells = {with_seeds(title, own): _marked(own.iloc[position]) for title, own in tables.items()}
        rows.append(row | cells)
    return show(pd.DataFrame(rows), markup=True)


def _marked(row):
    """A cell whose verdict is a word of its own class, so that the page can set it apart."""
    verdict, _, rest = cell(row).partition(": ")
    # A line may break before an interval, the seeds and what is by chance, and nowhere else.
    rest = re.sub(r"\[(\S+), (\S+)\]", "[\\1,\N{NO-BREAK SPACE}\\2]", html.escape(rest))
    rest = re.sub(r"(?<=\d) of | of (?=\d)", "\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}", rest)
    return f"{_word(verdict)}<br>{rest}"


def _word(verdict):
    return f'<span class="verdict verdict-{verdict.replace(" ", "-")}">{verdict}</span>'


def counts(tables):
    """How many claims have each verdict, a row an experiment."""
    own = {title: table["verdict"].value_counts() for title, table in tables.items()}
    table = pd.DataFrame(own).T.reindex(columns=VERDICTS).fillna(0).astype(int)
    return table.rename_axis("experiment").reset_index()


def elsewhere(table):
    """Verdicts on another training run beside those on another data set, where they differ."""
    other = table[table["verdict"] != table["elsewhere_verdict"]]
    columns = {"another training run": "verdict", "another data set": "elsewhere_verdict"}
    return other[["claim", "at"]].assign(**{title: other[name] for title, name in columns.items()})
