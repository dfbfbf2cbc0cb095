"""Files that are never half-written, where results are cached, and digests of what they depend on.

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
import logging
import os
import pkgutil
import platform
import shlex
import socket
import sys
import time
import uuid
from pathlib import Path

from filelock import FileLock

_LOG = logging.getLogger(__name__)


def cache_dir():
    """Folder of cached data sets, models and Audits: `$QUANTSKEW_CACHE`, or quantskew in the user's cache."""
    if chosen := os.environ.get("QUANTSKEW_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "quantskew"


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside `path` that takes its place when the block ends without error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.{socket.gethostname()}."
    for left_over in path.parent.glob(f"{glob.escape(prefix)}*.partial"):
        pid = left_over.name[len(prefix) :].split(".")[0]
        if pid.isdigit() and not _is_running(int(pid)):
            left_over.unlink(missing_ok=True)
    partial = path.parent / f"{prefix}{os.getpid()}.{uuid.uuid4().hex[:8]}.partial"
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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


def digest(description):
    """Hexadecimal digest of a JSON-able description, the same for the same content."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def locked(path):
    """The lock of a file: a context manager that one process at a time can enter; kill -9 frees it too."""
    lock = lock_of(path)
    lock.parent.mkdir(parents=True, exist_ok=True)
    # A training takes minutes or hours: a waiting process need not look more often.
    return FileLock(lock, poll_interval=0.2)


def lock_of(path):
    """Path of the lock of a file, which is beside it."""
    return Path(path).with_name(f"{Path(path).name}.lock")


def make_once(path, make):
    """Call `make`, which leaves `path` whole, unless it is there; of all processes a single one does."""
    if path.exists():
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        _LOG.info("%s: from the cache, made on %s", path.stem, made)
        return
    with locked(path):
        # Another process may have made it while this one waited.
        if not path.exists():
            make()
        # Whoever still waits on this lock finds the file made, and nobody will lock it again.
        lock_of(path).unlink(missing_ok=True)


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
