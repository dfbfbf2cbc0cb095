"""The training loop: from images, changed at random batch by batch, to a model and its history.

Only the recipe and the data decide the weights.  A killed run goes on from its last whole epoch to the same
weights, to the last bit, and other kinds of training come in as `Hooks`.
"""

import contextlib
import dataclasses

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from tqdm.auto import tqdm

from quantskew.datasets import normalise
from quantskew.files import digest
from quantskew.groups import group_means
from quantskew.training import checkpoint as checkpoints
from quantskew.training.recipe import check_class_weights, weighted_cross_entropy

# As `torch.cpu.get_capabilities` names them, of x86 and of Arm.
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")


class Hooks:
    """What a kind of training adds to the plain loop at its marked places; by default nothing.

    `progress` is the share of all steps that are done, from 0 to 1.
    """

    def identity(self):
        """JSON-able facts that decide the run besides its recipe and data."""
        return []

    def own_optimizers(self):
        """Optimizers of parameters that the recipe's optimizer leaves alone."""
        return []

    def after_backward(self, progress):
        """Called when the gradients of the loss are there, before the step."""

    def after_step(self, progress):
        """Called when the weights have moved."""

    def before_evaluation(self, split, recipe):
        """Called at the end of each epoch with the training split, before the validation images are seen."""


def fit(model, data, recipe, checkpoint=None, title="training", hooks=None, measure=None):
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
    hooks : Hooks, optional
    measure : callable, optional
        (Model in evaluation mode, epoch) -> JSON-able value, asked for after each epoch; None is not kept.
        It must not change the model.

    Returns
    -------
    list of dict
        One entry an epoch: ``epoch``, and for ``train`` (as seen while training, augmented) and
        ``validation`` the ``loss`` and ``accuracy`` of each group, NaN for a group without images; and
        ``measured`` where something was.

    Raises
    ------
    ValueError
        If the checkpoint is corrupt or belongs to another run, the class weights are not one a class, or the
        loss stops being finite.
    """
    hooks = hooks or Hooks()
    device = next(model.parameters()).device
    criterion = _criterion(recipe, data.train, device)
    own = hooks.own_optimizers()
    optimizers = [_optimizer(model, own, recipe), *own]
    recipe = on_device(recipe, device)
    steps = len(batches_of_epoch(recipe, len(data.train), 0)[0])
    scheduler = _scheduler(optimizers[0], recipe, steps * recipe.epochs)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    run = digest([dataclasses.asdict(recipe), data.digest, shapes, *hooks.identity()])
    state = (run, model, optimizers, scheduler)
    history = [] if checkpoint is None else checkpoints.restore(checkpoint, *state)
    # Shown as epochs, counted in steps, so that the bar moves within an epoch.
    with tqdm(total=steps * recipe.epochs, initial=steps * len(history), desc=title, unit=" steps") as bar:
        for epoch in range(len(history), recipe.epochs):
            # Dropout draws from torch's own random state, which is the caller's.
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                trained = _train_epoch(
                    model, data.train, recipe, epoch, criterion, optimizers, scheduler, hooks, bar
                )
            hooks.before_evaluation(data.train, recipe)
            validated = evaluate(model, data.validation, recipe.compute)
            history.append({"epoch": epoch, "train": trained, "validation": validated})
            measured = measure(model, epoch) if measure else None
            if measured is not None:
                history[-1]["measured"] = measured
            accuracy = np.nanmean(validated["accuracy"]) if len(data.validation) else np.nan
            bar.set_postfix_str(f"mean group accuracy {accuracy:.3f}")
            if checkpoint is not None:
                checkpoints.save(checkpoint, *state, history)
    model.eval()
    return history


def _train_epoch(model, split, recipe, epoch, criterion, optimizers, scheduler, hooks, bar):
    device = next(model.parameters()).device
    model.train()
    outcomes = []
    batches, generator = batches_of_epoch(recipe, len(split), epoch)
    torch.manual_seed(generator.initial_seed())
    for number, batch in enumerate(batches):
        progress = (epoch * len(batches) + number) / (recipe.epochs * len(batches))
        inputs = normalise(augment(split.images[batch], recipe, generator).to(device))
        labels = split.labels[batch].to(device)
        with autocast(device, recipe.compute), _small_maps(device, recipe.compute):
            logits = model(inputs)
        loss = criterion(logits.float(), labels)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the training loss became {loss.item()} in epoch {epoch}; a lower learning_rate than "
                f"{recipe.learning_rate} may help"
            )
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        hooks.after_backward(progress)
        for optimizer in optimizers:
            optimizer.step()
        hooks.after_step(progress)
        scheduler.step()
        outcomes.append(_outcomes(logits.detach(), labels))
        bar.update()
    return _by_group(outcomes, split, torch.cat(batches))


def batches_of_epoch(recipe, num_images, epoch):
    """Image indices of each step of one epoch, and the generator of the epoch's augmentation."""
    seed = int(np.random.SeedSequence([recipe.seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator().manual_seed(seed)
    batches = list(torch.randperm(num_images, generator=generator).split(recipe.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        # Batch norm cannot train on one image.
        batches.pop()
    return batches, generator


def augment(images, recipe, generator):
    """Mirror and shift a batch of uint8 images (B, C, H, W) at random, as the recipe says."""
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


def evaluate(model, split, compute="fp32", batch_size=512):
    """The ``loss`` and ``accuracy`` of each group of a split, in evaluation mode: two lists of G floats."""
    device = next(model.parameters()).device
    model.eval()
    outcomes = []
    with torch.inference_mode(), autocast(device, compute):
        for start in range(0, len(split), batch_size):
            inputs = normalise(split.images[start : start + batch_size].to(device))
            labels = split.labels[start : start + batch_size].to(device)
            outcomes.append(_outcomes(model(inputs), labels))
    return _by_group(outcomes, split, torch.arange(len(split)))


def _outcomes(logits, labels):
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    return torch.stack([losses, (logits.argmax(1) == labels).float()])


def _by_group(outcomes, split, order):
    values = torch.cat(outcomes, dim=1).cpu().double().numpy() if outcomes else np.empty((2, 0))
    means = group_means(values, split.groups[order].numpy(), len(split.group_names))
    return {"loss": means[0].tolist(), "accuracy": means[1].tolist()}


def autocast(device, compute):
    """The arithmetic that a recipe's `compute` names, for the block."""
    return torch.autocast(device.type, torch.bfloat16, enabled=_chosen_compute(compute, device) == "bf16")


class SmallMaps(TorchFunctionMode):
    """Makes each convolution whose output maps have at most 2 x 2 pixels one product of bfloat16 matrices.

    With tile units (AMX) that takes a third of the time of torch's own kernel, and a training step of
    ResNet18 on 64-pixel images two thirds.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        plain = function is torch.conv2d and not kwargs and (args[2], *args[5:]) == (None, (1, 1), 1)
        if not plain or isinstance(args[4], str):
            return function(*args, **(kwargs or {}))
        images, weight, _, stride, padding, *_ = args
        sizes = zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True)
        height, width = ((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in sizes)
        if max(height, width) > 2:
            return function(*args)
        patches = functional.unfold(images.bfloat16(), weight.shape[2:], padding=padding, stride=stride)
        maps = weight.flatten(1).bfloat16() @ patches.transpose(0, 1).flatten(1)
        return maps.unflatten(1, (len(images), height, width)).transpose(0, 1)


def _small_maps(device, compute):
    tiles = device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)
    return SmallMaps() if tiles and _chosen_compute(compute, device) == "bf16" else contextlib.nullcontext()


def on_device(recipe, device):
    """The recipe with its `compute` chosen for a device: what a key and a provenance say."""
    compute = _chosen_compute(recipe.compute, torch.device(device))
    return recipe if compute == recipe.compute else dataclasses.replace(recipe, compute=compute)


def _chosen_compute(compute, device):
    if compute != "auto":
        return compute
    return "bf16" if computes_bfloat16(device) else "fp32"


def computes_bfloat16(device):
    """Whether a device multiplies bfloat16 itself.

    One that does not emulates it: a training step then takes more than ten times as long as in fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    units = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(units.get(unit, False) for unit in _BFLOAT16_UNITS)


def _criterion(recipe, split, device):
    """The loss of a batch."""
    if recipe.class_weights is None:
        return functional.cross_entropy
    check_class_weights(recipe.class_weights, len(split.class_names))
    weights = torch.tensor(recipe.class_weights, dtype=torch.float64)
    scaled = (weights / weights[split.labels].mean()).to(device, torch.float32)
    return lambda logits, labels: weighted_cross_entropy(logits, labels, scaled)


def _optimizer(model, others, recipe):
    taken = {id(p) for other in others for group in other.param_groups for p in group["params"]}
    parameters = [p for p in model.parameters() if id(p) not in taken]
    options = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=recipe.momentum > 0, **options)


def _scheduler(optimizer, recipe, steps):
    schedulers = torch.optim.lr_scheduler
    if recipe.schedule == "one-cycle":
        options = {"total_steps": steps + 1, "cycle_momentum": False}
        return schedulers.OneCycleLR(optimizer, recipe.learning_rate, **options)
    if recipe.schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, steps)
    return schedulers.ConstantLR(optimizer, factor=1.0)
