"""Figures that compare runs: difficulty, methods, and how often verdicts are right; their axes out."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import sem, t

from quantskew.experiments import difficulty
from quantskew.experiments.interventions import outcomes
from quantskew.experiments.methods import LADDER
from quantskew.figures import style
from quantskew.figures.style import bars, shaded, side_by_side, style_legend, with_bars
from quantskew.measures.intervals import CONFIDENCE
from quantskew.measures.seeds import MEASURES, each_seed, pareto_front

# What a 95 % interval may say wrongly.
_ALLOWED = 0.05


def learning_curves(runs, axes):
    """Training accuracy of each group on the balanced set over the epochs; its test accuracy at the right."""
    audits = runs[difficulty.BALANCED]
    epochs, end = difficulty.learning_curves(audits)
    last = _curves(audits[0], axes, epochs)
    for rank, look in enumerate(style.group_looks(audits[0])):
        style.with_bars(axes, [last * (1.05 + 0.03 * rank)], end[end["group"] == look.name], **look.style)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("accuracy: training (lines),\ntest (markers)")
    return axes


def gradient_curves(audits, axes):
    """Gradient norm of each group over the epochs of training (section 5.1), from an Audit a seed."""
    _curves(audits[0], axes, difficulty.gradient_curves(audits))
    style.log_scale(axes, "y")
    axes.set_ylabel("gradient norm")
    return axes


def rotation_map(runs, axes):
    """Change of each group's accuracy from the balanced set where one group is cut, a cell a pair."""
    names = [look.name for look in style.group_looks(runs[difficulty.BALANCED][0])]
    table = difficulty.rotation_table(runs).pivot(index="cut", columns="group", values="value")
    change = 100 * (table.loc[names, names] - table.loc[difficulty.BALANCED, names])
    extent, texts = max(1.0, change.abs().max(axis=None)), change.map(lambda value: f"{round(value):+d}")
    style.number_map(axes, change, texts, change.abs() > 0.6 * extent, cmap="RdBu", vmin=-extent, vmax=extent)
    axes.tick_params(axis="x", rotation=45 if max(map(len, names)) > 2 else 0)
    axes.set_xlabel("accuracy measured of group")
    axes.set_ylabel("group that was cut")
    return axes


def runs_legend(runs, axes):
    """The groups' legend of a figure that is drawn from several Audits: runs, or a list.

    Balanced runs have as many images of each group: their Audits count those of the experiment.
    """
    if isinstance(runs, list):
        return style.group_legend(runs[0], axes)
    looks = style.group_looks(runs[difficulty.BALANCED][0])
    return style.legend_below(axes, style.legend_of(looks)[0], [look.name for look in looks], "group")


def _curves(audit, axes, table):
    for look in style.group_looks(audit):
        own = table[table["group"] == look.name]
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
        style.with_bars(axes, rows["effect"], rows, **look)
    axes.axhline(_ALLOWED, color="#555555", linestyle="--", linewidth=1)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("true effect (accuracy)")
    axes.set_ylabel("share of the experiments")
    return axes


def seeds_legend(table, axes):
    """A legend below the axes: a line a number of seeds."""
    return style.style_legend(axes, _by_seeds(table), "seeds")


def _by_seeds(table):
    return style.shaded(sorted(set(table["seeds"])), first=0.8)


def _styles(table):
    """How each method looks: the same in every figure of a page."""
    return shaded(table["method"].unique())


def by_method(measure):
    """Fig. 11: what draws one line a method over the precisions, of "accuracy", "fvo" or "least"."""

    def draw(table, axes):
        own = table[table["measure"] == measure]
        lines = [(own[own["method"] == method], style) for method, style in _styles(table).items()]
        axes.set_ylim(-0.03, 1.03)
        return side_by_side(axes, lines, MEASURES[measure], width=0.24)

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
        axes.set_xlabel(f"FVO at {precision} (left is fairer)")
        axes.set_ylabel(f"overall accuracy at {precision}")
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
        table = outcomes(audits, precision, interventions)
        for place, (_, own) in enumerate(table.groupby("intervention", sort=False)):
            values, grey = own[value].to_numpy(), {"color": "#777777", "alpha": 0.6}
            axes.scatter(values, np.full(len(values), place), s=13, **grey)
            if len(values) > 1:
                reach = sem(values) * t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
                axes.errorbar(values.mean(), place, xerr=reach, fmt="D", color="black", markersize=4.5)
        axes.axvline(0, color="#777777", linewidth=0.8, linestyle=":")
        axes.set_ylim(len(interventions) - 0.5, -0.5)
        axes.set_yticks(range(len(interventions)), list(interventions))
        axes.set_xlabel(f"{label} at {precision}")
        return axes

    return draw


# Dark and light, as in grey print.
_RUNGS = style.shaded(("fvo", "least"), first=0.1, last=0.65)


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
        axes.set_ylim(len(audits) - 0.5, -0.5)
        axes.set_xlim(-0.05, 1.05)
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axes.set_yticks(range(len(audits)), list(audits))
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(runs.title)
        else:
            axes.tick_params(labelleft=False)
        return axes

    return draw


def ladder_legend(_, axes):
    """One legend below all panels."""
    if axes.get_subplotspec().is_first_col():
        handles = [Line2D([], [], **look, markersize=5, linewidth=1.2) for look in _RUNGS.values()]
        axes.figure.legend(handles, [MEASURES[name] for name in _RUNGS], loc="outside lower center")
    return axes
