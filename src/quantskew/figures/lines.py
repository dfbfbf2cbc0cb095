"""The book's figures: an Audit and axes in, the axes out.

`quantskew.figures.style.compare` puts several Audits side by side.
"""

import numpy as np

from quantskew.figures.style import (
    group_colors,
    group_legend,
    group_markers,
    group_order,
    legend_below,
    log_scale,
    precision_axis,
    precision_label,
)
from quantskew.groups import group_means
from quantskew.measures import fairness, forward, odds, weights


def by_precision(audit, axes, table, label, log=False):
    """One line a group over the precisions, with a bar for each 95 % interval.

    Parameters
    ----------
    audit : Audit
    axes : matplotlib.axes.Axes
    table : pandas.DataFrame
        With columns ``group``, ``precision``, ``value``, ``low``, ``high``.
    label : str
        Of the vertical axis, with its unit.
    log : bool
        Whether the vertical axis is logarithmic.
    """
    order, colors, markers = group_order(audit), group_colors(audit), group_markers(audit)
    shown = [precision for precision in audit.precisions if (table["precision"] == precision).any()]
    # Side by side, so that intervals at the same precision do not cover each other.
    shifts = np.linspace(-0.2, 0.2, len(order)) if len(order) > 1 else [0.0]
    for shift, group in zip(shifts, order, strict=True):
        own = table[table["group"] == audit.group_names[group]].set_index("precision").loc[shown]
        bars = np.clip([own["value"] - own["low"], own["high"] - own["value"]], 0, None)
        axes.errorbar(
            np.arange(len(shown)) + shift,
            own["value"],
            yerr=bars,
            color=colors[group],
            marker=markers[group],
            markersize=4,
            linewidth=1.2,
            elinewidth=1,
        )
    if log:
        log_scale(axes, "y")
    return precision_axis(axes, shown, label)


def of(measure):
    """What draws a measure: a line a group over the precisions, or a map where it is a distance.

    Parameters
    ----------
    measure : quantskew.measures.measure.Measure

    Returns
    -------
    callable
        Audit and axes -> axes.
    """

    def draw(audit, axes):
        if measure.from_reference:
            return distance_map(audit, axes, measure(audit), measure.label)
        if measure.limits:
            axes.set_ylim(measure.limits[0] - 0.03, measure.limits[1] + 0.03)
        return by_precision(audit, axes, measure(audit), measure.label, measure.log)

    return draw


def fvo(audit, axes):
    """FVO (Eq. 2) at each precision, beside what chance alone would give."""
    table, chance = fairness.fvo(audit), fairness.fvo.of_chance(audit)
    positions = np.arange(len(table))
    axes.fill_between(
        positions,
        chance["low"],
        chance["high"],
        color="#bbbbbb",
        alpha=0.6,
        label="shuffled groups (control)",
    )
    bars = np.clip([table["value"] - table["low"], table["high"] - table["value"]], 0, None)
    axes.errorbar(
        positions,
        table["value"],
        yerr=bars,
        color="black",
        marker="o",
        markersize=4,
        label="FVO of the groups",
    )
    overall = fairness.overall_accuracy(audit)
    axes.plot(positions, overall["value"], color="#777777", linestyle="--", label="overall accuracy")
    axes.set_ylim(-0.03, 1.03)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return precision_axis(axes, audit.precisions, "FVO, accuracy")


def absolute_difference(audit, axes):
    """Fig. 3, left: mean absolute difference of the weights (Eq. 5 over the number of weights)."""
    table = weights.absolute_difference(audit, mean=True)
    axes.plot(np.arange(len(table)), table["value"], color="black", marker="o", markersize=4)
    return precision_axis(axes, audit.precisions, "mean |W~ − W|\n(units of the weights)")


def sparsity(audit, axes):
    """Fig. 3, right: share of weights that are exactly zero (Eq. 6), over all layers and in each."""
    table, layers = weights.sparsity(audit), weights.sparsity(audit, per_layer=True)
    for _, own in layers.groupby("layer", sort=False):
        axes.plot(np.arange(len(own)), own["value"], color="#bbbbbb", linewidth=0.8)
    axes.plot([], [], color="#bbbbbb", linewidth=0.8, label="each layer")
    axes.plot(
        np.arange(len(table)), table["value"], color="black", marker="o", markersize=4, label="all weights"
    )
    axes.set_ylim(-0.03, 1.03)
    axes.legend(loc="upper left")
    return precision_axis(axes, audit.precisions, "sparsity\n(share of zero weights)")


def weight_distribution(audit, axes):
    """Fig. 4: distribution of the dequantized weights, one ridge a precision."""
    table = weights.weight_histogram(audit)
    zeros = weights.sparsity(audit).set_index("precision")["value"]
    for row, precision in enumerate(reversed(audit.precisions)):
        own = table[table["precision"] == precision]
        heights = 0.85 * own["value"] / own["value"].max()
        ridge(axes, own, row, heights, fill=True, color="#55557f", alpha=0.9)
        share = f"{zeros[precision]:.0%} zero" if zeros[precision] >= 0.005 else "no zeros"
        axes.text(own["right"].max(), row + 0.3, share, ha="right", fontsize=8.5)
    return _ridge_axis(axes, audit.precisions, "weight (deviations of its layer)")


def ridge(axes, table, row, heights, **look):
    """A histogram (columns ``left`` and ``right``) drawn on a row, its bins as high as `heights` say."""
    edges = np.append(table["left"], table["right"].iloc[-1])
    return axes.stairs(row + np.asarray(heights), edges, baseline=row, **look)


def _ridge_axis(axes, precisions, label):
    axes.set_yticks(np.arange(len(precisions)), precisions[::-1])
    axes.set_ylim(-0.05, len(precisions))
    axes.set_xlabel(label)
    axes.set_ylabel(precision_label(precisions))
    axes.grid(axis="y", visible=False)
    return axes


def distance_map(audit, axes, table, label):
    """Mean distance of the logits from the reference, a cell a group and precision; darker is larger.

    The precisions are those that change the logits at all; the number in a cell is the distance in units
    of the largest one, in per cent.
    """
    order = group_order(audit)
    precisions = [
        p for p in audit.precisions[1:] if table.loc[table["precision"] == p, "value"].notna().any()
    ]
    values = table.pivot(index="group", columns="precision", values="value")
    values = values.loc[[audit.group_names[g] for g in order], precisions].to_numpy()
    # Each precision has its own shade scale: within a column the shades compare the groups.
    shades = values / np.nanmax(values, axis=0, keepdims=True)
    axes.imshow(shades, cmap="Greys", vmin=0, vmax=1.3, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.2g}" if np.isfinite(value) else "null"
        color = "white" if shades[row, column] > 0.85 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(np.arange(len(precisions)), precisions)
    axes.set_yticks(np.arange(len(order)), [audit.group_names[g] for g in order])
    axes.set_xlabel(f"{precision_label(precisions)}\n({label})")
    axes.set_ylabel("group, largest in training first")
    axes.grid(visible=False)
    return axes


def dtdb_distribution(audit, axes):
    """Fig. 6b: distance to the decision boundary of the largest and the smallest group in training."""
    table, colors, order = forward.dtdb_histogram(audit), group_colors(audit), group_order(audit)
    for group in (order[0], order[-1]):
        for row, precision in enumerate(reversed(audit.precisions)):
            own = table[(table["precision"] == precision) & (table["group"] == audit.group_names[group])]
            heights = 0.9 * np.sqrt(own["value"])
            options = {"label": audit.group_names[group]} if row == 0 else {}
            ridge(axes, own, row, heights, fill=True, color=colors[group], alpha=0.25)
            ridge(axes, own, row, heights, color=colors[group], linewidth=1.5, **options)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return _ridge_axis(axes, audit.precisions, "distance to the decision boundary")


def loss_against_softmax_variance(audit, axes):
    """Loss of each group against the variance of its probabilities, a point a precision."""
    loss = group_means(forward.group_loss.of_samples(audit), audit.groups, len(audit.group_names))
    spread = group_means(forward.softmax_variance.of_samples(audit), audit.groups, len(audit.group_names))
    colors, markers = group_colors(audit), group_markers(audit)
    for group in group_order(audit):
        axes.plot(
            spread[:, group],
            loss[:, group],
            color=colors[group],
            marker=markers[group],
            markersize=4,
            linewidth=1,
        )
        axes.annotate(
            audit.precisions[-1],
            (spread[-1, group], loss[-1, group]),
            fontsize=7,
            textcoords="offset points",
            xytext=(4, 2),
        )
    log_scale(axes, "y")
    axes.set_xlabel("mean variance of the probabilities")
    axes.set_ylabel("cross-entropy (nats)")
    return axes


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
    table = odds.class_accuracy(audit).set_index(["group", "class"])
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
    """A legend of intersections, whose counts are of test images (see `quantskew.measures.odds`)."""
    return group_legend(audit, axes, title="group (images in the test)")
