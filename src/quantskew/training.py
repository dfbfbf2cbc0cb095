"""Training by a recipe that is data, with a checkpoint each epoch and a history by group.

A run that is killed goes on at its last whole epoch and ends with the same weights as one that was not:
everything random in an epoch is drawn from the recipe's seed and the epoch's number.
"""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import functional
from tqdm.auto import tqdm

from quantskew.datasets import normalise
from quantskew.files import digest, replacing
from quantskew.groups import group_means

_OPTIMIZERS = ("sgd", "adamw")
_SCHEDULES = ("one-cycle", "cosine", "constant")
_COMPUTE = {"fp32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes
    ----------
    epochs : int
    batch_size : int
        Images a step.
    optimizer : {"sgd", "adamw"}
        SGD has Nesterov momentum.
    learning_rate : float
        The largest of the schedule.
    momentum : float
        Of SGD.
    weight_decay : float
    schedule : {"one-cycle", "cosine", "constant"}
        Of the learning rate, over the steps of the whole run.
    flip : bool
        Whether each image is mirrored left to right with probability one half.
    shift : int
        Each image is moved by up to so many pixels in each direction, its border filled with its edge.
    compute : {"fp32", "bf16"}
        bf16 trains in autocast, about three times as fast where the processor has it; weights, optimizer and
        whatever is measured later stay in fp32.
    seed : int
        Of the initial weights, the order of the images and the augmentation.

    Raises
    ------
    ValueError
        If a value is out of range or a name is not known.
    """

    epochs: int = 13
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    flip: bool = True
    shift: int = 4
    compute: str = "bf16"
    seed: int = 0

    def __post_init__(self):
        for name, known in (("optimizer", _OPTIMIZERS), ("schedule", _SCHEDULES), ("compute", _COMPUTE)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        for name, least in (("epochs", 1), ("batch_size", 2), ("shift", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be larger than 0; got {self.learning_rate}")


def augment(images, recipe, generator):
    """Mirror and shift a batch at random.

    Parameters
    ----------
    images : Tensor of uint8, shape (B, C, H, W)
    recipe : Recipe
    generator : torch.Generator

    Returns
    -------
    Tensor of uint8, same shape
    """
    batch, _, height, width = images.shape
    rows = torch.arange(height).expand(batch, height)
    columns = torch.arange(width).expand(batch, width)
    if recipe.shift:
        moves = torch.randint(-recipe.shift, recipe.shift + 1, (2, batch, 1), generator=generator)
        rows = (rows + moves[0]).clamp(0, height - 1)
        columns = (columns + moves[1]).clamp(0, width - 1)
    if recipe.flip:
        mirrored = torch.rand((batch, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    pixels = images.permute(0, 2, 3, 1)
    pixels = pixels[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def batches_of_epoch(recipe, num_images, epoch):
    """Image indices of each step of one epoch, and the generator of the epoch's augmentation.

    Examples
    --------
    >>> batches, _ = batches_of_epoch(Recipe(batch_size=4), 10, epoch=0)
    >>> [len(batch) for batch in batches]
    [4, 4, 2]
    """
    seed = int(np.random.SeedSequence([recipe.seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator().manual_seed(seed)
    batches = list(torch.randperm(num_images, generator=generator).split(recipe.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        # Batch norm cannot train on one image.
        batches.pop()
    return batches, generator


def fit(model, data, recipe, checkpoint=None, title="training"):
    """Train a model in place and return its history.

    Parameters
    ----------
    model : torch.nn.Module
        Maps normalised images (B, C, H, W) to logits; trained on the device where it is.
    data : Dataset
    recipe : Recipe
    checkpoint : path, optional
        A safetensors file that is replaced after each epoch.  Where it exists already and belongs to this
        recipe and data set, training goes on from it.
    title : str
        What the progress bar says.

    Returns
    -------
    list of dict
        One entry an epoch: ``epoch``, and for ``train`` (as seen while training, augmented) and
        ``validation`` the ``loss`` and ``accuracy`` of each group, NaN for a group without images.

    Raises
    ------
    ValueError
        If the checkpoint is corrupt or belongs to another run, or the loss stops being finite.
    """
    optimizer = _optimizer(model, recipe)
    steps = len(batches_of_epoch(recipe, len(data.train), 0)[0])
    scheduler = _scheduler(optimizer, recipe, steps * recipe.epochs)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    run = digest([dataclasses.asdict(recipe), data.digest, shapes])
    device = next(model.parameters()).device
    history = [] if checkpoint is None else _restore(checkpoint, run, model, optimizer, scheduler)
    # Shown as epochs, counted in steps, so that the bar moves within an epoch.
    with tqdm(total=steps * recipe.epochs, initial=steps * len(history), desc=title, unit=" steps") as bar:
        for epoch in range(len(history), recipe.epochs):
            # Dropout draws from torch's own random state, which is the caller's.
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                trained = _train_epoch(model, data.train, recipe, epoch, optimizer, scheduler, bar)
            validated = evaluate(model, data.validation, recipe.compute)
            history.append({"epoch": epoch, "train": trained, "validation": validated})
            accuracy = np.nanmean(validated["accuracy"]) if len(data.validation) else np.nan
            bar.set_postfix_str(f"mean group accuracy {accuracy:.3f}")
            if checkpoint is not None:
                _save(checkpoint, run, model, optimizer, scheduler, history)
    model.eval()
    return history


def evaluate(model, split, compute="fp32", batch_size=512):
    """Loss and accuracy of each group of a split, in evaluation mode.

    Returns
    -------
    dict
        ``loss`` and ``accuracy``, each a list of G floats.
    """
    device = next(model.parameters()).device
    model.eval()
    outcomes = []
    with torch.inference_mode(), _autocast(device, compute):
        for start in range(0, len(split), batch_size):
            inputs = normalise(split.images[start : start + batch_size].to(device))
            labels = split.labels[start : start + batch_size].to(device)
            outcomes.append(_outcomes(model(inputs), labels))
    return _by_group(outcomes, split, torch.arange(len(split)))


def _train_epoch(model, split, recipe, epoch, optimizer, scheduler, bar):
    device = next(model.parameters()).device
    model.train()
    outcomes = []
    batches, generator = batches_of_epoch(recipe, len(split), epoch)
    torch.manual_seed(generator.initial_seed())
    for batch in batches:
        inputs = normalise(augment(split.images[batch], recipe, generator).to(device))
        labels = split.labels[batch].to(device)
        with _autocast(device, recipe.compute):
            logits = model(inputs)
        loss = functional.cross_entropy(logits.float(), labels)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the training loss became {loss.item()} in epoch {epoch}; a lower learning_rate than "
                f"{recipe.learning_rate} may help"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        outcomes.append(_outcomes(logits.detach(), labels))
        bar.update()
    return _by_group(outcomes, split, torch.cat(batches))


def _outcomes(logits, labels):
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    return torch.stack([losses, (logits.argmax(1) == labels).float()])


def _by_group(outcomes, split, order):
    values = torch.cat(outcomes, dim=1).cpu().double().numpy() if outcomes else np.empty((2, 0))
    means = group_means(values, split.groups[order].numpy(), len(split.group_names))
    return {"loss": means[0].tolist(), "accuracy": means[1].tolist()}


def _autocast(device, compute):
    dtype = _COMPUTE[compute]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def _optimizer(model, recipe):
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )


def _scheduler(optimizer, recipe, steps):
    schedulers = torch.optim.lr_scheduler
    if recipe.schedule == "one-cycle":
        return schedulers.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=steps + 1, cycle_momentum=False
        )
    if recipe.schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, steps)
    return schedulers.ConstantLR(optimizer, factor=1.0)


def _save(path, run, model, optimizer, scheduler, history):
    tensors = {f"model/{name}": value.contiguous() for name, value in model.state_dict().items()}
    state = optimizer.state_dict()
    for index, values in state["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value.contiguous() for name, value in values.items()}
    resume = {
        "run": run,
        "history": history,
        "param_groups": state["param_groups"],
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if not callable(v)},
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"quantskew.checkpoint": json.dumps(resume)})


def _restore(path, run, model, optimizer, scheduler):
    try:
        with safe_open(path, framework="pt") as file:
            resume = json.loads((file.metadata() or {}).get("quantskew.checkpoint", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        return []
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a whole checkpoint ({error}); delete it to train anew") from error
    if resume is None or resume["run"] != run:
        raise ValueError(
            f"{path} belongs to another recipe, data set or model; delete it or name another file"
        )
    moments = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, moment = name.split("/")
            moments.setdefault(int(index), {})[moment] = value
    model.load_state_dict({n.removeprefix("model/"): v for n, v in tensors.items() if n.startswith("model/")})
    optimizer.load_state_dict({"state": moments, "param_groups": resume["param_groups"]})
    scheduler.load_state_dict(resume["scheduler"])
    return resume["history"]
