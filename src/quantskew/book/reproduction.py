"""Where records come from, and whether one that is made again is the same."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from quantskew.audits.audit import Audit
from quantskew.cache import provenance
from quantskew.checks import shortened
from quantskew.experiments.runs import record_folders
from quantskew.measures.forward import group_accuracy
from quantskew.measures.intervals import CONFIDENCE, wilson_difference
from quantskew.quantization.quantizer import Quantizer

_UNKNOWN = "not recorded"


def overview(folder=None):
    """What each record in a folder is of, and how it was made: a row a file; by default of ``book/records``.

    ``curvature`` is how many images of a group the Hessian was taken over, at most; ``reference`` a digest of
    the logits at the first precision, equal for float models that are equal to the last bit; ``other`` are
    the packages whose version here is another one.
    """
    if folder is not None and not (isinstance(folder, str | Path) and Path(folder).is_dir()):
        raise ValueError(f"folder must hold records; got {shortened(folder)}; leave it out for the book's")
    for found in record_folders() if folder is None else [folder]:
        paths = sorted(Path(found).glob("*.safetensors"), key=lambda path: path.stem)
        if paths:
            return pd.DataFrame([_row(path.name, Audit.load(path)) for path in paths])
    remedy = "run from within the repository, or make them with `quantskew records`"
    raise FileNotFoundError(f"no records in {folder or 'book/records'}; {remedy}")


def _row(name, audit):
    facts = audit.provenance
    experiment = facts.get("experiment", {})
    attributes = [f"{what} {experiment[what]}" for what in ("label", "group") if experiment.get(what)]
    versions, here = facts.get("versions", {}), provenance()["versions"]
    named = {package: f"{package} {version}" for package, version in versions.items()}
    other = [text for package, text in named.items() if versions[package] != here.get(package)]
    return {
        "file": name,
        "experiment": ", ".join([experiment.get("name", _UNKNOWN), *attributes]),
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
        "versions": ", ".join(named.values()) or _UNKNOWN,
        "other": ", ".join(other) or "none",
        "minutes": facts.get("training_seconds", np.nan) / 60,
        "retraining": facts.get("retraining_seconds", 0) / 60,
        "command": facts.get("command", _UNKNOWN),
    }


def _method(audit):
    """What was done to the data, the training and the weights, in words."""
    facts = audit.provenance
    if "method" in facts:
        return facts["method"]["title"]
    words = ["PTQ"]
    targets = facts.get("experiment", {}).get("targets")
    if isinstance(targets, list):
        most, named = max(targets), zip(audit.group_names, targets, strict=True)
        cut = [f"{name} cut to {target:,} of {most:,}" for name, target in named if target < most]
        words += cut or [f"{most:,} training images per group"]
    for name, value in _quantization(facts).items():
        if isinstance(value, str | int) and value is not False:
            words.append(name.replace("_", " ") + ("" if value is True else f" {value}"))
    return ", ".join(words) if "experiment" in facts else _UNKNOWN


def _quantization(facts):
    """What the integer columns of an Audit share; older ones say it themselves."""
    names = facts.get("quantizers", ())
    own = {known.at("int8") for known in map(Quantizer.parse, names) if known.bits}
    if len(own) == 1:
        shared = sorted(dataclasses.asdict(*own).items())
        return {name: value for name, value in shared if name != "precision"}
    return facts.get("quantization", {"columns": " ".join(names)} if own else {})


def agreement(kept, again):
    """Whether an Audit that was made again is the same: a row for each precision that both have.

    ``identical`` is the share of the logits that are equal to the last bit, ``difference`` the largest of a
    group's accuracy, and ``outside`` names groups whose accuracies differ by more than those of two sets of
    images would by chance.  All rows together find such a group by mistake once in twenty times.
    """
    if not (np.array_equal(kept.labels, again.labels) and np.array_equal(kept.groups, again.groups)):
        raise ValueError("the two Audits are not of the same test images, so they cannot be compared")
    shared = [precision for precision in kept.precisions if precision in again.precisions]
    if not shared:
        one, other = (", ".join(audit.precisions) for audit in (kept, again))
        raise ValueError(f"the two Audits share no precision; one has {one}, the other {other}")
    kept, again = kept.select(shared), again.select(shared)
    counts = np.broadcast_to(kept.group_counts, (len(shared), len(kept.group_names)))
    first, second = (group_accuracy(own)["value"].to_numpy().reshape(counts.shape) for own in (kept, again))
    # The images are the same, but a paired interval would take them for all that varies.
    confidence = 1 - (1 - CONFIDENCE) / counts.size
    low, high = wilson_difference(second * counts, counts, first * counts, counts, confidence)
    names, outside = np.array(kept.group_names), (low > 0) | (high < 0)
    columns = {"precision": shared, "identical": (kept.logits == again.logits).mean(axis=(1, 2))}
    columns |= {"difference": np.nanmax(np.abs(second - first), axis=1)}
    return pd.DataFrame(columns | {"outside": [", ".join(names[row]) or "none" for row in outside]})
