"""Figures of one precision beside the reference: an Audit and axes in, the axes out.

The Audit has the reference and the precision that is shown, which comes last, or the reference alone.  A row
is a group, the one with most training images on top; a hollow marker is the reference.
"""

import numpy as np
from matplotlib.lines import Line2D

from quantskew.figures.lines import ridge
from quantskew.figures.style import group_colors, group_markers, group_order, log_scale
from quantskew.measures import forward, weights


def of(measure):
    """What draws a measure at one precision beside the reference; a distance from it has none.

    Behind the accuracies there is a band from the lowest to the highest: as wide as FVO (Eq. 2).

    Parameters
    ----------
    measure : quantskew.measures.measure.Measure

    Returns
    -------
    callable
        Audit and axes -> axes.
    """

    def draw(audit, axes):
        table, label = measure(audit), measure.label
        if measure is forward.group_accuracy:
            shown = table.loc[table["precision"] == audit.precisions[-1], "value"]
            axes.axvspan(shown.min(), shown.max(), color="#bbbbbb", alpha=0.4, linewidth=0)
            label += " (band: FVO)"
        if measure.limits:
            axes.set_xlim(measure.limits[0] - 0.03, measure.limits[1] + 0.03)
        return _rows(audit, axes, table, label, measure.log, not measure.from_reference)

    return draw


def weight_distribution(audit, axes):
    """Distribution of the weights and the share of zeros; an outline is the reference."""
    table = weights.weight_histogram(audit)
    for precision, look in zip(reversed(audit.precisions), _looks("#55557f"), strict=False):
        bins = table[table["precision"] == precision]
        ridge(axes, bins, 0, bins["value"] / bins["value"].max(), **look)
    share = weights.sparsity(audit)["value"].iloc[-1]
    axes.text(0.98, 0.9, f"{share:.1%} are zero", transform=axes.transAxes, ha="right")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("weight (deviations of its layer)" + _key(audit, "outline"))
    axes.set_ylabel("share (highest bin: 1)")
    return axes


def dtdb_distribution(audit, axes):
    """Distribution of the distance to the decision boundary in each group; an outline is the reference."""
    table, colors = forward.dtdb_histogram(audit), group_colors(audit)
    for row, group in enumerate(reversed(group_order(audit))):
        own = table[table["group"] == audit.group_names[group]]
        for precision, look in zip(reversed(audit.precisions), _looks(colors[group]), strict=False):
            bins = own[own["precision"] == precision]
            ridge(axes, bins, row, 0.9 * np.sqrt(bins["value"]), **look)
    _group_axis(audit, axes)
    axes.set_ylim(-0.1, len(audit.group_names))
    axes.set_xlabel("distance to the decision boundary" + _key(audit, "outline"))
    return axes


def _rows(audit, axes, table, label, log=False, reference=True):
    """A marker a group with its interval, and a line to the hollow marker of the reference.

    What has no place on a logarithmic axis is left out; if that is every group, the axes say so.
    """
    colors, markers = group_colors(audit), group_markers(audit)
    first, *others = audit.precisions
    order = [audit.group_names[group] for group in reversed(group_order(audit))]
    own = table[table["precision"] == audit.precisions[-1]].set_index("group").loc[order]
    before = table[table["precision"] == first].set_index("group").loc[order, "value"].to_numpy()
    values = own["value"].to_numpy()
    looks = [(colors[group], markers[group]) for group in reversed(group_order(audit))]
    shown = np.isfinite(values) & ((values > 0) | (not log))
    rows = np.arange(len(order))
    # Lines of all groups at once: an errorbar for each takes most of the time that a figure takes.
    lines = [(own["low"].to_numpy(), own["high"].to_numpy(), shown)]
    if reference and others:
        lines.append((before, values, np.isfinite(before) & np.isfinite(values)))
    for left, right, drawn in lines:
        ends = np.where(np.isfinite(left), left, values), np.where(np.isfinite(right), right, values)
        kept = [color for (color, _), there in zip(looks, drawn, strict=True) if there]
        axes.hlines(rows[drawn], ends[0][drawn], ends[1][drawn], colors=kept, linewidth=1)
    for row, (color, marker) in enumerate(looks):
        look = {"color": color, "marker": marker, "markersize": 6, "linestyle": "none"}
        if reference and others:
            axes.add_line(Line2D([before[row]], [row], **look, markerfacecolor="white"))
        if shown[row]:
            axes.add_line(Line2D([values[row]], [row], **look))
        elif np.isnan(values[row]):
            axes.text(0.02, row, "not defined", transform=axes.get_yaxis_transform(), va="center")
    if log:
        log_scale(axes, "x")
        axes.minorticks_off()
    if not shown.any():
        axes.text(0.5, 0.5, "no value above zero", transform=axes.transAxes, ha="center", va="center")
    _group_axis(audit, axes)
    axes.set_ylim(-0.6, len(audit.group_names) - 0.4)
    axes.set_xlabel(label + (_key(audit, "hollow") if reference else ""))
    return axes


def _looks(color):
    """How the precision that is shown is drawn, and how the reference."""
    yield {"fill": True, "color": color, "alpha": 0.6}
    yield {"color": "black", "linewidth": 0.9}


def _key(audit, sign):
    # An empty second line keeps the axes of the reference in the place of the others'.
    return f"\n({sign}: {audit.precisions[0]})" if len(audit.precisions) > 1 else "\n"


def _group_axis(audit, axes):
    names = [audit.group_names[group] for group in reversed(group_order(audit))]
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylabel("group, largest on top")
    axes.grid(axis="y", visible=False)
