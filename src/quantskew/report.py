"""Every table and figure of an Audit, in a folder."""

import json
import sys
from pathlib import Path

from tqdm.auto import tqdm

from quantskew.checks import check_known, some
from quantskew.claims.verdicts import VERDICTS, cell
from quantskew.figures import comparisons, lines
from quantskew.figures.style import compare, wide
from quantskew.files import replacing, write_bytes
from quantskew.measures import fairness, forward, harm, surface, weights
from quantskew.measures.measure import MEASURES, MODEL_MEASURES
from quantskew.measures.seeds import comparison

_OF_SURFACE = (
    lines.gradient_against_size,
    lines.gradient_against_accuracy,
    lines.lambda_against_accuracy,
    lines.lambda_against_confidence,
    lines.gradient_against_lambda,
    lines.excess_loss,
)
# What else is told of an Audit: of which ones, in tables, and in figures with their legends.
_FURTHER = (
    (lambda audit: len(audit.precisions) > 1, (harm.harm, harm.flips), {}),
    (lambda audit: True, (forward.dtdb_histogram,), {lines.fvo: False, lines.dtdb_distribution: False}),
    (
        lambda audit: audit.weights is not None,
        (weights.absolute_difference, weights.sparsity, weights.mean_magnitude, weights.weight_histogram),
        dict.fromkeys((lines.absolute_difference, lines.sparsity, lines.weight_distribution), False),
    ),
    (
        surface.gradient_norm.applies,
        (surface.excess_loss, surface.loss_profile),
        {lines.loss_profile: False} | dict.fromkeys(_OF_SURFACE, True),
    ),
    (
        lambda audit: audit.curvature is not None and audit.curvature.slopes is not None,
        (surface.taylor,),
        {lines.taylor: True},
    ),
    (
        fairness.equalized_odds.applies,
        (fairness.class_accuracy,),
        {lines.class_accuracy: lines.group_and_class_legend},
    ),
)
# Lines of a figure of the classes in each group, at most: of more none can be told from another.
_LINES = 100


def tables(audit):
    """Every table of an Audit, computed as it is asked for: pairs of its file's name and the table."""
    for measure in [*MEASURES.values(), *MODEL_MEASURES.values()]:
        if measure.applies(audit):
            yield measure.name, measure(audit)
            if not measure.from_reference:
                yield f"{measure.name}_change", measure.change(audit)
            if hasattr(measure, "of_chance"):
                yield f"{measure.name}_of_chance", measure.of_chance(audit)
    for applies, functions, _ in _FURTHER:
        for function in functions if applies(audit) else ():
            yield function.__name__, function(audit)


def figures(audit):
    """Every figure of an Audit: its file's name, what draws it, and its legend."""
    for measure in MEASURES.values():
        if measure.applies(audit):
            # A map names its groups itself.
            yield measure.name, lines.of(measure), not measure.from_reference
    for applies, _, drawn in _FURTHER:
        for function, legend in drawn.items() if applies(audit) else ():
            if function is lines.class_accuracy and fairness.cell_counts(audit).size > _LINES:
                print(f"no figure of each class in each group: more than {_LINES} lines", file=sys.stderr)
                continue
            yield function.__name__, function, legend


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
    for name, table in tqdm(tables(audit), desc="tables", unit=" tables", delay=5, leave=False):
        written.append(folder / "tables" / f"{name}.csv")
        write_bytes(written[-1], as_csv(table).encode())
    title = audit.provenance.get("experiment", {}).get("name", "audit")
    # A comparison with the reference needs something to compare.
    for name, draw, legend in figures(audit) if len(audit.precisions) > 1 else ():
        written.append(folder / "figures" / f"{name}.png")
        _save(written[-1], compare(draw, {title: audit}, legend=legend))
    return written


def write_layers(audit, folder):
    """Write an Audit of layers, and of loss and accuracy what each layer changes (CSV and PNG)."""
    folder, written = Path(folder), [Path(folder) / "audit.safetensors"]
    audit.save(written[0])
    title = f"{audit.provenance.get('experiment', {}).get('name', 'audit')}, {audit.precisions[-1]}"
    for measure in (forward.group_loss, forward.group_accuracy):
        table = fairness.layer_changes(audit, measure)
        written += [folder / f"layers_{measure.key}.{kind}" for kind in ("csv", "png")]
        write_bytes(written[-2], as_csv(table).encode())
        draw = [lines.layer_map(measure, own) for _, own in table.groupby("others")]
        height = 0.8 + 0.19 * table["layer"].nunique()
        _save(written[-1], compare(draw, {title: audit}, height, legend=False))
    return written


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(table):
    """A table as CSV in which no text is a formula: a spreadsheet takes for one what begins as these do.

    Examples
    --------
    >>> import pandas as pd
    >>> print(as_csv(pd.DataFrame({"group": ["=cmd()"], "value": [-1.5]})), end="")
    group,value
    '=cmd(),-1.5
    """
    texts = {name: own.map(_no_formula) for name, own in table.items() if own.dtype.kind not in "biuf"}
    return table.assign(**texts).to_csv(index=False)


def _no_formula(value):
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _save(path, figure):
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def summary(audit):
    """The Audit in a few lines of text: whom it harms, accuracy of each group, overall accuracy and FVO."""
    parts = [measure(audit) for measure in (forward.group_accuracy, fairness.overall_accuracy)]
    parts.append(fairness.fvo(audit).assign(group="FVO"))
    counts = zip(audit.group_names, audit.group_counts, strict=True)
    lines = [
        f"{len(audit.labels):,} test samples in {len(audit.group_names)} groups: "
        + ", ".join(f"{name} {count:,}" for name, count in counts),
        harm.verdict(harm.harm(audit)),
        "",
        "accuracy with 95 % interval",
        *(wide(part).to_string() for part in parts),
    ]
    floating, unfolded = audit.provenance.get("floating"), audit.provenance.get("unfolded")
    if floating:
        lines.append(
            f"in floating point: {floating['share']:.2%} of the parameters: {some(floating['names'])}"
        )
    if unfolded:
        lines.append(f"batch norm left unfolded: {some(unfolded)}")
    nulls = zip(audit.precisions, forward.null_logits(audit).sum(axis=1), strict=True)
    return "\n".join(lines + [f"{count} null logit vectors at {p}" for p, count in nulls if count])


FORMATS = ("text", "csv", "json")


def written(table, form="text"):
    """A table of `quantskew.claims.register.judged` as text in one of `FORMATS`; a ValueError names them.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"key": "fvo_grows", "effect": 0.25, "lacks": ""}
    >>> print(written(pd.DataFrame([row]), "csv"))
    key,effect,lacks
    fvo_grows,0.25,
    """
    check_known("format", form, FORMATS)
    if form == "csv":
        return as_csv(table).rstrip()
    if form == "json":
        # JSON has no NaN.
        return json.dumps(table.astype(object).where(table.notna(), None).to_dict("records"), indent=1)
    return "\n".join([*map(_line, table.to_dict("records")), "", _count(table)])


def _line(row):
    verdict, _, effect = cell(row).partition(": ")
    lack = f"; {row['lacks']}" if row["lacks"] else ""
    effect = "" if lack else effect
    return f"{verdict:10} {effect:52} {row['at']:5} {row['claim']} ({row['section']}{lack})"


def _count(table):
    counts = table["verdict"].value_counts()
    seeds = ", ".join(map(str, sorted(set(table["seeds"]) - {0}))) or "none"
    return (
        f"{', '.join(f'{counts[name]} {name}' for name in VERDICTS if name in counts)}. Seeds: {seeds}. "
        "Effects with 95 % intervals over seeds (another training run on these images), the number of seeds "
        "that are as claimed, and what shuffled groups give; verdicts are corrected for the number of claims."
    )


def write_comparison(audits, folder, title="methods"):
    """Write the comparison of methods (a dict of title to Audits by seed) into a folder; give its table."""
    folder, table = Path(folder), comparison(audits)
    write_bytes(folder / "comparison.csv", as_csv(table).encode())
    drawn = {measure: comparisons.by_method(measure) for measure in ("fvo", "accuracy")}
    drawn |= {f"tradeoff-{p}": comparisons.accuracy_against_fvo(p) for p in table["precision"].unique()[1:]}
    for name, draw in drawn.items():
        _save(folder / f"{name}.png", compare(draw, {title: table}, legend=comparisons.method_legend))
    return table
