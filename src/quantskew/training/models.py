"""Image classifiers by name: the paper's ResNet18, a small ResNet for small images, any of torchvision's.

Every model is built with random weights: nothing is downloaded.
"""

import copy
import sys
from pathlib import Path

import torch
from safetensors.torch import load as from_bytes
from torch import nn

from quantskew.checks import check_known
from quantskew.files import Damaged, read_tensors

# Where training scripts keep the state_dict.
_STATES = ("state_dict", "model_state_dict", "model", "net")


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut (He et al., 2016)."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A ResNet of seven convolutions for images of 8 to 32 pixels a side.

    It keeps the first stage at full resolution, where torchvision's ResNets have already shrunk the image
    to a quarter.
    """

    def __init__(self, num_classes, in_channels=1):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stages = nn.Sequential(_Block(16, 16, 1), _Block(16, 32, 2), _Block(32, 64, 2))
        self.head = nn.Linear(64, num_classes)

    def forward(self, x):
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        x = self.stages(torch.relu(self.bn(self.stem(x))))
        return self.head(x.mean((2, 3)))


def known_models():
    """Names that `build` accepts."""
    # Its import takes a second, which who audits small_resnet or a model of their own need not wait for.
    from torchvision import models

    return ["small_resnet", *models.list_models(module=models)]


def check_name(name):
    """Refuse a model name that is not known, with the known ones."""
    if name != "small_resnet":
        check_known("model", name, known_models())


def build(name, num_classes, in_channels=3, seed=0):
    """Build a classifier with random weights, channels-last.

    Parameters
    ----------
    name : str
        ``small_resnet`` or the name of a torchvision classifier, such as ``resnet18``.
    num_classes : int
        Number of logits C.
    in_channels : int
        Channels of the images; a torchvision model whose first convolution expects another number gets a
        new first convolution.
    seed : int
        Seed of the initial weights; torch's own random state is left as it was.

    Returns
    -------
    torch.nn.Module
        Maps images (N, in_channels, H, W) to logits (N, num_classes), in evaluation and training mode.

    Raises
    ------
    ValueError
        If the name is not known; the message lists the known ones.

    Examples
    --------
    >>> build("small_resnet", num_classes=10, in_channels=1).head.out_features
    10
    """
    check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "small_resnet":
            model = SmallResNet(num_classes, in_channels)
        else:
            model = _torchvision_model(name, num_classes, in_channels)
    return model.to(memory_format=torch.channels_last)


def load_weights(model, path):
    """Give a model the weights of a file, in place; what does not fit is refused by name.

    The file is of safetensors, or of ``torch.save`` with nothing in it that could run code; there the
    state_dict may lie under a usual key.  A prefix that a wrapper has put before every name is taken off,
    which is said; other floating-point formats are converted, and counts of batches that batch norm does not
    need may be missing.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder; give a file with weights in it")
    try:
        found = _state_dict(path) if saved_by_torch(path) else read_tensors(path, from_bytes)[0]
    except FileNotFoundError:
        raise FileNotFoundError(f"there are no weights at {path}") from None
    except (Damaged, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error})") from error
    own = model.state_dict()
    found = _without_prefix(found, own, path)
    found = {n: own[n] for n in own if n.endswith("num_batches_tracked")} | found
    ours, theirs = ({name: value.shape for name, value in state.items()} for state in (own, found))
    differing = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    if differing:
        what = f"{path} holds the weights of another architecture or another number of classes"
        raise ValueError(f"{what}: {len(differing)} tensors differ, such as {differing[0]}")
    broken = [name for name, value in found.items() if not bool(torch.isfinite(value).all())]
    if broken:
        remedy = "take a checkpoint from before the training diverged"
        raise ValueError(f"{path} has weights that are not finite, such as {broken[0]}; {remedy}")
    model.load_state_dict(found)


def saved_by_torch(path):
    """Whether a file is a zip archive or a pickle, as torch writes them."""
    with open(path, "rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04")


def _state_dict(path):
    """The tensors of a checkpoint that torch.save wrote; nothing in it is run."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises of bytes from outside
        what = f"{path} holds more than tensors, or is damaged; it is not unpickled, which could run code"
        raise ValueError(f"{what}: save the model's state_dict() ({str(error)[:200]})") from error
    key = next((key for key in _STATES if isinstance(found, dict) and isinstance(found.get(key), dict)), None)
    if key is not None:
        print(f"{path}: the weights are those under {key!r}", file=sys.stderr)
        found = found[key]
    if not (isinstance(found, dict) and all(isinstance(value, torch.Tensor) for value in found.values())):
        raise ValueError(f"{path} holds no state_dict, alone or as {', '.join(_STATES)}; save the model's")
    return found


def _without_prefix(found, own, path):
    """The tensors by the names that the model has, without what a wrapper has put before every one."""
    first = next(iter(own))
    prefix = next((name.removesuffix(first) for name in found if name.endswith(f".{first}")), "")
    if not prefix or not all(name.startswith(prefix) for name in found):
        return found
    print(f"{path}: the names of its weights are taken without {prefix!r}", file=sys.stderr)
    return {name.removeprefix(prefix): value for name, value in found.items()}


def check_takes(model, name, images):
    """Refuse a model that cannot take images of that size, before it is trained; `images` are normalised."""
    try:
        # A copy: a forward pass may change the model.
        with torch.inference_mode():
            copy.deepcopy(model).to(images.device).eval()(images)
    except Exception as error:  # a model may raise anything
        said = f"{name} cannot take images of {images.shape[2]} x {images.shape[3]} pixels"
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{said} ({reason}); choose another size or model") from error


def _torchvision_model(name, num_classes, in_channels):
    from torchvision import models

    options = {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        # Their auxiliary classifiers return a tuple in training mode.
        options |= {"aux_logits": False, "init_weights": True}
    model = models.get_model(name, weights=None, **options)
    path, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels != in_channels:
        sizes = (first.out_channels, first.kernel_size, first.stride, first.padding)
        model.set_submodule(path, nn.Conv2d(in_channels, *sizes, bias=first.bias is not None))
    return model
