"""A training step of ResNet18 with quantized weights, against a float step and against peers."""

import copy
import sys

import torch
from ratios import interleaved, show
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from quantskew.quantization import qat
from quantskew.quantization.ptq import weight_parameters
from quantskew.quantization.qat import QATOptions
from quantskew.training import models

CLASSES, BATCH, SIDE = 5, 128, 64
DAMPENED = QATOptions("int4")
FREEZING = QATOptions("int4", freezing=(0.1, 0.01))


class DetachedRounding(nn.Module):
    """Fake quantization written with detach, as the reference code of Nagel et al. (2022) does it."""

    def __init__(self, step, low, high):
        super().__init__()
        self.step, self.low, self.high = nn.Parameter(step.clone()), low, high

    def forward(self, weight):
        ratio = weight / self.step
        codes = ratio + (ratio.round() - ratio).detach()
        return codes.clamp(self.low, self.high) * self.step


def detached(model):
    """A copy of the model in the reference's manner, and its layers: weight, fake quantizer."""
    prepared, direct = qat.prepare(model, DAMPENED), copy.deepcopy(model)
    layers = []
    for name, _, own, _, step in qat._layers(prepared):
        module = direct.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(
            module, own, DetachedRounding(step.step.detach(), step.low, step.high)
        )
        chain = module.parametrizations[own]
        layers.append((chain.original, chain[0]))
    return direct, layers


def dampening_by_autograd(layers):
    total = 0
    for weight, quantizer in layers:
        clipped = torch.minimum(
            torch.maximum(weight, quantizer.step * quantizer.low), quantizer.step * quantizer.high
        )
        distances = (quantizer(weight).detach() - clipped) ** 2
        total = total + distances.mean(list(range(1, weight.ndim))).sum()
    return total


def with_brevitas(model, bits=4):
    """A copy of the model with Brevitas's convolutions and learned scales, where it is installed."""
    try:
        from brevitas.inject.enum import ScalingImplType
        from brevitas.nn import QuantConv2d, QuantLinear
        from brevitas.quant import Int8WeightPerTensorFloat
    except ImportError:
        return None

    class LearnedScale(Int8WeightPerTensorFloat):
        scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS

    result = copy.deepcopy(model)
    names = [name.removesuffix(".weight") for name in weight_parameters(model)]
    for name in names:
        old = result.get_submodule(name)
        options = {
            "bias": old.bias is not None,
            "weight_quant": LearnedScale,
            "weight_bit_width": 8 if name in (names[0], names[-1]) else bits,
        }
        if isinstance(old, nn.Conv2d):
            sizes = (old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding)
            new = QuantConv2d(*sizes, **options)
        else:
            new = QuantLinear(old.in_features, old.out_features, **options)
        new.weight.data.copy_(old.weight.data)
        if old.bias is not None:
            new.bias.data.copy_(old.bias.data)
        result.set_submodule(name, new)
    return result.to(memory_format=torch.channels_last)


def step_of(model, images, labels, compute, hooks=None, extra=None):
    """One step of training in the order of `quantskew.training.loop.fit`, as a function."""
    model.train()
    own = hooks.own_optimizers() if hooks else []
    taken = {id(p) for optimizer in own for group in optimizer.param_groups for p in group["params"]}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    optimizers = [torch.optim.SGD(rest, 1e-4, momentum=0.9, weight_decay=5e-4, nesterov=True), *own]

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=compute == "bf16"):
            logits = model(images)
        loss = functional.cross_entropy(logits.float(), labels)
        if extra:
            loss = loss + 0.1 * extra()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if hooks:
            hooks.after_backward(0.9)
        for optimizer in optimizers:
            optimizer.step()
        if hooks:
            hooks.after_step(0.9)

    return step


def ways(compute):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    model = models.build("resnet18", num_classes=CLASSES)
    batch = (images, labels, compute)

    def ours(options):
        prepared = qat.prepare(model, options)
        return step_of(prepared, *batch, hooks=qat.QAT(prepared, options))

    direct, layers = detached(model)
    found = {
        "float step": step_of(copy.deepcopy(model), *batch),
        "ours, with dampening": ours(DAMPENED),
        "ours, with dampening, tracking, freezing": ours(FREEZING),
        "detach, as the reference": step_of(copy.deepcopy(direct), *batch),
        "detach, with dampening by autograd": step_of(
            direct, *batch, extra=lambda: dampening_by_autograd(layers)
        ),
    }
    brevitas = with_brevitas(model)
    return found | ({"Brevitas, learned scale": step_of(brevitas, *batch)} if brevitas else {})


def main():
    goals = {"fp32": 1.13, "bf16": 1.22}
    for compute in sys.argv[1:] or goals:
        show(
            f"one training step at batch {BATCH}, {compute}",
            interleaved(ways(compute)),
            "float step",
            f"with dampening at most {goals[compute]}; tracking and freezing at most 0.1 more",
        )


if __name__ == "__main__":
    main()
