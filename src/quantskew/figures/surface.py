"""Figures of the loss surface (sections 4.4 and 4.5 of the paper): an Audit and axes in, the axes out."""

import numpy as np

from quantskew.figures.style import group_looks, log_scale, scaled, side_by_side
from quantskew.measures import forward, surface

_AT = "int4"


def against(up, across=None):
    """What draws a measure of each group against another one, or against its number of training images.

    Both are at the paper's precision: int4, or the lowest where there is none.
    """

    def draw(audit, axes):
        at = _AT if _AT in audit.precisions else audit.precisions[-1]
        values = [audit.train_counts if of is None else _values(audit, of, at) for of in (across, up)]
        for look in group_looks(audit):
            x, y = (own[look.group] for own in values)
            axes.plot(x, y, linestyle="", markersize=7, **look.style)
        if across is None:
            log_scale(axes, "x")
        elif across.log:
            scaled(axes, "x", across)
        axes.set_xlabel("images in training" if across is None else f"{across.label} at {at}")
        axes.set_ylabel(f"{up.label} at {at}")
        return scaled(axes, "y", up)

    return draw


def _values(audit, measure, precision):
    """A group's values at a precision, in order of id."""
    return measure(audit)["value"].to_numpy().reshape(len(audit.precisions), -1)[audit.index(precision)]


# Fig. 8 and 9 of the paper, by the names of their files.
SCATTERS = {
    "gradient_against_size": against(surface.gradient_norm),
    "gradient_against_accuracy": against(surface.gradient_norm, forward.group_accuracy),
    "lambda_against_accuracy": against(surface.lambda_max, forward.group_accuracy),
    "lambda_against_confidence": against(surface.lambda_max, forward.top_probability),
    "gradient_against_lambda": against(surface.gradient_norm, surface.lambda_max),
}


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


def excess_loss(audit, axes):
    """What quantization adds to each group's loss, as a share of Tran et al.'s bound on it."""
    table = surface.excess_loss(audit)
    table = table.assign(value=table["share"], low=np.nan, high=np.nan)
    lines = [(table[table["group"] == look.name], look.style) for look in group_looks(audit)]
    return side_by_side(axes, lines, "added loss / bound")
