"""Figures of several runs (sections 4.6 and 5.1 of the paper, and the power of a verdict): their axes out."""

from matplotlib.ticker import MaxNLocator

from quantskew.experiments import difficulty
from quantskew.figures import style

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
    """The groups' legend of a figure that is drawn from several Audits: runs, or a list."""
    audits = runs if isinstance(runs, list) else runs[difficulty.BALANCED]
    return style.group_legend(audits[0], axes)


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

    The table has the rows of one verdict of `quantskew.claims.register.verdict_rates`.
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
