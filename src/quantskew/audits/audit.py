"""The Audit: all that is worth keeping of one model under several precisions.

Everything the book shows of the forward pass is a pure function of the logits, so nothing derived is kept.
"""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from safetensors.numpy import load as from_bytes

from quantskew.audits.statistics import Curvature, WeightStatistics
from quantskew.cache import cache_dir, make_once
from quantskew.checks import shortened
from quantskew.files import Damaged, read_tensors, write_arrays
from quantskew.groups import (
    MOST,
    OVERALL,
    as_array,
    check_group_ids,
    check_names,
    distinct,
    group_counts,
)
from quantskew.quantization.quantizer import Quantizer

_KEY, _FORMAT = "quantskew.audit", 1
# How far the sums of probabilities are from 1, at most.
_SUM = 2e-3
_IDS = ("labels", "groups")


@dataclass(frozen=True, eq=False)
class Audit:
    """Logits of every test sample under every quantizer, with labels, groups and provenance.

    Attributes
    ----------
    logits : ndarray of float32, shape (P, N, C)
    labels : ndarray of int64, shape (N,)
    groups : ndarray of int64, shape (N,)
    precisions : tuple of str, length P
        The columns: names of quantizers, or of other runtimes; the first is the reference of the others.
    class_names : tuple of str, length C
    group_names : tuple of str, length G
    train_counts : ndarray of int64, shape (G,)
        Training images of each group: which group is the majority.  By default the test counts.
    weights : WeightStatistics or None
        None where the model's weights were not at hand.
    curvature : Curvature or None
        None where the loss was not differentiated.
    provenance : dict
        How it came about, JSON-able.

    Raises
    ------
    ValueError
        If shapes, ids or names do not belong together, or a logit is not finite.
    """

    logits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    precisions: tuple
    class_names: tuple
    group_names: tuple
    train_counts: np.ndarray | None = None
    weights: WeightStatistics | None = None
    curvature: Curvature | None = None
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.logits.ndim != 3 or self.logits.shape[0] != len(self.precisions):
            expected = f"(precisions, samples, classes) with {len(self.precisions)} precisions"
            raise ValueError(f"logits must have the shape {expected}; got {self.logits.shape}")
        if len(set(self.precisions)) != len(self.precisions):
            raise ValueError(f"each precision is named once; got {', '.join(self.precisions)}")
        samples, classes = self.logits.shape[1:]
        if len(self.class_names) != classes:
            raise ValueError(f"{classes} logits a sample but {len(self.class_names)} class names")
        known = {"label": (self.labels, self.class_names), "group": (self.groups, self.group_names)}
        for what, (ids, names) in known.items():
            if ids.shape != (samples,):
                raise ValueError(f"{samples} samples have logits, but {what}s have the shape {ids.shape}")
            check_group_ids(ids, len(names), what)
        finite = np.stack([np.isfinite(own).all(axis=1) for own in self.logits])
        if not finite.all():
            precision, sample = np.argwhere(~finite)[0]
            where = f"the first is sample {sample} at {self.precisions[precision]}"
            remedy = "leave such samples out, or write a finite number"
            raise ValueError(f"the logits of {(~finite).sum()} samples are not finite; {where}; {remedy}")
        if self.train_counts is None:
            object.__setattr__(self, "train_counts", self.group_counts)
        elif len(self.train_counts) != len(self.group_names):
            raise ValueError(f"{len(self.train_counts)} training counts for {len(self.group_names)} groups")

    @property
    def group_counts(self):
        """Number of test samples in each group, ndarray of int64, shape (G,)."""
        return group_counts(self.groups, len(self.group_names))

    @property
    def predictions(self):
        """Class with the largest logit, ndarray of int64, shape (P, N)."""
        return self.logits.argmax(axis=2)

    def index(self, name):
        """Position of a column: of that name, or the only one whose weights have that precision alone.

        Raises
        ------
        ValueError
            If there is none or there are several; the message lists the columns that there are.
        """
        if name in self.precisions:
            return self.precisions.index(name)
        known = enumerate(map(quantizer_of, self.precisions))
        found = [row for row, own in known if own.precision == name and not own.activation_precision]
        if len(found) == 1:
            return found[0]
        what = f"several columns of {name}" if found else f"no {name!r}"
        raise ValueError(f"this Audit has {what}; it has {', '.join(self.precisions)}")

    def plain(self):
        """The Audit with columns named by the precision of their weights, where no other has the same.

        Examples
        --------
        >>> columns = {name: [[0.0, 1.0]] for name in ("fp32", "int4:mse", "int2", "int2:mse", "onnx")}
        >>> Audit.from_logits(columns, labels=[0], groups=["a"]).plain().precisions
        ('fp32', 'int4', 'int2', 'int2:mse', 'onnx')
        """
        short = [quantizer_of(name).precision or name for name in self.precisions]
        pairs = zip(short, self.precisions, strict=True)
        names = [own if short.count(own) == 1 else name for own, name in pairs]
        curvature = self.curvature
        if curvature:
            of = dict(zip(self.precisions, names, strict=True))
            profiled = of.get(curvature.profile_precision, curvature.profile_precision)
            curvature = replace(curvature, profile_precision=profiled)
        return replace(self, precisions=tuple(names), curvature=curvature)

    def select(self, precisions):
        """An Audit with only these columns, in this order, see `index`."""
        rows = [self.index(precision) for precision in precisions]
        parts = {name: own and own.select(rows) for name, own in self._statistics.items()}
        names = tuple(self.precisions[row] for row in rows)
        return replace(self, logits=self.logits[rows], precisions=names, **parts)

    @property
    def _statistics(self):
        return {"weights": self.weights, "curvature": self.curvature}

    def join(self, other):
        """An Audit with the precisions of both, of the same model on the same samples.

        Raises
        ------
        ValueError
            If their labels, groups or names differ, or a precision is in both.

        Examples
        --------
        >>> of = {"labels": [0, 1], "groups": ["a", "b"]}
        >>> first = Audit.from_logits({"fp32": [[2.0, 1.0], [0.0, 3.0]]}, **of)
        >>> first.join(Audit.from_logits({"int2": [[1.0, 1.5], [0.0, 3.0]]}, **of)).precisions
        ('fp32', 'int2')
        """
        for name in ("labels", "groups", "class_names", "group_names"):
            if not np.array_equal(getattr(self, name), getattr(other, name)):
                what = name.replace("_", " ")
                raise ValueError(f"the two Audits have different {what}; they cannot be joined")
        both = [(name, own, other._statistics[name]) for name, own in self._statistics.items()]
        parts = {name: own and further and own.join(further) for name, own, further in both}
        logits = np.concatenate([self.logits, other.logits])
        return replace(self, logits=logits, precisions=self.precisions + other.precisions, **parts)

    def regrouped(self, groups):
        """The same samples in other groups, an id or a name for each; what was measured by group is left out.

        Examples
        --------
        >>> audit = Audit.from_logits({"fp32": [[2.0, 1.0], [0.0, 3.0]]}, labels=[0, 1], groups=["a", "b"])
        >>> audit.regrouped(["x", "x"]).group_counts
        array([2])
        """
        ids, found = distinct(groups)
        names = tuple(name if isinstance(name, str) else f"group {name}" for name in found)
        return replace(self, groups=ids, group_names=names, train_counts=None, curvature=None)

    @property
    def counted(self):
        """What `train_counts` count: images in training, or the test's where nothing else is known."""
        same = np.array_equal(self.train_counts, self.group_counts)
        return "test images" if same else "images in training"

    @classmethod
    def from_logits(
        cls, logits, labels, groups, group_names=None, class_names=None, train_counts=None, provenance=None
    ):
        """An Audit of logits from anywhere: another runtime, another framework, a file.

        Parameters
        ----------
        logits : dict of str to array_like, each of shape (N, C)
            One entry a precision or runtime, by any name; the first is the reference.
        labels : array_like of int, shape (N,)
        groups : array_like of int or str, shape (N,)
            Ids or names, which are numbered in their order.  Text is stripped, and what is missing refused.
        group_names : sequence of str, optional
            Of the ids 0, 1, ..., of which some may have no samples.
        class_names : sequence of str, optional
        train_counts : array_like of int, shape (G,), optional
        provenance : dict, optional

        Raises
        ------
        ValueError
            If the arrays do not belong together, or a logit is not finite (its sample is named).

        Examples
        --------
        >>> logits = {"fp32": [[2.0, 1.0], [0.0, 3.0]], "int8": [[1.0, 2.0], [0.0, 3.0]]}
        >>> audit = Audit.from_logits(logits, labels=[0, 1], groups=["a", "b"])
        >>> audit.predictions
        array([[0, 1],
               [1, 1]])
        """
        if not hasattr(logits, "items"):
            example = '{"fp32": array, "int8": array}'
            raise ValueError(f"give the logits by the name of each precision, such as {example}")
        if not logits:
            raise ValueError("no logits were given; give at least one precision")
        names = check_names(list(logits), "precision")
        arrays = {name: _logits(values, name) for name, values in zip(names, logits.values(), strict=True)}
        first, *_ = arrays
        shape = arrays[first].shape
        for name, own in arrays.items():
            if own.shape != shape:
                what = f"the logits of {name} have the shape {own.shape}, those of {first} {shape}"
                raise ValueError(f"{what}; they must be of the same samples in the same order")
        if not shape[0]:
            raise ValueError("there are no samples to audit: the logits are empty")
        if shape[1] < 2:
            what = f"an audit needs two classes or more, but the logits have {shape[1]} column(s)"
            raise ValueError(f"{what}; of one logit for two classes make two columns, zeros and it")
        labels, found = distinct(labels, "label")
        if found and isinstance(found[0], str):
            said = f"labels are names, such as {shortened(found[0])}; give for each sample"
            raise ValueError(f"{said} the number of its class's column in the logits, 0 to {shape[1] - 1}")
        labels = np.array(found, dtype=np.int64)[labels]
        groups, found = distinct(groups)
        named = bool(found) and isinstance(found[0], str)
        numbers = groups if named else check_group_ids(np.array(found)[groups])[0]
        if group_names is None:
            group_names = [name if isinstance(name, str) else f"group {name}" for name in found]
        elif named:
            raise ValueError("give group_names only where the groups are numbers")
        else:
            group_names, groups = check_names(group_names, "group"), numbers
        if OVERALL in group_names:
            raise ValueError(f"no group can be named {OVERALL!r}, which stands for all samples; rename it")
        if len(group_names) > MOST:
            what = f"{len(group_names):,} groups are more than the {MOST:,} of an Audit"
            raise ValueError(f"{what}; are these ids of samples? Give for each what it shares with others")
        if train_counts is not None:
            train_counts = as_array(train_counts, "training counts")
            if train_counts.dtype.kind not in "iu" or train_counts.ndim != 1 or (train_counts < 0).any():
                got = shortened(train_counts)
                raise ValueError(f"training counts must be whole numbers from 0 on; got {got}")
            train_counts = train_counts.astype(np.int64)
        class_names = check_names(class_names or [f"class {c}" for c in range(shape[1])], "class")
        names = tuple(arrays), class_names, tuple(group_names)
        facts, stacked = provenance or {"source": "logits"}, np.stack(list(arrays.values()))
        return cls(stacked, labels, groups, *names, train_counts, provenance=facts)

    def save(self, path, half=False):
        """Write the Audit to a safetensors file, whole or not at all.

        With `half` the logits are float16, three digits in half the size, and every answer stays what it is;
        they are read as float32.
        """
        logits = in_half(self.logits) if half else self.logits
        arrays = {"logits": logits, "train_counts": self.train_counts}
        # A record holds thousands of ids, and most of their bytes would be zeros.
        for name in _IDS:
            ids = getattr(self, name)
            arrays[name] = ids.astype(np.min_scalar_type(ids.max(initial=0)))
        names = {name: getattr(self, name) for name in ("precisions", "class_names", "group_names")}
        for part, own in self._statistics.items():
            arrays |= {f"{part}/{name}": array for name, array in own.arrays().items()} if own else {}
        if self.weights:
            names["layers"] = self.weights.layers
        if self.curvature:
            names["profile_precision"] = [self.curvature.profile_precision]
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        # Under one key, since the format does not keep the order of several: the same Audit, the same bytes.
        described = {"format": _FORMAT, "names": names, "provenance": self.provenance}
        write_arrays(path, arrays, {_KEY: json.dumps(described, sort_keys=True)})

    @classmethod
    def load(cls, path, own=False):
        """Read an Audit that `save` wrote; where it must be our `own`, one without a digest is not whole.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not an Audit of this version, or is not whole.
        """
        try:
            arrays, metadata = read_tensors(path, from_bytes, own)
            described = json.loads(metadata.get(_KEY, "{}"))
            if described.get("format") != _FORMAT:
                own_format = f"{path} has the format {described.get('format')!r}, not {_FORMAT!r}"
                raise ValueError(f"{own_format}; make it again with `quantskew audit`")
            parts = {"": {}, "weights": {}, "curvature": {}}
            for name, array in arrays.items():
                part, _, short = name.rpartition("/")
                parts[part][short] = array
            parts[""] |= {name: parts[""][name].astype(np.int64) for name in _IDS}
            parts[""]["logits"] = parts[""]["logits"].astype(np.float32, copy=False)
            names = {name: tuple(values) for name, values in described["names"].items()}
            layers, profiled = names.pop("layers", None), names.pop("profile_precision", None)
            weights = WeightStatistics(layers, **parts["weights"]) if layers else None
            curvature = Curvature(**parts["curvature"], profile_precision=profiled[0]) if profiled else None
            facts = {"weights": weights, "curvature": curvature, "provenance": described["provenance"]}
            return cls(**parts[""], **names, **facts)
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no Audit at {path}") from None
        except (Damaged, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a whole Audit ({error}); make it again") from error


def in_half(logits):
    """Logits (P, N, C) in float16, the largest of each sample at the same class.

    Examples
    --------
    >>> in_half(np.array([[[8.0, 8.001, 2.5]]], dtype=np.float32)).tolist()
    [[[8.0, 8.0078125, 2.5]]]
    """
    with np.errstate(over="ignore"):
        halves, answers = logits.astype(np.float16), logits.argmax(axis=2)[..., None]
    if not np.isfinite(halves).all():
        raise ValueError("logits beyond 65504 have no float16; save them whole")
    # Where two round to the same number, the larger one goes to the next.
    tied = halves.argmax(axis=2)[..., None] != answers
    best = np.take_along_axis(halves, answers, axis=2)
    best = np.where(tied, np.nextafter(best, np.float16(np.inf)), best)
    np.put_along_axis(halves, answers, best, axis=2)
    return halves


def _logits(values, name):
    """The logits of one precision in float32, shape (N, C)."""
    array = as_array(values, f"the logits of {name}")
    if array.dtype.kind not in "iuf":
        what = f"the logits of {name} must be real numbers; got dtype {array.dtype}"
        raise ValueError(f"{what} (decisions and text are no logits)")
    if array.ndim != 2:
        raise ValueError(f"the logits of {name} must have the shape (samples, classes); got {array.shape}")
    shares = array.shape[1] > 1 and array.size and array.min() >= 0 and array.max() <= 1
    # Rows of zeros and a one are decisions of somebody who made the logits up.
    if shares and np.abs(array.sum(axis=1) - 1).max() < _SUM and (array.max(axis=1) < 1 - _SUM).any():
        what = f"the rows of {name} are probabilities (between 0 and 1, with the sum 1)"
        remedy = "before the softmax, or np.log(np.maximum(probabilities, 1e-30))"
        raise ValueError(f"{what}; give the logits, {remedy}")
    # What is too large for fp32 becomes infinite and is refused by its sample.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def quantizer_of(name):
    """The quantizer of a column; one without a precision for another runtime's, which may have any name."""
    try:
        return Quantizer.parse(name)
    except ValueError:
        return SimpleNamespace(precision=None)


LISTENER = "QUANTSKEW_AUDITS_TAKEN"


def audit_once(name, key, make):
    """An Audit from the cache by the digest of all that it depends on; made first where it is not there.

    `make` gets the path of the entry, for a checkpoint beside it.
    """
    path = cache_dir() / "audits" / f"{name}-{key}.safetensors"
    audit = make_once(path, lambda: make(path).save(path), lambda path: Audit.load(path, own=True))
    if os.environ.get(LISTENER):
        with open(os.environ[LISTENER], "a", encoding="utf-8") as file:
            file.write(f"{path}\n")
    return audit


def taken(listener):
    """The cache entries that were taken while the file that `LISTENER` named listened, in order."""
    listener = Path(listener)
    lines = listener.read_text(encoding="utf-8").splitlines() if listener.exists() else []
    return [Path(line) for line in dict.fromkeys(lines)]
