"""Groups of samples: checked ids, counts, means and gaps.

A group is an integer id 0..G-1 per sample.  The value of a group without samples is NaN, never 0,
and every table that shows a group shows its count.
"""

import numbers
import unicodedata

import numpy as np

from quantskew.checks import shortened

OVERALL = "all"
# What other programs write where there is no value.
MISSING = {"", "-", "?", "na", "<na>", "#na", "n/a", "#n/a", "nan", "-nan", "nat", "nil", "none", "null"}
MISSING |= {"#null!"}
# Groups of an Audit, at most: figures have a line for each.
MOST = 1000


def check_group_ids(groups, num_groups=None, what="group"):
    """The ids as int64, and the number of groups; refused where they are no integers below `num_groups`."""
    ids = np.asarray(groups)
    if ids.ndim != 1:
        raise ValueError(f"{what}s must be one-dimensional, one id a sample; got shape {ids.shape}")
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{what}s must be integers; got dtype {ids.dtype}")
    if ids.size and ids.min() < 0:
        said = f"{what}s must be 0 or larger; sample {int(ids.argmin())} has {ids.min()}"
        raise ValueError(f"{said}: {_leave_out(what)}")
    largest = int(ids.max(initial=-1))
    if num_groups is not None and largest >= num_groups:
        remedy = "name every id from 0 on" if what == "group" else "number the classes from 0"
        said = f"sample {int(ids.argmax())} has {what} {largest}, but only {num_groups} are named"
        raise ValueError(f"{said}; {remedy}")
    return ids.astype(np.int64), largest + 1 if num_groups is None else num_groups


def as_array(values, what):
    """What a list, pandas, torch or numpy holds as an array: text, bytes and mixed values as objects."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    if np.ma.is_masked(values):
        raise ValueError(f"{what} are masked in places; leave these samples out")
    if not isinstance(values, np.ndarray):
        # Numpy would turn the None and NaN of a list into the texts "None" and "nan".
        objects = np.asarray(values, dtype=object)
        kinds = {np.asarray(value).dtype.kind for value in objects.ravel()}
        values = np.asarray(values) if kinds and kinds <= set("biufc") else objects
    return values.astype(object) if values.dtype.kind in "SUT" else np.asarray(values)


def distinct(values, what="group"):
    """Ids (N,) of the distinct values in their order, and the values: whole numbers, or text.

    Text is decoded, stripped and composed; what is missing is refused, as is what is neither.
    """
    array = as_array(values, f"{what}s")
    if array.ndim != 1:
        said = f"{what}s must be one-dimensional, one id a sample; got shape {array.shape}"
        remedy = "of one column take .ravel(), of one-hot rows .argmax(axis=1); join several columns into one"
        remedy += "; of several labels a sample audit each by itself, as 0 and 1" if what == "label" else ""
        raise ValueError(f"{said} ({remedy})")
    if array.dtype.kind in "fc" and np.isnan(array).any():
        raise ValueError(f"sample {int(np.isnan(array).argmax())} has no {what} (NaN); {_leave_out(what)}")
    if array.dtype.kind == "b":
        array = array.astype(object)
    if array.dtype.kind not in "iuO":
        remedy = "of whole numbers take .astype(int)"
        remedy += "; of a regression make ranges of the target classes" if what == "label" else ""
        raise ValueError(f"{what}s must be integers or names; got dtype {array.dtype} ({remedy})")
    if array.dtype == object:
        values = [_meant(value, sample, what) for sample, value in enumerate(array)]
        if len({type(value) for value in values}) > 1:
            raise ValueError(f"{what}s are numbers for some samples and names for others; give one of them")
        array = np.array(values)
    found, ids = np.unique(array, return_inverse=True)
    return ids.astype(np.int64), found.tolist()


def _leave_out(what):
    own = ", or give them a group of their own, such as 'unknown'" if what == "group" else ""
    return f"leave such samples out{own}"


def _meant(value, sample, what):
    """An element of an object array as int or text."""
    if isinstance(value, (bool, np.bool_)):
        return str(value)
    if isinstance(value, numbers.Integral) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"the {what} of sample {sample} is not UTF-8 text: {shortened(value)}") from None
    if isinstance(value, str):
        value = unicodedata.normalize("NFC", value.strip())
        if value.casefold() not in MISSING:
            return value
    elif not (value is None or type(value).__name__ in ("NAType", "NaTType") or value != value):
        said = f"the {what} of sample {sample} is {shortened(value)} of type {type(value).__name__}"
        raise ValueError(f"{said}; {what}s must be integers or names")
    raise ValueError(f"sample {sample} has no {what} ({shortened(value)}); {_leave_out(what)}")


def check_names(names, what):
    """Names as a tuple of text, each once; refused where one is missing, repeated or no text."""
    if isinstance(names, (str, bytes, dict)):
        raise ValueError(f"{what} names must be a list of names in the ids' order; got {shortened(names)}")
    names = [name.strip() if isinstance(name, str) else name for name in names]
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ValueError(f"{what} {place} must have a name; got {shortened(name)}")
        if name in names[:place]:
            several = "classes" if what == "class" else f"{what}s"
            raise ValueError(f"two {several} are named {shortened(name)}; give each a name of its own")
    return tuple(map(str, names))


def group_counts(groups, num_groups):
    """Number of samples in each group, shape (G,)."""
    return np.bincount(groups, minlength=num_groups)


def group_means(values, groups, num_groups):
    """Mean of `values` (..., N) over the samples of each group, shape (..., G); NaN values are left out.

    Examples
    --------
    >>> group_means(np.array([1.0, 2.0, 4.0]), np.array([0, 2, 2]), 3)
    array([ 1., nan,  3.])
    """
    defined = ~np.isnan(values)
    total = group_sums(np.where(defined, values, 0.0), groups, num_groups)
    count = group_sums(defined.astype(np.float64), groups, num_groups)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def group_sums(values, groups, num_groups):
    """Sum of `values` (..., N) over the samples of each group, shape (..., G)."""
    flat = values.reshape(int(np.prod(values.shape[:-1])), len(groups))
    rows = [np.bincount(groups, row, num_groups) for row in flat]
    return np.reshape(rows, (*values.shape[:-1], num_groups)).astype(values.dtype)


def largest_gap(values):
    """Largest difference between two groups, over the last axis; NaN where fewer than two are present.

    The reduction of Eq. 2: the maximum over pairs is the maximum minus the minimum.

    Examples
    --------
    >>> largest_gap(np.array([0.9, np.nan, 0.4]))
    0.5
    """
    values = np.asarray(values, dtype=np.float64)
    # These pass over NaN.
    high, low = np.fmax.reduce(values, -1, initial=-np.inf), np.fmin.reduce(values, -1, initial=np.inf)
    gap = np.where((~np.isnan(values)).sum(axis=-1) >= 2, high - low, np.nan)
    return gap if gap.ndim else float(gap)
