"""Slow, obvious counterparts of the gradients and Hessians, and the small networks they are tried on."""

import warnings

import torch
from torch import nn
from torch.nn import functional


def gradient(model, images, labels):
    """Gradient of the mean cross-entropy as a vector, by one backward pass over everything."""
    loss = functional.cross_entropy(model(images), labels)
    parameters = [p for p in model.parameters() if p.requires_grad]
    pieces = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([piece.reshape(-1) for piece in pieces])


def hessian(model, images, labels):
    """Dense Hessian of the mean cross-entropy in the trainable parameters, by torch.func."""
    trainable = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(vector):
        pieces = vector.split([p.numel() for p in trainable.values()])
        values = {name: piece.view_as(p) for (name, p), piece in zip(trainable.items(), pieces, strict=True)}
        return functional.cross_entropy(torch.func.functional_call(model, values, (images,)), labels)

    with warnings.catch_warnings():
        # torch's forward mode compiles formulas with its own deprecated torch.jit.script.
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        return torch.func.hessian(loss)(torch.cat([p.reshape(-1) for p in trainable.values()]))


def problem(count=12, channels=1, classes=3, seed=0):
    """Random images (6x6, float64), labels, and groups 0, 1 and 3 (group 2 has no images)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, channels, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    groups = torch.tensor([0, 1, 3])[torch.randint(3, (count,), generator=generator)]
    groups[:3] = torch.tensor([0, 1, 3])
    return images, labels, groups


def networks(classes=3):
    """Small float64 classifiers of 6x6 images in evaluation mode, by name."""
    torch.manual_seed(0)
    made = {
        "linear": nn.Sequential(nn.Flatten(), nn.Linear(36, classes)),
        "mlp": nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Softplus(), nn.Linear(4, classes)),
        "conv-bn-relu": nn.Sequential(
            nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(inplace=True), _head(3, classes)
        ),
        "conv-bn-softplus": nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.BatchNorm2d(2), nn.Softplus(), _head(2, classes)
        ),
        "residual": _Residual(classes),
        "depthwise": nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3, groups=2, dilation=1), nn.Tanh(), _head(4, classes)
        ),
        "untraceable": _Untraceable(classes),
        "twins": _Twins(classes),
    }
    for model in made.values():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.running_mean)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
        model.double().eval()
    return made


def _head(channels, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, classes))


class _Residual(nn.Module):
    """A shared convolution, a shortcut, and a batch norm that follows no convolution."""

    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.conv, self.bn = nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2)
        self.shared, self.late = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.head = _head(2, classes)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.bn(self.conv(x)) + x)
        x = self.shared(torch.tanh(self.shared(x)))
        return self.head(self.late(functional.softplus(x)))


class _Untraceable(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), _head(2, classes)

    def forward(self, x):
        if float(x.sum()) > 1e9:  # depends on values: torch.fx cannot follow
            return self.head(x)
        return self.head(torch.tanh(self.bn(self.conv(x))))


class _Twins(nn.Module):
    """Two parameters with the same gradient, one that is not used, and one that two layers share."""

    def __init__(self, classes):
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.randn(classes)) for _ in range(2))
        self.unused = nn.Parameter(torch.randn(2))
        self.layer, self.again = nn.Linear(6, 6), nn.Linear(6, 6)
        self.again.weight = self.layer.weight
        self.head = nn.Linear(36, classes)

    def forward(self, x):
        x = self.again(torch.tanh(self.layer(x)))
        return self.head(x.flatten(1)) + self.first + self.second
