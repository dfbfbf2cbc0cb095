"""What is made once and kept: where it is cached, locks between processes, and the code it depends on."""

import ast
import contextlib
import functools
import importlib.metadata
import importlib.util
import logging
import os
import pkgutil
import platform
import shlex
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from quantskew import files
from quantskew.files import Damaged, digest, remove

_LOG = logging.getLogger(__name__)


def cache_dir():
    """Folder of cached data sets, models and Audits: `$QUANTSKEW_CACHE`, or quantskew in the user's cache."""
    if chosen := os.environ.get("QUANTSKEW_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "quantskew"


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
                remove(path)
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
    """The code of each definition (module, name) that dotted names lead to, but for what keeps results."""
    waiting = [(name, None) if _is_module(name) else tuple(name.rsplit(".", 1)) for name in names]
    known = {}
    while waiting:
        module, own = waiting.pop()
        source = _source(module)
        if own is None:
            waiting += [(module, other) for other in source.definitions]
            waiting += [(f"{module}.{part}", None) for part in source.parts]
        elif module not in (__name__, files.__name__) and (module, own) not in known:
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
