"""Audits of record, and the pair of Audits that every chapter shows."""

from pathlib import Path

from quantskew.audit import Audit
from quantskew.experiments import audit, get

_RECORDS = Path("book") / "records"
# Test images a group for the Hessian, where there are thousands.
_RECORD_IMAGES = 256


def live_and_record(
    experiment,
    record_name,
    precisions,
    scheme="banner",
    seed=0,
    data_dir=None,
    device="auto",
    curvature=False,
):
    """The two Audits that every chapter shows: one made here and now, and one of record.

    Parameters
    ----------
    experiment : str
        Trained and audited by this call, or taken from the cache.
    record_name : str
        See `record`.  Where `data_dir` is given, the experiment of that name is run instead.
    precisions : sequence of str
        A record is shown at those of them that it has.
    scheme, seed, data_dir, device, curvature
        See `quantskew.experiments.audit`.

    Returns
    -------
    dict of str to Audit
        By the title of its column in the figures.
    """
    options = {"scheme": scheme, "data_dir": data_dir, "device": device, "curvature": curvature}
    live = audit(get(experiment, seed=seed), precisions, **options)
    if data_dir:
        again = audit(get(record_name, seed=seed), precisions, **options, curvature_images=_RECORD_IMAGES)
        return {f"live: {experiment}": live, f"as the record, live: {record_name}": again}
    kept = record(record_name)
    shared = [precision for precision in precisions if precision in kept.precisions]
    if len(shared) < len(precisions):
        print(f"the record {record_name} has no {', '.join(sorted(set(precisions) - set(shared)))}")
    return {f"live: {experiment}": live, f"record: {record_name}": kept.select(shared)}


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
    if Path(name).suffix == ".safetensors":
        return Audit.load(name)
    folders = record_folders()
    for folder in folders:
        if (folder / f"{name}.safetensors").exists():
            return Audit.load(folder / f"{name}.safetensors")
    known = sorted(path.stem for folder in folders for path in folder.glob("*.safetensors"))
    raise FileNotFoundError(
        f"no record {name!r}; known: {', '.join(known) or 'none (run from within the repository)'}"
    )


def record_folders():
    """Folders that may hold records: ``book/records`` of the working directory and of each folder above."""
    here = Path.cwd()
    return [folder / _RECORDS for folder in (here, *here.parents)]
