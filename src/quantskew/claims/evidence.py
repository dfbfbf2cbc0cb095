"""The evidence that claims are judged on: made here, or of record (see `quantskew.claims.verdicts`)."""

from quantskew.claims.verdicts import BASE
from quantskew.experiments import catalogue, difficulty
from quantskew.experiments.mitigation import mitigate
from quantskew.experiments.runs import ACTIVATIONS, made_seeds, recorded, seeds_of
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS


def made_evidence(experiment, claims, seeds, data_dir=None, device="auto"):
    """The Audits that some claims need, made here or taken from the cache.

    Parameters
    ----------
    experiment : Experiment or str
    claims : sequence of Claim
    seeds : sequence of int
    data_dir, device
        See `quantskew.experiments.catalogue.audit`.

    Returns
    -------
    dict of str to list of Audit
        The seeds of each key that the claims need.
    """
    where = {"data_dir": data_dir, "device": device}
    evidence = {}
    for key in _needs(claims):
        if key == BASE:
            curvature = any(claim.curvature for claim in claims)
            evidence[key] = made_seeds(experiment, DEFAULT_PRECISIONS, seeds, curvature=curvature, **where)
        else:
            evidence[key] = [_made(catalogue.with_seed(experiment, seed), key, where) for seed in seeds]
    return evidence


def _made(experiment, key, where):
    if key == ACTIVATIONS:
        return catalogue.audit(experiment, catalogue.ACTIVATION_COLUMNS, **where)
    if key == difficulty.BALANCED:
        return difficulty.rotations(experiment, chosen=[key], **where)[key]
    return mitigate(experiment, key, **where)


def recorded_evidence(name, claims):
    """The Audits that some claims need, as far as they are of record.

    Parameters
    ----------
    name : str
        Of the experiment.
    claims : sequence of Claim

    Returns
    -------
    dict of str to list of Audit
        A key of which there is no record is left out.

    Raises
    ------
    FileNotFoundError
        If there is no record of the experiment itself.
    ValueError
        If a record is not whole, or its seeds have different groups.
    """
    others = [key for key in _needs(claims) if key != BASE]
    evidence = {BASE: seeds_of(name)}
    try:
        return evidence | recorded(name, others)
    except FileNotFoundError:
        # The experiment itself may be all that there is.
        return evidence


def live_and_recorded_evidence(experiment, records, claims, seeds, data_dir=None, device="auto"):
    """The evidence that a chapter judges: an experiment made here, and others of record.

    Parameters
    ----------
    experiment : str
        Made by this call, or taken from the cache.
    records : sequence of str
        Experiments that are read from the records; where `data_dir` is given, the first one is made too.  A
        further one that has no record is left out, and a printed sentence says so.
    claims, seeds, device
        See `made_evidence`.
    data_dir : path, optional

    Returns
    -------
    dict of str to (dict of str to list of Audit)
        By the title of its column.
    """
    columns = {f"live: {experiment}": made_evidence(experiment, claims, seeds, device=device)}
    first, *others = records
    if data_dir:
        columns[f"as the record, live: {first}"] = made_evidence(first, claims, seeds, data_dir, device)
    else:
        columns[f"record: {first}"] = recorded_evidence(first, claims)
    for name in others:
        try:
            columns[f"record: {name}"] = recorded_evidence(name, claims)
        except FileNotFoundError as error:
            print(f"{error}: it is left out")
    return columns


def _needs(claims):
    return list(dict.fromkeys(need for claim in claims for need in claim.needs))
