"""Overall accuracy, the fairness violation observed (section 3.1 of the paper), and flipped samples."""

import numpy as np
import pandas as pd

from quantskew.groups import largest_gap
from quantskew.measures.forward import group_accuracy
from quantskew.measures.measure import of_model, per_sample

_ACCURACY = {"limits": (0, 1), "chain": True}


@per_sample("overall accuracy", "overall accuracy", equation="Eq. 3", share=True, pooled=True, **_ACCURACY)
def overall_accuracy(audit):
    """Accuracy over all samples, the paper's OA (Eq. 3), as `quantskew.measures.forward.group_accuracy`."""
    return group_accuracy.of_samples(audit)


@of_model(group_accuracy.of_samples, "FVO", "FVO", equation="Eq. 2", **_ACCURACY)
def fvo(audit, accuracies):
    """Fairness violation observed, Eq. 2: the largest difference in accuracy between any two groups.

    Groups without samples are left out; with fewer than two groups the value is NaN.  Sampling alone makes a
    largest difference positive: see `fvo.of_chance` for the value without any disparity.
    """
    return largest_gap(accuracies)


def flipped(audit, precision):
    """Samples that the reference classifies right and this precision wrong: what compression forgot.

    Hooker et al. (2019) call such images compression-identified exemplars.  The table has ``sample`` (index
    into the test split), ``group``, ``label`` and ``prediction``.
    """
    now = audit.predictions[audit.index(precision)]
    samples = np.flatnonzero((audit.predictions[0] == audit.labels) & (now != audit.labels))
    names, classes = np.array(audit.group_names), np.array(audit.class_names)
    labels = {"label": classes[audit.labels[samples]], "prediction": classes[now[samples]]}
    return pd.DataFrame({"sample": samples, "group": names[audit.groups[samples]], **labels})
