"""Where a result comes from: versions, machine, command, and the code that computed it."""

import ast
import functools
import importlib.metadata
import importlib.util
import platform
import shlex
import sys
from pathlib import Path

from quantskew.base.files import digest

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
        Such as ``quantskew.learning.training``.
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
    >>> imported_modules(ast.parse("import quantskew.base.files; from quantskew.measures import losses"))
    ['quantskew.base.files', 'quantskew.measures.losses']
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
