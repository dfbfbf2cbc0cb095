"""Every table and figure of an Audit, in a folder."""

import json
from pathlib import Path

import numpy as np

from quantskew.cache import replacing, write_bytes
from quantskew.figures import lines as line_figures
from quantskew.figures import surface as surface_figures
from quantskew.figures import tradeoffs
from quantskew.figures.style import compare, wide
from quantskew.measures import fairness, forward, odds, surface, weights
from quantskew.measures.measure import OVERALL
from quantskew.measures.odds import groups_are_classes
from quantskew.measures.seeds import comparison

_TABLES = (
    fairness.group_accuracy,
    fairness.group_accuracy_change,
    fairness.overall_accuracy,
    fairness.fvo,
    fairness.fvo_change,
    fairness.fvo_of_chance,
    forward.cosine_distance,
    forward.l1_distance,
    forward.l2_distance,
    forward.logit_variance,
    forward.softmax_variance,
    forward.dtdb,
    forward.dtdb_histogram,
    forward.top_probability,
    forward.group_loss,
    forward.group_loss_change,
)
_WEIGHT_TABLES = (
    weights.absolute_difference,
    weights.sparsity,
    weights.mean_magnitude,
    weights.weight_histogram,
)
_SURFACE_TABLES = (
    surface.gradient_norm,
    surface.lambda_max,
    surface.trace,
    surface.excess_loss,
    surface.loss_profile,
)
# Where group and class are one, each class has one group and there is nothing to compare within it.
_CLASS_TABLES = (
    odds.class_accuracy,
    odds.equalized_odds,
    odds.equalized_odds_change,
    odds.equalized_odds_of_chance,
    odds.demographic_parity,
    odds.demographic_parity_change,
)
_FIGURES = (
    line_figures.group_accuracy,
    line_figures.fvo,
    line_figures.cosine_distance,
    line_figures.l1_distance,
    line_figures.l2_distance,
    line_figures.logit_variance,
    line_figures.softmax_variance,
    line_figures.dtdb_distribution,
    line_figures.group_loss,
)
# These name their groups themselves, or show none.
_WITHOUT_GROUPS = (
    line_figures.fvo,
    line_figures.cosine_distance,
    line_figures.l1_distance,
    line_figures.l2_distance,
    line_figures.dtdb_distribution,
    line_figures.absolute_difference,
    line_figures.sparsity,
    line_figures.weight_distribution,
    surface_figures.loss_profile,
)
_SURFACE_FIGURES = (
    surface_figures.gradient_against_size,
    surface_figures.gradient_against_accuracy,
    surface_figures.gradient_norm,
    surface_figures.lambda_against_accuracy,
    surface_figures.lambda_against_confidence,
    surface_figures.gradient_against_lambda,
    surface_figures.lambda_max,
    surface_figures.trace,
    surface_figures.loss_profile,
    surface_figures.excess_loss,
)
_WEIGHT_FIGURES = (line_figures.absolute_difference, line_figures.sparsity, line_figures.weight_distribution)
_CLASS_FIGURES = (line_figures.class_accuracy,)
_LEGENDS = {line_figures.class_accuracy: line_figures.group_and_class_legend}


def write_report(audit, folder):
    """Write the Audit, its tables (CSV) and its figures (PNG) into a folder.

    Parameters
    ----------
    audit : Audit
    folder : path
        Made where it does not exist; files of the same names are replaced.

    Returns
    -------
    list of Path
        What was written.
    """
    folder = Path(folder)
    written = [folder / "audit.safetensors"]
    audit.save(written[0])
    tables, drawn = _TABLES, _FIGURES
    if audit.weights is not None:
        tables, drawn = tables + _WEIGHT_TABLES, drawn + _WEIGHT_FIGURES
    if audit.curvature is not None:
        tables, drawn = tables + _SURFACE_TABLES, drawn + _SURFACE_FIGURES
    if not groups_are_classes(audit):
        tables, drawn = tables + _CLASS_TABLES, drawn + _CLASS_FIGURES
    for function in tables:
        written.append(folder / "tables" / f"{function.__name__}.csv")
        write_bytes(written[-1], function(audit).to_csv(index=False).encode())
    # A comparison with the reference needs something to compare.
    for function in drawn if len(audit.precisions) > 1 else ():
        written.append(folder / "figures" / f"{function.__name__}.png")
        title = audit.provenance.get("experiment", {}).get("name", "audit")
        with replacing(written[-1]) as partial:
            legend = _LEGENDS.get(function, function not in _WITHOUT_GROUPS)
            figure = compare(function, {title: audit}, legend=legend)
            figure.savefig(partial, format="png", dpi=150)
    return written


def summary(audit):
    """The Audit in a few lines of text: accuracy of each group, overall accuracy and FVO."""
    accuracy = wide(fairness.group_accuracy(audit))
    overall = wide(fairness.overall_accuracy(audit).assign(group=OVERALL))
    gap = wide(fairness.fvo(audit).assign(group="FVO"))
    counts = dict(zip(audit.group_names, audit.group_counts, strict=True))
    lines = [
        f"{len(audit.labels):,} test samples in {len(audit.group_names)} groups: "
        + ", ".join(f"{name} {count:,}" for name, count in counts.items()),
        "",
        "accuracy with 95 % interval",
        *(part.to_string() for part in (accuracy, overall, gap)),
    ]
    nulls = forward.null_logits(audit).sum(axis=1)
    lines += [
        f"{count} null logit vectors at {p}"
        for p, count in zip(audit.precisions, nulls, strict=True)
        if count
    ]
    return "\n".join(lines)


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


def write_comparison(audits, folder, title="methods"):
    """Write the comparison of methods into a folder.

    Parameters
    ----------
    audits : dict of str to sequence of Audit
        Seeds of each method, by its title.
    folder : path
        Made where it does not exist; files of the same names are replaced.
    title : str
        Of the figures.

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.seeds.comparison`.
    """
    folder, table = Path(folder), comparison(audits)
    write_bytes(folder / "comparison.csv", table.to_csv(index=False).encode())
    figures = {f"{measure}.png": tradeoffs.by_method(measure) for measure in ("fvo", "accuracy")}
    quantized = list(dict.fromkeys(table["precision"]))[1:]
    figures |= {f"tradeoff-{p}.png": tradeoffs.accuracy_against_fvo(p) for p in quantized}
    for name, draw in figures.items():
        with replacing(folder / name) as partial:
            figure = compare(draw, {title: table}, legend=tradeoffs.method_legend)
            figure.savefig(partial, format="png", dpi=150)
    return table
