"""Figures of the loss surface (sections 4.4 and 4.5 of the paper): an Audit and axes in, the axes out."""

import numpy as np

from quantskew.figures.style import group_looks, log_scale, scaled, side_by_side
from quantskew.measures import forward, surface

_AT = "int4"


def gradient_against_size(audit, axes):
    """Fig. 8a: gradient norm of each group against its number of training images."""
    log_scale(axes, "x")
    return _against(audit, axes, surface.gradient_norm)


def gradient_against_accuracy(audit, axes):
    """Fig. 8b: gradient norm of each group against its accuracy."""
    return _against(audit, axes, surface.gradient_norm, forward.group_accuracy)


def lambda_against_accuracy(audit, axes):
    """Fig. 9a: lambda_max of each group against its accuracy."""
    return _against(audit, axes, surface.lambda_max, forward.group_accuracy)


def lambda_against_confidence(audit, axes):
    """Fig. 9a: lambda_max of each group against its average prediction probability (Eq. 11)."""
    return _against(audit, axes, surface.lambda_max, forward.top_probability)


def gradient_against_lambda(audit, axes):
    """Fig. 9b: gradient norm of each group against its lambda_max."""
    log_scale(axes, "x")
    return _against(audit, axes, surface.gradient_norm, surface.lambda_max)


def _against(audit, axes, up, across=None):
    """A marker a group at the paper's precision: int4, or the lowest where there is none."""
    at = _AT if _AT in audit.precisions else audit.precisions[-1]
    values = [
        audit.train_counts if measure is None else _values(audit, measure)[audit.index(at)]
        for measure in (across, up)
    ]
    for look in group_looks(audit):
        x, y = (own[look.group] for own in values)
        axes.plot(x, y, linestyle="", markersize=7, **look.style)
    axes.set_xlabel("images in training" if across is None else f"{across.label} at {at}")
    axes.set_ylabel(f"{up.label} at {at}")
    return scaled(axes, "y", up)


def _values(audit, measure):
    return measure(audit)["value"].to_numpy().reshape(len(audit.precisions), -1)


def loss_profile(audit, axes):
    """Loss of the best- and the worst-served group along the top eigenvector and along quantization."""
    table, own = surface.loss_profile(audit), audit.curvature
    colors = {look.name: look.color for look in group_looks(audit)}
    for (group, direction), rows in table.groupby(["group", "direction"], sort=False):
        look = {"color": colors[group], "linestyle": "-" if direction == "top eigenvector" else "--"}
        axes.plot(rows["step"], rows["value"], label=f"{group}, {direction}", **look)
    log_scale(axes, "y")
    steep, change = own.profile_lengths
    axes.set_xlabel(f"step (solid: length {steep:.2g}; dashed: {change:.2g}, to {own.profile_precision})")
    axes.set_ylabel("cross-entropy (nats)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return axes


def taylor(audit, axes):
    """What quantization adds to each group's loss against what the terms of Eq. 4 predict, by precision."""
    table = surface.taylor(audit)
    shown = [name for name in audit.precisions[1:] if (table["precision"] == name).any()]
    for look in group_looks(audit):
        own = table[table["group"] == look.name].set_index("precision").loc[shown]
        axes.plot(own["predicted"], own["value"], linestyle=":", linewidth=0.8, markersize=5, **look.style)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=0)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xlabel("predicted by Eq. 4 (nats)")
    axes.set_ylabel("added loss (nats)")
    return axes


def excess_loss(audit, axes):
    """What quantization adds to each group's loss, as a share of Tran et al.'s bound on it."""
    table = surface.excess_loss(audit)
    table = table.assign(value=table["share"], low=np.nan, high=np.nan)
    lines = [(table[table["group"] == look.name], look.style) for look in group_looks(audit)]
    return side_by_side(axes, lines, "added loss / bound")
