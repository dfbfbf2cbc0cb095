"""Figures where group and class differ: an Audit and axes in, the axes out."""

import numpy as np

from quantskew.drawing.style import (
    group_colors,
    group_legend,
    group_markers,
    group_order,
    legend_below,
    precision_axis,
)
from quantskew.measures import equalized_odds

_LINES = ("-", "--", ":", "-.")


def class_looks(number):
    """Line style of a class, and whether its markers are filled; from the fifth class on they repeat.

    Examples
    --------
    >>> class_looks(1)
    ('--', False)
    """
    return _LINES[number % len(_LINES)], number % 2 == 0


def class_accuracy(audit, axes):
    """Accuracy of each class in each group over the precisions, with a bar for each 95 % interval.

    Colour and marker are the group's, as everywhere; the line and the face of the marker are the class's.
    A group without samples of a class has no line.
    """
    order, colors, markers = group_order(audit), group_colors(audit), group_markers(audit)
    table = equalized_odds.class_accuracy(audit).set_index(["group", "class"])
    positions = np.arange(len(audit.precisions))
    cells = [(group, number) for group in order for number in range(len(audit.class_names))]
    # Side by side, so that intervals at the same precision do not cover each other.
    shifts = np.linspace(-0.3, 0.3, len(cells)) if len(cells) > 1 else [0.0]
    for shift, (group, number) in zip(shifts, cells, strict=True):
        own = table.loc[[(audit.group_names[group], audit.class_names[number])]]
        if own["value"].isna().all():
            continue
        line, filled = class_looks(number)
        axes.errorbar(
            positions + shift,
            own["value"],
            yerr=np.clip([own["value"] - own["low"], own["high"] - own["value"]], 0, None),
            color=colors[group],
            marker=markers[group],
            markersize=4.5,
            markerfacecolor=colors[group] if filled else "white",
            linestyle=line,
            linewidth=1.1,
            elinewidth=0.8,
        )
    axes.set_ylim(-0.03, 1.03)
    return precision_axis(axes, audit.precisions, "accuracy of each class\n(share of its images)")


def group_and_class_legend(audit, axes):
    """A legend below the axes: the groups with their training images, largest first, then the classes."""
    colors, markers = group_colors(audit), group_markers(audit)
    handles, labels = [], []
    for group in group_order(audit):
        handles += axes.plot([], [], color=colors[group], marker=markers[group], markersize=4.5, linestyle="")
        labels.append(f"{audit.group_names[group]} ({audit.train_counts[group]:,})")
    for number, name in enumerate(audit.class_names):
        line, filled = class_looks(number)
        face = "black" if filled else "white"
        handles += axes.plot(
            [], [], color="black", marker="o", markersize=4.5, markerfacecolor=face, linestyle=line
        )
        labels.append(name)
    return legend_below(axes, handles, labels, "group (images in training), class", handlelength=2)


def intersection_legend(audit, axes):
    """A legend of intersections, whose counts are of test images (see `quantskew.measures.intersections`)."""
    return group_legend(audit, axes, title="group (images in the test)")
