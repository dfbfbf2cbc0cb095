"""Trained models on disk: each is trained once, by one process, and goes on where it stood if killed."""

import json
import time

from safetensors import safe_open
from safetensors.torch import save_file

from quantskew.base.files import cache_dir, replacing
from quantskew.base.locks import make_once
from quantskew.learning.models import load_weights


def train_once(model, path, train):
    """Give a model the weights of a cache entry, which is made first where it is not there.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    path : pathlib.Path
    train : callable
        Path of a checkpoint -> history; trains `model` in place.

    Returns
    -------
    dict
        ``history`` and ``seconds`` of training.
    """

    def make():
        checkpoint = path.with_suffix(".checkpoint")
        start = time.perf_counter()
        history = train(checkpoint)
        record = {"history": history, "seconds": round(time.perf_counter() - start, 1)}
        state = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
        with replacing(path) as partial:
            save_file(state, partial, metadata={"quantskew.record": json.dumps(record)})
        checkpoint.unlink(missing_ok=True)

    make_once(path, make)
    load_weights(model, path)
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["quantskew.record"])


def model_path(name, key):
    """Cache file of a trained model, by the name of its experiment and the digest of what made it."""
    return cache_dir() / "models" / f"{name}-{key}.safetensors"
