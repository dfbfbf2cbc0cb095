"""Audits in the cache: each is made once, and whoever listens is told which ones were taken.

A notebook is a black box to the process that executes it.  Yet every Audit that it makes goes through here,
and is written down in the file that the environment variable `LISTENER` names.
"""

import os
from pathlib import Path

from quantskew.audits.audit import Audit
from quantskew.base.files import cache_dir
from quantskew.base.locks import make_once

LISTENER = "QUANTSKEW_AUDITS_TAKEN"


def audit_once(name, key, make):
    """An Audit from the cache, made first where it is not there.

    Parameters
    ----------
    name : str
        Of what was audited, for people.
    key : str
        Digest of everything that the Audit depends on.
    make : callable
        Path -> Audit; the path is that of the entry, for a checkpoint beside it.

    Returns
    -------
    Audit
    """
    path = cache_dir() / "audits" / f"{name}-{key}.safetensors"
    make_once(path, lambda: make(path).save(path))
    if os.environ.get(LISTENER):
        with open(os.environ[LISTENER], "a", encoding="utf-8") as file:
            file.write(f"{path}\n")
    return Audit.load(path)


def taken(listener):
    """The cache entries that were taken while a file listened.

    Parameters
    ----------
    listener : path
        What `LISTENER` named.

    Returns
    -------
    list of Path
        Each once, in the order of their first use; empty where there is no such file.
    """
    listener = Path(listener)
    lines = listener.read_text(encoding="utf-8").splitlines() if listener.exists() else []
    return [Path(line) for line in dict.fromkeys(lines)]
