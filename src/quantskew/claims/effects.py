"""How a claim is written: a function of trained models, one a method, that gives the effect in one seed.

An effect is a number that is positive where the claim is right.  One of several parts is right where all of
them are.  A model is seen with its groups as they are and with its groups shuffled, so that whatever is
computed has a first axis of draws: the effect, and then its control.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quantskew.groups import group_means, largest_gap
from quantskew.measures.forward import group_accuracy
from quantskew.measures.measure import once
from quantskew.measures.surface import taylor

# Key of an experiment's own Audits, without any mitigation.
BASE = "base"
SHUFFLES = 100
# The integer grids that the paper shows.
_INTEGERS = ("int8", "int4", "int2")


class NotJudged(Exception):
    """What the evidence lacks, in words."""

    verdict = "not judged"


class NotTested(NotJudged):
    """What the claim takes for granted and the evidence does not have."""

    verdict = "not tested"


class LeftOut(Exception):
    """What one seed lacks that the others may have."""


@dataclass(frozen=True)
class Unit:
    """Of an effect: in words, its least and largest possible value, and up to where it is a tie."""

    name: str
    low: float
    high: float
    tie: float


POINTS = Unit("share of the images", -1, 1, 0.02)
VARIANCE = Unit("variance of probabilities", -0.25, 0.25, 0.005)
SHARE = Unit("share of the reference", -np.inf, 1, 0.02)
LOGARITHM = Unit("logarithm of a ratio", -np.inf, np.inf, 0.05)
NATS = Unit("nats", -np.inf, np.inf, 0.05)
RANKS = Unit("rank correlation", -1, 1, 0.1)
MAJORITY = Unit("share beyond one half", -0.5, 0.5, 0.05)


@dataclass(frozen=True)
class Claim:
    """One claim, of the paper or of this book.

    Attributes
    ----------
    key : str
    source, shown : str
        Section and figure of the paper; chapter and figure of this book, as ``04_loss#fig-loss``.
    statement, quote, effect : str
        What is said, in our words and in the paper's (none where it is this book's); what is measured, which
        is positive where it is so.
    unit : Unit
    of_seed : callable
        `Trained` of each key of `needs` -> effect, an array of draws, or of draws by parts.
    at : str
        Precision at which the paper shows it; of several, the lowest.
    needs : tuple of str
        Keys of the evidence that it reads.
    curvature, grouped : bool
        Whether it reads the curvature of the Audits, and whether it is about groups, so that the same effect
        with shuffled groups is its control.
    """

    key: str
    source: str
    shown: str
    statement: str
    quote: str
    effect: str
    unit: Unit
    of_seed: Callable
    at: str = "int4"
    needs: tuple = (BASE,)
    curvature: bool = False
    grouped: bool = True


def claim(section, shown, unit=POINTS, **options):
    """Make a function a `Claim`: its name is the key.

    The docstring has three paragraphs: the statement, the paper's own words, and what is measured.  Without
    a `section` the claim is this book's, and there are no words of the paper's.
    """

    def of(function):
        words = [" ".join(part.split()) for part in function.__doc__.split("\n\n")]
        statement, quote, effect = words if section else (words[0], "", *words[1:])
        source = f"section {section}" if section else "this book"
        return Claim(function.__name__, source, shown, statement, quote, effect, unit, function, **options)

    return of


class Trained:
    """What one trained model says of its groups, those without test images left out.

    Arrays have a first axis of draws, the groups as they are and then shuffled, and a last one of groups.

    Attributes
    ----------
    row : int
        Of the precision that is judged; 0 is the reference.
    counts : ndarray, shape (G,)
        Training images of each group.
    majority, minority : int
        The groups with most and with fewest of them.
    """

    def __init__(self, key, audit, precision, position=0):
        self._key, self._audit, self._position = key, audit, position
        self.precision = precision
        self.row = self.find(precision)
        self._present = np.flatnonzero(audit.group_counts)
        self.counts = audit.train_counts[self._present]
        self.majority, self.minority = int(self.counts.argmax()), int(self.counts.argmin())

    def find(self, precision):
        """Row of a precision; where there is none the claim cannot be judged."""
        try:
            return self._audit.index(precision)
        except ValueError:
            raise NotJudged(f"no {precision} in {self._key}") from None

    def ladder(self, *names):
        """Rows of the precisions of the paper's that are above the one that is judged, and its own."""
        rows = map(self.find, names or _INTEGERS)
        return [*itertools.takewhile(lambda row: row < self.row, rows), self.row]

    def of(self, measure, row=None):
        """Mean of a measure in each group (B, G), by default at the precision that is judged."""
        means = once(self._audit, (measure, SHUFFLES), lambda audit: _shuffled_means(audit, measure))
        return means[:, self.row if row is None else row, self._present]

    def fall(self, measure):
        """How much lower each group is than at the reference (B, G)."""
        return self.of(measure, 0) - self.of(measure)

    def after(self, intervention):
        """The same model after an intervention on its logits: a function of an Audit that gives another."""
        changed = once(self._audit, intervention, intervention)
        return Trained(self._key, changed, self.precision, self._position)

    def fvo(self, row=None):
        """Eq. 2 (B,)."""
        return largest_gap(self.of(group_accuracy, row))

    def overall(self, measure, row=None):
        """Mean of a measure over all images (B,)."""
        return self.of(measure, row) @ self._audit.group_counts[self._present] / len(self._audit.labels)

    def accuracy(self, row=None):
        """Over all images (B,)."""
        return self.overall(group_accuracy, row)

    def weights(self, statistic, **options):
        """A statistic of the weights at every precision (1, P)."""
        if self._audit.weights is None:
            raise LeftOut(f"no weights in {self._key}")
        return statistic(self._audit, **options)["value"].to_numpy()[None]

    def surface(self, name, alone=""):
        """A field of the `Curvature` (B, P, G); shuffled in another way where it stands `alone`."""
        if self._audit.curvature is None:
            raise LeftOut(f"no curvature in {self._key}")
        return self._reordered(getattr(self._audit.curvature, name), name + alone)

    def expansion(self):
        """The terms of Eq. 4 and the loss that is really added, each (B, G), only the first reordered."""
        if self._audit.curvature is None or self._audit.curvature.slopes is None:
            raise LeftOut(f"no terms of Eq. 4 in {self._key}")
        table = taylor(self._audit)
        own = table[table["precision"] == self._audit.precisions[self.row]]
        predicted, added = own[["predicted", "value"]].to_numpy().T
        return self._reordered(predicted, "expansion"), added[self._present]

    def learned(self):
        """Training accuracy by epoch (B, E, G)."""
        return self._history(lambda epoch: epoch["train"]["accuracy"])

    def norms(self):
        """Gradient norms by epoch (B, E, G)."""
        return self._history(lambda epoch: epoch.get("measured"))

    def _history(self, of_epoch):
        epochs = [of_epoch(epoch) for epoch in self._audit.provenance.get("history", [])]
        values = [own for own in epochs if own is not None]
        if not values:
            raise LeftOut(f"no history in {self._key}")
        return self._reordered(np.array(values, dtype=float), "history")

    def _reordered(self, values, name):
        """What is kept by group, with the groups as they are and in other orders, in each seed others."""
        rng = np.random.default_rng([self._position, *name.encode()])
        orders = [self._present, *(rng.permutation(self._present) for _ in range(SHUFFLES))]
        return np.stack([values[..., order] for order in orders])


def _shuffled_means(audit, measure):
    """Group means of a measure (B, P, G), with the groups as they are and then shuffled among the images."""
    rng, samples = np.random.default_rng(0), measure.of_samples(audit)
    drawn = [audit.groups, *(rng.permutation(audit.groups) for _ in range(SHUFFLES))]
    return np.stack([group_means(samples, groups, len(audit.group_names)) for groups in drawn])


def effects(claim, evidence, precision):
    """The effect of a claim in each seed: (S, B, parts).

    Raises
    ------
    NotJudged, NotTested
        With what the evidence lacks.
    """
    for key, audits in evidence.items():
        if not audits:
            raise NotJudged(f"no Audits of {key}")
    found, lack = [], None
    for position, audits in enumerate(zip(*evidence.values(), strict=True)):
        pairs = zip(evidence, audits, strict=True)
        seen = [Trained(key, audit, precision, position) for key, audit in pairs]
        if precision != claim.at and seen[0].row == 0:
            raise ValueError(f"{precision} is the reference; name another precision")
        if claim.grouped and len(seen[0].counts) < 2:
            raise NotJudged("fewer than two groups")
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                value = np.asarray(claim.of_seed(*seen), dtype=float)
            value = value.reshape(len(value), -1)
            if not value.size:
                raise NotJudged("a higher precision to compare with")
            if not np.isfinite(value[0]).all():
                raise LeftOut("an effect that is defined")
            found.append(value)
        except LeftOut as left_out:
            lack = str(left_out)
    if not found:
        raise NotJudged(lack)
    if len({own.shape for own in found}) > 1:
        raise NotJudged("the same groups in every seed")
    return np.stack(found)
