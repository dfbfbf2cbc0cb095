"""scikit-learn's bundled handwritten digits, made imbalanced by the rule in `TRAINING_SHARE`."""

import numpy as np
import torch

from quantskew.datasets.split import Dataset, resize, split_arrays

# Share of each digit's training images that is kept.  Validation and test images are all kept, so that
# every group's accuracy is measured on as many images.
TRAINING_SHARE = {0: 1.0, 1: 0.8, 2: 0.65, 3: 0.5, 4: 0.4, 5: 0.32, 6: 0.26, 7: 0.2, 8: 0.16, 9: 0.12}
_SHARES = (0.5, 0.1, 0.4)

ATTRIBUTES = ("digit",)


def load(size=None, seed=0, share=TRAINING_SHARE):
    """Load the 1,797 digits as a `Dataset`; the group of an image is its digit.

    Parameters
    ----------
    size : int, optional
        Pixels a side; 8 as they come.
    seed : int
        Seed of the split.
    share : dict of int to float
        Share of each digit's training images to keep.
    """
    # Its import takes a second, which other data sets need not wait for.
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = np.round(bundle.images * (255 / 16)).astype(np.uint8)[:, None]
    images = resize(torch.from_numpy(images), size).numpy()
    names = tuple(str(digit) for digit in range(10))
    whole = split_arrays("digits", images, bundle.target, bundle.target, names, names, _SHARES, seed)
    kept = []
    for digit, part in share.items():
        members = torch.nonzero(whole.train.labels == digit).flatten()
        kept.append(members[: round(part * len(members))])
    train = whole.train.subset(torch.cat(kept).sort().values)
    return Dataset("digits", train, whole.validation, whole.test)
