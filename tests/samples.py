"""Small made inputs: a data set, models, Audits, and files in the formats that are read."""

import io
import json
import os
import random
import tarfile
import time

import numpy as np
import torch
from PIL import Image
from torch import nn

from quantskew.audits.audit import Audit
from quantskew.datasets import Dataset, Split
from quantskew.files import write_bytes
from quantskew.training import loop
from quantskew.training.models import build
from quantskew.training.recipe import Recipe

TINY_RECIPE = Recipe(epochs=3, batch_size=16, shift=1, compute="fp32", learning_rate=0.05)


def tiny_split(count, seed=0):
    """Noise whose brightness is the class; group 1 of three is absent."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, 2, count))
    images = torch.from_numpy(rng.integers(0, 150, (count, 1, 6, 6), dtype=np.uint8))
    images += (labels * 100).to(torch.uint8)[:, None, None, None]
    groups = torch.from_numpy(2 * rng.integers(0, 2, count))
    return Split(images, labels, groups, ("dark", "bright"), ("even", "absent", "odd"))


def tiny_data(train=50, validation=20):
    return Dataset("tiny", tiny_split(train), tiny_split(validation, 1), tiny_split(30, 2))


def tiny_model(dropout=0.0, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64, 2),
        )


def fit_tiny(checkpoint=None, recipe=TINY_RECIPE, dropout=0.3):
    """A trained tiny model and its history."""
    model = tiny_model(dropout)
    return model, loop.fit(model, tiny_data(), recipe, checkpoint)


def small_resnet(seed=0, num_classes=4, in_channels=3):
    """A small ResNet whose batch norms have statistics and weights as after training."""
    model = build("small_resnet", num_classes, in_channels, seed)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def random_images(count, channels=3, side=8, seed=0):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def random_audit(samples=120, classes=4, groups=3, precisions=("fp32", "int8", "int2"), seed=0):
    """Logits that are better than chance, and worse from precision to precision."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    logits = rng.normal(size=(len(precisions), samples, classes)).astype(np.float32)
    for row in range(len(precisions)):
        logits[row, np.arange(samples), labels] += 2 / (row + 1)
    return Audit.from_logits(
        dict(zip(precisions, logits, strict=True)), labels, rng.permutation(np.arange(samples) % groups)
    )


def uneven_audit():
    """Groups of four samples, one sample and none; the third sample's logits vanish at int2."""
    rng = np.random.default_rng(0)
    logits = {"fp32": rng.normal(size=(5, 3)), "int2": rng.normal(size=(5, 3))}
    logits["int2"][2] = 0
    return Audit.from_logits(logits, [0, 1, 2, 0, 1], [0, 0, 0, 0, 1], ("many", "one", "none"))


def empty_audit():
    nothing, classes = np.empty(0, dtype=np.int64), ("class 0", "class 1", "class 2")
    return Audit(np.empty((2, 0, 3), np.float32), nothing, nothing, ("fp32", "int2"), classes, ("a", "b"))


def noise_jpeg(seed, side=20):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def face_files(count=60):
    """(name, bytes) with UTKFace's names and noise for pixels: no face is in the repository."""
    for number in range(count):
        age, gender, ethnicity = number % 80 + 1, number % 2, number % 5
        yield f"{age}_{gender}_{ethnicity}_20170116{number:09}.jpg.chip.jpg", noise_jpeg(number)


def write_archive(path, files, folder="UTKFace"):
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as tar:
        for name, content in files:
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_folder(path, files):
    for name, content in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def exact_audit(accuracies, count=40, train_counts=None, history=None):
    """Groups of `count` samples that are right on exactly these shares of them, by precision and group."""
    groups = np.repeat(np.arange(len(next(iter(accuracies.values())))), count)
    logits = {}
    for name, shares in accuracies.items():
        right = np.concatenate([np.arange(count) < round(share * count) for share in shares])
        logits[name] = np.stack([right, ~right], axis=1) * 2.0
    return Audit.from_logits(
        logits,
        np.zeros(len(groups), dtype=int),
        groups,
        train_counts=train_counts,
        provenance={"source": "made", "history": history or []},
    )


def epoch_entry(epoch, accuracy, measured=None):
    """An epoch of a training history, as far as accuracies and gradient norms of the groups go."""
    entry = {"epoch": epoch, "train": {"accuracy": list(accuracy)}}
    return entry if measured is None else entry | {"measured": list(measured)}


def damaged(whole, seed=0, places=40):
    """A file's bytes with one bit flipped, at many places, and cut, emptied, or with more at the end."""
    rng = random.Random(seed)
    header = 8 + int.from_bytes(whole[:8], "little")
    if header >= len(whole):  # not of safetensors
        header = len(whole) // 2
    for place in [*rng.sample(range(header), places), *rng.sample(range(header, len(whole)), places)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        yield bytes(changed)
    yield from (whole[:cut] for cut in (0, 5, 8, header - 1, header, len(whole) - 1))
    yield whole + b"\0"
    yield bytes(len(whole))


def threads_of_seeds(folder, seeds, wait=0, failing=None):
    """Write for each seed which process has it and its number of threads; then wait, or fail."""
    for seed in seeds:
        write_bytes(folder / f"{seed}", json.dumps([os.getpid(), torch.get_num_threads()]).encode())
        if seed == failing:
            raise ValueError("no image is left")
        time.sleep(wait)
        yield seed
