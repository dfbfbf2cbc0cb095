"""Figures that compare runs: difficulty, methods, and how often verdicts are right; their axes out."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import sem, t

from quantskew.experiments import difficulty
from quantskew.experiments.interventions import outcomes
from quantskew.experiments.methods import LADDER
from quantskew.figures import style
from quantskew.figures.style import bars, by_group, group_looks, shaded, style_legend, with_bars
from quantskew.measures.intervals import CONFIDENCE
from quantskew.measures.seeds import MEASURES, comparison, each_seed, pareto_front

# What a 95 % interval may say wrongly.
_ALLOWED = 0.05


def learning_curves(runs, axes):
    """Training accuracy of each group on the balanced set over the epochs; its test accuracy at the right."""
    audits = runs[difficulty.BALANCED]
    epochs, end = difficulty.learning_curves(audits)
    last = _curves(audits[0], axes, epochs)
    for rank, (look, own) in enumerate(by_group(group_looks(audits[0]), end)):
        with_bars(axes, [last * (1.05 + 0.03 * rank)], own, **look.style)
    axes.set(ylim=style.SHARES, ylabel="accuracy: training (lines),\ntest (markers)")
    return axes


def gradient_curves(audits, axes):
    """Gradient norm of each group over the epochs of training (section 5.1), from an Audit a seed."""
    _curves(audits[0], axes, difficulty.gradient_curves(audits))
    style.log_scale(axes, "y")
    axes.set_ylabel("gradient norm")
    return axes


def rotation_map(runs, axes):
    """Change of each group's accuracy from the balanced set where one group is cut, a cell a pair."""
    names = [look.name for look in group_looks(runs[difficulty.BALANCED][0])]
    table = difficulty.rotation_table(runs).pivot(index="cut", columns="group", values="value")
    change = 100 * (table.loc[names, names] - table.loc[difficulty.BALANCED, names])
    extent, texts = max(1.0, change.abs().max(axis=None)), change.map(lambda value: f"{round(value):+d}")
    style.number_map(axes, change, texts, change.abs() > 0.6 * extent, cmap="RdBu", vmin=-extent, vmax=extent)
    axes.tick_params(axis="x", rotation=45 if max(map(len, names)) > 2 else 0)
    axes.set(xlabel="accuracy measured of group", ylabel="group that was cut")
    return axes


def runs_legend(runs, axes):
    """The groups' legend of a figure that is drawn from several Audits: runs, or a list.

    Balanced runs have as many images of each group: their Audits count those of the experiment.
    """
    if isinstance(runs, list):
        return style.group_legend(runs[0], axes)
    looks = group_looks(runs[difficulty.BALANCED][0])
    return style.legend_below(axes, style.legend_of(looks)[0], [look.name for look in looks], "group")


def _curves(audit, axes, table):
    for look, own in by_group(group_looks(audit), table):
        axes.plot(own["epoch"], own["value"], color=look.color, linewidth=1.3)
        if (own["low"] < own["high"]).any():
            axes.fill_between(own["epoch"], own["low"], own["high"], color=look.color, alpha=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    return table["epoch"].max()


def verdict_share(table, axes):
    """Share of trials with one verdict against the true effect, one line a number of seeds.

    The table has the rows of one verdict of `quantskew.claims.verdicts.verdict_rates`.
    """
    for seeds, look in _by_seeds(table).items():
        rows = table[table["seeds"] == seeds]
        with_bars(axes, rows["effect"], rows, **look)
    axes.axhline(_ALLOWED, color="#555555", linestyle="--", linewidth=1)
    axes.set(ylim=style.SHARES, xlabel="true effect (accuracy)", ylabel="share of the experiments")
    return axes


def seeds_legend(table, axes):
    """A legend below the axes: a line a number of seeds."""
    return style_legend(axes, _by_seeds(table), "seeds")


def _by_seeds(table):
    return shaded(sorted(set(table["seeds"])), first=0.8)


def _styles(table):
    """How each method looks: the same in every figure of a page."""
    return shaded(table["method"].unique())


def by_method(measure):
    """Fig. 11: what draws one line a method over the precisions, of "accuracy", "fvo" or "least"."""

    def draw(table, axes):
        own = table[table["measure"] == measure]
        lines = [(own[own["method"] == method], look) for method, look in _styles(table).items()]
        axes.set_ylim(style.SHARES)
        return style.side_by_side(axes, lines, MEASURES[measure], width=0.24)

    return draw


def accuracy_against_fvo(precision):
    """Fig. 12: what draws overall accuracy against FVO at one precision, with the Pareto front."""

    def draw(table, axes):
        own, styles = table[table["precision"] == precision], _styles(table)
        fvo, accuracy = (own[own["measure"] == name].set_index("method") for name in ("fvo", "accuracy"))
        for method in fvo.index:
            rows = [values.loc[[method]] for values in (fvo, accuracy)]
            with_bars(axes, rows[0]["value"], rows[1], xerr=bars(rows[0]), markersize=7, **styles[method])
        front_line(axes, fvo["value"], accuracy["value"], color="#777777", zorder=0)
        axes.set(xlabel=f"FVO at {precision} (left is fairer)", ylabel=f"overall accuracy at {precision}")
        return axes

    return draw


def front_line(axes, fvo, accuracy, **look):
    """A dashed line along those that no other one beats in both; gives their values."""
    best = pareto_front(accuracy, fvo)
    front = np.array(sorted(zip(np.asarray(fvo)[best], np.asarray(accuracy)[best], strict=True))).T
    axes.step(*front, where="post", linestyle="--", linewidth=1, **look)
    return front


def method_legend(table, axes):
    """A legend below the axes with every method of the table."""
    return style_legend(axes, _styles(table))


def forest(label, value, *, precision, interventions):
    """What draws an outcome of interventions: a dot a seed, their mean and its 95 % interval.

    `value` is a column of `quantskew.experiments.interventions.outcomes`, which the rest is given to.
    """

    def draw(audits, axes):
        table = outcomes(audits, precision, interventions).groupby("intervention", sort=False)[value]
        axes.axvline(0, color="#777777", linewidth=0.8, linestyle=":")
        return _rows(axes, dict(list(table)), interventions, f"{label} at {precision}")

    return draw


def columns(measure, names):
    """What draws "accuracy", "fvo" or "least" of some columns of Runs, as `forest`.

    `names` has the key of the runs and the column by the name of the row.
    """

    def draw(runs, axes):
        tables = {row: each_seed({row: runs.get(key, [])}, [column]) for row, (key, column) in names.items()}
        there = {row: own[own["measure"] == measure]["value"] for row, own in tables.items() if len(own)}
        return _rows(axes, there, names, MEASURES[measure])

    return draw


def _rows(axes, found, names, label):
    """A row a name: a dot a seed, and of several their mean with its interval; none of what is not there."""
    for place, name in enumerate(names):
        values = np.asarray(found.get(name, []))
        axes.scatter(values, np.full(len(values), place), s=13, color="#777777", alpha=0.6)
        if len(values) > 1:
            reach = sem(values) * t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
            axes.errorbar(values.mean(), place, xerr=reach, fmt="D", color="black", markersize=4.5)
    # A longer line would reach below the names of the next panel, where a page cuts a picture in two.
    axes.set_xlabel(textwrap.fill(label, 26))
    return _named_rows(axes, names)


def _named_rows(axes, names):
    axes.set(ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)), yticklabels=list(names))
    return axes


def front(measure):
    """What draws a measure of Audits of `quantskew.experiments.allocation.front` against mean bits."""

    def draw(audits, axes):
        plans = audits[0].provenance["plans"]
        everywhere = {own: int(own[3:]) for own in audits[0].precisions if own[:3] == "int"}
        lines = {"the same everywhere": everywhere}
        for name, plan in plans.items():
            lines.setdefault(f"chosen for {plan['for']}", {})[name] = plan["spent_bits"]
        for name, look in shaded(lines).items():
            bits = {own: spent for own, spent in lines[name].items() if spent <= 4}
            table = comparison({name: audits}, list(bits))
            with_bars(axes, list(bits.values()), table[table["measure"] == measure], label=name, **look)
        axes.set(ylim=style.SHARES, xlabel="mean bits of a weight", ylabel=MEASURES[measure])
        return axes

    return draw


def front_legend(_, axes):
    """One legend below all panels."""
    if axes.get_subplotspec().is_first_col():
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def bits_map(audits, axes):
    """Bits of each layer in the plans of a front's first seed, a column a plan, the more the darker."""
    first, plans = audits[0], audits[0].provenance["plans"]
    # A file has the plans by their names, and their layers too.
    bits = pd.DataFrame({name: plans[name]["plan"] for name in first.precisions if name in plans})
    bits = bits.loc[list(first.weights.layers)]
    bits = bits.map(lambda own: int(own[3:])).rename(index=lambda own: own.removesuffix(".weight"))
    style.number_map(axes, bits, bits.astype(str), bits > 5, cmap="Greys", vmin=0, vmax=10)
    axes.tick_params(axis="x", rotation=45)
    return axes


def by_layer(table, axes):
    """Lines over the layers, one for each column of a table, on a logarithmic axis."""
    for name, look in shaded(table.columns).items():
        axes.plot(range(1, len(table) + 1), table[name], linewidth=1.2, markersize=4, **look)
    style.log_scale(axes, "y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="layer, from the input on", ylabel="error of its output, share")
    return style_legend(axes, shaded(table.columns))


# Dark and light, as in grey print.
_RUNGS = shaded(("fvo", "least"), first=0.1, last=0.65)


def ladder(runs):
    """What draws FVO and the worst-served group's accuracy by rung at one precision: a dot a seed, and means.

    The rungs are those of `quantskew.experiments.methods.LADDER` that the runs have.
    """
    audits = {f"{added} ({len(runs[key])})": runs[key] for key, added in LADDER.items() if key in runs}

    def draw(precision, axes):
        table = each_seed(audits, [precision])
        for name, look in _RUNGS.items():
            own = table[table["measure"] == name]
            axes.scatter(own["value"], own["method"].map(list(audits).index), s=14, alpha=0.5, **look)
            means = own.groupby("method", sort=False)["value"].mean()
            axes.plot(means, means.index.map(list(audits).index), color=look["color"], linewidth=1.2)
        axes.set(xlim=(-0.05, 1.05), xticks=[0, 0.5, 1], xticklabels=["0", ".5", "1"], ylabel=runs.title)
        _named_rows(axes, audits).label_outer()
        return axes

    return draw


def ladder_legend(_, axes):
    """One legend below all panels."""
    if axes.get_subplotspec().is_first_col():
        handles = [Line2D([], [], **look, markersize=5, linewidth=1.2) for look in _RUNGS.values()]
        axes.figure.legend(handles, [MEASURES[name] for name in _RUNGS], loc="outside lower center")
    return axes
