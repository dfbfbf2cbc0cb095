"""Example difficulty (section 4.6 of the paper): is a group served badly because it is small, or hard?

On a balanced set every group has as many training images.  In a rotation one group after another is cut to
the minority's share while the rest of the balanced set stays as it is: what a group loses when it is the one
that is cut is the effect of size, and what is left between the groups is the effect of which group it is.
"""

import dataclasses

import numpy as np
import pandas as pd

from quantskew.experiments import catalogue
from quantskew.measures.seeds import group_accuracies, interval, mean_over_seeds, paired
from quantskew.training.sampling import rotated_counts

BALANCED = "balanced"
# At int3 quantization harms and the model still works; more would make the records large.
PRECISIONS = ("fp32", "int3")


def rotations(experiment, data_dir=None, device="auto", precisions=PRECISIONS, chosen=None):
    """Audits of an experiment on its balanced set, and with each group in turn cut.

    In the balanced set every group has as many training images as the smallest has (of all images where the
    experiment's imbalance is made by leaving some out, its `whole`; but not more than the experiment has in
    the mean).  A group that is cut keeps the share that the smallest group of the experiment has of the
    largest one.

    Parameters
    ----------
    experiment : Experiment
    data_dir, device, precisions
        See `quantskew.experiments.catalogue.audit`.
    chosen : sequence of str, optional
        Keys of the result; all by default.

    Returns
    -------
    dict of str to Audit
        ``balanced``, and one for each group by its name; their training counts are those of the experiment,
        so that a group looks the same in every figure.
    """
    own = catalogue.load_data(experiment, data_dir).train
    share = float(own.group_counts.min() / own.group_counts.max())
    whole = dataclasses.replace(experiment, dataset=experiment.whole or experiment.dataset)
    least = catalogue.load_data(whole, data_dir).train.group_counts.min()
    count = int(min(least, round(own.group_counts.mean())))
    groups = len(own.group_names)
    targets = {BALANCED: (count,) * groups}
    targets |= {own.group_names[g]: rotated_counts(count, share, g, groups) for g in range(groups)}
    audits = {}
    for name in chosen or targets:
        cut = dataclasses.replace(whole, targets=targets[name])
        audit = catalogue.audit(cut, precisions, data_dir=data_dir, device=device)
        audits[name] = dataclasses.replace(audit, train_counts=own.group_counts)
    return audits


def rotation_table(runs, precision="fp32"):
    """Size against group, as a two-way table.

    Parameters
    ----------
    runs : dict of str to sequence of Audit
        `rotations` of several seeds: by what was cut, one Audit a seed.  A seed that some rotation lacks is
        left out.
    precision : str

    Returns
    -------
    pandas.DataFrame
        Columns ``cut`` (the group that was cut, or ``balanced``), ``group`` (the one measured), ``value``,
        ``low``, ``high`` (accuracy, and 95 % over seeds and test images) and ``seeds``.
    """
    runs, rows = paired(runs), []
    for cut in runs:
        value, draws = _accuracies(runs, cut, precision)
        rows += _rows(runs, value, draws, cut=cut)
    return pd.DataFrame(rows)


def size_effect(runs, precision="fp32"):
    """What each group loses when it is the one that is cut, paired with the balanced set.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``value``, ``low``, ``high`` (balanced accuracy less accuracy when cut) and
        ``seeds``.
    """
    runs = paired(runs)
    (value, draws), names = _accuracies(runs, BALANCED, precision), _names(runs)
    cuts = [_accuracies(runs, name, precision) for name in names]
    own = np.stack([cuts[g][0][g] for g in range(len(names))])
    own_draws = np.stack([cuts[g][1][:, g] for g in range(len(names))], axis=1)
    return pd.DataFrame(_rows(runs, value - own, draws - own_draws))


def group_effect(runs, precision="fp32"):
    """How far each group is above or below the mean group, on the balanced set.

    Returns
    -------
    pandas.DataFrame
        As `size_effect`.
    """
    value, draws = _accuracies(runs, BALANCED, precision)
    centred = draws - np.nanmean(draws, axis=-1, keepdims=True)
    return pd.DataFrame(_rows(runs, value - np.nanmean(value), centred))


def harm(runs, precision):
    """What quantization takes from each group: from the balanced set, and where the group is the one cut.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``trained`` (``balanced`` or ``cut``), ``value``, ``low``, ``high`` (accuracy at
        the reference less that at `precision`, paired by image) and ``seeds``.
    """
    runs, rows = paired(runs), []
    for trained in (BALANCED, "cut"):
        falls, draws = [], []
        for group, name in enumerate(_names(runs)):
            key = BALANCED if trained == BALANCED else name
            reference = _accuracies(runs, key, runs[key][0].precisions[0])
            lower = _accuracies(runs, key, precision)
            falls.append((reference[0] - lower[0])[group])
            draws.append((reference[1] - lower[1])[:, group])
        rows += _rows(runs, np.stack(falls), np.stack(draws, axis=1), trained=trained)
    return pd.DataFrame(rows)


def learning_curves(audits):
    """Training accuracy of each group over the epochs, and its test accuracy at the end.

    Parameters
    ----------
    audits : sequence of Audit
        One a seed, with ``history`` in the provenance.

    Returns
    -------
    epochs : pandas.DataFrame
        Columns ``group``, ``epoch`` (from 1), ``value`` (mean over seeds), ``low`` and ``high`` (least and
        largest of the seeds).
    end : pandas.DataFrame
        Columns ``group``, ``value``, ``low``, ``high`` (test accuracy, 95 %) and ``seeds``.
    """
    names = audits[0].group_names
    curves = np.array(
        [[e["train"]["accuracy"] for e in audit.provenance["history"]] for audit in audits], dtype=np.float64
    )
    epochs = pd.DataFrame(
        {
            "group": name,
            "epoch": epoch + 1,
            "value": curves[:, epoch, g].mean(),
            "low": curves[:, epoch, g].min(),
            "high": curves[:, epoch, g].max(),
        }
        for g, name in enumerate(names)
        for epoch in range(curves.shape[1])
    )
    value, draws = mean_over_seeds(*group_accuracies(audits, audits[0].precisions[0]))
    return epochs, pd.DataFrame(_rows({BALANCED: audits}, value, draws))


def gradient_curves(audits):
    """Gradient norm of each group over the epochs of the float training (section 5.1).

    Parameters
    ----------
    audits : sequence of Audit
        See `learning_curves`.

    Returns
    -------
    pandas.DataFrame
        Columns ``group``, ``epoch``, ``value`` (geometric mean over seeds), ``low`` and ``high`` (least and
        largest of the seeds).
    """
    measured = [[e for e in audit.provenance["history"] if "measured" in e] for audit in audits]
    norms = np.array([[e["measured"] for e in entries] for entries in measured], dtype=np.float64)
    return pd.DataFrame(
        {
            "group": name,
            "epoch": entry["epoch"] + 1,
            "value": np.exp(np.log(norms[:, row, g]).mean()),
            "low": norms[:, row, g].min(),
            "high": norms[:, row, g].max(),
        }
        for g, name in enumerate(audits[0].group_names)
        for row, entry in enumerate(measured[0])
    )


def _names(runs):
    return runs[BALANCED][0].group_names


def _accuracies(runs, cut, precision):
    return mean_over_seeds(*group_accuracies(runs[cut], precision))


def _rows(runs, value, draws, **fixed):
    return [
        {**fixed, "group": name, **interval(value[g], draws[:, g]), "seeds": len(runs[BALANCED])}
        for g, name in enumerate(_names(runs))
    ]
