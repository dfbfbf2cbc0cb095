"""Files that are never half-written, and where results are cached.

Everything that the package keeps is written under another name beside its place and then renamed, so that
a killed process leaves either the old file or the new one.
"""

import ast
import contextlib
import functools
import glob
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import socket
import sys
import uuid
from pathlib import Path

from filelock import FileLock


def cache_dir():
    """Folder of cached data sets, models and Audits.

    It is `$QUANTSKEW_CACHE` where that is set, else `quantskew` below `$XDG_CACHE_HOME` or `~/.cache`.
    """
    chosen = os.environ.get("QUANTSKEW_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "quantskew"


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside `path` that takes its place when the block ends without error.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "answer.txt"
    >>> with replacing(target) as partial:
    ...     _ = partial.write_text("42")
    >>> target.read_text()
    '42'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.{socket.gethostname()}."
    _remove_left_overs(path.parent, prefix)
    partial = path.parent / f"{prefix}{os.getpid()}.{uuid.uuid4().hex[:8]}.partial"
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_left_overs(folder, prefix):
    """Remove partial files of this machine's processes that no longer run."""
    for left_over in folder.glob(f"{glob.escape(prefix)}*.partial"):
        pid = left_over.name[len(prefix) :].split(".")[0]
        if pid.isdigit() and not _is_running(int(pid)):
            left_over.unlink(missing_ok=True)


def _is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_bytes(path, content):
    """Write `content` to `path` whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def digest(description):
    """Hexadecimal digest of a JSON-able description, the same for the same content.

    Examples
    --------
    >>> digest({"seed": 0, "model": "resnet18"}) == digest({"model": "resnet18", "seed": 0})
    True
    """
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


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


_PACKAGES = ("quantskew", "torch", "torchvision", "numpy", "scikit-learn")


def provenance(**facts):
    """Facts about a result together with what made it, JSON-able.

    Examples
    --------
    >>> sorted(provenance(seed=3))
    ['command', 'machine', 'seed', 'versions']
    """
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["python"] = platform.python_version()
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        **facts,
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}",
        "command": command,
    }


@functools.cache
def source_digest(*modules):
    """Digest of the code of modules and of every quantskew module that they import.

    A cached result is only as good as the code that made it: this is part of its key.  Docstrings and
    comments do not count.

    Parameters
    ----------
    *modules : str
        Such as ``quantskew.training.loop``.
    """
    known, waiting = {}, list(modules)
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        path = Path(importlib.util.find_spec(name).origin)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        waiting += imported_modules(tree)
        known[name] = ast.dump(_without_docstrings(tree))
    return digest(sorted(known.items()))


def imported_modules(tree):
    """Names of the quantskew modules that a parsed module imports, sorted.

    Examples
    --------
    >>> imported_modules(ast.parse("import quantskew.cache; from quantskew.measures import losses"))
    ['quantskew.cache', 'quantskew.measures.forward']
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if _is_module(name) else node.module)
    return sorted(name for name in found if name.split(".")[0] == "quantskew")


def _is_module(name):
    if name.split(".")[0] != "quantskew":
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _without_docstrings(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body.pop(0)
    return tree
