"""The control of a claim: its effect where there should be none, since the groups are shuffled."""

import dataclasses

import numpy as np

from quantskew.claims.verdicts import missing, read
from quantskew.measures.intervals import percentile_interval


def control(claim, evidence, precision=None, shuffles=20, seed=0):
    """The effect of a claim where it should be none: groups shuffled among the images.

    Gradient norms, eigenvalues and training histories, which are kept by group, get a random order of the
    groups.

    Parameters
    ----------
    claim, evidence, precision
        See `judge`.
    shuffles : int
    seed : int

    Returns
    -------
    dict or None
        ``effect`` (mean over the shuffles), ``low`` and ``high`` (their middle 95 %); None where the claim
        is not about groups or cannot be judged.
    """
    precision, evidence = precision or claim.at, read(claim, evidence)
    if not claim.grouped or missing(claim, evidence, precision):
        return None
    rng = np.random.default_rng(seed)
    effects = []
    for _ in range(shuffles):
        shuffled = {key: [_shuffled(audit, rng) for audit in audits] for key, audits in evidence.items()}
        effects.append(claim.measure(shuffled, precision, 1)[0])
    low, high = percentile_interval(np.array(effects))
    return {"effect": float(np.nanmean(effects)), "low": float(low), "high": float(high)}


def _shuffled(audit, rng):
    """An Audit whose images are in random groups of the same sizes."""
    order, other = (rng.permutation(len(audit.group_names)) for _ in range(2))
    curvature = audit.curvature
    if curvature is not None:
        curvature = dataclasses.replace(
            curvature,
            gradient_norms=curvature.gradient_norms[:, order],
            lambda_max=curvature.lambda_max[:, other],
        )
    history = [_reordered(epoch, order) for epoch in audit.provenance.get("history", [])]
    return dataclasses.replace(
        audit,
        groups=rng.permutation(audit.groups),
        curvature=curvature,
        provenance={**audit.provenance, "history": history},
    )


def _reordered(epoch, order):
    """An epoch of a history with its groups in another order."""
    accuracy = {"accuracy": [epoch["train"]["accuracy"][g] for g in order]}
    measured = {"measured": [epoch["measured"][g] for g in order]} if "measured" in epoch else {}
    return {**epoch, "train": epoch["train"] | accuracy, **measured}
