"""Files that are never half-written, and where results are cached.

Everything that the package keeps is written under another name beside its place and then renamed, so that
a killed process leaves either the old file or the new one.
"""

import contextlib
import glob
import hashlib
import json
import os
import socket
import uuid
from pathlib import Path


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
