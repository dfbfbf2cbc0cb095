"""Slow and obvious reference implementations that the package is compared with."""

import math
from itertools import combinations

import numpy as np

F = np.float32


def half_away(value):
    """Nearest whole number of a value of 0 or more, ties upwards; exact, unlike floor(value + 0.5)."""
    whole = math.floor(value)
    return whole + (float(value) - whole >= 0.5)


def half_even(value):
    return round(float(value))


def banner(weights, bits, rounding=half_away):
    """Codes and values of Banner et al.'s quantizer, one weight after the other, in fp32 arithmetic."""
    weights = [F(w) for w in weights]
    low, high = min(weights), max(weights)
    if low == high:
        return None, weights
    steps = 2**bits - 1
    with np.errstate(all="ignore"):
        step = max((high - low) / F(steps), np.finfo(F).tiny)
        codes, values = [], []
        for w in weights:
            if low < 0 < high:
                zero = F(rounding(-low / step))
                code = rounding(min(max(w / step + zero, F(0)), F(steps)))
                values.append((F(code) - zero) * step)
            else:
                code = rounding(min(max((w - low) / step, F(0)), F(steps)))
                values.append(F(code) * step + low)
            codes.append(code)
    return codes, values


def symmetric(weights, bits):
    """Codes and values on the signed grid that reaches the largest absolute weight, in fp32 arithmetic."""
    weights = [F(w) for w in weights]
    with np.errstate(all="ignore"):
        step = max(max(abs(w) for w in weights) / F(max(2 ** (bits - 1) - 1, 1)), np.finfo(F).tiny)
        codes = [
            half_even(min(max(w / step, F(-(2 ** (bits - 1)))), F(2 ** (bits - 1) - 1))) for w in weights
        ]
        return codes, [F(code) * step for code in codes]


def best_step(weights, bits):
    """Of 100 fractions of the symmetric step the one of least squared error; the largest of equals."""
    widest = max(abs(w) for w in weights) / max(2 ** (bits - 1) - 1, 1)
    best, least = None, math.inf
    for candidate in range(100, 0, -1):
        step, error = widest * (candidate / 100), 0.0
        for w in weights:
            code = half_even(min(max(w / step, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1))
            error += (code * step - w) ** 2
        if error < least:
            best, least = step, error
    return best


def group_means(values, groups, num_groups):
    """Mean of each group by a plain mask; NaN values left out."""
    means = []
    for group in range(num_groups):
        own = [v for v, g in zip(values, groups, strict=True) if g == group and not math.isnan(v)]
        means.append(sum(own) / len(own) if own else math.nan)
    return means


def largest_gap(values):
    """Eq. 2 as it is written: over all pairs of groups that are present."""
    present = [v for v in values if not math.isnan(v)]
    return max((abs(a - b) for a, b in combinations(present, 2)), default=math.nan)


def bootstrap_means(values, groups, num_groups, draws, seed=0):
    """Group means (draws, P, G) of values (P, N) of images that are drawn again, one draw at a time."""
    rng, values, groups = np.random.default_rng(seed), np.asarray(values, dtype=float), np.asarray(groups)
    means = np.full((draws, len(values), num_groups), np.nan)
    for draw in range(draws):
        for group in set(groups.tolist()):
            own = np.flatnonzero(groups == group)
            drawn = values[:, rng.choice(own, len(own))]
            for row, of in enumerate(drawn):
                known = of[~np.isnan(of)]
                means[draw, row, group] = known.mean() if len(known) else np.nan
    return means


def largest_rate_gap(outcomes, conditions, groups, weights=None):
    """The largest gap between groups of the share of any outcome in any condition, by plain loops."""
    weights = [1.0] * len(outcomes) if weights is None else weights
    gaps = []
    for condition, outcome in {(c, o) for c in set(conditions) for o in set(outcomes)}:
        rates = []
        for group in set(groups):
            own = [
                (w, o == outcome)
                for w, o, c, g in zip(weights, outcomes, conditions, groups, strict=True)
                if (c, g) == (condition, group)
            ]
            total = sum(w for w, _ in own)
            rates.append(sum(w for w, hit in own if hit) / total if own else math.nan)
        gaps.append(largest_gap(rates))
    return max((gap for gap in gaps if not math.isnan(gap)), default=math.nan)


def cosine_distance(a, b):
    """Eq. 7 as it is written."""
    product = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / product if product else math.nan


def variance(values):
    """Eq. 9 for one sample."""
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def probabilities(logits):
    largest = max(logits)
    powers = [math.exp(z - largest) for z in logits]
    return [power / sum(powers) for power in powers]


def by_sample(measure, logits):
    """A measure of one sample's logits, of every sample at every precision: shape (P, N)."""
    return np.array([[measure([float(z) for z in sample]) for sample in rows] for rows in logits])


def split_exactly_once(parts, count):
    """Whether parts are disjoint and hold every index."""
    return sorted(index for part in parts for index in part) == list(range(count))


def augmentations(image, shift, flip):
    """Every image that mirroring and moving by up to `shift` pixels can make of one (C, H, W)."""
    for mirrored in (False, True) if flip else (False,):
        for down in range(-shift, shift + 1):
            for right in range(-shift, shift + 1):
                result = np.empty_like(image)
                _, height, width = image.shape
                for row in range(height):
                    for column in range(width):
                        source_row = min(max(row + down, 0), height - 1)
                        place = width - 1 - column if mirrored else column
                        source_column = min(max(place + right, 0), width - 1)
                        result[:, row, column] = image[:, source_row, source_column]
                yield result
