"""One process a GPU: each takes one that is free and sees no other."""

import contextlib
import os
import socket
import time

from filelock import Timeout

from quantskew.base.files import cache_dir
from quantskew.base.locks import locked

_CHOICE = "CUDA_VISIBLE_DEVICES"


def visible_gpus():
    """The GPUs that this process may use, by the names that `CUDA_VISIBLE_DEVICES` knows; it starts none.

    Returns
    -------
    list of str
    """
    # A worker that executes a chapter need not wait for torch.
    import torch

    count = torch.cuda.device_count()
    chosen = [name for name in os.environ.get(_CHOICE, "").split(",") if name]
    return chosen[:count] if chosen else [str(number) for number in range(count)]


@contextlib.contextmanager
def one_gpu(names):
    """Hold one GPU for the block, which waits until one is free; where there is none, nothing happens.

    It is to be entered before the process uses a GPU, since a choice cannot be changed later.

    Parameters
    ----------
    names : sequence of str
        Of the GPUs of this machine, see `visible_gpus`.

    Examples
    --------
    >>> with one_gpu([]) as name:
    ...     print(name)
    None
    """
    if not names:
        yield None
        return
    name, lock = _first_free(names)
    before = os.environ.get(_CHOICE)
    os.environ[_CHOICE] = name
    try:
        yield name
    finally:
        lock.release()
        del os.environ[_CHOICE]
        if before is not None:
            os.environ[_CHOICE] = before


def _first_free(names):
    while True:
        for name in names:
            lock = locked(cache_dir() / "gpus" / f"{socket.gethostname()}-{name}")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return name, lock
        time.sleep(1)
