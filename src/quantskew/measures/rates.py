"""How often each outcome occurs in each group, drawn anew: what is drawn are counts, not samples.

Samples of one cell (a group, or a group's samples of one class) with the same outcome at every precision are
a pattern, and a draw gives each pattern a weight.  The weights are gamma variates, so that the shares of a
cell have Dirichlet's distribution: the bootstrap of Rubin (1981), which spreads as the usual one does where
samples are many.  One more sample in each cell, divided among the outcomes, is Jeffreys' prior: k of n have
the distribution Beta(k + 1/2, n - k + 1/2).  It has a width for a single sample too, stays inside [0, 1], and
covers about as often as Wilson's interval.
"""

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from quantskew.measures.intervals import DRAWS

# Numbers of one batch, and of all draws: of very many patterns fewer draws are made.
_BATCH, _MOST = 2**21, 2 * 10**7
# Samples of a cell below which its noise is taken off a largest gap.
_FEW = 100


@dataclass(frozen=True, eq=False)
class Patterns:
    """K patterns in the order of their cells; the cell of condition c and group g is c * groups + g."""

    outcomes: np.ndarray  # (P, K)
    cells: np.ndarray
    counts: np.ndarray  # samples
    prior: np.ndarray  # what is added to them
    shape: tuple  # conditions, groups and outcomes

    @classmethod
    def of(cls, outcomes, conditions, groups, shape, apart=False):
        """The patterns of samples: outcomes (P, N), and the condition and the group of each.

        With samples kept `apart`, each is a pattern, and has the same draws whatever its outcomes are.
        """
        cells = conditions * shape[1] + groups
        samples = pd.DataFrame(np.vstack([cells, outcomes]).T)
        patterns = samples.groupby([*samples]).ngroup()
        _, first, counts = np.unique(patterns, return_index=True, return_counts=True)
        if apart:
            first, counts = np.argsort(cells, kind="stable"), np.ones(len(cells))
        outcomes, own = outcomes[:, first].astype(np.int64), cells[first]
        cells = np.unique(own)
        added = _prior(outcomes, own, counts, cells, shape)
        none = np.zeros(added.shape[1])
        prior = np.append(np.zeros(len(counts)), none + 0.25)
        outcomes = np.concatenate([outcomes, added], axis=1)
        return cls(outcomes, np.append(own, np.tile(cells, 4)), np.append(counts, none), prior, shape)

    def draws(self, most=DRAWS, seed=0):
        """Weights (K, b) of the patterns, in batches of draws."""
        rng, shapes = np.random.default_rng(seed), (self.counts + self.prior)[:, None]
        for size in _batches(len(shapes), most):
            yield rng.standard_gamma(shapes, (len(shapes), size))

    def rates(self, row):
        """Slots (see `largest_gaps`) at a precision, and a function of weights (K, b) to rates (S, b)."""
        _, number, size = self.shape
        conditions, groups = np.divmod(self.cells, number)
        codes = (conditions * size + self.outcomes[row]) * number + groups
        slots, of_slot = np.unique(codes, return_inverse=True)
        cells, of_cell = np.unique(self.cells, return_inverse=True)
        in_slot, in_cell = _sums(of_slot, len(slots)), _sums(of_cell, len(cells))
        place = np.searchsorted(cells, _cell_of(slots, self.shape))
        return slots, lambda weights: (in_slot @ weights) / (in_cell @ weights)[place]


def _sums(of, number):
    """Matrix that adds up the rows that belong to each of so many places."""
    return csr_array((np.ones(len(of)), (of, np.arange(len(of)))), (number, len(of)))


def _cell_of(slots, shape):
    _, number, size = shape
    return slots // (size * number) * number + slots % number


def _prior(outcomes, own, counts, cells, shape):
    """Outcomes (P, 4 cells) of a further sample in each cell: four quarters, of two outcomes.

    They are the two most frequent of the condition.  Each has two quarters at each precision, and one of them
    with the same outcome at the reference and elsewhere, so that rates and changes both have a width.
    Precisions with the outcomes of the reference have them here too: such a change is exactly 0.
    """
    frequent = np.zeros((shape[0], shape[2]))
    for row in outcomes:
        np.add.at(frequent, (own // shape[1], row), counts)
    frequent = np.argsort(-frequent, axis=1, kind="stable")[:, [0, min(1, shape[2] - 1)]]
    first, second = np.sort(frequent[cells // shape[1]]).T
    same = (outcomes == outcomes[:1]).all(axis=1)[:, None]
    quarters = ((first, first), (first, second), (second, first), (second, second))
    return np.concatenate([np.where(same, here, other) for here, other in quarters], axis=1)


def _batches(size, draws, fewest=500):
    """Sizes of batches of draws, in all `draws` or, where one takes so many numbers, down to `fewest`."""
    left, most = min(draws, max(fewest, _MOST // max(size, 1))), max(1, _BATCH // max(size, 1))
    return [min(most, left - done) for done in range(0, left, most)]


def _sizes(conditions, groups, shape):
    """Number of samples in each cell."""
    return np.bincount(conditions * shape[1] + groups, minlength=shape[0] * shape[1]).reshape(shape[:2])


def largest_gaps(slots, rates, sizes, kinds):
    """Largest gap between groups of the rates (S, b) of any outcome in any condition; NaN where none has two.

    A slot is a group that has an outcome at all: (condition * kinds + outcome) * groups + group, in order, of
    so many kinds of outcomes.  Other groups that the `sizes` of cells have in a condition have a rate of 0.
    """
    number = sizes.shape[1]
    starts = np.flatnonzero(np.diff(slots // number, prepend=-1))
    present = (sizes > 0).sum(axis=1)[slots[starts] // (number * kinds)]
    if not (present > 1).any():
        return np.full(rates.shape[1], np.nan)
    high, low = (of.reduceat(rates, starts, axis=0) for of in (np.maximum, np.minimum))
    lacking = np.diff(starts, append=len(slots)) < present
    high[lacking], low[lacking] = np.maximum(high[lacking], 0), np.minimum(low[lacking], 0)
    return (high - low)[present > 1].max(axis=0)


def resampled_gaps(outcomes, conditions, groups, shape):
    """The largest gap of outcomes (P, N) at each precision, and what says how far it can be trusted.

    Returns
    -------
    value : ndarray of float64, shape (P,)
    draws : ndarray of float64, shape (B, P)
    noise : ndarray of float64, shape (B, P)
        The largest gap of how far the drawn rates are from the measured ones: what groups that are served
        alike would show.
    excess : ndarray of float64, shape (P,)
        How much larger the draws are on average for the noise of cells of few samples.
    """
    patterns, sizes = Patterns.of(outcomes, conditions, groups, shape), _sizes(conditions, groups, shape)
    of = functools.partial(largest_gaps, sizes=sizes, kinds=shape[2])
    rows = [patterns.rates(row) for row in range(len(outcomes))]
    counts, expected = patterns.counts[:, None], (patterns.counts + patterns.prior)[:, None]
    value, without = (
        np.concatenate([of(slots, rates(w)) for slots, rates in rows]) for w in (counts, expected)
    )
    known = [(rates(counts), rates(expected), sizes.flat[_cell_of(s, shape)] < _FEW) for s, rates in rows]
    drawn = []
    for weights in patterns.draws():
        each = []
        for (slots, rates), (measured, mean, few) in zip(rows, known, strict=True):
            own = rates(weights)
            gaps = [of(slots, own), of(slots, own - measured)]
            alone = gaps[0] if few.all() else of(slots, np.where(few[:, None], own, mean))
            each.append([*gaps, alone])
        drawn.append(np.array(each))
    draws, noise, alone = np.moveaxis(np.concatenate(drawn, axis=2), 0, 2)
    return value, draws, noise, alone.mean(axis=0) - without


def resampled_rates(right, groups, num_groups, draws=DRAWS, apart=False):
    """How often `right` (P, N) is so in each group, on resampled samples: (B, P, G), NaN without samples."""
    patterns = Patterns.of(right, np.zeros_like(groups), groups, (1, num_groups, 2), apart)
    in_group, drawn = _sums(patterns.cells, num_groups), []
    with np.errstate(invalid="ignore"):
        for weights in patterns.draws(draws):
            total = in_group @ weights
            drawn.append([in_group @ (row[:, None] * weights) / total for row in patterns.outcomes])
    return np.concatenate(drawn, axis=2).transpose(2, 0, 1)


def shuffled_gaps(outcome, conditions, groups, shape, draws, seed):
    """The largest gap at one precision, (B,), with groups shuffled among the samples of each condition."""
    rng, sizes, drawn = np.random.default_rng(seed), _sizes(conditions, groups, shape), []
    # An urn costs more than to move a sample.
    way = _urns if 10 * np.prod(shape) <= len(outcome) else _permutations
    for slots, counts in way(rng, outcome, conditions, groups, shape, draws):
        in_cell = sizes.flat[_cell_of(slots, shape)]
        known = in_cell > 0
        drawn.append(largest_gaps(slots[known], counts[known] / in_cell[known, None], sizes, shape[2]))
    return np.concatenate(drawn)


def _urns(rng, outcome, conditions, groups, shape, draws):
    """Counts (S, b) of every slot: each group draws its samples of a condition, without replacement."""
    sizes, totals = _sizes(conditions, groups, shape), _sizes(conditions, outcome, (shape[0], shape[2]))
    for batch in _batches(np.prod(shape), draws):
        counts = np.empty((shape[0], shape[2], shape[1], batch))
        left = np.repeat(totals[..., None], batch, axis=2)
        for group in range(shape[1]):
            wanted, rest = np.repeat(sizes[:, group, None], batch, axis=1), left.sum(axis=1)
            for kind in range(shape[2]):
                rest -= left[:, kind]
                taken = rng.hypergeometric(left[:, kind], rest, wanted)
                wanted -= taken
                left[:, kind] -= taken
                counts[:, kind, group] = taken
        yield np.arange(np.prod(shape)), counts.reshape(-1, batch)


def _permutations(rng, outcome, conditions, groups, shape, draws):
    """Slots that samples in a random order fill, and their counts (S, 1), for each draw."""
    small = conditions.astype(np.min_scalar_type(shape[0]))
    places = ((conditions * shape[2] + outcome) * shape[1])[np.argsort(small, kind="stable")]
    for _ in range(sum(_batches(len(outcome), draws, fewest=100))):
        mixed = rng.permutation(len(outcome))
        # Sorted by the condition alone, so that the samples of each stay mixed.
        mixed = mixed[np.argsort(small[mixed], kind="stable")]
        slots, counts = np.unique(places + groups[mixed], return_counts=True)
        yield slots, counts[:, None]
