"""scikit-learn's bundled handwritten digits, made imbalanced by the rule in `TRAINING_SHARE`."""

import dataclasses

import numpy as np
import torch
from sklearn.datasets import load_digits

from quantskew.datasets.split import resize, split_arrays

# Share of each digit's training images that is kept.  Validation and test images are all kept, so that
# every group's accuracy is measured on as many images.
TRAINING_SHARE = {0: 1.0, 1: 0.8, 2: 0.65, 3: 0.5, 4: 0.4, 5: 0.32, 6: 0.26, 7: 0.2, 8: 0.16, 9: 0.12}
LABELS = GROUPS = ("digit",)


def load(name="digits", size=None, seed=0):
    """The 1,797 digits, 8 pixels a side as they come; the group of an image is its digit."""
    bundle = load_digits()
    images = np.round(bundle.images * (255 / 16)).astype(np.uint8)[:, None]
    images = resize(torch.from_numpy(images), size).numpy()
    names = tuple(str(digit) for digit in range(10))
    arrays = images, bundle.target, bundle.target
    whole = split_arrays("digits", *arrays, names, names, seed, shares=(0.5, 0.1, 0.4))
    if name == "balanced_digits":
        return whole
    kept = []
    for digit, part in TRAINING_SHARE.items():
        members = torch.nonzero(whole.train.labels == digit).flatten()
        kept.append(members[: round(part * len(members))])
    return dataclasses.replace(whole, train=whole.train.subset(torch.cat(kept).sort().values))
