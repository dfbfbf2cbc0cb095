"""Every table and figure of an Audit, in a folder."""

import base64
import io
import json
import re
import sys
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from quantskew.audits.audit import quantizer_of
from quantskew.audits.runtimes import RUNTIMES
from quantskew.checks import check_known, some
from quantskew.claims.verdicts import VERDICTS, cell
from quantskew.figures import comparisons, lines, style
from quantskew.figures.style import TEMPLATES, compare, crossed, wide
from quantskew.files import replacing, write_bytes
from quantskew.measures import fairness, forward, harm, surface, weights
from quantskew.measures.measure import MEASURES, MODEL_MEASURES
from quantskew.measures.seeds import comparison

# One measure of each group against another one, and what quantization adds to their losses.
_OF_SURFACE = (
    *("gradient_against_size", "gradient_against_accuracy", "gradient_against_lambda"),
    *("lambda_against_accuracy", "lambda_against_confidence", "excess_loss"),
)
# Rows of a table of a page, and of the list of flips that it carries, at most: all are in their files.
_ROWS, _LISTED = 100, 10_000
# Lines of a figure of the classes in each group, at most: of more none can be told from another.
_LINES = 100


def _further(audit):
    """What else is told of an Audit: functions that give tables, and names of figures with their legends."""
    if len(audit.precisions) > 1:
        yield (harm.harm, harm.flips), {}
    yield (forward.dtdb_histogram,), {"fvo": False, "dtdb_distribution": False}
    if audit.weights is not None:
        figures = dict.fromkeys(("absolute_difference", "sparsity", "weight_distribution"), False)
        of_layers = weights.absolute_difference, weights.sparsity, weights.mean_magnitude
        yield (*of_layers, weights.weight_histogram), figures
    if surface.gradient_norm.applies(audit):
        figures = {"loss_profile": False} | dict.fromkeys(_OF_SURFACE, True)
        yield (surface.excess_loss, surface.loss_profile), figures
    if audit.curvature is not None and audit.curvature.slopes is not None:
        yield (surface.taylor,), {"taylor": True}
    if fairness.equalized_odds.applies(audit):
        yield (fairness.class_accuracy,), {"class_accuracy": lines.group_and_class_legend}


def tables(audit):
    """Every table of an Audit, computed as it is asked for: pairs of its file's name and the table."""
    for measure in [*MEASURES.values(), *MODEL_MEASURES.values()]:
        if measure.applies(audit):
            yield measure.name, measure(audit)
            if not measure.from_reference:
                yield f"{measure.name}_change", measure.change(audit)
            if hasattr(measure, "of_chance"):
                yield f"{measure.name}_of_chance", measure.of_chance(audit)
    for functions, _ in _further(audit):
        for function in functions:
            yield function.__name__, function(audit)
    if {*RUNTIMES} & {*audit.precisions}:
        yield "agreement", agreement(audit)


def figures(audit):
    """Every figure of an Audit: its file's name, what draws it, and its legend."""
    for measure in MEASURES.values():
        if measure.applies(audit):
            # A map names its groups itself.
            yield measure.name, lines.of(measure), not measure.from_reference
    for _, drawn in _further(audit):
        for name, legend in drawn.items():
            if name == "class_accuracy" and fairness.cell_counts(audit).size > _LINES:
                print(f"no figure of each class in each group: more than {_LINES} lines", file=sys.stderr)
            else:
                yield name, getattr(lines, name), legend


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
    title = audit.provenance.get("experiment", {}).get("name", "audit")
    shown, bar = style.summarised(audit), {"delay": 5, "leave": False}
    # A comparison with the reference needs something to compare.
    drawn = list(figures(shown)) if len(audit.precisions) > 1 else []
    # Before the tables, of which those of largest gaps can take minutes.
    for name, draw, legend in tqdm(drawn, "figures", unit=" figures", **bar):
        written.append(folder / "figures" / f"{name}.png")
        _save(written[-1], compare(draw, {title: shown}, 4, legend))
    for name, table in tqdm(tables(audit), "tables", unit=" tables", **bar):
        written.append(folder / "tables" / f"{name}.csv")
        write_bytes(written[-1], as_csv(table).encode())
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


def as_csv(table):
    """A table as CSV in which no text is a formula: a spreadsheet takes for one what begins as these do.

    Examples
    --------
    >>> import pandas as pd
    >>> print(as_csv(pd.DataFrame({"group": ["=cmd()"], "value": [-1.5]})), end="")
    group,value
    '=cmd(),-1.5
    """
    return table.replace(r"^(?=[-=+@\t\r])", "'", regex=True).to_csv(index=False)


def _save(path, figure):
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def summary(audit):
    """The Audit in a few lines of text: whom it harms, accuracy of each group, overall accuracy and FVO."""
    parts = [measure(audit) for measure in (forward.group_accuracy, fairness.overall_accuracy)]
    parts.append(fairness.fvo(audit).assign(group="FVO"))
    counts = zip(audit.group_names, audit.group_counts, strict=True)
    sizes = ", ".join(f"{name} {count:,}" for name, count in counts)
    lines = [f"{len(audit.labels):,} test samples in {len(audit.group_names)} groups: {sizes}"]
    lines += [harm.verdict(harm.harm(audit)), "", "accuracy with 95 % interval"]
    lines += [wide(part).to_string() for part in parts]
    floating, unfolded = audit.provenance.get("floating"), audit.provenance.get("unfolded")
    if floating:
        share = f"{floating['share']:.2%} of the parameters"
        lines.append(f"in floating point: {share}: {some(floating['names'])}")
    if unfolded:
        lines.append(f"batch norm left unfolded: {some(unfolded)}")
    lines += audit.provenance.get("runtimes_left_out", {}).values()
    nulls = zip(audit.precisions, forward.null_logits(audit).sum(axis=1), strict=True)
    return "\n".join(lines + [f"{count} null logit vectors at {p}" for p, count in nulls if count])


def write_page(audit, path, images=None):
    """Write a page on an Audit to send on: HTML that needs nothing else, or Markdown where it ends in .md.

    Markdown has no figures and no lists to save; both are in the folder of `write_report`.  HTML has small
    pictures of images that flip where the files of `images` are given by the ids of the samples.
    """
    path, parts = Path(path), list(_page(audit, images))
    if path.suffix == ".md":
        text = "\n\n".join(_markdown(*part) for part in parts if part[0] not in ("file", "pictures"))
    else:
        filters = {"one_line": _one_line, "png": _png, "base64": _base64}
        text = TEMPLATES.get_template("report.html").render(parts=parts, **filters)
    write_bytes(path, text.encode())


def _page(audit, images=None):
    """What a page says of an Audit in order: what a part is, its text, and what else it has."""
    found, shown, facts = harm.harm(audit), style.summarised(audit), audit.provenance
    yield "h1", f"Audit of {facts.get('experiment', {}).get('name') or facts.get('model', 'logits')}"
    for warning in facts.get("warnings", ()):
        yield "verdict", f"Warning: {warning}"
    yield "verdict", harm.verdict(found)
    counts = f"{len(audit.labels):,} test images in {len(audit.group_names)} groups and"
    yield "p", f"{counts} {len(audit.class_names)} classes; every change is from {audit.precisions[0]}."
    for reason in facts.get("runtimes_left_out", {}).values():
        yield "p", f"Left out: {reason}"
    yield "h2", "Worst group and fairness violation"
    accuracy = forward.group_accuracy(audit).dropna(subset="value")
    worst = accuracy.loc[accuracy.groupby("precision", sort=False)["value"].idxmin()]
    of = {"its accuracy": worst.assign(group=""), "FVO": fairness.fvo(audit)}
    of |= {"by chance": fairness.fvo.of_chance(audit), "of all": fairness.overall_accuracy(audit)}
    columns = {"worst group": worst.set_index("precision")["group"]}
    columns |= {name: wide(own).iloc[0] for name, own in of.items()}
    columns |= {"what it is": {own: _column(audit, own) for own in audit.precisions}}
    caption = "Accuracies and their largest difference between two groups (FVO), with 95 % intervals"
    yield "table", caption, pd.DataFrame(columns).loc[list(audit.precisions)].reset_index(names="column")
    yield "h2", "Change of each group"
    yield "table", f"From {audit.precisions[0]}, in points of accuracy, the worst first", _changes(found)
    yield "file", "harm.csv", as_csv(found).encode()
    together = agreement(audit)
    if len(together):
        said = "Fake quantization and the real runtime (change: of the accuracy from one to the other)"
        yield "table", said, _changes(together)
    yield "h2", "Flips"
    totals = found.groupby("precision", sort=False)[["harmed", "helped"]].sum().reset_index(names="column")
    yield "table", "Images that a column alone classifies wrong (harmed), or right (helped)", totals
    flips = harm.flips(audit)
    yield "file", "flips.csv", as_csv(flips.head(_LISTED)).encode()
    if len(flips) > _LISTED:
        left_out = f"The first {_LISTED:,} of {len(flips):,} flips; all are in the folder of the audit."
        yield "p", left_out
    if images and len(flips):
        yield "pictures", "Images that flip, the harmed first", list(_thumbnails(flips, images))
    yield "h2", "Figures"
    for measure in MEASURES.values() if len(audit.precisions) > 1 else ():
        if (measure.chain or measure.swept) and measure.applies(shown):
            size = {"height": 4, "width": 5.6}
            figure = compare(lines.of(measure), {"": shown}, legend=not measure.from_reference, **size)
            digits = {"digits": max(measure.digits, 3), "scientific": measure.scientific}
            table = crossed(measure(shown), "group", "precision", **digits).reset_index()
            yield "figure", f"{measure.title[0].upper()}{measure.title[1:]} of each group", figure, table
    yield "h2", "How it was made"
    made = [(name, json.dumps(own)[:500]) for name, own in facts.items() if name != "history"]
    yield "table", "What the Audit says of itself", pd.DataFrame(made, columns=["fact", "value"])


def _thumbnails(flips, images):
    """Words and a small PNG of images that flip, the harmed first."""
    for row in flips.sort_values("flip", kind="stable").head(_ROWS).itertuples():
        picture = io.BytesIO()
        with Image.open(images[row.id]) as image:
            small = image.convert("RGB")
            small.thumbnail((96, 96))
            small.save(picture, "png")
        words = f"{row.label} taken for {row.prediction}" if row.flip == "harmed" else f"{row.label} found"
        yield f"{row.group} at {row.precision}: {words}", picture.getvalue()


def _column(audit, name):
    """What a column is, in a few words."""
    if name not in audit.provenance.get("quantizers", ()):
        return "computed by the runtime itself" if name in RUNTIMES else "logits as given"
    own = quantizer_of(name)
    if not own.bits and not own.activation_precision:
        return f"the model in {own.precision}"
    activations = own.activation_precision or "in floating point"
    return f"simulated: weights {own.precision}, activations {activations}"


def _changes(table):
    """The rows of `quantskew.measures.harm.harm`, or `agreement`, for reading: the worst first."""
    table = table.sort_values("value").head(_ROWS)
    points = (100 * table[["value", "low", "high", "detectable"]]).map("{:+.1f}".format).astype(str)
    columns = {"group": table["group"], "column": table["precision"], "images": table["count"]}
    columns |= {"accuracy before": table["reference"].map("{:.3f}".format), "change": points["value"]}
    columns |= {"95 % interval": points["low"] + " to " + points["high"]}
    columns |= {name: table[name] for name in ("harmed", "helped")}
    if "fake" in table:
        columns |= {"from": table["fake"], "same class": table["same"].map("{:.1%}".format)}
        columns |= {"cosine distance": table["cosine"].map("{:.1e}".format)}
    else:
        columns |= {"p": table["p"].map(harm.chance), "p corrected": table["q"].map(harm.chance)}
        columns |= {"drop that would show": points["detectable"].str.lstrip("+")}
    return pd.DataFrame(columns)


def _png(figure):
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return _base64(picture.getvalue())


def _base64(content):
    return base64.b64encode(content).decode()


def _markdown(kind, text, *content):
    """A part of a page in Markdown."""
    said = {"h1": "# ", "h2": "## ", "verdict": "> "}.get(kind, "") + _plain(text)
    if kind not in ("table", "figure"):
        return said
    rows = [map(_plain, row) for row in (content[-1].columns, *content[-1].itertuples(index=False))]
    rows.insert(1, ["---"] * len(content[-1].columns))
    return "\n".join([f"{said}:\n", *(f"| {' | '.join(row)} |" for row in rows)])


def _plain(value):
    """A value as text that means nothing else to Markdown."""
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", _one_line(value))


def _one_line(value):
    return " ".join(str(value).split())


def agreement(audit):
    """The tables of `quantskew.measures.harm.agreement` of each quantizer and runtime of its precision."""
    tables = [
        harm.agreement(audit, fake, real).assign(fake=fake)
        for real in sorted({*RUNTIMES} & {*audit.precisions})
        for fake in audit.precisions
        if quantizer_of(fake).precision == re.search(r"fp32|int\d", real)[0]
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def written(table, form="text"):
    """A table of `quantskew.claims.register.judged` as text, CSV or JSON.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"key": "fvo_grows", "effect": 0.25, "lacks": ""}
    >>> print(written(pd.DataFrame([row]), "csv"))
    key,effect,lacks
    fvo_grows,0.25,
    """
    check_known("format", form, ("text", "csv", "json"))
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
