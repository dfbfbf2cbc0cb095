"""Files that appear whole or not at all, reach the disk, and carry a digest of their content.

Several processes may write to one folder at the same time: a killed process leaves either the old file or
the new one.
"""

import contextlib
import errno
import functools
import glob
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from pathlib import Path

from safetensors import SafetensorError

# After a day without a change nobody writes there any more.
_STALE_SECONDS = 86_400
_SEAL = "quantskew.sha256"


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside `path` that takes its place on disk when the block ends without error.

    What is made there may be a file or a folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path.parent, path.name)
    try:
        yield partial
        # Otherwise a loss of power could leave the new name with none of the content.
        _flush(partial)
        if partial.is_dir():
            remove(path)
        os.replace(partial, path)
        with contextlib.suppress(OSError):  # not every system can do that with a folder
            _flush(path.parent)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename:
            raise
        remedy = "make room, or name another folder (QUANTSKEW_CACHE is that of the cache)"
        raise OSError(error.errno, f"{error.strerror}; {remedy}", str(path)) from error
    finally:
        remove(partial)


@contextlib.contextmanager
def scratch():
    """Yield a folder of the system's temporary ones, which a later block removes if this one is killed."""
    folder = _partial(Path(tempfile.gettempdir()), "qs")  # short, for sockets that are reached by their path
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        remove(folder)


def _partial(folder, name):
    """A new path for what is to be called `name`, where those of processes that are no more are removed."""
    own = f".{name}.{_processes()}."
    for left_over in folder.glob(f".{glob.escape(name)}.*.partial"):
        with contextlib.suppress(OSError, ValueError):
            # Others' are of another machine or container, or of before the last start of this one.
            alive = time.time() - left_over.stat().st_mtime < _STALE_SECONDS
            if left_over.name.startswith(own):
                alive = _is_running(int(left_over.name[len(own) :].split(".")[0]))
            if not alive:
                remove(left_over)
    return folder / f"{own}{os.getpid()}.{uuid.uuid4().hex[:8]}.partial"


def remove(path):
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path):
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@functools.cache
def _processes():
    """What numbers this process: on another machine or in a container its number is another one's."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        facts.append(os.readlink("/proc/self/ns/pid"))
    return digest(facts)[:8]


def _is_running(pid):
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def write_bytes(path, content):
    """Write `content` to `path` whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


class Damaged(ValueError):
    """A file is not what was written."""


def write_tensors(path, content):
    """Write the bytes of a safetensors file, with a digest of all its content in its metadata."""
    header, data = _parts(content)
    _write(path, header, header.setdefault("__metadata__", {}), [data])


def write_arrays(path, arrays, metadata):
    """Write contiguous arrays and texts as `write_tensors` does, of which no copy is made in memory."""
    # In the order of safetensors, which lets the widest numbers begin where they are aligned.
    arrays = sorted(arrays.items(), key=lambda own: (-own[1].itemsize, -ord(own[1].dtype.kind), own[0]))
    header, end = {"__metadata__": metadata}, 0
    for name, array in arrays:
        of = {"dtype": f"{array.dtype.kind.upper()}{8 * array.itemsize}", "shape": array.shape}
        header[name] = of | {"data_offsets": [end, end := end + array.nbytes]}
    _write(path, header, metadata, [array for _, array in arrays])


def _write(path, header, metadata, data):
    metadata[_SEAL] = _seal(header, *data)
    # Read by others too, who find their tensors aligned.
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as partial, open(partial, "wb") as file:
        file.writelines([len(text).to_bytes(8, "little"), text, *data])


def read_tensors(path, load, own=False):
    """The tensors of a safetensors file, as `load` makes them of its bytes, and its metadata.

    A file that does not agree with its digest is `Damaged`, and where it must be our `own`, one without.
    """
    content = Path(path).read_bytes()
    try:
        header, data = _parts(content)
        metadata = header.get("__metadata__", {})
        found = metadata.pop(_SEAL, None)
        if found != _seal(header, data) and (own or found is not None):
            raise ValueError("its content does not agree with its digest")
        return load(content), metadata
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(str(error)) from error


def _parts(content):
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= len(content):
        raise ValueError("it is cut off, or no safetensors file")
    return json.loads(content[8:start]), memoryview(content)[start:]


def _seal(header, *data):
    content = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for part in data:
        content.update(part)
    return content.hexdigest()


def digest_of(path):
    """Hexadecimal digest of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(description):
    """Hexadecimal digest of a JSON-able description, the same for the same content."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def sealed(facts):
    """JSON-able facts with a digest of them, for `unsealed`."""
    return {**facts, "digest": digest(facts)}


def unsealed(text):
    """The facts that `sealed` text in JSON holds; `Damaged` where they are not what was written."""
    try:
        facts = json.loads(text)
        if facts.pop("digest", None) == digest(facts):
            return facts
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"it is not whole: {error}") from error
    raise Damaged("its content does not agree with its digest")
