"""Harm: whether each group lost accuracy, and what a test set of this size could have shown.

Each image is classified by the reference and by another column: of these pairs only those count in which one
is right and the other wrong.  A flip harms where the reference was right, and helps where it was wrong.
"""

import bisect
import functools

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import bdtrc, betaln, xlog1py, xlogy
from scipy.stats import binom

from quantskew.checks import check_number, some
from quantskew.groups import group_sums
from quantskew.measures import fairness
from quantskew.measures.forward import cosine_distance, group_accuracy
from quantskew.measures.intervals import CONFIDENCE
from quantskew.measures.measure import once, without_reference

POWER = 0.8
_LEVEL = 1 - CONFIDENCE


def harm(audit):
    """The change of each group's accuracy from the reference, and whether it is more than chance.

    Returns
    -------
    pandas.DataFrame
        A row a group and column: ``group``, ``precision``, ``value`` (the change), ``low`` and ``high`` (its
        95 % interval, paired), ``count`` (images), ``reference`` (the accuracy there), ``harmed`` and
        ``helped`` (flips), ``p`` (exact test of McNemar, two-sided), ``q`` (p corrected for all rows by
        Holm's method) and ``detectable``: the smallest drop that would have been shown, at the corrected
        level, with a probability of `POWER`, where flips help as often as here; NaN where none would.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> logits = {"fp32": [[1.0, 0.0]] * 9, "int2": [[0.0, 1.0]] * 8 + [[1.0, 0.0]]}
    >>> table = harm(Audit.from_logits(logits, labels=[0] * 9, groups=["a"] * 9))
    >>> table[["value", "harmed", "helped", "p"]].round(3).values.tolist()
    [[-0.889, 8.0, 0.0, 0.008]]
    """
    # The summary, the tables and the page of a report all ask for it.
    return once(audit, harm, _harm).copy()


def _harm(audit):
    size = len(audit.group_names)
    both = np.stack([own.of_samples(audit)[1:] for own in (fairness.harmed, fairness.helped)])
    harmed, helped = group_sums(both.astype(np.int64), audit.groups, size).reshape(2, -1)
    table = group_accuracy.change(audit).drop(columns="undefined")
    p = pd.Series(2 * binom.cdf(np.minimum(harmed, helped), harmed + helped, 0.5)).clip(upper=1)
    p = p.where(table["count"] > 0)
    ranked = p.dropna().sort_values()
    q = (ranked * np.arange(len(ranked), 0, -1)).cummax().clip(upper=1)
    level, counts = _LEVEL / max(1, len(ranked)), zip(table["count"], helped, strict=True)
    least = [smallest_drop(n, (k + 0.5) / (n + 1), level) for n, k in counts]
    before = np.tile(group_accuracy(audit)["value"].head(size), len(audit.precisions) - 1)
    return table.assign(reference=before, harmed=harmed, helped=helped, p=p, q=q, detectable=least)


def verdict(table):
    """What a table of `harm` shows, in one sentence: which groups lose how much, or what was not shown."""
    tested = table.dropna(subset="p")
    if tested.empty:
        return "There is nothing to compare with the reference."
    by = f"McNemar's exact test, p corrected for {len(tested)} comparison{'s' * (len(tested) > 1)}"
    lost = tested[(tested["q"] <= _LEVEL) & (tested["value"] < 0)].sort_values("value")
    if len(lost):
        said = [
            f"{own.group} loses {-100 * own.value:.1f} points at {own.precision} (95 % interval "
            f"{-100 * own.high:.1f} to {-100 * own.low:.1f}; p {chance(own.q)})"
            for own in lost.itertuples()
        ]
        return f"Harm is shown: {some(said, 3)}. ({by})"
    least = tested.loc[tested["detectable"].fillna(np.inf).idxmax()]
    of = f"of {least['group']} ({least['count']:,} images) at {least['precision']}"
    if np.isnan(least["detectable"]):
        return f"No harm is shown, but {of} these images could have shown none. ({by})"
    return (
        f"No harm larger than {100 * least['detectable']:.1f} points is shown: so large a drop, {of}, would "
        f"have been shown with a probability of {POWER}, and of other groups a smaller one. ({by})"
    )


def chance(p):
    """A p-value as text.

    Examples
    --------
    >>> chance(0.0123), chance(1e-9)
    ('0.012', '< 0.0001')
    """
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def flips(audit):
    """Every image that another column classifies right where the reference does not, or the reverse.

    The table has ``sample`` (index into the test split), ``id`` (where samples have names), ``group``,
    ``label``, ``precision``, ``reference`` and ``prediction`` (the class there and here) and
    ``flip`` (``harmed`` or ``helped``).
    """
    right, names = audit.predictions == audit.labels, np.array(audit.class_names)
    rows, samples = np.nonzero(right != right[:1])
    ids = audit.provenance.get("samples")
    columns = {"sample": samples} | ({"id": [ids[sample] for sample in samples]} if ids else {})
    columns |= {"group": np.array(audit.group_names)[audit.groups[samples]]}
    columns |= {"label": names[audit.labels[samples]], "precision": np.array(audit.precisions)[rows]}
    classes = {"reference": audit.predictions[0, samples], "prediction": audit.predictions[rows, samples]}
    columns |= {name: names[own] for name, own in classes.items()}
    return pd.DataFrame(columns).assign(flip=np.where(right[rows, samples], "helped", "harmed"))


def flipped(audit, precision):
    """Samples that the reference classifies right and this precision wrong: what compression forgot.

    Hooker et al. (2019) call such images compression-identified exemplars.  The table has ``sample`` (index
    into the test split), ``group``, ``label`` and ``prediction``.
    """
    table, name = flips(audit), audit.precisions[audit.index(precision)]
    lost = table[(table["flip"] == "harmed") & (table["precision"] == name)]
    return lost[["sample", "group", "label", "prediction"]].reset_index(drop=True)


def agreement(audit, one, other):
    """How far two columns agree by group, as of fake quantization and a real runtime.

    The table is that of `harm` from `one` to `other`, with ``same`` (share of images that both give the same
    class) and ``cosine`` (mean cosine distance of their logits).
    """
    pair = audit.select([one, other])
    same = (pair.predictions[0] == pair.predictions[1]).astype(np.int64)
    table = harm(pair)
    shares = group_sums(same, pair.groups, len(pair.group_names)) / table["count"].where(table["count"] > 0)
    return table.assign(same=shares, cosine=without_reference(pair, cosine_distance(pair))["value"])


def power(count, drop, helped, level):
    """Probability that McNemar's exact test at a level shows a drop of accuracy among `count` images.

    A share `helped` of the images flips to right all the same, and `helped` + `drop` to wrong.
    """
    flipped = drop + 2 * helped
    if flipped > 1:
        return 0.0
    spread = 9 * np.sqrt(count * flipped) + 9
    m = np.arange(max(0, int(count * flipped - spread)), min(count, int(count * flipped + spread)) + 1)
    rest = count - m
    chances = np.exp(xlogy(m, flipped) + xlog1py(rest, -flipped) - betaln(rest + 1, m + 1)) / (count + 1)
    needed = _needed(level, 1 << int(m[-1]).bit_length())[m]
    return float(chances @ np.where(needed < m, bdtrc(needed, m, (drop + helped) / flipped), 0))


@functools.lru_cache(maxsize=32)
def _needed(level, size):
    """Of 0, 1, ... flips, how many must harm, and one more, for the test to show a drop."""
    return binom.isf(level / 2, np.arange(size), 0.5)


@functools.lru_cache(maxsize=4096)
def smallest_drop(count, helped, level):
    """The smallest drop that `power` is at least `POWER` for; NaN where there is none."""
    for most in 2.0 ** np.arange(-10, 1):
        if power(count, most, helped, level) >= POWER:
            return brentq(lambda drop: power(count, drop, helped, level) - POWER, 0, most, xtol=1e-5)
    return np.nan


def plan(counts, detect, columns=1, helped=0.01):
    """How many test images a group needs to show a drop of accuracy, and what groups of these sizes can show.

    Parameters
    ----------
    counts : sequence of int
        Test images of each group.
    detect : float
        The drop that is to be shown, such as 0.03.
    columns : int
        Of how many quantizers or runtimes; groups times columns are corrected for.
    helped : float
        Share of the images that flip to right all the same: the more flips, the more images are needed.

    Returns
    -------
    pandas.DataFrame
        A row a group: ``images``, ``needed``, ``power`` (probability that the drop is shown) and
        ``detectable`` (the smallest drop that is shown with a probability of `POWER`).

    Examples
    --------
    >>> plan([900, 40], 0.03).round(3).values.tolist()
    [[900.0, 543.0, 0.968, 0.021], [40.0, 543.0, 0.001, 0.236]]
    """
    check_number("the drop to be shown", detect, 0, 1, above=True)
    check_number("the share that flips to right", helped, 0, (1 - detect) / 2)
    own, most = (helped, _LEVEL / (len(counts) * columns)), 1
    while power(most, detect, *own) < POWER:
        most *= 2
    needed = bisect.bisect_left(range(most), POWER, key=lambda count: power(count, detect, *own))
    rows = [(n, needed, power(n, detect, *own), smallest_drop(n, *own)) for n in counts]
    return pd.DataFrame(rows, columns=["images", "needed", "power", "detectable"])
