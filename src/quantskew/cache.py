"""Files that are never half-written, where results are cached, and digests of what they depend on.

Everything that the package keeps is written under another name beside its place and then renamed, so that
a killed process leaves either the old file or the new one.
"""

import ast
import contextlib
import errno
import functools
import glob
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import pkgutil
import platform
import shlex
import shutil
import socket
import sys
import tempfile
import time
import uuid
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

_LOG = logging.getLogger(__name__)
# After a day without a change nobody writes there any more.
_STALE_SECONDS = 86_400


def cache_dir():
    """Folder of cached data sets, models and Audits: `$QUANTSKEW_CACHE`, or quantskew in the user's cache."""
    if chosen := os.environ.get("QUANTSKEW_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "quantskew"


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
            _remove(path)
        os.replace(partial, path)
        with contextlib.suppress(OSError):  # not every system can do that with a folder
            _flush(path.parent)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename:
            raise
        remedy = "make room, or name another folder (QUANTSKEW_CACHE is that of the cache)"
        raise OSError(error.errno, f"{error.strerror}; {remedy}", str(path)) from error
    finally:
        _remove(partial)


@contextlib.contextmanager
def scratch():
    """Yield a folder of the system's temporary ones, which a later block removes if this one is killed."""
    folder = _partial(Path(tempfile.gettempdir()), "qs")  # short, for sockets that are reached by their path
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


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
                _remove(left_over)
    return folder / f"{own}{os.getpid()}.{uuid.uuid4().hex[:8]}.partial"


def _remove(path):
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
    metadata = header.setdefault("__metadata__", {})
    metadata[_SEAL] = _seal(header, data)
    # Read by others too, who find their tensors aligned.
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as partial, open(partial, "wb") as file:
        file.writelines([len(text).to_bytes(8, "little"), text, data])


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


_SEAL = "quantskew.sha256"


def _parts(content):
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= len(content):
        raise ValueError("it is cut off, or no safetensors file")
    return json.loads(content[8:start]), memoryview(content)[start:]


def _seal(header, data):
    content = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    content.update(data)
    return content.hexdigest()


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


class _Lock(FileLock):
    def __enter__(self):
        try:
            self.acquire(timeout=1.5)
        except Timeout:
            _LOG.info("waiting for another process, which has %s", self.lock_file)
            self.acquire()
        return self


def locked(path):
    """The lock of a file: a context manager that one process at a time can enter; kill -9 frees it too."""
    lock = lock_of(path)
    lock.parent.mkdir(parents=True, exist_ok=True)
    # A training takes minutes or hours: a waiting process need not look more often.
    return _Lock(lock, poll_interval=0.2)


def lock_of(path):
    """Path of the lock of a file, which is beside it."""
    return Path(path).with_name(f"{Path(path).name}.lock")


def make_once(path, make, read=lambda path: path):
    """What `read` gives of a cache entry; unless it is there and whole, one of all processes calls `make`."""
    found, _ = _whole(path, read)
    if found is not None:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        _LOG.info("%s: from the cache, made on %s", path.stem, made)
        with contextlib.suppress(OSError):  # a maker that was killed has left it
            lock_of(path).unlink(missing_ok=True)
        return found
    with locked(path):
        try:
            # Another process may have made it while this one waited.
            found, damage = _whole(path, read)
            if damage:
                _LOG.warning("%s cannot be used and is made again: %s", path, damage)
                _remove(path)
            if found is None:
                make()
                found = read(path)
            return found
        finally:
            # Whoever still waits on this lock looks at the file first, and what is written is whole.
            lock_of(path).unlink(missing_ok=True)


def _whole(path, read):
    """What `read` gives, or None, and what is wrong with a file that is there."""
    try:
        return (read(path) if path.exists() else None), None
    except FileNotFoundError:
        return None, None
    except (ValueError, OSError) as error:
        return None, error


def go_on(work, checkpoint):
    """The result of ``work(checkpoint)``, begun anew where the checkpoint in the cache cannot be used."""
    try:
        return work(checkpoint)
    except Damaged as error:
        _LOG.warning("%s; it is begun anew", error)
        checkpoint.unlink()
        return work(checkpoint)


def provenance(**facts):
    """Facts about a result together with what made it, JSON-able."""
    packages = ("quantskew", "torch", "torchvision", "numpy", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        **facts,
        "versions": versions | {"python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


@functools.cache
def source_digest(*names):
    """Digest of the code of functions, modules or packages (dotted names) and of all that it names in turn.

    A cached result is only as good as the code that made it: this is part of its key.  Docstrings, comments,
    and in which module a definition stands do not count.
    """
    return digest(sorted(set(reached(*names).values())))


def reached(*names):
    """The code of each definition (module, name) that dotted names lead to, as text; none of this file's."""
    waiting = [(name, None) if _is_module(name) else tuple(name.rsplit(".", 1)) for name in names]
    known = {}
    while waiting:
        module, own = waiting.pop()
        source = _source(module)
        if own is None:
            waiting += [(module, other) for other in source.definitions]
            waiting += [(f"{module}.{part}", None) for part in source.parts]
        elif module != __name__ and (module, own) not in known:
            if own not in source.definitions:
                raise ValueError(f"{module} defines no {own}")
            statements = [source.read(statement) for statement in source.definitions[own]]
            known[module, own] = "\n".join(text for text, _ in statements)
            named = source.registered.union(*(names for _, names in statements))
            waiting += [(source.aliases[name], None) for name in named & source.aliases.keys()]
            for other in (module, *source.imported):
                waiting += [(other, name) for name in named & _source(other).definitions.keys()]
    return known


class _Source(ast.NodeTransformer):
    """A module's source: statements by the names that they define, and what it imports of its package."""

    def __init__(self, name):
        spec, self.package = importlib.util.find_spec(name), name.partition(".")[0]
        self.parts = [part.name for part in pkgutil.iter_modules(spec.submodule_search_locations or [])]
        self.aliases, self.imported, self.definitions = {}, set(), {}
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                del node.body[0]
            elif isinstance(node, ast.ImportFrom) and self.is_own(node):
                targets = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                modules = {own: target for own, target in targets.items() if _is_module(target)}
                self.aliases |= modules
                self.imported |= {node.module, *modules.values()}
        for statement in tree.body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                defined = [statement.name]
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                defined = [alias.asname or alias.name for alias in statement.names]
            else:
                names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
                stored = [node.id for node in names if isinstance(node.ctx, ast.Store)]
                # What is no assignment to a name may change whatever it names.
                defined = isinstance(statement, ast.Assign | ast.AnnAssign) and stored
                defined = defined or [node.id for node in names]
            for own in defined:
                self.definitions.setdefault(own, []).append(statement)
        # A decorator may enter what it decorates into a registry, where no name leads to it.
        functions = [statement for statement in tree.body if isinstance(statement, ast.FunctionDef)]
        self.registered = {function.name for function in functions if function.decorator_list}

    @functools.cache  # noqa: B019 (sources are few, and live as long as the process)
    def read(self, statement):
        """The text of a statement without the names of modules, and the names that stand in it."""
        self.named = set()
        changed = self.visit(statement)
        return ast.unparse(changed) if changed else "", self.named

    def is_own(self, node):
        """Whether an import is from the module's own package."""
        return (node.module or "").partition(".")[0] == self.package

    def visit_Name(self, node):
        self.named.add(node.id)
        return node

    def visit_Attribute(self, node):
        self.named.add(node.attr)
        if isinstance(node.value, ast.Name) and node.value.id in self.aliases:
            return ast.Name(node.attr)
        return self.generic_visit(node)

    def visit_ImportFrom(self, node):
        if not self.is_own(node):
            return node
        self.named |= {alias.name for alias in node.names} - self.aliases.keys()
        return None


_source = functools.cache(_Source)


@functools.cache
def _is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
