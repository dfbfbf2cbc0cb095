"""Sets of Audits over seeds, of methods or rotations: made here, of record, or both beside each other.

In a set each Audit is found by its key (a method's, or ``balanced`` and the names of the groups that are cut)
and its seed.  On disk each is a file of its own, as ``utkface-mpqat.safetensors`` and, for the second seed,
``utkface-mpqat-1.safetensors``.
"""

import dataclasses
from pathlib import Path

from quantskew import difficulty, experiments
from quantskew.audit import Audit
from quantskew.mitigation import mitigate
from quantskew.records import record_folders


def file_name(experiment, key, seed):
    """Name of the file of one Audit of a set.

    Examples
    --------
    >>> file_name("utkface", "u-o+wcr", 0), file_name("utkface", "mpqat", 2)
    ('utkface-u-o+wcr.safetensors', 'utkface-mpqat-2.safetensors')
    """
    return f"{experiment}-{key}{f'-{seed}' if seed else ''}.safetensors"


def made_methods(experiment, keys, seeds, data_dir=None, device="auto", start_from=None):
    """The set of some methods, made here or taken from the cache.

    Parameters
    ----------
    experiment : Experiment or str
    keys : sequence of str
        See `quantskew.methods.METHODS`.
    seeds : sequence of int
    data_dir, device, start_from
        See `quantskew.mitigation.mitigate`.

    Returns
    -------
    dict of str to list of Audit
    """
    options = {"data_dir": data_dir, "device": device, "start_from": start_from}
    chosen = [_seeded(experiment, seed) for seed in seeds]
    return {key: [mitigate(own, key, **options) for own in chosen] for key in keys}


def made_rotations(experiment, seeds, data_dir=None, device="auto"):
    """The set of `quantskew.difficulty.rotations`, made here or taken from the cache."""
    runs = [difficulty.rotations(_seeded(experiment, seed), data_dir, device) for seed in seeds]
    return {key: [run[key] for run in runs] for key in runs[0]}


def _seeded(experiment, seed):
    if isinstance(experiment, str):
        experiment = experiments.get(experiment)
    return dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, seed=seed))


def recorded(experiment, keys):
    """The set of record; keys and seeds that it lacks are left out.

    Parameters
    ----------
    experiment : str
    keys : sequence of str

    Returns
    -------
    dict of str to list of Audit

    Raises
    ------
    FileNotFoundError
        If there is none of these keys.
    """
    found = {}
    for folder in record_folders():
        for key in keys:
            seeds = []
            while (folder / file_name(experiment, key, len(seeds))).exists():
                seeds.append(Audit.load(folder / file_name(experiment, key, len(seeds))))
            if seeds:
                found[key] = seeds
        if found:
            return found
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
        See `quantskew.experiments.audit`.

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
    """As `live_and_recorded`, of `quantskew.difficulty.rotations`."""
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
    (balanced, *_) = recorded(record, [difficulty.BALANCED])[difficulty.BALANCED]
    files = _rotation_files([difficulty.BALANCED, *balanced.group_names])
    kept = recorded(record, files.values())
    return {key: kept[part] for key, part in files.items()}


def _rotation_files(keys):
    """The part of the file name that stands for each rotation."""
    return {key: key if key == difficulty.BALANCED else f"cut-{key}" for key in keys}


def write_sets(experiment, folder, keys, seeds, data_dir=None, device="auto", start_from=None, rotate=False):
    """Make sets and write each Audit into a folder; one seed is finished before the next begins.

    Parameters
    ----------
    experiment : Experiment
    folder : path
    keys : sequence of str
        See `quantskew.methods.METHODS`.
    seeds : sequence of int
    data_dir, device, start_from
        See `quantskew.mitigation.mitigate`.
    rotate : bool
        Whether the rotations are made too.

    Yields
    ------
    tuple of (str, Audit, pathlib.Path)
        Key, Audit and file, as soon as it is there.
    """
    for seed in seeds:
        for key in keys:
            (audit,) = made_methods(experiment, [key], [seed], data_dir, device, start_from)[key]
            yield _written(experiment, folder, key, key, seed, audit)
        if rotate:
            runs = made_rotations(experiment, [seed], data_dir, device)
            for key, part in _rotation_files(runs).items():
                yield _written(experiment, folder, key, part, seed, runs[key][0])


def _written(experiment, folder, key, part, seed, audit):
    path = Path(folder) / file_name(experiment.name, part, seed)
    audit.save(path)
    return key, audit, path
