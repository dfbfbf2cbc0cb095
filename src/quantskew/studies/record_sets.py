"""Sets of Audits over seeds, of methods or rotations: made here, of record, or both beside each other.

In a set each Audit is found by its key (a method's, or ``balanced`` and the names of the groups that are cut)
and its seed.  On disk each is a file of its own (see `quantskew.studies.records.file_name`).
"""

from pathlib import Path

from quantskew.audits.audit import Audit
from quantskew.quantization.quantizers import DEFAULT_PRECISIONS
from quantskew.studies import difficulty, experiments
from quantskew.studies.activation_audit import audit_activations
from quantskew.studies.methods import RECORDED, REPEATED
from quantskew.studies.mitigation import mitigate
from quantskew.studies.records import (
    file_name,
    made_seeds,
    read_seeds,
    record_folders,
    report_gaps,
    seed_files,
)

# Key of the Audits whose activations are quantized too.
ACTIVATIONS = "activations"


def made_methods(experiment, keys, seeds, data_dir=None, device="auto", start_from=None):
    """The set of some methods, made here or taken from the cache.

    Parameters
    ----------
    experiment : Experiment or str
    keys : sequence of str
        See `quantskew.studies.methods.METHODS`.
    seeds : sequence of int
    data_dir, device, start_from
        See `quantskew.studies.mitigation.mitigate`.

    Returns
    -------
    dict of str to list of Audit
    """
    options = {"data_dir": data_dir, "device": device, "start_from": start_from}
    chosen = [experiments.with_seed(experiment, seed) for seed in seeds]
    return {key: [mitigate(own, key, **options) for own in chosen] for key in keys}


def made_rotations(experiment, seeds, data_dir=None, device="auto"):
    """The set of `quantskew.studies.difficulty.rotations`, made here or taken from the cache."""
    runs = [difficulty.rotations(experiments.with_seed(experiment, seed), data_dir, device) for seed in seeds]
    return {key: [run[key] for run in runs] for key in runs[0]}


def recorded(experiment, keys):
    """The set of record; keys that it lacks are left out.

    Parameters
    ----------
    experiment : str
    keys : sequence of str

    Returns
    -------
    dict of str to list of Audit
        In the order of the seeds.  Keys are paired by their places in the lists, so a seed that one of them
        lacks below its last one is left out of all, and a printed sentence names the file that is missing.

    Raises
    ------
    FileNotFoundError
        If there is none of these keys.
    ValueError
        See `quantskew.studies.records.read_seeds`.
    """
    files = _files(experiment, keys)
    gaps = report_gaps({f"{experiment}-{key}": own for key, own in files.items()})
    complete = {
        key: {seed: path for seed, path in own.items() if seed not in gaps} for key, own in files.items()
    }
    return {key: read_seeds(own) for key, own in complete.items() if own}


def _files(experiment, keys):
    """The files of each key that there is, by their seeds; all from one folder."""
    for folder in record_folders():
        files = {key: seed_files(folder, f"{experiment}-{key}") for key in keys}
        files = {key: own for key, own in files.items() if own}
        if files:
            return files
    raise FileNotFoundError(
        f"no record of {experiment} with {', '.join(keys)}; run from within the repository, or make them "
        "with `quantskew records`"
    )


def live_and_recorded(experiment, record, keys, seeds, data_dir=None, device="auto"):
    """The two sets of methods that a chapter shows.

    Parameters
    ----------
    experiment : str
        Its set is made by this call.
    record : str
        Experiment whose set is read from the records, or made too where `data_dir` is given.
    keys : sequence of str
    seeds : int
        Seeds of what is made here, from 0 on; a record has its own number.
    data_dir, device
        See `quantskew.studies.experiments.audit`.

    Returns
    -------
    dict of str to dict of str to list of Audit
        By the title of its column.
    """
    return _beside(
        experiment,
        record,
        lambda name, where: made_methods(name, keys, range(seeds), where, device),
        lambda: recorded(record, keys),
        data_dir,
    )


def live_and_recorded_rotations(experiment, record, seeds, data_dir=None, device="auto"):
    """As `live_and_recorded`, of `quantskew.studies.difficulty.rotations`."""
    return _beside(
        experiment,
        record,
        lambda name, where: made_rotations(name, range(seeds), where, device),
        lambda: _recorded_rotations(record),
        data_dir,
    )


def _beside(experiment, record, make, read, data_dir):
    """What is made of the experiment, and beside it the record: read, or made where its images are."""
    live = {f"live: {experiment}": make(experiment, None)}
    if data_dir:
        return live | {f"as the record, live: {record}": make(record, data_dir)}
    return live | {f"record: {record}": read()}


def _recorded_rotations(record):
    (balanced, *_) = _files(record, [difficulty.BALANCED])[difficulty.BALANCED].values()
    files = _rotation_files([difficulty.BALANCED, *Audit.load(balanced).group_names])
    kept = recorded(record, list(files.values()))
    for part in files.values():
        if part not in kept:
            raise FileNotFoundError(
                f"the record {record} lacks {file_name(f'{record}-{part}')}; make it with `quantskew records`"
            )
    return {key: kept[part] for key, part in files.items()}


def _rotation_files(keys):
    """The part of the file name that stands for each rotation."""
    return {key: key if key == difficulty.BALANCED else f"cut-{key}" for key in keys}


def write_sets(experiment, folder, keys, seeds, data_dir=None, device="auto", start_from=None):
    """Make sets of methods and write each Audit into a folder; one seed is finished before the next begins.

    Parameters
    ----------
    experiment : Experiment
    folder : path
    keys : sequence of str
        See `quantskew.studies.methods.METHODS`.
    seeds : sequence of int
    data_dir, device, start_from
        See `quantskew.studies.mitigation.mitigate`.

    Yields
    ------
    tuple of (str, Audit, pathlib.Path)
        Key, Audit and file, as soon as it is there.
    """
    for seed in seeds:
        for key in keys:
            (audit,) = made_methods(experiment, [key], [seed], data_dir, device, start_from)[key]
            yield key, audit, _written(experiment, folder, f"-{key}", seed, audit)


def write_records(experiment, folder, seeds, data_dir=None, device="auto", base_only=False):
    """Make the records of an experiment that the book reads, and write them into a folder.

    Of seed 0 every method of `quantskew.studies.methods.RECORDED` is kept, of other seeds those of
    ``REPEATED``.

    Parameters
    ----------
    experiment : Experiment
    folder : path
    seeds : sequence of int
    data_dir, device
        See `quantskew.studies.experiments.audit`.
    base_only : bool
        Whether only the experiment itself is made, without curvature, methods, rotations and activations.

    Yields
    ------
    pathlib.Path
        Each file as soon as it is there; one seed is finished before the next begins.
    """
    for seed in seeds:
        where = {"data_dir": data_dir, "device": device}
        own = experiments.with_seed(experiment, seed)
        (base,) = made_seeds(own, DEFAULT_PRECISIONS, [seed], curvature=not base_only, **where)
        yield _written(experiment, folder, "", seed, base)
        if base_only:
            continue
        keys = REPEATED if seed else RECORDED
        for _, _, path in write_sets(experiment, folder, keys, [seed], data_dir, device):
            yield path
        yield _written(experiment, folder, f"-{ACTIVATIONS}", seed, audit_activations(own, **where))
        runs = difficulty.rotations(own, **where)
        for key, part in _rotation_files(runs).items():
            yield _written(experiment, folder, f"-{part}", seed, runs[key])


def _written(experiment, folder, part, seed, audit):
    path = Path(folder) / file_name(f"{experiment.name}{part}", seed)
    audit.save(path)
    return path
