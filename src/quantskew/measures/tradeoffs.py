"""Methods compared: overall accuracy and FVO of each, by precision and over seeds (Fig. 11 and 12)."""

import numpy as np
import pandas as pd

from quantskew.measures.seeds import fairness_over_seeds, interval, paired

MEASURES = {"accuracy": "overall accuracy", "fvo": "FVO", "least": "accuracy of the worst-served group"}


def comparison(audits, precisions=None):
    """FVO and accuracy of several methods.

    Parameters
    ----------
    audits : dict of str to sequence of Audit
        Seeds of each method, by its title.
    precisions : sequence of str, optional
        By default those of the first method; a method that lacks one has no row for it.

    Returns
    -------
    pandas.DataFrame
        Columns ``method``, ``precision``, ``measure`` (see `MEASURES`), ``value``, ``low``, ``high``
        (95 %) and ``seeds``.
    """
    first = next(iter(audits.values()))[0]
    rows = []
    for method, seeds in audits.items():
        for precision in precisions or first.precisions:
            if precision not in seeds[0].precisions:
                continue
            for measure, drawn in fairness_over_seeds(seeds, precision).items():
                rows.append(
                    {
                        "method": method,
                        "precision": precision,
                        "measure": measure,
                        **interval(*drawn),
                        "seeds": len(seeds),
                    }
                )
    return pd.DataFrame(rows)


def difference(audits, method, reference, precisions=None):
    """What a method changes against another one, paired by seed and test image.

    Seeds that only one of them has are left out.

    Parameters
    ----------
    audits : dict of str to sequence of Audit
    method, reference : str
        Titles.
    precisions : sequence of str, optional
        By default those that both have.

    Returns
    -------
    pandas.DataFrame
        As `comparison`; ``value`` is that of `method` less that of `reference`.

    Raises
    ------
    ValueError
        If they have no seed in common.
    """
    new, old = paired({name: audits[name] for name in (method, reference)}).values()
    if not new:
        raise ValueError(f"{method} and {reference} have no seed in common; a pair needs one")
    rows = []
    for precision in precisions or [p for p in new[0].precisions if p in old[0].precisions]:
        after, before = fairness_over_seeds(new, precision), fairness_over_seeds(old, precision)
        for measure in MEASURES:
            pair = [after[measure][k] - before[measure][k] for k in (0, 1)]
            rows.append(
                {
                    "method": f"{method} less {reference}",
                    "precision": precision,
                    "measure": measure,
                    **interval(*pair),
                    "seeds": len(new),
                }
            )
    return pd.DataFrame(rows)


def pareto_front(accuracy, fvo):
    """Which methods no other one beats in both: at least as accurate and as fair, and better in one.

    Parameters
    ----------
    accuracy, fvo : array_like of float, shape (M,)

    Returns
    -------
    ndarray of bool, shape (M,)

    Examples
    --------
    >>> pareto_front([0.8, 0.7, 0.6], [0.5, 0.2, 0.3])
    array([ True,  True, False])
    """
    accuracy, fvo = np.asarray(accuracy), np.asarray(fvo)
    as_good = (accuracy[:, None] >= accuracy) & (fvo[:, None] <= fvo)
    better = (accuracy[:, None] > accuracy) | (fvo[:, None] < fvo)
    return ~(as_good & better).any(axis=0)
