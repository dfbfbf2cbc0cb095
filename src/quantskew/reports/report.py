"""Every table and figure of an Audit, in a folder."""

from pathlib import Path

from quantskew.base.files import replacing, write_bytes
from quantskew.drawing import figures, intersection_figures, surface_figures
from quantskew.drawing.style import compare
from quantskew.measures import equalized_odds, fairness, logits, losses, softmax, steepness, weights
from quantskew.measures.intersections import groups_are_classes
from quantskew.measures.tables import OVERALL, wide

_TABLES = (
    fairness.group_accuracy,
    fairness.group_accuracy_change,
    fairness.overall_accuracy,
    fairness.fvo,
    fairness.fvo_change,
    fairness.fvo_of_chance,
    logits.cosine_distance,
    logits.l1_distance,
    logits.l2_distance,
    logits.logit_variance,
    softmax.softmax_variance,
    softmax.dtdb,
    softmax.dtdb_histogram,
    softmax.top_probability,
    losses.group_loss,
    losses.group_loss_change,
)
_WEIGHT_TABLES = (
    weights.absolute_difference,
    weights.sparsity,
    weights.mean_magnitude,
    weights.weight_histogram,
)
_SURFACE_TABLES = (
    steepness.gradient_norm,
    steepness.lambda_max,
    steepness.trace,
    steepness.excess_loss,
    steepness.loss_profile,
)
# Where group and class are one, each class has one group and there is nothing to compare within it.
_CLASS_TABLES = (
    equalized_odds.class_accuracy,
    equalized_odds.equalized_odds,
    equalized_odds.equalized_odds_change,
    equalized_odds.equalized_odds_of_chance,
    equalized_odds.demographic_parity,
    equalized_odds.demographic_parity_change,
)
_FIGURES = (
    figures.group_accuracy,
    figures.fvo,
    figures.cosine_distance,
    figures.l1_distance,
    figures.l2_distance,
    figures.logit_variance,
    figures.softmax_variance,
    figures.dtdb_distribution,
    figures.group_loss,
)
# These name their groups themselves, or show none.
_WITHOUT_GROUPS = (
    figures.fvo,
    figures.cosine_distance,
    figures.l1_distance,
    figures.l2_distance,
    figures.dtdb_distribution,
    figures.absolute_difference,
    figures.sparsity,
    figures.weight_distribution,
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
_WEIGHT_FIGURES = (figures.absolute_difference, figures.sparsity, figures.weight_distribution)
_CLASS_FIGURES = (intersection_figures.class_accuracy,)
_LEGENDS = {intersection_figures.class_accuracy: intersection_figures.group_and_class_legend}


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
    nulls = logits.null_logits(audit).sum(axis=1)
    lines += [
        f"{count} null logit vectors at {p}"
        for p, count in zip(audit.precisions, nulls, strict=True)
        if count
    ]
    return "\n".join(lines)
