"""Audits of record, and the pair of Audits that every chapter shows."""

import re
from pathlib import Path

from quantskew.audits.audit import Audit
from quantskew.studies.experiments import audit, with_seed

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
        See `quantskew.studies.experiments.audit`.
    seed, seeds : int
        The first seed of what is made here, and how many; a record has its own number.
    data_dir, device, curvature
        See `quantskew.studies.experiments.audit`.

    Returns
    -------
    dict of str to list of Audit
        By the title of its column in the figures, one Audit a seed.
    """
    own = range(seed, seed + seeds)
    options = {"scheme": scheme, "device": device, "curvature": curvature}
    live = made_seeds(experiment, precisions, own, **options)
    if data_dir:
        again = made_seeds(record_name, precisions, own, data_dir=data_dir, **options)
        return {f"live: {experiment}": live, f"as the record, live: {record_name}": again}
    kept = seeds_of(record_name)
    shared = [precision for precision in precisions if precision in kept[0].precisions]
    if len(shared) < len(precisions):
        print(f"the record {record_name} has no {', '.join(sorted(set(precisions) - set(shared)))}")
    return {f"live: {experiment}": live, f"record: {record_name}": [own.select(shared) for own in kept]}


def made_seeds(experiment, precisions, seeds, **options):
    """The Audits of an experiment over its seeds, made here or taken from the cache.

    Parameters
    ----------
    experiment : Experiment or str
    precisions : sequence of str
    seeds : sequence of int
    **options
        See `quantskew.studies.experiments.audit`.

    Returns
    -------
    list of Audit
    """
    return [
        audit(with_seed(experiment, seed), precisions, curvature_images=_RECORD_IMAGES, **options)
        for seed in seeds
    ]


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
