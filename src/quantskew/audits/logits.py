"""Logits in files: written with the ids of their samples, read in one order, checked, and audited."""

import os
import sys
from pathlib import Path

import numpy as np

from quantskew.audits.audit import Audit
from quantskew.audits.shipped import class_ids
from quantskew.cache import provenance
from quantskew.checks import some
from quantskew.files import replacing

# Cohen's kappa of predictions that are strangers to each other, at most.
_AGREEING = 0.2


def audit_logits(paths, files, samples=None, class_names=None, group_names=None, train_counts=None):
    """The Audits of logits in files by group column.

    Parameters
    ----------
    paths : dict of str to path
        By the name of the column arrays (N, C), or all of them files of `write_logits`.
    files : dict
        Paths of the ``labels`` and ``groups``, where neither the files nor `samples` have them.
    samples : Listed, optional
    class_names, group_names, train_counts
        See `quantskew.audits.audit.Audit.from_logits`.
    """
    arrays = not any(Path(path).suffix == ".npz" for path in paths.values())
    if arrays and samples is None and None in files.values():
        raise ValueError("--logits needs --labels FILE.npy and --groups FILE.npy, or --test CSV")
    _check_memory(sum(Path(path).stat().st_size for path in paths.values() if Path(path).exists()))
    found, names = {name: _load(path) for name, path in paths.items()}, class_names
    own = [isinstance(part, dict) for part in found.values()]
    if any(own) and not all(own):
        raise ValueError("--logits are all files that `quantskew logits` wrote, or none of them is")
    if all(own):
        found = in_one_order(found)
        first = next(iter(found.values()))
        names, labels = names or first["class_names"].tolist(), first["labels"]
        columns = {name[7:]: values for name, values in first.items() if name.startswith("groups/")}
        found = {name: part["logits"] for name, part in found.items()}
    elif samples is not None:
        (labels, names), columns = class_ids(samples.labels, names), samples.columns
    else:
        labels, columns = _load(files["labels"]), {"": _load(files["groups"])}
    (column, groups), *others = columns.items()
    facts = provenance(source="logits")
    made = Audit.from_logits(found, labels, groups, group_names, names, train_counts, provenance=facts)
    facts["warnings"] = strangers(made)
    return {column: made, **{name: made.regrouped(groups) for name, groups in others}}


def _check_memory(size):
    """Refuse logits of so many bytes that their audit does not fit into the machine's memory."""
    needed, memory = 3 * size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        size, needed, memory = (own / 2**30 for own in (size, needed, memory))
        said = f"the logits take {size:,.1f} GB and their audit about {needed:,.0f}, but this machine has"
        raise ValueError(f"{said} {memory:,.0f}; audit fewer samples or precisions at a time")


def _load(path):
    """The array in a file, or those of `write_logits` by name."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            if {"logits", "ids", "labels"} <= {*found.files}:
                return dict(found)
            if len(found.files) != 1:
                raise ValueError(f"it holds {len(found.files)} arrays; save each to a file of its own")
            return found[found.files[0]]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (ValueError, OSError, EOFError) as error:
        what = f"{path} is not an array that numpy.save wrote without pickling ({error})"
        raise ValueError(f"{what}; save it so, and names as .astype(str)") from error


def write_logits(path, audits):
    """Write the first column of the Audits of `audit_file` to an .npz file, with ids, labels and groups."""
    made = next(iter(audits.values()))
    arrays = {"logits": made.logits[0], "ids": made.provenance["samples"], "labels": made.labels}
    arrays |= {f"groups/{name}": np.array(own.group_names)[own.groups] for name, own in audits.items()}
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays, class_names=made.class_names)


def in_one_order(files):
    """The arrays of `write_logits` files, by name of the column, in the order of the first.

    Files of other samples are refused; those in another order are put in order, which is said.
    """
    first, ids = next((name, own["ids"].tolist()) for name, own in files.items())
    for name, own in files.items():
        place = {sample: row for row, sample in enumerate(own["ids"].tolist())}
        if len(place) != len(own["ids"]) or place.keys() != {*ids}:
            lacks = some(sorted(place.keys() ^ {*ids}))
            what = f"{name} and {first} are not of the same samples, each once"
            raise ValueError(f"{what}: only one has {lacks}")
        rows = [place[sample] for sample in ids]
        if rows != [*range(len(ids))]:
            print(f"{name}: its samples are put in the order of those of {first}", file=sys.stderr)
        files[name] = {what: array if what == "class_names" else array[rows] for what, array in own.items()}
        if (files[name]["labels"] != files[first]["labels"]).any():
            raise ValueError(f"{name} and {first} have other labels for the same samples")
    return files


def strangers(audit):
    """A sentence for each column that agrees with the reference hardly more than by chance."""
    shares = [np.bincount(own, minlength=len(audit.class_names)) / len(own) for own in audit.predictions]
    told = []
    for name, own, share in zip(audit.precisions, audit.predictions, shares, strict=True):
        agreement, chance = np.mean(own == audit.predictions[0]), share @ shares[0]
        if agreement - chance < _AGREEING * (1 - chance):
            what = f"{name} agrees with {audit.precisions[0]} on {agreement:.1%} of predictions, by chance"
            told.append(f"{what} {chance:.1%}: are these the same samples and classes in the same order?")
    return told
