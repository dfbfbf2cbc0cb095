"""Where records come from, and whether one that is made again is the same."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from quantskew.audits.audit import Audit
from quantskew.cache import provenance
from quantskew.experiments.runs import record_folders
from quantskew.groups import group_means
from quantskew.measures.forward import group_accuracy
from quantskew.measures.intervals import CONFIDENCE, wilson_difference
from quantskew.quantization.quantizer import Quantizer

_UNKNOWN = "not recorded"


def overview(folder=None):
    """What each record is of, and how it was made.

    Parameters
    ----------
    folder : path, optional
        By default ``book/records`` of the working directory or of a folder above it.

    Returns
    -------
    pandas.DataFrame
        One row a file:

        - ``file``, ``experiment`` and its ``model``, ``method`` and ``seed``;
        - ``precisions``, ``images`` (test images) and ``curvature`` (images of a group for the Hessian, at
          most; 0 where the loss was not differentiated);
        - ``reference``: a digest of the logits at the first precision, equal for float models that are equal
          to the last bit;
        - ``machine``, ``threads`` (or the name of a GPU) and ``versions``; ``other`` are the packages whose
          version here is another one;
        - ``minutes`` of training the float model, NaN where they were not recorded, and those of
          ``retraining``; the ``command``.

    Raises
    ------
    FileNotFoundError
        If there is no record.
    ValueError
        If a file is not a whole Audit.
    """
    folders = record_folders() if folder is None else [folder]
    for found in folders:
        paths = sorted(Path(found).glob("*.safetensors"), key=lambda path: path.stem)
        if paths:
            return pd.DataFrame([_row(path.name, Audit.load(path)) for path in paths])
    raise FileNotFoundError(
        f"no records in {folder or 'book/records'}; run from within the repository, or make them with "
        "`quantskew records`"
    )


def _row(name, audit):
    facts = audit.provenance
    experiment = facts.get("experiment", {})
    versions = facts.get("versions", {})
    here = provenance()["versions"]
    other = [f"{package} {version}" for package, version in versions.items() if version != here.get(package)]
    return {
        "file": name,
        "experiment": _experiment(experiment),
        "model": experiment.get("model", _UNKNOWN),
        "method": _method(audit),
        "seed": experiment.get("recipe", {}).get("seed", _UNKNOWN),
        "precisions": ", ".join(audit.precisions),
        "images": len(audit.labels),
        "curvature": 0 if audit.curvature is None else int(audit.curvature.images.max(initial=0)),
        "reference": hashlib.sha256(np.ascontiguousarray(audit.logits[0])).hexdigest()[:8],
        "machine": facts.get("machine", _UNKNOWN),
        # The name of a processor is that of its number of threads, see `experiments.device_name`.
        "threads": facts.get("device", _UNKNOWN).removesuffix(" cores"),
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()) or _UNKNOWN,
        "other": ", ".join(other) or "none",
        "minutes": facts.get("training_seconds", np.nan) / 60,
        "retraining": facts.get("retraining_seconds", 0) / 60,
        "command": facts.get("command", _UNKNOWN),
    }


def _experiment(experiment):
    attributes = {what: experiment.get(what) for what in ("label", "group")}
    named = [f"{what} {name}" for what, name in attributes.items() if name]
    return ", ".join([experiment.get("name", _UNKNOWN), *named])


def _method(audit):
    """What was done to the data, the training and the weights, in words."""
    facts = audit.provenance
    if "method" in facts:
        return facts["method"]["title"]
    words = ["PTQ"]
    targets = facts.get("experiment", {}).get("targets")
    if isinstance(targets, list):
        words += [
            f"{name} cut to {target:,} of {max(targets):,}"
            for name, target in zip(audit.group_names, targets, strict=True)
            if target < max(targets)
        ] or [f"{max(targets):,} training images a group"]
    for name, value in _quantization(facts).items():
        if isinstance(value, str | int) and value is not False:
            words.append(name.replace("_", " ") + ("" if value is True else f" {value}"))
    return ", ".join(words) if "experiment" in facts else _UNKNOWN


def _quantization(facts):
    """What the integer columns of an Audit share; older ones say it themselves."""
    names = facts.get("quantizers", ())
    own = {
        dataclasses.replace(known, precision="int8") for known in map(Quantizer.parse, names) if known.bits
    }
    if len(own) == 1:
        shared = sorted(dataclasses.asdict(*own).items())
        return {name: value for name, value in shared if name != "precision"}
    return facts.get("quantization", {"columns": " ".join(names)} if own else {})


def agreement(kept, again):
    """Whether an Audit that was made again is the same, precision by precision.

    Parameters
    ----------
    kept, again : Audit
        Of the same test images.

    Returns
    -------
    pandas.DataFrame
        One row for each precision of both: ``precision``, ``identical`` (share of the logits that are equal
        to the last bit), ``difference`` (the largest of a group's accuracy) and ``outside``: groups whose
        accuracies differ by more than chance would make those of two sets of images differ.  All rows
        together find such a group by mistake once in twenty times.

    Raises
    ------
    ValueError
        If the test images are not the same, or no precision is.
    """
    if not (np.array_equal(kept.labels, again.labels) and np.array_equal(kept.groups, again.groups)):
        raise ValueError("the two Audits are not of the same test images, so they cannot be compared")
    shared = [precision for precision in kept.precisions if precision in again.precisions]
    if not shared:
        raise ValueError(
            f"the two Audits share no precision; one has {', '.join(kept.precisions)}, the other "
            f"{', '.join(again.precisions)}"
        )
    kept, again = kept.select(shared), again.select(shared)
    counts = np.broadcast_to(kept.group_counts, (len(shared), len(kept.group_names)))
    first, second = (
        group_means(group_accuracy.of_samples(audit), audit.groups, len(audit.group_names))
        for audit in (kept, again)
    )
    # The images are the same, but a paired interval would take them for all that varies.
    confidence = 1 - (1 - CONFIDENCE) / counts.size
    low, high = wilson_difference(second * counts, counts, first * counts, counts, confidence)
    outside = (low > 0) | (high < 0)
    names = np.array(kept.group_names)
    return pd.DataFrame(
        {
            "precision": shared,
            "identical": (kept.logits == again.logits).mean(axis=(1, 2)),
            "difference": np.nanmax(np.abs(second - first), axis=1),
            "outside": [", ".join(names[row]) or "none" for row in outside],
        }
    )
