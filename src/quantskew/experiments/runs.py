"""Runs: the Audits of an experiment by key and seed, made here or read from the book's records.

A key says what was done: `BASE` is the experiment itself after PTQ, `ACTIVATIONS` quantizes what the layers
are fed too, `CAUSES` intervenes on a link of the chain, `LAYERS` quantizes one layer at a time, `CALIBRATION`
and `FRONT` are what `quantskew.experiments.allocation` does without training, and further keys are those of
`quantskew.experiments.methods` and `difficulty`.  A record is a file for each of them,
``NAME[-KEY][-SEED].safetensors``.
"""

import multiprocessing
import os
import re
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from quantskew.audits.audit import Audit
from quantskew.checks import shortened
from quantskew.experiments import allocation, catalogue, difficulty, interventions, mitigation
from quantskew.experiments.difficulty import BALANCED, CUT
from quantskew.experiments.methods import METHODS, RECORDED, REPEATED
from quantskew.experiments.mitigation import mitigate
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, Quantizer

BASE, ACTIVATIONS, CAUSES, LAYERS = "base", "activations", "causes", "layers"
CALIBRATION, FRONT = "calibration", "front"
# Stands for a cut of each group, whatever their names are.
EVERY_CUT = f"{CUT}*"
_FOLDER, _SUFFIX = Path("book") / "records", ".safetensors"
# Test images a group for the Hessian, where there are thousands.
_HESSIAN_IMAGES = 256


class Runs(dict):
    """Audits of one experiment: for each key a list, one a seed.

    Attributes
    ----------
    experiment : str
        Its name, by which it is found among others.
    title : str
        As figures and tables name it: ``live: digits``, ``record: utkface``.
    """

    def __init__(self, experiment, title, audits):
        super().__init__(audits)
        self.experiment, self.title = experiment, title


def make(experiment, keys, seeds, *, quantizers=None, curvature=False, **where):
    """The runs of an experiment, from the cache or made now.

    Parameters
    ----------
    experiment : Experiment or str
    keys : sequence of str
    seeds : sequence of int
    quantizers : sequence of Quantizer or str, optional
        Of the base, by default those of the book; other keys have precisions of their own.
    curvature : bool
        Whether the base has gradient norms and Hessians, these of a few hundred test images a group.
    **where
        ``data_dir`` and ``device``, see `quantskew.experiments.catalogue.audit`.
    """
    chosen = [catalogue.with_seed(experiment, seed) for seed in seeds]
    options = {"quantizers": quantizers, "curvature": curvature, **where}
    keys = _spelled_out(keys, chosen[0], where)
    audits = {key: [_made(own, key, **options) for own in chosen] for key in keys}
    return Runs(chosen[0].name, f"live: {chosen[0].name}", audits)


def _spelled_out(keys, experiment, where):
    """The keys, with `EVERY_CUT` as that of each group."""
    if EVERY_CUT not in keys:
        return list(keys)
    groups = catalogue.load_data(experiment, where.get("data_dir")).group_names
    return [key for key in keys if key != EVERY_CUT] + [f"{CUT}{group}" for group in groups]


def _made(experiment, key, quantizers=None, curvature=False, **where):
    if key == BASE:
        extent = curvature and _HESSIAN_IMAGES
        made = catalogue.audit(experiment, quantizers or DEFAULT_PRECISIONS, curvature=extent, **where)
        # A page names its columns by their bits, and says once which scheme they have.
        return made.plain()
    if key == ACTIVATIONS:
        return catalogue.audit(experiment, catalogue.ACTIVATION_COLUMNS, **where)
    whole = {LAYERS: catalogue.layer_audit, CAUSES: interventions.audit}
    whole |= {CALIBRATION: allocation.calibration_audit, FRONT: allocation.front}
    if key in whole:
        return whole[key](experiment, **where)
    make = difficulty.rotation if key == BALANCED or key.startswith(CUT) else mitigate
    return make(experiment, key, **where)


def refusal(experiment, key):
    """Why there can be no Audit of that key of an experiment that starts from a trained model, or None."""
    if not experiment.start or key == BASE:
        return None
    if key == BALANCED or key.startswith(CUT):
        return f"{key} trains float models of its own, and {experiment.start} cannot replace them"
    own = experiment.own
    if key in METHODS:
        return mitigation.refusal(experiment, METHODS[key])
    return f"{key} needs training images: give --train" if own and not own.train and key != LAYERS else None


def read(name, keys=(BASE,), precisions=None):
    """The runs of record of an experiment, as far as they are there.

    Parameters
    ----------
    name : str
        Of the experiment; or the path of an Audit, which is then the base, its seeds beside it.
    keys : sequence of str
    precisions : sequence of str, optional
        The base at those of them that it has; a printed sentence names the others.

    Seeds are in their order, and each key has those that it has: what compares keys pairs them by seed (see
    `quantskew.measures.seeds.paired`).  A printed sentence names a file that is missing below the last seed
    of the base.
    """
    folders, stem = _place(name)
    keys = (BASE,) if _is_path(name) else keys
    found = (_files(folder, stem, keys) for folder in folders)
    files = next((own for own in found if own and (BASE in own or BASE not in keys)), None)
    if files is None:
        raise FileNotFoundError(_nothing(name, keys, folders))
    own = files.get(BASE, {})
    for seed in sorted(set(range(max(own, default=0))) - set(own)):
        print(f"{file_name(stem, BASE, seed)} is missing: seed {seed} is left out")
    audits = {}
    for key, own in files.items():
        if own:
            audits[key] = _read_seeds(list(own.values()))
        elif key.startswith(CUT):
            needed = file_name(stem, key)
            raise FileNotFoundError(f"the record {stem} lacks {needed}; make it with `quantskew records`")
    if precisions:
        there = audits[BASE][0].precisions
        if not set(precisions) <= set(there):
            print(f"the record {stem} has no {', '.join(sorted(set(precisions) - set(there)))}")
        shared = [precision for precision in precisions if precision in there]
        audits[BASE] = [audit.select(shared) for audit in audits[BASE]]
    return Runs(stem, f"record: {stem}", audits)


def _files(folder, name, keys):
    """The files of each key that there is in a folder, by their seeds; none of a cut that is missing."""
    files = {key: own for key in keys if (own := _seed_files(folder, name, key))}
    if EVERY_CUT in keys and BALANCED in files:
        first, *_ = files[BALANCED].values()
        cuts = [f"{CUT}{group}" for group in Audit.load(first).group_names]
        files |= {key: _seed_files(folder, name, key) for key in cuts}
    return files


def _seed_files(folder, name, key):
    """The files of a record in a folder by their seeds, in the order of the seeds."""
    stem = re.escape(file_name(name, key).removesuffix(_SUFFIX))
    pattern = re.compile(rf"{stem}(?:-([1-9]\d*))?{re.escape(_SUFFIX)}")
    matches = ((path, pattern.fullmatch(path.name)) for path in folder.glob(f"*{_SUFFIX}"))
    return dict(sorted((int(match[1] or 0), path) for path, match in matches if match))


def _read_seeds(paths):
    audits = [Audit.load(path) for path in paths]
    first, *_ = (", ".join(audit.group_names) for audit in audits)
    for path, audit in zip(paths, audits, strict=True):
        own = ", ".join(audit.group_names)
        if own != first:
            said = f"{path} has the groups {own}, but {paths[0]} has {first}"
            raise ValueError(f"{said}; the seeds of a record have the same groups")
    return audits


def _nothing(name, keys, folders):
    """What to say where nothing was found."""
    if BASE not in keys:
        remedy = "run from within the repository, or make them with `quantskew records`"
        return f"no record of {name} with {', '.join(keys)}; {remedy}"
    known = sorted(path.stem for folder in folders for path in folder.glob(f"*{_SUFFIX}"))
    return f"no record {name!r}; known: {', '.join(known) or 'none (run from within the repository)'}"


def check_record(name, folders=None):
    """Refuse a name of which there is no record, with the known ones."""
    if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 200:
        raise ValueError(f"a record is a name such as utkface; got {shortened(name)}")
    folders, stem = _place(name, folders)
    files = (path.stem for folder in folders for path in folder.glob(f"*{_SUFFIX}"))
    if not any(own == stem or own.startswith(f"{stem}-") for own in files):
        raise FileNotFoundError(_nothing(name, (BASE,), folders))


def _is_path(name):
    return Path(name).suffix == _SUFFIX


def _place(name, folders=None):
    """Where a record may be, by default in the book's folders, and its name; of a path what it says."""
    if _is_path(name):
        return [Path(name).parent], Path(name).stem
    return record_folders() if folders is None else [Path(folder) for folder in folders], name


def record_folders(start="."):
    """Folders that may hold records: ``book/records`` of a folder and of each one above."""
    here = Path(start).resolve()
    return [folder / _FOLDER for folder in (here, *here.parents)]


def file_name(name, key=BASE, seed=0):
    """Name of the file of one seed of a record.

    Examples
    --------
    >>> file_name("utkface"), file_name("utkface", "mpqat", 2)
    ('utkface.safetensors', 'utkface-mpqat-2.safetensors')
    """
    return f"{name}{'' if key == BASE else f'-{key}'}{f'-{seed}' if seed else ''}{_SUFFIX}"


def beside(experiment, records, keys, seeds, *, precisions=None, scheme="banner", data_dir=None, **options):
    """What a page shows side by side, list of Runs: an experiment made here and now, and others of record.

    The `records` are read, the base at those of the `precisions` that it has; where `data_dir` is given, the
    first of them is made too.  A further one that there is not is left out, and a printed sentence says so.
    The `scheme` is that of what is made.  For the rest see `make`; a record has its own number of seeds.
    """
    options["quantizers"] = Quantizer.each(precisions or DEFAULT_PRECISIONS, scheme=scheme)
    first, *others = records
    if not data_dir:
        # Before anything is trained.
        check_record(first)
    found = [make(experiment, keys, seeds, **options)]
    if data_dir:
        again = make(first, keys, seeds, data_dir=data_dir, **options)
        again.title = f"as the record, {again.title}"
        found.append(again)
    else:
        found.append(read(first, keys, precisions))
    for name in others:
        try:
            found.append(read(name, keys, precisions))
        except FileNotFoundError as error:
            print(f"{error}: it is left out")
    return found


def write(experiment, folder, seeds, keys=None, **where):
    """Make runs and write each Audit into a folder; one seed is finished before the next begins.

    Without `keys` it is all of which the book keeps records, the base with its curvature; for the rest see
    `make`.  Key, Audit and file are given as soon as the file is there.
    """
    for seed in seeds:
        own = catalogue.with_seed(experiment, seed)
        recorded = (BASE, *(REPEATED if seed else RECORDED), ACTIVATIONS, CAUSES, LAYERS)
        recorded += (CALIBRATION, FRONT, BALANCED, EVERY_CUT)
        for key in _spelled_out(recorded if keys is None else keys, own, where):
            audit = _made(own, key, curvature=keys is None, **where)
            path = Path(folder) / file_name(experiment.name, key, seed)
            # A record has half the size where no column is so near to its reference that float16 would show.
            audit.save(path, half=keys is None and key != BASE)
            yield key, audit, path


def ahead(jobs, make, *arguments, seeds, **options):
    """Put what ``make(*arguments, seeds=seeds, **options)`` takes from the cache there, `jobs` seeds at once.

    Each seed has a process of its own and its share of the threads, as this process has from then on.
    """
    jobs = min(jobs, len(seeds))
    if jobs == 1:
        return
    share = max(1, torch.get_num_threads() // jobs)
    torch.set_num_threads(share)
    # For the processes, which take them from this one; several bars would be none.
    os.environ.update(OMP_NUM_THREADS=str(share), TQDM_DISABLE="1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        running = {pool.submit(_of_seed, make, arguments, seed, options): seed for seed in seeds}
        try:
            for done in as_completed(running):
                if done.exception():
                    raise RuntimeError(f"seed {running[done]}: {done.exception()}") from done.exception()
                print(f"seed {running[done]} is made", file=sys.stderr)
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            del os.environ["TQDM_DISABLE"]
            pool.shutdown(cancel_futures=True)


def _of_seed(make, arguments, seed, options):
    for _ in make(*arguments, seeds=[seed], **options):
        pass
