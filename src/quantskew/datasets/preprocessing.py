"""What a model expects of an image: size, colours and numbers, as one value that is never assumed."""

import dataclasses
import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from quantskew.checks import check_known, check_number, check_whole, shortened

_KNOWN = {"channels": ("rgb", "bgr", "grey"), "range": ("0-1", "0-255")}
_KNOWN["interpolation"] = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# What models are often trained with: range, mean and deviation.
_USUAL = {
    "ImageNet's mean and deviation": ("0-1", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR's mean and deviation": ("0-1", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "MNIST's mean and deviation": ("0-1", 0.1307, 0.3081),
    "mean and deviation 0.5": ("0-1", 0.5, 0.5),
    "values from 0 to 1 as they are": ("0-1", 0.0, 1.0),
    "values from 0 to 255 as they are": ("0-255", 0.0, 1.0),
}


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
        Pillow's, with antialiasing.
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
        for what, names in _KNOWN.items():
            check_known(what, getattr(self, what), names)
        for what, most in (("size", 2), ("mean", self.width), ("std", self.width)):
            own = getattr(self, what)
            own = tuple(own) if isinstance(own, list | tuple) else (own,)
            if len(own) not in (1, most):
                raise ValueError(f"{what} is one number or {most}; got {shortened(own)}")
            for value in own:
                if what == "size":
                    check_whole(what, value, 1, 4096)
                else:
                    check_number(what, value, 0 if what == "std" else -1e6, above=what == "std")
            object.__setattr__(self, what, own * 2 if (what, len(own)) == ("size", 1) else own)
        if self.resize is not None:
            check_whole("resize (the shorter side before the crop)", self.resize, max(self.size), 8192)

    @property
    def width(self):
        """How many channels the model is fed, int."""
        return 1 if self.channels == "grey" else 3

    def pixels(self, image):
        """Pixels of an RGB image of Pillow in this size, ndarray of uint8, (C, H, W), red first."""
        (height, width), how = self.size, Image.Resampling[self.interpolation.upper()]
        sides, short = (width, height), min(image.size)
        if self.resize:
            # Rounded as torchvision does.
            sides = [self.resize if side == short else int(self.resize * side / short) for side in image.size]
        left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
        image = image.resize(sides, how).crop((left, top, left + width, top + height))
        image = image.convert("L" if self.channels == "grey" else "RGB")
        return np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)

    def inputs(self, pixels):
        """What the model is fed of such pixels (N, C, H, W): float32."""
        inputs = torch.from_numpy(np.ascontiguousarray(pixels)).float()
        inputs = inputs.flip(1) if self.channels == "bgr" else inputs
        mean, std = (torch.tensor(own).view(-1, 1, 1) for own in (self.mean, self.std))
        return inputs.div_(255 if self.range == "0-1" else 1).sub_(mean).div_(std)

    def __str__(self):
        crop = f"the middle of images with a shorter side of {self.resize}" if self.resize else 0
        numbers = [f"{n} {' '.join(f'{v:g}' for v in getattr(self, n))}" for n in ("mean", "std")]
        words = (crop or "the whole image", self.interpolation, self.channels, self.range, *numbers)
        return f"{self.size[0]} x {self.size[1]} pixels ({'; '.join(words)})"

    def alternatives(self, shapes=()):
        """Other usual ways by what names them; `shapes` are those of some of the images (height, width)."""
        usual = {name: own for name, own in _USUAL.items() if np.size(own[1]) <= self.width}
        found = {name: replace(self, range=of, mean=m, std=s) for name, (of, m, s) in usual.items()}
        if self.channels != "grey":
            other = "bgr" if self.channels == "rgb" else "rgb"
            found[f"channels {other}"] = replace(self, channels=other)
        side, native = max(self.size), {*itertools.chain(*shapes)}
        # Images that are all squares of one size are perhaps as the model wants them.
        for own in sorted({side // 2, 2 * side, *(native if len(native) == 1 else ())} - {0, side}):
            cut = self.resize and round(self.resize * own / side)
            found[f"size {own}"] = replace(self, size=own, resize=cut)
        if self.resize or any(height != width for height, width in shapes):
            for own in (None, side, side * 8 // 7):
                found[f"resize {own or 'without a crop'}"] = replace(self, resize=own)
        return {name: own for name, own in found.items() if own != self}


FIELDS = tuple(own.name for own in dataclasses.fields(Preprocessing))


def facts_of(said, source):
    """What a file says of a model's images: fields, ``classes`` and ``accuracy``, or timm's configuration.

    Examples
    --------
    >>> facts_of({"input_size": [3, 224, 224], "crop_pct": 0.875, "mean": [0.5], "std": [0.5]}, "config.json")
    {'size': (224, 224), 'resize': 256, 'mean': [0.5], 'std': [0.5]}
    """
    said = said.get("pretrained_cfg", said) if isinstance(said, dict) else said
    if isinstance(said, dict) and "input_size" in said:
        side, cut = said["input_size"][-1], said.get("crop_pct") or 1
        crop = {} if said.get("crop_mode") == "squash" and cut == 1 else {"resize": int(side / cut)}
        known = {name: said[name] for name in ("interpolation", "mean", "std") if name in said}
        return {"size": tuple(said["input_size"][-2:]), **crop, **known}
    known = (*FIELDS, "classes", "accuracy")
    if not isinstance(said, dict) or said.keys() - {*known}:
        raise ValueError(f"{source} is no table of {', '.join(known)}: {shortened(said)}")
    return said
