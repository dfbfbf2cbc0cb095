"""Quantizing every weight of ResNet18 into a new model, against copying the weights and against peers."""

import torch
from ratios import enter, interleaved, show

from quantskew.quantization.grids import fake_quantize
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.training import models

COPY = "copies of the weights"
GOALS = {
    f"quantize_model, {name} int4": goal for name, goal in (("banner", 2.5), ("symmetric", 2.5), ("mse", 8))
}


def brevitas_ways(weights):
    """Brevitas's plain int4 weight quantizer, where it is installed."""
    try:
        from brevitas.nn import QuantConv2d
        from brevitas.quant import Int8WeightPerTensorFloat
    except ImportError:
        return {}
    layers = []
    for weight in weights:
        kernel = weight if weight.ndim == 4 else weight[:, :, None, None]
        layer = QuantConv2d(
            kernel.shape[1], kernel.shape[0], kernel.shape[2:], bias=False,
            weight_quant=Int8WeightPerTensorFloat, weight_bit_width=4,
        ).eval()  # fmt: skip
        layer.weight.data = kernel.clone()
        layers.append(layer)
    return {"Brevitas, int4 per tensor": lambda: [layer.quant_weight() for layer in layers]}


def main():
    model = models.build("resnet18", num_classes=5).eval()
    weights = [weight.detach() for weight in weight_parameters(model).values()]
    with torch.no_grad():
        seconds = interleaved(
            {
                COPY: lambda: [weight.clone() for weight in weights],
                "quantize_model, banner int4": lambda: quantize_model(model, "int4"),
                "quantize_model, banner int4 per channel": lambda: quantize_model(model, "int4:per-channel"),
                "quantize_model, symmetric int4": lambda: quantize_model(model, "int4:symmetric"),
                "quantize_model, mse int4": lambda: quantize_model(model, "int4:mse"),
                "fake_quantize, banner int4": lambda: [fake_quantize(weight, "int4") for weight in weights],
                "torch.fake_quantize_per_tensor_affine": lambda: [
                    torch.fake_quantize_per_tensor_affine(weight, 0.01, 0, -8, 7) for weight in weights
                ],
                **brevitas_ways(weights),
            }
        )
    show(
        f"quantizing {sum(weight.numel() for weight in weights):,} weights",
        seconds,
        COPY,
        "quantize_model at most 2.5, with mse 8",
    )
    for name, goal in GOALS.items():
        enter(f"{name} of ResNet18", seconds[name] / seconds[COPY], COPY, goal)


if __name__ == "__main__":
    main()
