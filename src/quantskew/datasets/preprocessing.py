"""What a model expects of an image: size, colours and numbers, as one value that is never guessed."""

import dataclasses
import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from quantskew.checks import check_known, check_number, check_whole, shortened

CHANNELS = ("rgb", "bgr", "grey")
RANGES = ("0-1", "0-255")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What models are often trained with: range, mean and deviation by name, for colour and for grey.
_USUAL = {
    "ImageNet's mean and deviation": ("0-1", *_IMAGENET),
    "CIFAR's mean and deviation": ("0-1", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "mean and deviation 0.5": ("0-1", (0.5,), (0.5,)),
    "values from 0 to 1 as they are": ("0-1", (0.0,), (1.0,)),
    "values from 0 to 255 as they are": ("0-255", (0.0,), (1.0,)),
}
_GREY = {name: own for name, own in _USUAL.items() if len(own[1]) == 1}
_GREY["MNIST's mean and deviation"] = ("0-1", (0.1307,), (0.3081,))
_SIDES = (32, 64, 128, 224)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what a model is fed; validated when it is made.

    Attributes
    ----------
    size : int or (int, int)
        Pixels a side, or height and width.
    mean, std : float or tuple of float
        Taken off and divided by, one or one for each channel, in the model's order of channels and range.
    resize : int, optional
        The shorter side is made so long first, and the middle of `size` is cut out.  By default both sides
        are made `size`, whatever the image's shape.
    interpolation : str
        One of `INTERPOLATIONS`, with antialiasing, as in Pillow.
    channels : {"rgb", "bgr", "grey"}
    range : {"0-1", "0-255"}
        The range of values before mean and deviation are applied.

    Raises
    ------
    ValueError
        If a value cannot be used; the message says which and why.

    Examples
    --------
    >>> how = Preprocessing(2, mean=0.5, std=0.5)
    >>> how.inputs(how.pixels(Image.new("RGB", (8, 4), "red"))[None])[0, :, 0, 0]
    tensor([ 1., -1., -1.])
    """

    size: int | tuple
    mean: float | tuple
    std: float | tuple
    resize: int | None = None
    interpolation: str = "bilinear"
    channels: str = "rgb"
    range: str = "0-1"

    def __post_init__(self):
        size = self.size if isinstance(self.size, list | tuple) else (self.size,) * 2
        object.__setattr__(self, "size", tuple(size))
        for what in ("mean", "std"):
            value = getattr(self, what)
            object.__setattr__(self, what, tuple(value) if isinstance(value, list | tuple) else (value,))
        known = {"channels": CHANNELS, "range": RANGES, "interpolation": INTERPOLATIONS}
        for what, names in known.items():
            check_known(what, getattr(self, what), names)
        if len(size) != 2:
            raise ValueError(f"size is one number or height and width; got {shortened(self.size)}")
        for side in size:
            check_whole("size", side, 1, 4096)
        if self.resize is not None:
            check_whole("resize (the shorter side before the crop)", self.resize, max(size), 8192)
        for value in self.mean:
            check_number("mean", value, -1e6)
        for value in self.std:
            check_number("std", value, above=True)
        if {len(self.mean), len(self.std)} - {1, 1 if self.channels == "grey" else 3}:
            raise ValueError(
                f"mean and std are one number or one a channel of {self.channels}; got {len(self.mean)} and "
                f"{len(self.std)}"
            )

    def pixels(self, image):
        """Pixels of an RGB image of Pillow in this size, ndarray of uint8, (C, H, W), red first."""
        height, width = self.size
        how = Image.Resampling[self.interpolation.upper()]
        if self.resize is None:
            image = image.resize((width, height), how)
        else:
            # Rounded as torchvision does.
            short = min(image.size)
            sides = [self.resize if side == short else int(self.resize * side / short) for side in image.size]
            left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
            image = image.resize(sides, how).crop((left, top, left + width, top + height))
        if self.channels == "grey":
            return np.asarray(image.convert("L"))[None]
        return np.asarray(image).transpose(2, 0, 1)

    def inputs(self, pixels):
        """What the model is fed of such pixels (N, C, H, W): float32."""
        inputs = torch.from_numpy(np.ascontiguousarray(pixels)).float()
        if self.channels == "bgr":
            inputs = inputs.flip(1)
        if self.range == "0-1":
            inputs /= 255
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return inputs.sub_(mean).div_(std)

    def __str__(self):
        height, width = self.size
        crop = f", the middle of an image whose shorter side is {self.resize}" if self.resize else ""
        values = (f"{what} {' '.join(f'{value:g}' for value in getattr(self, what))}" for what in ("mean", "std"))
        said = f"{height} x {width} pixels{crop}", self.interpolation, self.channels, f"range {self.range}"
        return "; ".join((*said, *values))

    def alternatives(self, shapes=()):
        """Other usual ways by what names them; `shapes` are those of some of the images (height, width)."""
        usual = _GREY if self.channels == "grey" else _USUAL
        found = {name: replace(self, range=own[0], mean=own[1], std=own[2]) for name, own in usual.items()}
        if self.channels != "grey":
            swapped = "bgr" if self.channels == "rgb" else "rgb"
            found[f"channels {swapped}"] = replace(self, channels=swapped)
        sides = {*_SIDES, *(side // 2 for side in self.size), *(2 * side for side in self.size)}
        sides |= {side for side in map(max, shapes[:1]) if {*shapes} == {(side, side)} and side <= 512}
        for side in sorted(sides - {0, *self.size}):
            resize = self.resize and round(self.resize * side / max(self.size))
            found[f"size {side}"] = replace(self, size=side, resize=resize)
        if any(height != width for height, width in shapes):
            side = max(self.size)
            rules = {"no crop": None, "a crop": side, "a crop of 87.5 %": round(side / 0.875)}
            found |= {f"{rule} (resize {side})": replace(self, resize=side) for rule, side in rules.items()}
        return {name: own for name, own in found.items() if own._meaning != self._meaning}

    @property
    def _meaning(self):
        """Equal for ways that give the same numbers."""
        unit = 255 if self.range == "0-255" else 1
        numbers = [(values * 3)[:3] for values in (self.mean, self.std)]
        order = -1 if self.channels == "bgr" else 1
        scaled = [tuple(round(value / unit, 4) for value in own[::order]) for own in numbers]
        return self.size, self.resize, self.interpolation, self.channels, *scaled


FIELDS = tuple(own.name for own in dataclasses.fields(Preprocessing))


def facts_of(said, source):
    """What a model's metadata say, or a timm configuration: fields, ``classes`` and ``accuracy``; checked."""
    said = said.get("pretrained_cfg", said) if isinstance(said, dict) else said
    if not isinstance(said, dict):
        raise ValueError(f"{source} holds no table of {', '.join(FIELDS)}; got {shortened(said)}")
    if "input_size" in said:
        return _of_timm(said)
    unknown = said.keys() - {*FIELDS, "classes", "accuracy"}
    if unknown:
        raise ValueError(f"{source} has {', '.join(sorted(unknown))}; known: {', '.join(FIELDS)}, classes, accuracy")
    return said


def _of_timm(said):
    """Fields of a timm configuration."""
    side = said["input_size"][-1]
    cut = said.get("crop_pct") or 1
    if said.get("crop_mode", "center") != "center" and cut != 1:
        raise ValueError(f"timm's crop_mode {said['crop_mode']} is not known; give --size and --resize")
    resize = {} if said.get("crop_mode", "center") == "squash" else {"resize": int(side / cut)}
    kept = {name: said[name] for name in ("interpolation", "mean", "std") if name in said}
    return {"size": said["input_size"][-2:], **kept, **resize}


def read_facts(path):
    """The facts that a JSON or TOML file has of a model's images."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        said = tomllib.loads(text) if Path(path).suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no --preprocessing {path}") from None
    except ValueError as error:
        raise ValueError(f"{path} is neither JSON nor TOML ({error})") from None
    return facts_of(said, path)
