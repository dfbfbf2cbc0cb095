"""Under- and over-sampling of the groups to stated counts (U-O, section 5.1 of the paper)."""

import dataclasses
import numbers

import numpy as np

# Beyond so many copies of each image, over-sampling teaches little but the images themselves.
MOST_COPIES = 20


def resample(data, targets, seed=0):
    """A data set whose training images are sampled to target counts; validation and test stay as they are.

    Parameters
    ----------
    data : Dataset
    targets : int, sequence of int of length G, or {"mean", "minority"}
        Images of every group, or of each; ``mean`` leaves the size of the set as it is, ``minority`` cuts
        every group to the smallest one.
    seed : int
        Of the images drawn; each group has draws of its own, whatever the targets of the others are.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If a target is negative, their number is wrong, a group would need more than `MOST_COPIES` copies of
        each of its images, or nothing would be left.

    Examples
    --------
    >>> from quantskew import datasets
    >>> resample(datasets.load("digits"), "minority").train.group_counts
    array([11, 11, 11, 11, 11, 11, 11, 11, 11, 11])
    """
    counts = target_counts(data.train.group_counts, targets)
    index = sample_indices(data.train.groups.numpy(), counts, seed)
    return dataclasses.replace(data, train=data.train.subset(index))


def target_counts(counts, targets):
    """How many images each group is to have where it has `counts`, by the targets of `resample`; a tuple."""
    counts = np.asarray(counts)
    if isinstance(targets, str):
        named = {"mean": round(counts.mean()), "minority": counts.min()}
        if targets not in named:
            raise ValueError(f"unknown targets {targets!r}; known: {', '.join(named)}, or numbers")
        targets = named[targets]
    if isinstance(targets, numbers.Integral):
        targets = [targets] * len(counts)
    targets = tuple(int(target) for target in targets)
    if len(targets) != len(counts):
        raise ValueError(f"{len(targets)} target counts for {len(counts)} groups; give one a group")
    if min(targets) < 0 or sum(targets) == 0:
        raise ValueError(f"target counts must not be negative, and not all 0; got {list(targets)}")
    for group, (count, target) in enumerate(zip(counts, targets, strict=True)):
        if target > MOST_COPIES * count:
            need = f"over-sampling to {target} would need more than {MOST_COPIES} copies of each"
            most = f"at most {MOST_COPIES * count} can be asked for"
            raise ValueError(f"group {group} has {count} images; {need} ({most})")
    return targets


def sample_indices(groups, targets, seed=0):
    """Sorted indices of a sample with the target count of each group.

    A group that is over-sampled has each of its images equally often, and once more for as many as it takes;
    one that is under-sampled loses images drawn at random.
    """
    chosen = []
    for group, target in enumerate(targets):
        members = np.flatnonzero(groups == group)
        order = np.random.default_rng([seed, group]).permutation(members)
        chosen.append(np.resize(order, target))
    return np.sort(np.concatenate(chosen))


def rotated_counts(count, share, group, num_groups):
    """Counts of a balanced set of `count` images a group, of which `group` alone is cut to a share."""
    return tuple(max(1, round(share * count)) if g == group else count for g in range(num_groups))
