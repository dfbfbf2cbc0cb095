"""Group accuracy, overall accuracy and the fairness violation observed (section 3.1 of the paper)."""

import numpy as np
import pandas as pd

from quantskew.groups import group_means, largest_gap
from quantskew.measures import forward
from quantskew.measures.intervals import bootstrap_group_means, percentile_interval, wilson
from quantskew.measures.measure import OVERALL, group_change_table, long_table


def correct_of_samples(audit):
    """Whether each sample is classified right: ndarray of float64 (0 or 1), shape (P, N)."""
    return (audit.predictions == audit.labels).astype(np.float64)


def group_accuracy(audit):
    """Accuracy of each group, Acc(theta, D_g) in Eq. 2.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``precision``, ``value``, ``low``, ``high`` (95 % Wilson interval) and ``count``
        (samples).

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> audit = Audit.from_logits({"fp32": [[1.0, 0.0], [1.0, 0.0]]}, labels=[0, 1], groups=[0, 1])
    >>> group_accuracy(audit)[["group", "value"]].to_dict("list")
    {'group': ['group 0', 'group 1'], 'value': [1.0, 0.0]}
    """
    means = group_means(correct_of_samples(audit), audit.groups, len(audit.group_names))
    counts = np.broadcast_to(audit.group_counts, means.shape)
    low, high = wilson(means * counts, counts)
    return long_table(audit, value=means, low=low, high=high, count=counts)


def group_accuracy_change(audit):
    """Change of `group_accuracy` from the reference precision, paired image by image (bootstrap)."""
    return group_change_table(audit, correct_of_samples(audit))


def overall_accuracy(audit):
    """Accuracy over all samples, the paper's OA (Eq. 3).

    Returns
    -------
    pandas.DataFrame
        Columns ``precision``, ``value``, ``low``, ``high`` (95 % Wilson interval) and ``count``.
    """
    correct = correct_of_samples(audit).sum(axis=1)
    counts = np.full(len(correct), len(audit.labels))
    low, high = wilson(correct, counts)
    with np.errstate(invalid="ignore"):
        value = correct / counts
    columns = {"value": value, "low": low, "high": high, "count": counts}
    return pd.DataFrame({"group": OVERALL, "precision": audit.precisions, **columns})


def fvo(audit):
    """Fairness violation observed, Eq. 2: the largest difference in accuracy between any two groups.

    Groups without samples are left out.  The interval is a bootstrap's, stratified by group.  Sampling alone
    makes a largest difference positive: see `fvo_of_chance` for the value without any disparity.

    Returns
    -------
    pandas.DataFrame
        Columns ``precision``, ``value``, ``low``, ``high`` (95 % interval) and ``count`` (groups present).
        With fewer than two groups the value is NaN.
    """
    correct, num_groups = correct_of_samples(audit), len(audit.group_names)
    value = largest_gap(group_means(correct, audit.groups, num_groups))
    low, high = percentile_interval(largest_gap(bootstrap_group_means(correct, audit.groups, num_groups)))
    columns = {"value": value, "low": low, "high": high, "count": int((audit.group_counts > 0).sum())}
    return pd.DataFrame({"precision": audit.precisions, **columns})


def fvo_change(audit):
    """Change of `fvo` from the reference precision: both are computed on the same resampled images.

    Returns
    -------
    pandas.DataFrame
        As `fvo`, without the reference precision's row.
    """
    correct, num_groups = correct_of_samples(audit), len(audit.group_names)
    value = largest_gap(group_means(correct, audit.groups, num_groups))
    resampled = largest_gap(bootstrap_group_means(correct, audit.groups, num_groups))
    low, high = percentile_interval(resampled - resampled[:, :1])
    columns = {
        "value": value - value[0],
        "low": low,
        "high": high,
        "count": int((audit.group_counts > 0).sum()),
    }
    return pd.DataFrame({"precision": audit.precisions, **columns}).iloc[1:].reset_index(drop=True)


def fvo_of_chance(audit, draws=500, seed=0):
    """The control: FVO where the groups are shuffled among the samples, so that no group is served worse.

    Returns
    -------
    pandas.DataFrame
        Columns ``precision``, ``value`` (mean over the shuffles), ``low``, ``high`` (their middle 95 %) and
        ``count`` (groups present).
    """
    rng = np.random.default_rng(seed)
    correct, num_groups = correct_of_samples(audit), len(audit.group_names)
    shuffled = np.stack(
        [largest_gap(group_means(correct, rng.permutation(audit.groups), num_groups)) for _ in range(draws)]
    )
    low, high = percentile_interval(shuffled)
    columns = {"value": shuffled.mean(axis=0), "low": low, "high": high}
    count = int((audit.group_counts > 0).sum())
    return pd.DataFrame({"precision": audit.precisions, **columns, "count": count})


def flipped(audit, precision):
    """Samples that the reference classifies right and this precision wrong: what compression forgot.

    Hooker et al. (2019) call images whose label flips compression-identified exemplars.

    Parameters
    ----------
    audit : Audit
    precision : str

    Returns
    -------
    pandas.DataFrame
        Columns ``sample`` (index into the test split), ``group``, ``label``, ``prediction``.
    """
    row = audit.index(precision)
    right, now = audit.predictions[0] == audit.labels, audit.predictions[row]
    samples = np.flatnonzero(right & (now != audit.labels))
    return pd.DataFrame(
        {
            "sample": samples,
            "group": np.array(audit.group_names)[audit.groups[samples]],
            "label": np.array(audit.class_names)[audit.labels[samples]],
            "prediction": np.array(audit.class_names)[now[samples]],
        }
    )


# In the order of the chain.
MEASURES = {
    "cosine_distance": forward.cosine_distance,
    "logit_variance": forward.logit_variance,
    "softmax_variance": forward.softmax_variance,
    "dtdb": forward.dtdb,
    "loss": forward.group_loss,
    "accuracy": group_accuracy,
}


OVERALL_MEASURES = {"accuracy": overall_accuracy, "fvo": fvo}


def audit_rows(audit):
    """The measures of an Audit, of each group and over all.

    Parameters
    ----------
    audit : Audit

    Returns
    -------
    pandas.DataFrame
        Columns ``precision``, ``group`` (``all`` for what is measured over all groups), ``trained_on``
        (training images of the group), ``measure`` (``cosine_distance`` of the logits, ``logit_variance``,
        ``softmax_variance``, ``dtdb``, ``loss`` in nats, ``accuracy``, ``fvo``), ``value``, ``low`` and
        ``high`` (95 % interval) and ``count`` (test samples; of ``fvo`` groups).

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> audit = Audit.from_logits({"fp32": [[1.0, 0.0], [1.0, 0.0]]}, labels=[0, 1], groups=["a", "b"])
    >>> rows = audit_rows(audit)
    >>> rows[rows["measure"] == "accuracy"][["group", "value"]].to_dict("list")
    {'group': ['a', 'b', 'all'], 'value': [1.0, 0.0, 0.5]}
    """
    counts = dict(zip(audit.group_names, audit.train_counts.tolist(), strict=True))
    counts[OVERALL] = sum(counts.values())
    parts = [measure(audit).assign(measure=name) for name, measure in MEASURES.items()]
    for name, measure in OVERALL_MEASURES.items():
        parts.append(measure(audit).assign(measure=name, group=OVERALL))
    rows = pd.concat(parts, ignore_index=True)
    rows["trained_on"] = rows["group"].map(counts)
    return rows[["precision", "group", "trained_on", "measure", "value", "low", "high", "count"]]


def audited(audit):
    """What an Audit is of, in a few words: experiment, seed, and the method where there is one.

    Parameters
    ----------
    audit : Audit

    Returns
    -------
    str
        Such as ``digits seed 0`` or ``digits seed 1 mpqat``.
    """
    experiment = audit.provenance["experiment"]
    method = audit.provenance.get("method", {}).get("key")
    return " ".join(filter(None, [experiment["name"], f"seed {experiment['recipe']['seed']}", method]))
