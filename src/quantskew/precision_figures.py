"""Figures of one precision beside the reference: an Audit and axes in, the axes out.

The Audit has the reference and the precision that is shown, which comes last, or the reference alone.  A row
is a group, the one with most training images on top; a hollow marker is the reference.
"""

import numpy as np

from quantskew import fairness, logits, losses, softmax, steepness, weights
from quantskew.figures import ridge
from quantskew.style import group_colors, group_markers, group_order, log_scale


def accuracy(audit, axes):
    """Accuracy of each group; the band from the lowest to the highest is as wide as FVO (Eq. 2)."""
    table = fairness.group_accuracy(audit)
    shown = table.loc[table["precision"] == audit.precisions[-1], "value"]
    axes.axvspan(shown.min(), shown.max(), color="#bbbbbb", alpha=0.4, linewidth=0)
    axes.set_xlim(-0.03, 1.03)
    return _rows(audit, axes, table, "accuracy (width of the band: FVO)")


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


def cosine_distance(audit, axes):
    """Average cosine distance of each group's logits from the reference's (Eq. 8)."""
    label = "average cosine distance"
    return _rows(audit, axes, logits.cosine_distance(audit), label, log=True, reference=False)


def logit_variance(audit, axes):
    """Mean variance of each group's logits (Eq. 9)."""
    return _rows(audit, axes, logits.logit_variance(audit), "mean variance of the logits", log=True)


def dtdb(audit, axes):
    """Distribution of the distance to the decision boundary in each group; an outline is the reference."""
    table, colors = softmax.dtdb_histogram(audit), group_colors(audit)
    for row, group in enumerate(reversed(group_order(audit))):
        own = table[table["group"] == audit.group_names[group]]
        for precision, look in zip(reversed(audit.precisions), _looks(colors[group]), strict=False):
            bins = own[own["precision"] == precision]
            ridge(axes, bins, row, 0.9 * np.sqrt(bins["value"]), **look)
    _group_axis(audit, axes)
    axes.set_ylim(-0.1, len(audit.group_names))
    axes.set_xlabel("distance to the decision boundary" + _key(audit, "outline"))
    return axes


def loss(audit, axes):
    """Mean cross-entropy of each group."""
    return _rows(audit, axes, losses.group_loss(audit), "cross-entropy (nats)", log=True)


def gradient_norm(audit, axes):
    """Gradient norm of each group's loss (Eq. 10)."""
    return _rows(audit, axes, steepness.gradient_norm(audit), "gradient norm", log=True)


def lambda_max(audit, axes):
    """Largest eigenvalue of the Hessian of each group's loss."""
    return _rows(audit, axes, steepness.lambda_max(audit), "lambda_max", log=True)


def _rows(audit, axes, table, label, log=False, reference=True):
    """A marker a group with its interval, and a line to the hollow marker of the reference.

    What has no place on a logarithmic axis is left out; if that is every group, the axes say so.
    """
    colors, markers = group_colors(audit), group_markers(audit)
    first, *others = audit.precisions
    values = table.set_index(["precision", "group"])
    drawn = 0
    for row, group in enumerate(reversed(group_order(audit))):
        own = values.loc[(audit.precisions[-1], audit.group_names[group])]
        look = {"color": colors[group], "marker": markers[group], "markersize": 6}
        if reference and others:
            before = values.loc[(first, audit.group_names[group]), "value"]
            axes.plot([before, own["value"]], [row, row], color=colors[group], linewidth=1)
            axes.plot(before, row, **look, markerfacecolor="white")
        if np.isfinite(own["value"]) and (own["value"] > 0 or not log):
            bars = np.clip([[own["value"] - own["low"]], [own["high"] - own["value"]]], 0, None)
            axes.errorbar(own["value"], row, xerr=np.nan_to_num(bars), **look, elinewidth=1)
            drawn += 1
        elif np.isnan(own["value"]):
            axes.text(0.02, row, "not defined", transform=axes.get_yaxis_transform(), va="center")
    if log:
        log_scale(axes, "x")
        axes.minorticks_off()
    if not drawn:
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
