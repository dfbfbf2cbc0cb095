"""Numbers for the prose of a chapter: glued by name, so that none is ever typed."""

from myst_nb import glue

from quantskew.style import group_order
from quantskew.tables import number


def glue_table(prefix, table, digits=2):
    """Glue every value of a table, as ``prefix-group-precision`` or ``prefix-precision``.

    The text is the value with its interval, as ``0.70 [0.66, 0.73]``; below the same key followed by
    ``-value`` it is the value alone.

    Parameters
    ----------
    prefix : str
    table : pandas.DataFrame
        With columns ``precision``, ``value`` and, where they have a meaning, ``group``, ``low``, ``high``.
    digits : int
        After the decimal point.
    """
    for row in table.to_dict("records"):
        parts = [prefix, row.get("group"), row["precision"]]
        key = "-".join(str(part).lower() for part in parts if part is not None)
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


def show(table, digits=4):
    """A table as a page shows it: every word of every cell, no row numbers."""
    return table.style.hide(axis="index").format(precision=digits).set_table_attributes('class="dataframe"')
