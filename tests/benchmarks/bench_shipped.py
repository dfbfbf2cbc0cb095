"""An audit of a file, ResNet50 on listed images of 224 pixels at fp32 and int8, against two bare passes.

Run as ``python tests/benchmarks/bench_shipped.py [IMAGES]``; by default 5,000, which takes half an hour.
"""

import csv
import os
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image
from ratios import enter
from torchvision.models import resnet50

from quantskew.audits.shipped import audit_file

GIVEN = {"size": 224, "resize": 256, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
GIVEN["classes"] = tuple(map(str, range(1000)))
BATCH = 64


def main():
    count = int(sys.argv[1]) if sys.argv[1:] else 5000
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = resnet50().eval()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        torch.save(model.state_dict(), "m.pth")
        # A network that was not trained answers the same to all, and so no other preprocessing is better.
        with torch.inference_mode():
            listed(count, int(model(torch.rand(1, 3, 224, 224)).argmax()))
        floor = passes(model, count)
        start = time.process_time()
        audit_file("m.pth", "test.csv", ["fp32", "int8"], arch="torchvision:resnet50", given=GIVEN)
        seconds = time.process_time() - start
        # Before and after, since the clock of a busy processor wanders.
        floor += passes(model, count)
    print(
        f"{count:,} images: bare {floor:.0f} s, audit {seconds:.0f} s of one processor, {seconds / floor:.3f}"
    )
    if not sys.argv[1:]:
        enter(
            "audit of a ResNet50 in a file, 5,000 images of 224 x 224",
            seconds / floor,
            "two bare passes",
            1.15,
        )


def listed(count, label):
    """JPEGs of smooth noise, 320 x 256 pixels, and their list with two groups."""
    rng = np.random.default_rng(0)
    with open("test.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "group"])
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
            coarse.resize((320, 256), Image.Resampling.BICUBIC).save(f"{number}.jpg")
            table.writerow([f"{number}.jpg", label, "ab"[number % 2]])


@torch.inference_mode()
def passes(model, count):
    """Seconds of the processor that one pass over so many images in memory takes."""
    batch = torch.rand(BATCH, 3, 224, 224)
    model(batch)
    start = time.process_time()
    for first in range(0, count, BATCH):
        model(batch[: count - first])
    return time.process_time() - start


if __name__ == "__main__":
    main()
