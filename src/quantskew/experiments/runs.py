"""Runs of experiments: made here and now, or read from the records."""

import re
from pathlib import Path

from quantskew.audits.audit import Audit
from quantskew.experiments import catalogue, difficulty
from quantskew.experiments.catalogue import ACTIVATION_COLUMNS, audit, with_seed
from quantskew.experiments.methods import RECORDED, REPEATED
from quantskew.experiments.mitigation import mitigate
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, Quantizer

_RECORDS = Path("book") / "records"
_SUFFIX = ".safetensors"
# Test images a group for the Hessian, where there are thousands.
_RECORD_IMAGES = 256


def live_and_record(
    experiment,
    record_name,
    precisions,
    scheme="banner",
    seed=0,
    seeds=1,
    data_dir=None,
    device="auto",
    curvature=False,
):
    """The two sets of Audits that every chapter shows: one made here and now, and one of record.

    Parameters
    ----------
    experiment : str
        Trained and audited by this call, or taken from the cache.
    record_name : str
        See `record`.  Where `data_dir` is given, the experiment of that name is run instead.
    precisions : sequence of str
        A record is shown at those of them that it has.
    scheme : str
        See `quantskew.experiments.catalogue.audit`.
    seed, seeds : int
        The first seed of what is made here, and how many; a record has its own number.
    data_dir, device, curvature
        See `quantskew.experiments.catalogue.audit`.

    Returns
    -------
    dict of str to list of Audit
        By the title of its column in the figures, one Audit a seed.
    """
    own = range(seed, seed + seeds)
    quantizers, options = (
        Quantizer.each(precisions, scheme=scheme),
        {"device": device, "curvature": curvature},
    )
    live = [made.plain() for made in made_seeds(experiment, quantizers, own, **options)]
    if data_dir:
        again = made_seeds(record_name, quantizers, own, data_dir=data_dir, **options)
        again = [made.plain() for made in again]
        return {f"live: {experiment}": live, f"as the record, live: {record_name}": again}
    kept = seeds_of(record_name)
    shared = [precision for precision in precisions if precision in kept[0].precisions]
    if len(shared) < len(precisions):
        print(f"the record {record_name} has no {', '.join(sorted(set(precisions) - set(shared)))}")
    return {f"live: {experiment}": live, f"record: {record_name}": [own.select(shared) for own in kept]}


def made_seeds(experiment, quantizers, seeds, *, curvature=False, **options):
    """The Audits of an experiment over its seeds, made here or taken from the cache.

    Parameters
    ----------
    experiment : Experiment or str
    quantizers : sequence of Quantizer or str
    seeds : sequence of int
    curvature : bool
    **options
        See `quantskew.experiments.catalogue.audit`.

    Returns
    -------
    list of Audit
    """
    options["curvature"] = curvature and _RECORD_IMAGES
    return [audit(with_seed(experiment, seed), quantizers, **options) for seed in seeds]


def record(name):
    """An Audit of record, by name or by path.

    Parameters
    ----------
    name : str
        Name of a file in ``book/records`` of the working directory or of a folder above it, without its
        suffix; or the path of an Audit.

    Raises
    ------
    FileNotFoundError
        If there is none; the message lists the records that there are.
    """
    if Path(name).suffix == _SUFFIX:
        return Audit.load(name)
    folders = record_folders()
    for folder in folders:
        if (folder / file_name(name)).exists():
            return Audit.load(folder / file_name(name))
    raise _unknown(name, folders)


def seeds_of(name):
    """The Audits of record of an experiment over its seeds.

    Parameters
    ----------
    name : str
        As for `record`.  The first seed is in the file of that name, further ones are beside it (see
        `file_name`).

    Returns
    -------
    list of Audit
        In the order of the seeds.  One that is missing is left out, and a printed sentence names its file.

    Raises
    ------
    FileNotFoundError
        If there is no seed; the message lists the records that there are.
    ValueError
        See `read_seeds`.
    """
    folders, stem = record_folders(), name
    if Path(name).suffix == _SUFFIX:
        folders, stem = [Path(name).parent], Path(name).stem
    for folder in folders:
        files = seed_files(folder, stem)
        if files:
            report_gaps({stem: files})
            return read_seeds(files)
    raise _unknown(name, folders)


def file_name(name, seed=0):
    """Name of the file of one seed of a record.

    Examples
    --------
    >>> file_name("utkface"), file_name("utkface-mpqat", 2)
    ('utkface.safetensors', 'utkface-mpqat-2.safetensors')
    """
    return f"{name}{f'-{seed}' if seed else ''}{_SUFFIX}"


def seed_files(folder, name):
    """The files of a record in a folder by their seeds, dict of int to path, in the order of the seeds."""
    pattern = re.compile(rf"{re.escape(name)}(?:-([1-9]\d*))?{re.escape(_SUFFIX)}")
    matches = ((path, pattern.fullmatch(path.name)) for path in Path(folder).glob(f"*{_SUFFIX}"))
    return dict(sorted((int(match[1] or 0), path) for path, match in matches if match))


def report_gaps(records):
    """Name the files that are missing between those that there are, in printed sentences.

    Parameters
    ----------
    records : dict of str to dict of int to path
        By the name of a record the files of its seeds.

    Returns
    -------
    set of int
        The seeds that some record lacks below its last one.
    """
    gaps = set()
    for name, files in records.items():
        for seed in sorted(set(range(max(files))) - set(files)):
            print(f"{file_name(name, seed)} is missing: seed {seed} is left out")
            gaps.add(seed)
    return gaps


def read_seeds(files):
    """The Audits of one record.

    Parameters
    ----------
    files : dict of int to path
        By their seeds.

    Returns
    -------
    list of Audit

    Raises
    ------
    ValueError
        If a file is not a whole Audit, or has other groups than the first one.
    """
    audits = [Audit.load(path) for path in files.values()]
    first, *_ = files.values()
    expected = audits[0].group_names
    for path, own in zip(files.values(), audits, strict=True):
        if own.group_names != expected:
            raise ValueError(
                f"{path} has the groups {', '.join(own.group_names)}, but {first} has {', '.join(expected)}; "
                "the seeds of a record have the same groups"
            )
    return audits


def _unknown(name, folders):
    known = sorted(path.stem for folder in folders for path in folder.glob(f"*{_SUFFIX}"))
    return FileNotFoundError(
        f"no record {name!r}; known: {', '.join(known) or 'none (run from within the repository)'}"
    )


def record_folders():
    """Folders that may hold records: ``book/records`` of the working directory and of each folder above."""
    here = Path.cwd()
    return [folder / _RECORDS for folder in (here, *here.parents)]


# Key of the Audits whose activations are quantized too.
ACTIVATIONS = "activations"


def made_methods(experiment, keys, seeds, data_dir=None, device="auto", start_from=None):
    """The set of some methods, made here or taken from the cache.

    Parameters
    ----------
    experiment : Experiment or str
    keys : sequence of str
        See `quantskew.experiments.methods.METHODS`.
    seeds : sequence of int
    data_dir, device, start_from
        See `quantskew.experiments.mitigation.mitigate`.

    Returns
    -------
    dict of str to list of Audit
    """
    options = {"data_dir": data_dir, "device": device, "start_from": start_from}
    chosen = [catalogue.with_seed(experiment, seed) for seed in seeds]
    return {key: [mitigate(own, key, **options) for own in chosen] for key in keys}


def made_rotations(experiment, seeds, data_dir=None, device="auto"):
    """The set of `quantskew.experiments.difficulty.rotations`, made here or taken from the cache."""
    runs = [difficulty.rotations(catalogue.with_seed(experiment, seed), data_dir, device) for seed in seeds]
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
        See `quantskew.experiments.runs.read_seeds`.
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
        See `quantskew.experiments.catalogue.audit`.

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
    """As `live_and_recorded`, of `quantskew.experiments.difficulty.rotations`."""
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
        See `quantskew.experiments.methods.METHODS`.
    seeds : sequence of int
    data_dir, device, start_from
        See `quantskew.experiments.mitigation.mitigate`.

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

    Of seed 0 every method of `quantskew.experiments.methods.RECORDED` is kept, of other seeds those of
    ``REPEATED``.

    Parameters
    ----------
    experiment : Experiment
    folder : path
    seeds : sequence of int
    data_dir, device
        See `quantskew.experiments.catalogue.audit`.
    base_only : bool
        Whether only the experiment itself is made, without curvature, methods, rotations and activations.

    Yields
    ------
    pathlib.Path
        Each file as soon as it is there; one seed is finished before the next begins.
    """
    for seed in seeds:
        where = {"data_dir": data_dir, "device": device}
        own = catalogue.with_seed(experiment, seed)
        (base,) = made_seeds(own, DEFAULT_PRECISIONS, [seed], curvature=not base_only, **where)
        yield _written(experiment, folder, "", seed, base)
        if base_only:
            continue
        keys = REPEATED if seed else RECORDED
        for _, _, path in write_sets(experiment, folder, keys, [seed], data_dir, device):
            yield path
        yield _written(experiment, folder, f"-{ACTIVATIONS}", seed, audit(own, ACTIVATION_COLUMNS, **where))
        runs = difficulty.rotations(own, **where)
        for key, part in _rotation_files(runs).items():
            yield _written(experiment, folder, f"-{part}", seed, runs[key])


def _written(experiment, folder, part, seed, audit):
    path = Path(folder) / file_name(f"{experiment.name}{part}", seed)
    audit.save(path)
    return path
