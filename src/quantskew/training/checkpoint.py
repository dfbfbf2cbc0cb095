"""Training on disk: the state of a run that may be killed at any moment, and the models that are kept."""

import json
import time

from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

from quantskew.cache import cache_dir, go_on, make_once
from quantskew.files import Damaged, read_tensors, write_tensors
from quantskew.training.models import load_weights

_KEY, _RECORD = "quantskew.checkpoint", "quantskew.record"


def save(path, run, model, optimizers, scheduler, history):
    """Write the state of a run, whole or not at all; `run` is the digest of what the run depends on."""
    tensors = {f"model/{name}": value.contiguous() for name, value in model.state_dict().items()}
    states = [optimizer.state_dict() for optimizer in optimizers]
    for number, state in enumerate(states):
        for index, values in state["state"].items():
            prefix = f"optimizer/{number}/{index}"
            tensors |= {f"{prefix}/{name}": value.contiguous() for name, value in values.items()}
    resume = {
        "run": run,
        "history": history,
        "param_groups": [state["param_groups"] for state in states],
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if not callable(v)},
    }
    write_tensors(path, to_bytes(tensors, {_KEY: json.dumps(resume)}))


def restore(path, run, model, optimizers, scheduler):
    """Put back what `save` wrote for the same run, and return its history; empty where there is no file."""
    try:
        tensors, metadata = read_tensors(path, from_bytes)
        resume = json.loads(metadata.get(_KEY, "null"))
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as error:
        raise Damaged(f"{path} is not a whole checkpoint ({error}); delete it to train anew") from error
    if resume is None or resume["run"] != run:
        raise Damaged(f"{path} belongs to another recipe, data set or model; delete it or name another file")
    moments = [{} for _ in optimizers]
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, number, index, moment = name.split("/")
            moments[int(number)].setdefault(int(index), {})[moment] = value
    model.load_state_dict({n.removeprefix("model/"): v for n, v in tensors.items() if n.startswith("model/")})
    for optimizer, state, groups in zip(optimizers, moments, resume["param_groups"], strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(resume["scheduler"])
    return resume["history"]


def train_once(model, path, train):
    """Give a model the weights of a cache entry, made by `train(checkpoint)` first where there is none.

    Returns the ``history`` that `train` returned, and the ``seconds`` that it took.
    """
    checkpoint = path.with_suffix(".checkpoint")

    def make():
        start = time.perf_counter()
        history = go_on(train, checkpoint)
        record = {"history": history, "seconds": round(time.perf_counter() - start, 1)}
        state = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
        write_tensors(path, to_bytes(state, {_RECORD: json.dumps(record)}))

    def read(path):
        _, metadata = read_tensors(path, from_bytes, own=True)
        return json.loads(metadata[_RECORD])

    record = make_once(path, make, read)
    # Here, so that it goes too where a process was killed between the model and this.
    checkpoint.unlink(missing_ok=True)
    load_weights(model, path)
    return record


def model_path(name, key):
    """Cache file of a trained model, by the name of its experiment and the digest of what made it."""
    return cache_dir() / "models" / f"{name}-{key}.safetensors"
