"""Cross-entropy by sample and by group (Eq. 1 of the paper)."""

import numpy as np
from scipy.special import log_softmax

from quantskew.measures.tables import group_change_table, group_table


def loss_of_samples(audit):
    """Cross-entropy of each sample, -log p_y, in nats: the summand of Eq. 1.

    Returns
    -------
    ndarray of float64, shape (P, N)
    """
    logs = log_softmax(audit.logits.astype(np.float64), axis=2)
    return -logs[:, np.arange(len(audit.labels)), audit.labels]


def group_loss(audit):
    """Mean cross-entropy of each group: the risk of Eq. 1 over the group's samples (Fig. 7).

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.tables.group_table`.
    """
    return group_table(audit, loss_of_samples(audit))


def group_loss_change(audit):
    """Change of `group_loss` from the reference precision, paired image by image."""
    return group_change_table(audit, loss_of_samples(audit))
