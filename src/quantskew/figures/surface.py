"""Figures of the loss surface (sections 4.4 and 4.5 of the paper): an Audit and axes in, the axes out."""

import numpy as np

from quantskew.figures.lines import by_precision
from quantskew.figures.style import group_colors, group_markers, group_order, log_scale
from quantskew.measures import forward, surface

_AT = "int4"


def _values(audit, table):
    """A group's values at the paper's precision (int4; the lowest where there is none), in order of id."""
    precision = _AT if _AT in audit.precisions else audit.precisions[-1]
    own = table[table["precision"] == precision].set_index("group")["value"]
    return own.loc[list(audit.group_names)].to_numpy(), precision


def _scatter(audit, axes, across, up, labels, log):
    colors, markers = group_colors(audit), group_markers(audit)
    for group in group_order(audit):
        axes.plot(
            across[group], up[group], linestyle="", color=colors[group], marker=markers[group], markersize=7
        )
    for name in log:
        log_scale(axes, name)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    return axes


def gradient_against_size(audit, axes):
    """Fig. 8a: gradient norm of each group against its number of training images."""
    norms, precision = _values(audit, surface.gradient_norm(audit))
    labels = "images in training", f"gradient norm at {precision}"
    return _scatter(audit, axes, audit.train_counts, norms, labels, "xy")


def gradient_against_accuracy(audit, axes):
    """Fig. 8b: gradient norm of each group against its accuracy."""
    norms, precision = _values(audit, surface.gradient_norm(audit))
    accuracy, _ = _values(audit, forward.group_accuracy(audit))
    labels = f"accuracy at {precision}", f"gradient norm at {precision}"
    return _scatter(audit, axes, accuracy, norms, labels, "y")


def lambda_against_accuracy(audit, axes):
    """Fig. 9a: lambda_max of each group against its accuracy."""
    top, precision = _values(audit, surface.lambda_max(audit))
    accuracy, _ = _values(audit, forward.group_accuracy(audit))
    labels = f"accuracy at {precision}", f"lambda_max at {precision}"
    return _scatter(audit, axes, accuracy, top, labels, "y")


def lambda_against_confidence(audit, axes):
    """Fig. 9a: lambda_max of each group against its average prediction probability (Eq. 11)."""
    top, precision = _values(audit, surface.lambda_max(audit))
    confidence, _ = _values(audit, forward.top_probability(audit))
    labels = f"avg. prediction prob. at {precision}", f"lambda_max at {precision}"
    return _scatter(audit, axes, confidence, top, labels, "y")


def gradient_against_lambda(audit, axes):
    """Fig. 9b: gradient norm of each group against its lambda_max."""
    top, precision = _values(audit, surface.lambda_max(audit))
    norms, _ = _values(audit, surface.gradient_norm(audit))
    labels = f"lambda_max at {precision}", f"gradient norm at {precision}"
    return _scatter(audit, axes, top, norms, labels, "xy")


SCATTERS = (
    gradient_against_size,
    gradient_against_accuracy,
    lambda_against_accuracy,
    lambda_against_confidence,
    gradient_against_lambda,
)


def loss_profile(audit, axes):
    """Loss of the best- and the worst-served group along the top eigenvector and along quantization."""
    table, colors = surface.loss_profile(audit), group_colors(audit)
    for group in audit.curvature.profile_groups:
        name = audit.group_names[group]
        for direction, style in (("top eigenvector", "-"), ("quantization", "--")):
            own = table[(table["group"] == name) & (table["direction"] == direction)]
            axes.plot(
                own["step"], own["value"], color=colors[group], linestyle=style, label=f"{name}, {direction}"
            )
    log_scale(axes, "y")
    steep, change = audit.curvature.profile_lengths
    precision = audit.curvature.profile_precision
    axes.set_xlabel(f"step (solid: length {steep:.2g}; dashed: {change:.2g}, to {precision})")
    axes.set_ylabel("cross-entropy (nats)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return axes


def excess_loss(audit, axes):
    """What quantization adds to each group's loss, as a share of Tran et al.'s bound on it."""
    table = surface.excess_loss(audit)
    table = table.assign(value=table["share"], low=np.nan, high=np.nan)
    return by_precision(audit, axes, table, "added loss / bound")
