"""One process makes what several ask for at the same moment; the others wait and take it."""

from pathlib import Path

from filelock import FileLock

# A training takes minutes or hours: a waiting process need not look more often.
_SECONDS_BETWEEN_LOOKS = 0.2


def locked(path):
    """The lock of a file: a context manager that one process at a time can enter.

    The operating system holds it for the process, so it is free again when that process ends, by kill -9 too.

    Parameters
    ----------
    path : path
        It need not exist; the lock is a file beside it.
    """
    lock = lock_of(path)
    lock.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(lock, poll_interval=_SECONDS_BETWEEN_LOOKS)


def lock_of(path):
    """Path of the lock of a file."""
    path = Path(path)
    return path.with_name(f"{path.name}.lock")


def make_once(path, make):
    """Make a file unless it is there; of all processes that ask for it at once, a single one does.

    Parameters
    ----------
    path : pathlib.Path
    make : callable
        Without arguments; leaves `path` whole or not at all.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "answer.txt"
    >>> for text in ("first", "second"):
    ...     make_once(path, lambda: path.write_text(text))
    >>> path.read_text()
    'first'
    """
    if path.exists():
        return
    with locked(path):
        # Another process may have made it while this one waited.
        if not path.exists():
            make()
        # Whoever still waits on this lock finds the file made, and nobody will lock it again.
        lock_of(path).unlink(missing_ok=True)
