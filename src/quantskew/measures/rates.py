"""How often each outcome occurs in each group, drawn anew: what is drawn are counts, not samples.

Samples of one cell (a group, or a group's samples of one class) with the same outcome at every precision are
a pattern, and a draw gives each pattern a weight.  The weights are gamma variates, so that the shares of a
cell have Dirichlet's distribution: the bootstrap of Rubin (1981), which spreads as the usual one does where
samples are many.  One more sample in each cell, divided among the outcomes, is Jeffreys' prior: k of n have
the distribution Beta(k + 1/2, n - k + 1/2).  It has a width for a single sample too, stays inside [0, 1], and
covers about as often as Wilson's interval.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from quantskew.measures.intervals import DRAWS

# Numbers of one batch, and of all draws: of very many patterns fewer draws are made.
_BATCH, _MOST = 2**21, 3 * 10**7
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
    def of(cls, outcomes, conditions, groups, shape):
        """The patterns of samples: outcomes (P, N), and the condition and the group of each."""
        codes, size = conditions * shape[1] + groups, shape[0] * shape[1]
        own = codes
        for row in outcomes:
            if size * shape[2] >= 2**63:
                found, codes = np.unique(codes, return_inverse=True)
                size = len(found)
            codes, size = codes * shape[2] + row, size * shape[2]
        _, first, counts = np.unique(codes, return_index=True, return_counts=True)
        outcomes, own = outcomes[:, first].astype(np.int64), own[first]
        cells = np.unique(own)
        added = _prior(outcomes, own, counts, cells, shape)
        none = np.zeros(added.shape[1])
        return cls(
            np.concatenate([outcomes, added], axis=1),
            np.concatenate([own, np.tile(cells, 4)]),
            np.concatenate([counts, none]),
            np.concatenate([np.zeros(len(counts)), none + 0.25]),
            shape,
        )

    def draws(self, most=DRAWS, seed=0):
        """Weights (K, b) of the patterns, in batches of draws."""
        rng, shapes = np.random.default_rng(seed), (self.counts + self.prior)[:, None]
        for size in batches(len(shapes), most):
            yield rng.standard_gamma(shapes, (len(shapes), size))

    def rates(self, row):
        """Slots (see `largest_gaps`) at a precision, and a function of weights (K, b) to rates (S, b)."""
        _, number, size = self.shape
        conditions, groups = np.divmod(self.cells, number)
        codes = (conditions * size + self.outcomes[row]) * number + groups
        (slots, of_slot), (cells, of_cell) = (
            np.unique(own, return_inverse=True) for own in (codes, self.cells)
        )
        in_slot, in_cell = _sums(of_slot), _sums(of_cell)
        place = np.searchsorted(cells, cell_of(slots, self.shape))
        return slots, lambda weights: (in_slot @ weights) / (in_cell @ weights)[place]


def cell_of(slots, shape):
    """The cells of slots, see `largest_gaps`."""
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
    first, second = frequent[cells // shape[1]].T
    same = (outcomes == outcomes[:1]).all(axis=1)[:, None]
    quarters = ((first, first), (first, second), (second, first), (second, second))
    return np.concatenate([np.where(same, here, other) for here, other in quarters], axis=1)


def _sums(of):
    """Matrix that adds up the rows that belong to each of the places `of`."""
    return csr_array((np.ones(len(of)), (of, np.arange(len(of)))))


def batches(size, draws, fewest=500):
    """Sizes of batches of draws, in all `draws` or, where one takes so many numbers, down to `fewest`."""
    left = min(draws, max(fewest, _MOST // max(size, 1)))
    while left > 0:
        yield min(left, max(1, _BATCH // max(size, 1)))
        left -= max(1, _BATCH // max(size, 1))


def largest_gaps(slots, rates, present, shape):
    """Largest gap between groups of the rates (S, b) of any outcome in any condition; NaN where none has two.

    A slot is a group that has an outcome at all: (condition * outcomes + outcome) * groups + group, in order.
    The other groups that are `present` in the condition, as counted there, have a rate of 0.
    """
    _, number, size = shape
    starts = np.flatnonzero(np.diff(slots // number, prepend=-1))
    in_condition = present[slots[starts] // (number * size)]
    if not (in_condition > 1).any():
        return np.full(rates.shape[1], np.nan)
    high, low = (of.reduceat(rates, starts, axis=0) for of in (np.maximum, np.minimum))
    lacking = np.diff(starts, append=len(slots)) < in_condition
    high[lacking], low[lacking] = np.maximum(high[lacking], 0), np.minimum(low[lacking], 0)
    return (high - low)[in_condition > 1].max(axis=0)


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
    if not outcomes.size:
        nothing = np.full((1, len(outcomes)), np.nan)
        return nothing[0], nothing, nothing, nothing[0]
    patterns = Patterns.of(outcomes, conditions, groups, shape)
    present = present_groups(conditions, groups, shape)
    few = np.bincount(conditions * shape[1] + groups) < _FEW
    rows = []
    for row in range(len(outcomes)):
        slots, of = patterns.rates(row)
        measured, expected = of(patterns.counts[:, None]), of((patterns.counts + patterns.prior)[:, None])
        rows.append((slots, of, measured, expected, few[cell_of(slots, shape), None]))
    drawn = []
    for weights in patterns.draws():
        each = []
        for slots, of, measured, expected, varies in rows:
            rates = of(weights)
            alone = rates if varies.all() else np.where(varies, rates, expected)
            each.append(
                [largest_gaps(slots, own, present, shape) for own in (rates, rates - measured, alone)]
            )
        drawn.append(np.array(each))
    draws, noise, alone = np.moveaxis(np.concatenate(drawn, axis=2), 0, 2)
    value, expected = (
        np.array([largest_gaps(row[0], row[which], present, shape)[0] for row in rows]) for which in (2, 3)
    )
    return value, draws, noise, alone.mean(axis=0) - expected


def resampled_rates(right, groups, num_groups):
    """How often `right` (P, N) is so in each group, on resampled samples: (B, P, G), NaN without samples."""
    if not right.size:
        return np.full((1, len(right), num_groups), np.nan)
    patterns = Patterns.of(right, np.zeros_like(groups), groups, (1, num_groups, 2))
    rows = [patterns.rates(row) for row in range(len(right))]
    own = np.unique(groups)
    drawn = []
    for weights in patterns.draws():
        rates = np.full((weights.shape[1], len(rows), num_groups), np.nan)
        for row, (slots, of) in enumerate(rows):
            is_right = slots >= num_groups
            rates[:, row, own] = 0.0
            rates[:, row, slots[is_right] - num_groups] = of(weights)[is_right].T
        drawn.append(rates)
    return np.concatenate(drawn)


def paired_rates(right, groups, num_groups, draws):
    """As `resampled_rates`, of one row (N,), (B, G): any other rows of these images get the same weights."""
    drawn = np.full((draws, num_groups), np.nan)
    for group in np.unique(groups):
        own, done, rng = right[groups == group], 0, np.random.default_rng([0, group])
        for size in batches(len(own), draws, fewest=draws):
            weights = rng.standard_exponential((size, len(own)))
            prior = rng.standard_gamma(0.5, (size, 2))
            total = weights.sum(axis=1) + prior.sum(axis=1)
            drawn[done : done + size, group] = (weights @ own + prior[:, 0]) / total
            done += size
    return drawn


def present_groups(conditions, groups, shape):
    """How many groups have samples in each condition."""
    return (
        (np.bincount(conditions * shape[1] + groups, minlength=shape[0] * shape[1]) > 0)
        .reshape(shape[:2])
        .sum(1)
    )


def shuffled_gaps(outcome, conditions, groups, shape, draws, seed):
    """The largest gap at one precision, (B,), with groups shuffled among the samples of each condition."""
    if not outcome.size:
        return np.full(1, np.nan)
    rng = np.random.default_rng(seed)
    sizes = np.bincount(conditions * shape[1] + groups, minlength=shape[0] * shape[1])
    drawn, present = [], present_groups(conditions, groups, shape)
    few = np.prod(shape) <= len(outcome)
    for slots, counts in (_urns if few else _permutations)(rng, outcome, conditions, groups, shape, draws):
        in_cell = sizes[cell_of(slots, shape)]
        known = in_cell > 0
        rates = counts[known] / in_cell[known, None]
        drawn.append(largest_gaps(slots[known], rates, present, shape))
    return np.concatenate(drawn)


def _urns(rng, outcome, conditions, groups, shape, draws):
    """Counts (S, b) of every slot: each group draws its samples of a condition, without replacement."""
    many, number, size = shape
    sizes = np.bincount(conditions * number + groups, minlength=many * number).reshape(many, number)
    totals = np.bincount(conditions * size + outcome, minlength=many * size).reshape(many, size)
    for batch in batches(np.prod(shape), draws):
        left, counts = np.repeat(totals[..., None], batch, axis=2), np.empty((many, size, number, batch))
        for group in range(number):
            wanted, rest = np.repeat(sizes[:, group, None], batch, axis=1), left.sum(axis=1)
            for kind in range(size):
                rest -= left[:, kind]
                taken = rng.hypergeometric(left[:, kind], rest, wanted)
                counts[:, kind, group] = taken
                wanted -= taken
                left[:, kind] -= taken
        yield np.arange(np.prod(shape)), counts.reshape(-1, batch)


def _permutations(rng, outcome, conditions, groups, shape, draws):
    """Slots that samples in a random order fill, and their counts (S, 1), for each draw."""
    _, number, size = shape
    small = conditions.astype(np.min_scalar_type(shape[0]))
    order = np.argsort(small, kind="stable")
    places = ((conditions * size + outcome) * number)[order]
    for batch in batches(len(outcome), draws, fewest=100):
        for _ in range(batch):
            mixed = rng.permutation(len(outcome))
            # Sorted by the condition alone, so that the samples of each stay mixed.
            mixed = mixed[np.argsort(small[mixed], kind="stable")]
            slots, counts = np.unique(places + groups[mixed], return_counts=True)
            yield slots, counts[:, None]
