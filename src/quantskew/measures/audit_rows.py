"""An Audit as rows of one tidy table: a row for each precision, group and measure."""

import pandas as pd

from quantskew.measures import fairness, logits, losses, softmax
from quantskew.measures.tables import OVERALL

# In the order of the chain.
MEASURES = {
    "cosine_distance": logits.cosine_distance,
    "logit_variance": logits.logit_variance,
    "softmax_variance": softmax.softmax_variance,
    "dtdb": softmax.dtdb,
    "loss": losses.group_loss,
    "accuracy": fairness.group_accuracy,
}
OVERALL_MEASURES = {"accuracy": fairness.overall_accuracy, "fvo": fairness.fvo}


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
