"""What a chapter of the book imports."""

from quantskew.book.prose import show
from quantskew.claims.register import scorecard
from quantskew.experiments.runs import BASE, beside


class Chapter:
    """The experiments that a chapter shows side by side: one made here and now, others of record.

    Parameters
    ----------
    experiment : str
        Trained and audited by this call, or taken from the cache.
    record : str or sequence of str
        See `quantskew.experiments.runs.beside`; likewise `keys`, `curvature` and what else is given.
    precisions : sequence of str, optional
    scheme : str
    seed, seeds : int
        The first seed of what is made here, and how many.
    data_dir, device
        See `quantskew.experiments.catalogue.audit`.

    Attributes
    ----------
    runs : list of Runs
    audits : dict of str to Audit
        By the title of its runs the first Audit of the experiment itself.
    live, kept : Audit
        The first two of them: what is made here, and the record.
    """

    def __init__(
        self,
        experiment,
        record,
        precisions=None,
        scheme="banner",
        seed=0,
        seeds=1,
        data_dir=None,
        device="auto",
        *,
        keys=(BASE,),
        curvature=False,
    ):
        records = [record] if isinstance(record, str) else record
        options = {"precisions": precisions, "scheme": scheme, "curvature": curvature}
        options |= {"data_dir": data_dir, "device": device}
        self.runs = beside(experiment, records, keys, range(seed, seed + seeds), **options)
        self.audits = {own.title: own[BASE][0] for own in self.runs if BASE in own}
        self.live, self.kept = (*self.audits.values(), None, None)[:2]

    def scorecard(self, keys, precisions=None):
        """Verdicts on claims, see `quantskew.claims.register.scorecard`."""
        return show(scorecard({own.title: own for own in self.runs}, keys, precisions))
