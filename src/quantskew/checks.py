"""What a number, a folder or a text from outside may be, said in the same words everywhere."""

import math
import numbers
import reprlib
import tempfile
from pathlib import Path

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 4, 20, 20, 20
# NumPy's and scikit-learn's generators take no larger seed.
MOST_SEED = 2**32 - 1
# Seeds are trained one after the other; with more, a number was meant for something else.
MOST_SEEDS = 1000


def shortened(value):
    """A value as messages show it: long and nested ones are cut.

    Examples
    --------
    >>> shortened("one"), len(shortened("x" * 10**6))
    ("'one'", 80)
    """
    try:
        return _SHORT.repr(value)
    except ValueError:
        # Python writes no number of thousands of digits.
        return f"a {type(value).__name__} of too many digits"


def in_brief(error):
    """The kind of an error from outside and what it says, as far as a line has room.

    Examples
    --------
    >>> in_brief(KeyError("size"))
    "KeyError: 'size'"
    """
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first[:200]}"


def some(texts, most=5):
    """The first of many texts in one, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def check_known(what, value, known):
    """Refuse a value that is not known, with a ValueError that names those that are."""
    if value not in list(known):
        raise ValueError(f"unknown {what} {shortened(value)}; known: {', '.join(known)}")


def check_flag(name, value):
    """Refuse what is neither True nor False, with a ValueError that says so."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is True or False; got {shortened(value)}")


def check_whole(name, value, least=0, most=2**31 - 1):
    """Refuse what is no whole number from `least` to `most`, with a ValueError that says so."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number; got {shortened(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {shortened(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}; got {shortened(value)}")


def check_number(name, value, least=0, below=math.inf, *, above=False):
    """Refuse what is no number from `least` (or, with `above`, larger than it) to below `below`."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not least <= value < below or (above and value == least):
        words = f"{'larger than' if above else 'at least'} {least}"
        end = "finite" if below == math.inf else f"below {below}"
        raise ValueError(f"{name} must be {words} and {end}; got {shortened(value)}")


def check_folder(path, what, remedy):
    """Refuse a folder in which nothing can be written, whether it is there or is still to be made."""
    path = Path(path)
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not there.is_dir():
            raise NotADirectoryError(20, "it is a file" if there == path else f"{there} is a file")
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"{what} {path} cannot be written: {error.strerror}; {remedy}") from None
