"""The forward chain at six precisions, against six bare inference passes over the same images."""

import torch
from ratios import enter, interleaved, show

from quantskew.audits.model import audit_model
from quantskew.datasets import Split, normalise
from quantskew.measures import fairness, forward
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS
from quantskew.training import models

# The largest tensor of a batch stays below 32 MiB, from where on glibc returns its memory each time.
BATCH = 64


def main():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1024, 3, 64, 64), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 5, (len(images),), generator=generator)
    names = ("a", "b", "c", "d", "e")
    split = Split(images, labels, labels, names, names)
    model = models.build("resnet18", num_classes=5).eval()
    inputs = normalise(images)

    def bare():
        """Six times the same fp32 model: nothing quantized, nothing kept."""
        with torch.inference_mode():
            for _ in DEFAULT_PRECISIONS:
                for batch in inputs.split(BATCH):
                    model(batch)

    def chain():
        """Quantize, infer and measure everything the forward chapters show."""
        audit = audit_model(model, split, batch_size=BATCH)
        for measure in (
            forward.group_accuracy,
            fairness.fvo,
            forward.cosine_distance,
            forward.l1_distance,
            forward.l2_distance,
            forward.logit_variance,
            forward.softmax_variance,
            forward.dtdb,
            forward.top_probability,
            forward.group_loss,
        ):
            measure(audit)

    ways = {
        "six bare inference passes (fp32)": bare,
        "audit_model alone": lambda: audit_model(model, split, batch_size=BATCH),
        "audit_model and every forward measure": chain,
    }
    seconds, floor = interleaved(ways, runs=3), "six bare inference passes (fp32)"
    title = f"forward chain, ResNet18, {len(images):,} images of 64 x 64, six precisions"
    show(title, seconds, floor, "at most 1.10")
    enter(
        "forward chain, 1,024 images",
        seconds["audit_model and every forward measure"] / seconds[floor],
        floor,
        1.1,
    )


if __name__ == "__main__":
    main()
