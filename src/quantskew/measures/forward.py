"""The forward pass (sections 3.1, 4.2 and 4.3 of the paper) in the order of the chain.

Each function is an equation: it gives one number a sample, ndarray of float64 and shape (P, N), and as a
`quantskew.measures.measure.Measure` the table of each group.
"""

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax

from quantskew.groups import group_means
from quantskew.measures.intervals import bootstrap_group_means
from quantskew.measures.measure import per_group, per_sample

_DISTANCE = {"log": True, "from_reference": True}
_SMALL = _DISTANCE | {"digits": 1, "scientific": True}
# Of confidence, all equally wide.
_BINS = 15


@per_sample("cosine distance", "average cosine distance", "Eq. 8", "Fig. 5a", chain=True, **_SMALL)
def cosine_distance(audit):
    """Cosine distance of each sample's logits from the reference's, Eq. 7; its mean over a group is Eq. 8.

    CD(A, B) = 1 - A . B / (|A| |B|), from 0 (same direction) over 1 (orthogonal) to 2 (opposite).  It is NaN
    where either vector is null, which has no direction: such samples are counted in ``undefined``.
    """
    logits = audit.logits.astype(np.float64)
    norms = np.linalg.norm(logits, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = logits / norms[:, :, None]
        # From the difference of directions: 1 - cos would lose every digit where the angle is small.
        return 0.5 * np.square(directions - directions[:1]).sum(axis=2)


def null_logits(audit):
    """Whether each sample's logits are all exactly zero, ndarray of bool, shape (P, N)."""
    return ~audit.logits.any(axis=2)


@per_sample("L1 distance", "mean L1 distance", figure="Fig. 5b", **_DISTANCE)
def l1_distance(audit):
    """L1 distance of each sample's logits from the reference's (Fig. 5b)."""
    return np.abs(_difference(audit)).sum(axis=2)


@per_sample("L2 distance", "mean L2 distance", figure="Fig. 5c", **_DISTANCE)
def l2_distance(audit):
    """L2 distance of each sample's logits from the reference's (Fig. 5c)."""
    return np.linalg.norm(_difference(audit), axis=2)


def _difference(audit):
    return audit.logits.astype(np.float64) - audit.logits[:1]


@per_sample(
    "variance of logits", "mean variance of the logits", "Eq. 9", "Fig. 5d", digits=1, log=True, chain=True
)
def logit_variance(audit):
    """Variance over the C logits of each sample (divided by C), Eq. 9."""
    return audit.logits.astype(np.float64).var(axis=2)


def probabilities(audit):
    """Softmax of the logits, p = exp(z_g) / sum_j exp(z_j), ndarray of float64, shape (P, N, C)."""
    return softmax(audit.logits.astype(np.float64), axis=2)


@per_sample(
    "variance of probabilities", "variance of the probabilities", figure="Fig. 6a", digits=3, chain=True
)
def softmax_variance(audit):
    """Variance over the C probabilities of each sample (divided by C) (Fig. 6a)."""
    return probabilities(audit).var(axis=2)


@per_sample("DTDB", "distance to the boundary", figure="Fig. 6b", limits=(0, 1), chain=True)
def dtdb(audit):
    """Distance to the decision boundary: the probability of the sample's own class, 0 to 1.

    Above one half a sample is certainly classified right; at 1 / C the model knows nothing.  A negative
    change is a left shift.
    """
    return probabilities(audit)[:, np.arange(len(audit.labels)), audit.labels]


def dtdb_histogram(audit, bins=20):
    """Distribution of the distance to the decision boundary in each group (Fig. 6b).

    The table has ``group``, ``precision``, ``left``, ``right`` (bin edges), ``value`` (share of the group's
    samples, NaN for an empty group) and ``count`` (samples in the group).
    """
    distances, edges, tables = dtdb.of_samples(audit), np.linspace(0, 1, bins + 1), []
    for row, precision in enumerate(audit.precisions):
        for group, name in enumerate(audit.group_names):
            own = distances[row, audit.groups == group]
            share = np.histogram(own, edges)[0] / len(own) if len(own) else np.full(bins, np.nan)
            columns = {"left": edges[:-1], "right": edges[1:], "value": share, "count": len(own)}
            tables.append(pd.DataFrame({"group": name, "precision": precision, **columns}))
    return pd.concat(tables, ignore_index=True)


@per_sample("KL divergence", "mean KL divergence (nats)", swept=True, **_SMALL)
def kl_divergence(audit):
    """Kullback-Leibler divergence of each sample's probabilities p from the reference's r, in nats.

    KL(r, p) = sum_j r_j log(r_j / p_j): 0 where both are alike; a mistaken certainty costs most.
    """
    logs = log_softmax(audit.logits.astype(np.float64), axis=2)
    return np.maximum((np.exp(logs[:1]) * (logs[:1] - logs)).sum(axis=2), 0)


@per_sample("top probability", "avg. prediction prob.", equation="Eq. 11", limits=(0, 1))
def top_probability(audit):
    """Largest probability of each sample; its mean is the average prediction probability, Eq. 11."""
    return probabilities(audit).max(axis=2)


@per_sample("loss", "cross-entropy (nats)", equation="Eq. 1", figure="Fig. 7", log=True, chain=True)
def group_loss(audit):
    """Cross-entropy of each sample, -log p_y, in nats; its mean over a group is the risk of Eq. 1."""
    logs = log_softmax(audit.logits.astype(np.float64), axis=2)
    return -logs[:, np.arange(len(audit.labels)), audit.labels]


@per_sample("accuracy", "accuracy", figure="Fig. 1", limits=(0, 1), share=True, chain=True)
def group_accuracy(audit):
    """Whether each sample is classified right (0 or 1); its mean over a group is Acc(theta, D_g) in Eq. 2.

    Examples
    --------
    >>> from quantskew.audits.audit import Audit
    >>> audit = Audit.from_logits({"fp32": [[1.0, 0.0], [1.0, 0.0]]}, labels=[0, 1], groups=[0, 1])
    >>> group_accuracy(audit)[["group", "value"]].to_dict("list")
    {'group': ['group 0', 'group 1'], 'value': [1.0, 0.0]}
    """
    return (audit.predictions == audit.labels).astype(np.float64)


@per_group("calibration error", "expected calibration error", digits=3, limits=(0, 1), swept=True)
def calibration_error(audit):
    """Expected calibration error of each group: how far its confidence is from its accuracy, on average.

    The samples of a group are put into 15 equally wide bins by their largest probability; the gap between
    mean confidence and accuracy of each bin counts by its share of the samples.  Noise makes gaps larger, so
    that few samples look badly calibrated: the interval is that of `quantskew.measures.measure.ModelMeasure`.
    """
    confidence, counts = top_probability.of_samples(audit), audit.group_counts
    gaps, bins = group_accuracy.of_samples(audit) - confidence, np.arange(_BINS)[:, None]
    places, found = np.minimum(confidence * _BINS, _BINS - 1).astype(np.int64), []
    # One group after the other: of very many groups the draws of all bins would not fit.
    for group, count in enumerate(counts):
        own, one = audit.groups == group, np.zeros(count, dtype=np.int64)
        in_bins = np.where(places[:, None, own] == bins, gaps[:, None, own], 0.0)
        rows, shape = in_bins.reshape(len(gaps) * _BINS, count), (-1, len(gaps), _BINS)
        means, drawn = (of(rows, one, 1).reshape(shape) for of in (group_means, bootstrap_group_means))
        found.append([np.abs(each).sum(axis=2) for each in (means, drawn, drawn - means)])
    (value,), draws, noise = (np.stack(each, axis=2) for each in zip(*found, strict=True))
    draws[:, :, counts < 2] = noise[:, :, counts < 2] = np.nan
    count = np.broadcast_to(counts, value.shape)
    return {"value": value, "drawn": (draws, noise, draws.mean(axis=0) - value), "count": count}
