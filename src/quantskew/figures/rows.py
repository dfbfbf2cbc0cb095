"""Figures of one precision beside the reference: an Audit and axes in, the axes out.

The Audit has the reference and the precision that is shown, which comes last, or the reference alone.  A row
is a group, the one with most training images on top; a hollow marker is the reference.
"""

import numpy as np
from matplotlib.lines import Line2D

from quantskew.figures.lines import ridge
from quantskew.figures.style import by_group, group_looks, scaled
from quantskew.measures import forward, weights


def of(measure):
    """What draws a measure, from an Audit and axes: a marker a group with its interval, in a row.

    A line leads to the hollow marker of the reference, which a distance from it does not have.  Behind the
    accuracies there is a band from the lowest to the highest: as wide as FVO (Eq. 2).
    """

    def draw(audit, axes):
        table, label = measure(audit), measure.label
        if measure is forward.group_accuracy:
            shown = table.loc[table["precision"] == audit.precisions[-1], "value"]
            axes.axvspan(shown.min(), shown.max(), color="#bbbbbb", alpha=0.4, linewidth=0)
            label += " (band: FVO)"
        _markers(audit, axes, table, measure)
        scaled(axes, "x", measure)
        if measure.log:
            axes.minorticks_off()
        axes.set_ylim(-0.6, len(audit.group_names) - 0.4)
        return _group_axis(audit, axes, label + ("" if measure.from_reference else _key(audit, "hollow")))

    return draw


def weight_distribution(audit, axes):
    """Distribution of the weights and the share of zeros; an outline is the reference."""
    _ridges(axes, audit, weights.weight_histogram(audit), 0, "#55557f", lambda own: own / own.max())
    share = weights.sparsity(audit)["value"].iloc[-1]
    axes.text(0.98, 0.9, f"{share:.1%} are zero", transform=axes.transAxes, ha="right")
    label = "weight (deviations of its layer)" + _key(audit, "outline")
    axes.set(ylim=(0, 1.05), xlabel=label, ylabel="share (highest bin: 1)")
    return axes


def dtdb_distribution(audit, axes):
    """Distribution of the distance to the decision boundary in each group; an outline is the reference."""
    table = forward.dtdb_histogram(audit)
    for row, (look, own) in enumerate(by_group(reversed(group_looks(audit)), table)):
        _ridges(axes, audit, own, row, look.color, lambda value: 0.9 * np.sqrt(value))
    axes.set_ylim(-0.1, len(audit.group_names))
    return _group_axis(audit, axes, "distance to the decision boundary" + _key(audit, "outline"))


def _ridges(axes, audit, table, row, color, height):
    """The precision that is shown filled, the reference as an outline."""
    styles = {"fill": True, "color": color, "alpha": 0.6}, {"color": "black", "linewidth": 0.9}
    for precision, style in zip(reversed(audit.precisions), styles, strict=False):
        bins = table[table["precision"] == precision]
        ridge(axes, bins, row, height(bins["value"]), **style)


def _markers(audit, axes, table, measure):
    """What has no place on a logarithmic axis is left out; if that is every group, the axes say so."""
    looks = group_looks(audit)[::-1]
    rows = table.set_index(["precision", "group"])[["value", "low", "high"]]
    ends = (rows.loc[audit.precisions[end]].loc[[look.name for look in looks]] for end in (0, -1))
    (before, *_), (values, low, high) = (own.to_numpy().T for own in ends)
    shown = np.isfinite(values) & ((values > 0) | (not measure.log))
    beside = len(audit.precisions) > 1 and not measure.from_reference
    # Lines of all groups at once: an errorbar for each takes most of the time that a figure takes.
    lines = [(low, high, shown)]
    if beside:
        lines.append((before, values, np.isfinite(before) & np.isfinite(values)))
    for left, right, drawn in lines:
        left, right = (np.where(np.isfinite(end), end, values)[drawn] for end in (left, right))
        colors = [look.color for look, there in zip(looks, drawn, strict=True) if there]
        axes.hlines(np.flatnonzero(drawn), left, right, colors=colors, linewidth=1)
    for row, look in enumerate(looks):
        style = look.style | {"markersize": 6, "linestyle": "none"}
        if beside:
            axes.add_line(Line2D([before[row]], [row], **style, markerfacecolor="white"))
        if shown[row]:
            axes.add_line(Line2D([values[row]], [row], **style))
        elif np.isnan(values[row]):
            axes.text(0.02, row, "not defined", transform=axes.get_yaxis_transform(), va="center")
    if not shown.any():
        axes.text(0.5, 0.5, "no value above zero", transform=axes.transAxes, ha="center", va="center")


def _key(audit, sign):
    # An empty second line keeps the axes of the reference in the place of the others'.
    return f"\n({sign}: {audit.precisions[0]})" if len(audit.precisions) > 1 else "\n"


def _group_axis(audit, axes, label):
    names = [look.name for look in reversed(group_looks(audit))]
    axes.set(yticks=range(len(names)), yticklabels=names, ylabel="group, largest on top", xlabel=label)
    axes.grid(axis="y", visible=False)
    return axes
