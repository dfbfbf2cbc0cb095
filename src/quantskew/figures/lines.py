"""The book's figures of an Audit, over its precisions or at one: an Audit and axes in, the axes out.

`quantskew.figures.style.compare` puts several Audits side by side.
"""

from functools import partial

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from quantskew.figures import style
from quantskew.measures import fairness, forward, surface, weights
from quantskew.measures.measure import OVERALL
from quantskew.measures.seeds import by_seed

# Where the paper draws one group against another.
_AT = "int4"
_TOTAL = {"color": "black", "marker": "o", "markersize": 4}


def of(measure):
    """What draws a measure, from an Audit and axes: a line a group over the precisions, or a map."""

    def draw(audit, axes):
        if measure.from_reference:
            return distance_map(audit, axes, measure)
        return by_precision(axes, style.group_looks(audit), measure(audit), measure)

    draw.numbers = partial(numbers, measure)
    return draw


def by_precision(axes, groups, table, measure):
    """One line a group (see `quantskew.figures.style.looks`) over the precisions of a table of a measure."""
    lines = [(own, look.style | {"markersize": 4}) for look, own in style.by_group(groups, table)]
    style.side_by_side(axes, lines, measure.label)
    return style.zoomed(axes, measure)


def numbers(measure, title, audits):
    """What a page draws lines or a map of a measure from, dict: of an Audit a seed, with what scales it.

    ``seeds`` is a list by training run, precision and group, the largest first, of value, low and high; the
    runs are those of which there is this measure.
    """
    own = _panel(measure, title, audits, measure, ["value", "low", "high"])
    return own | ({"kind": "map"} if measure.from_reference else {"joined": style.ordered(own["precisions"])})


def _points(up, across, at, title, audits):
    """As `numbers`, of a measure against another one: ``seeds`` has value and place of each point."""

    def table(audit):
        return up(audit).assign(place=_across(audit, across).ravel())

    scale, when = {"label": audits[0].counted, "log": True}, f" at {at}" if at else ""
    if across:
        scale = {"label": across.label + when, "log": across.log, "limits": across.limits}
    own = _panel(up, title, audits, table, ["value", "place"], at)
    return own | {"label": up.label + when, "kind": "against", "across": scale}


def _panel(measure, title, audits, table, columns, at=None):
    """What every kind of drawing has: at all precisions that have a value, or at one."""
    first, looks = audits[0], style.group_looks(audits[0])
    runs = {seed: table(own) for seed, own in by_seed(audits).items() if measure.applies(own)}
    precisions = [at] if at else _changed(first, measure) if measure.from_reference else first.precisions
    keys, seeds = [(precision, look.name) for precision in precisions for look in looks], []
    for own in runs.values():
        rows = own.set_index(["precision", "group"])[columns].astype(float).reindex(keys)
        rows = rows.map(lambda value: float(f"{value:.4g}")).replace(np.nan, None)
        seeds.append(rows.to_numpy().reshape(len(precisions), len(looks), -1).tolist())
    known = {name: getattr(measure, name) for name in ("label", "log", "limits", "digits", "scientific")}
    named = {"title": title, "counted": first.counted, "groups": [look.described for look in looks]}
    own = {"precisions": precisions, "seeds": seeds, "runs": list(runs)}
    return known | named | own | {"axis": style.precision_label(precisions)}


def against(up, across):
    """What draws a measure of each group against another one, a point a precision, see `style.path`."""

    def draw(audit, axes):
        rows, columns = _values(audit, up), _values(audit, across)
        for look in style.group_looks(audit):
            style.path(axes, columns[:, look.group], rows[:, look.group], look.style)
        ends = f"(hollow: {audit.precisions[0]}, large: {audit.precisions[-1]})"
        axes.set(xlabel=f"{across.label}\n{ends}", ylabel=up.label)
        return style.scaled(axes, "y", up)

    draw.numbers = partial(_points, up, across, None)
    return draw


def _values(audit, measure):
    """Values of a measure, a row a precision and a column a group."""
    return measure(audit)["value"].to_numpy().reshape(len(audit.precisions), -1)


def _across(audit, measure=None):
    """Values of a measure, or else the training images of the groups, at each precision."""
    if measure:
        return _values(audit, measure)
    return np.tile(audit.train_counts, (len(audit.precisions), 1))


def fvo(audit, axes):
    """FVO (Eq. 2) at each precision, beside what chance alone would give."""
    table, chance = fairness.fvo(audit), fairness.fvo.of_chance(audit)
    places, grey = np.arange(len(table)), {"color": "#bbbbbb", "alpha": 0.6}
    control = {"label": "shuffled groups (control)", "step": "mid", **grey}
    axes.fill_between(places, chance["low"], chance["high"], **control)
    of_fvo_and_accuracy(axes, table, fairness.overall_accuracy(audit))
    return style.legend_below(axes, *axes.get_legend_handles_labels(), None)


def of_fvo_and_accuracy(axes, table, overall):
    """FVO and, dashed, the overall accuracy with their intervals."""
    places = np.arange(len(table))
    style.with_bars(axes, places, table, label="FVO of the groups", **_TOTAL)
    style.with_bars(axes, places, overall, label="overall accuracy", color="#777777", linestyle="--")
    style.precision_axis(axes, list(table["precision"]), "FVO, accuracy")
    return style.zoomed(axes, fairness.fvo)


def absolute_difference(audit, axes):
    """Fig. 3, left: mean absolute difference of the weights (Eq. 5 over the number of weights)."""
    axes.plot(weights.absolute_difference(audit, mean=True)["value"], **_TOTAL)
    return style.precision_axis(axes, audit.precisions, "mean |W~ − W|\n(units of the weights)")


def sparsity(audit, axes):
    """Fig. 3, right: share of weights that are exactly zero (Eq. 6), over all layers and in each."""
    grey = {"color": "#bbbbbb", "linewidth": 0.8}
    for _, own in weights.sparsity(audit, per_layer=True).groupby("layer", sort=False):
        axes.plot(np.arange(len(own)), own["value"], **grey)
    axes.plot([], [], label="each layer", **grey)
    axes.plot(weights.sparsity(audit)["value"], label="all weights", **_TOTAL)
    axes.set_ylim(style.SHARES)
    axes.legend(loc="upper left")
    return style.precision_axis(axes, audit.precisions, "sparsity\n(share of zero weights)")


def weight_distribution(audit, axes):
    """Fig. 4: distribution of the dequantized weights, one ridge a precision."""
    table = weights.weight_histogram(audit)
    zeros = weights.sparsity(audit).set_index("precision")["value"]
    for row, precision in enumerate(reversed(audit.precisions)):
        own = table[table["precision"] == precision]
        ridge(axes, own, row, 0.85 * own["value"] / own["value"].max(), fill=True, color="#55557f", alpha=0.9)
        share = f"{zeros[precision]:.0%} zero" if zeros[precision] >= 0.005 else "no zeros"
        axes.text(own["right"].max(), row + 0.3, share, ha="right", fontsize=8.5)
    return _ridge_axis(axes, audit.precisions, "weight (deviations of its layer)")


def dtdb_distribution(audit, axes):
    """Fig. 6b: distance to the decision boundary of the largest and the smallest group in training."""
    table, groups = forward.dtdb_histogram(audit), style.group_looks(audit)
    for look in (groups[0], groups[-1]):
        for row, precision in enumerate(reversed(audit.precisions)):
            own = table[(table["precision"] == precision) & (table["group"] == look.name)]
            heights = 0.9 * np.sqrt(own["value"])
            ridge(axes, own, row, heights, fill=True, color=look.color, alpha=0.25)
            named = {"label": style.legible(look.name, 24)} if row == 0 else {}
            ridge(axes, own, row, heights, color=look.color, linewidth=1.5, **named)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return _ridge_axis(axes, audit.precisions, "distance to the decision boundary")


def ridge(axes, table, row, heights, **look):
    """A histogram (columns ``left`` and ``right``) drawn on a row, its bins as high as `heights` say."""
    edges = np.append(table["left"], table["right"].iloc[-1])
    return axes.stairs(row + np.asarray(heights), edges, baseline=row, **look)


def _ridge_axis(axes, precisions, label):
    axes.set(xlabel=label, ylabel=style.precision_label(precisions), ylim=(-0.05, len(precisions)))
    axes.set_yticks(np.arange(len(precisions)), precisions[::-1])
    axes.grid(axis="y", visible=False)
    return axes


def distance_map(audit, axes, measure):
    """Mean distance of the logits from the reference, a cell a group and precision; darker is larger.

    The precisions are those that change the logits at all.  Each has its own shade scale: within a column the
    shades compare the groups.
    """
    values = measure(audit).pivot(index="group", columns="precision", values="value")
    values = values.loc[[look.name for look in style.group_looks(audit)]]
    precisions = _changed(audit, measure)
    shades = values[precisions] / values[precisions].max()
    texts = values.map(lambda value: f"{value:.2g}" if np.isfinite(value) else "null")
    style.number_map(axes, shades, texts, shades > 0.85, cmap="Greys", vmin=0, vmax=1.3)
    across = f"{style.precision_label(precisions)}\n({measure.label})"
    axes.set(xlabel=across, ylabel="group, largest on top")
    return axes


def _changed(audit, measure):
    """The precisions at which a distance from the reference has a value."""
    known = measure(audit).dropna(subset=["value"])["precision"].to_list()
    return [precision for precision in audit.precisions[1:] if precision in known]


def layer_map(measure, table):
    """What draws a table of `quantskew.measures.fairness.layer_changes`, a cell a layer and group.

    A cell is shaded and has its number where its 95 % interval is all on one side of 0; the larger the
    change, the darker.
    """

    def draw(audit, axes):
        order = table["layer"].unique(), [look.name for look in style.group_looks(audit)]
        cells = table.set_index(["layer", "group"])[["value", "low", "high"]].unstack().loc[order[0]]
        values, low, high = (cells[name][order[1]] for name in ("value", "low", "high"))
        shades = values.abs().where((low > 0) | (high < 0), 0)
        shades /= max(shades.drop(OVERALL).max(axis=None), 1e-9)
        # Ten groups leave no room for a leading zero, or for what may be nothing.
        texts = values.map(lambda value: style.number(value, measure.digits).replace("0.", "."))
        texts = texts.where(shades > 0.05, "")
        style.number_map(axes, shades, texts, shades > 0.6, cmap="Greys", vmin=0, vmax=1.3)
        axes.tick_params(axis="x", rotation=45 if max(map(len, order[1])) > 2 else 0)
        axes.set_xlabel(f"change of {measure.label}\nwhere all other layers are {table['others'].iloc[0]}")
        return axes

    return draw


def class_looks(number, color):
    """Line of a class, and the face of its markers; from the fifth class on they repeat."""
    face = "white" if number % 2 else color
    return {"linestyle": ("-", "--", ":", "-.")[number % 4], "markerfacecolor": face}


def class_accuracy(audit, axes):
    """Accuracy of each class in each group over the precisions, with a bar for each 95 % interval.

    Colour and marker are the group's, as everywhere; the line and the face of the marker are the class's.
    A group without samples of a class has no line.
    """
    table, thin = fairness.class_accuracy(audit), {"linewidth": 1.1, "elinewidth": 0.8}
    of_cell = dict(list(table.groupby(["group", "class"])))
    lines = [
        (of_cell[look.name, name], look.style | class_looks(number, look.color) | thin)
        for look in style.group_looks(audit)
        for number, name in enumerate(audit.class_names)
        if of_cell[look.name, name]["count"].any()
    ]
    axes.set_ylim(style.SHARES)
    return style.side_by_side(axes, lines, "accuracy of each class\n(share of its images)", width=0.3)


def group_and_class_legend(audit, axes):
    """A legend below the axes: the groups with their training images, largest first, then the classes."""
    handles, labels = style.legend_of(style.group_looks(audit))
    for handle in handles:
        handle.set(linestyle="", markersize=4.5)
    for number in range(len(audit.class_names)):
        look = {"color": "black", "marker": "o", "markersize": 4.5} | class_looks(number, "black")
        handles.append(Line2D([], [], **look))
    labels += [style.legible(name, 24) for name in audit.class_names]
    return style.legend_below(axes, handles, labels, f"group ({audit.counted}), class", handlelength=2)


def at_one(up, across=None):
    """What draws a measure of each group against another one, or its training images, at one precision.

    It is the paper's: int4, or the lowest where there is none.
    """

    def draw(audit, axes):
        at = _paper_precision(audit)
        x, y = _across(audit, across)[audit.index(at)], _values(audit, up)[audit.index(at)]
        for look in style.group_looks(audit):
            axes.plot(x[look.group], y[look.group], linestyle="", markersize=7, **look.style)
        label = audit.counted if across is None else f"{across.label} at {at}"
        axes.set(xlabel=label, ylabel=f"{up.label} at {at}")
        if across is None or across.log:
            style.log_scale(axes, "x")
        return style.scaled(axes, "y", up)

    draw.numbers = lambda title, audits: _points(up, across, _paper_precision(audits[0]), title, audits)
    return draw


def _paper_precision(audit):
    return _AT if _AT in audit.precisions else audit.precisions[-1]


# Fig. 8a and b, Fig. 9a (with accuracy and with Eq. 11), Fig. 9b.
gradient_against_size = at_one(surface.gradient_norm)
gradient_against_accuracy = at_one(surface.gradient_norm, forward.group_accuracy)
lambda_against_accuracy = at_one(surface.lambda_max, forward.group_accuracy)
lambda_against_confidence = at_one(surface.lambda_max, forward.top_probability)
gradient_against_lambda = at_one(surface.gradient_norm, surface.lambda_max)


def loss_profile(audit, axes):
    """Loss of the best- and the worst-served group along the top eigenvector and along quantization."""
    own, colors = audit.curvature, {look.name: look.color for look in style.group_looks(audit)}
    for (group, direction), rows in surface.loss_profile(audit).groupby(["group", "direction"], sort=False):
        top = direction == "top eigenvector"
        label = f"{group}, {direction if top else f'to {own.profile_precision}'}"
        axes.plot(rows["step"], rows["value"], "-" if top else "--", label=label, color=colors[group])
    style.log_scale(axes, "y")
    steep, change = own.profile_lengths
    step = f"step (solid: length {steep:.2g}; dashed: {change:.2g})"
    axes.set(xlabel=step, ylabel="cross-entropy (nats)")
    return style.legend_below(axes, *axes.get_legend_handles_labels(), None)


def excess_loss(audit, axes):
    """What quantization adds to each group's loss, as a share of Tran et al.'s bound on it."""
    table = surface.excess_loss(audit)
    table = table.assign(value=table["share"], low=np.nan, high=np.nan)
    lines = [(own, look.style) for look, own in style.by_group(style.group_looks(audit), table)]
    return style.side_by_side(axes, lines, "added loss / bound")


def taylor(audit, axes):
    """What quantization adds to each group's loss against what the terms of Eq. 4 predict, by precision."""
    table = surface.taylor(audit).dropna(subset=["predicted", "value"])
    for look, own in style.by_group(style.group_looks(audit), table):
        style.path(axes, own["predicted"].to_numpy(), own["value"].to_numpy(), look.style)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=0)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yscale("symlog", linthresh=0.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([-10, -1, -0.1, 0, 0.1, 1, 10]))
        # The scale's own labels are mathematics, which is text here.
        axis.set_major_formatter("{x:g}")
    first, *_, last = table["precision"]
    ends = f"(hollow: {first}, large: {last})"
    axes.set(xlabel=f"predicted by Eq. 4 (nats)\n{ends}", ylabel="added loss (nats)")
    return axes
