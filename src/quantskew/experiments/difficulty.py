"""Example difficulty (section 4.6 of the paper): is a group served badly because it is small, or hard?

On a balanced set every group has as many training images.  In a rotation one group after another is cut to
the minority's share while the rest of the balanced set stays as it is: what a group loses when it is the one
that is cut is the effect of size, and what is left between the groups is the effect of which group it is.

Tables are of runs over seeds: a mapping of `BALANCED`, and of `CUT` with each group's name, to Audits, one a
seed.  A seed that one of them lacks is left out.  A row is a group, with ``value``, ``low`` and ``high``
(95 % over seeds and test images, differences paired by image) and ``seeds``.
"""

import dataclasses

import numpy as np
import pandas as pd

from quantskew.experiments import catalogue
from quantskew.measures.seeds import group_accuracies, interval, mean_over_seeds, paired
from quantskew.training.sampling import rotated_counts

BALANCED, CUT = "balanced", "cut-"
# At int3 quantization harms and the model still works; more would make the records large.
PRECISIONS = ("fp32", "int3")


def rotation(experiment, key, data_dir=None, device="auto", precisions=PRECISIONS):
    """The Audit of an experiment on its balanced set, or with a group of it cut.

    In the balanced set every group has as many training images as the smallest has (of all images where the
    experiment's imbalance is made by leaving some out, its `whole`; but not more than the experiment has in
    the mean).  A group that is cut keeps the share that the smallest group of the experiment has of the
    largest one.  The training counts of the Audit are those of the experiment, so that a group looks the
    same in every figure.
    """
    whole = dataclasses.replace(experiment, dataset=experiment.whole or experiment.dataset)
    own, all_of_it = (catalogue.load_data(source, data_dir).train for source in (experiment, whole))
    names, counts = own.group_names, own.group_counts
    count = int(min(all_of_it.group_counts.min(), round(counts.mean())))
    targets = (count,) * len(names)
    if key != BALANCED:
        group = names.index(key.removeprefix(CUT))
        targets = rotated_counts(count, float(counts.min() / counts.max()), group, len(names))
    sampled = dataclasses.replace(whole, targets=targets)
    audit = catalogue.audit(sampled, precisions, data_dir=data_dir, device=device)
    return dataclasses.replace(audit, train_counts=counts)


def rotation_table(runs, precision="fp32"):
    """Size against group: accuracy of each ``group`` by what was ``cut`` (a group, or `BALANCED`)."""
    runs, rows = paired(runs), []
    for key, audits in runs.items():
        rows += _rows(audits, *_accuracies(audits, precision), cut=key.removeprefix(CUT))
    return pd.DataFrame(rows)


def size_effect(runs, precision="fp32"):
    """What each group loses when it is the one that is cut: its accuracy on the balanced set minus that."""
    runs = paired(runs)
    balanced, cut = _accuracies(runs[BALANCED], precision), _when_cut(runs, precision)
    return pd.DataFrame(_rows(runs[BALANCED], *_difference(balanced, cut)))


def group_effect(runs, precision="fp32"):
    """How far the accuracy of each group is above or below that of the mean group, on the balanced set."""
    value, draws = _accuracies(runs[BALANCED], precision)
    centred = draws - np.nanmean(draws, axis=-1, keepdims=True)
    return pd.DataFrame(_rows(runs[BALANCED], value - np.nanmean(value), centred))


def harm(runs, precision):
    """What quantization takes from each group, ``trained`` where all are equal or where it is the one cut."""
    runs = paired(runs)
    balanced, reference = runs[BALANCED], runs[BALANCED][0].precisions[0]
    whole = _difference(_accuracies(balanced, reference), _accuracies(balanced, precision))
    cut = _difference(_when_cut(runs, reference), _when_cut(runs, precision))
    return pd.DataFrame(_rows(balanced, *whole, trained=BALANCED) + _rows(balanced, *cut, trained="cut"))


def learning_curves(audits):
    """Training accuracy of each group over the epochs, and its test accuracy at the end, two tables.

    Of Audits, one a seed, whose provenance has the ``history``.  The first has a row a group and ``epoch``
    (from 1) with mean, least and largest of the seeds.
    """
    curves = [[entry["train"]["accuracy"] for entry in own.provenance["history"]] for own in audits]
    epochs = _curves(audits, range(1, len(curves[0]) + 1), curves, np.mean)
    return epochs, pd.DataFrame(_rows(audits, *_accuracies(audits, audits[0].precisions[0])))


def gradient_curves(audits):
    """Gradient norm of each group over the epochs of the float training (section 5.1), geometric means."""
    measured = [[entry for entry in own.provenance["history"] if "measured" in entry] for own in audits]
    norms = [[entry["measured"] for entry in entries] for entries in measured]
    epochs = [entry["epoch"] + 1 for entry in measured[0]]
    return _curves(audits, epochs, norms, lambda values: np.exp(np.log(values).mean()))


def _curves(audits, epochs, values, mean):
    """A row for each group and epoch, of values by seed, epoch and group: their mean, least and largest."""
    values = np.array(values, dtype=np.float64)
    return pd.DataFrame(
        {"group": name, "epoch": epoch, "value": mean(own), "low": own.min(), "high": own.max()}
        for g, name in enumerate(audits[0].group_names)
        for epoch, own in zip(epochs, values[:, :, g].T, strict=True)
    )


def _accuracies(audits, precision):
    return mean_over_seeds(*group_accuracies(audits, precision))


def _when_cut(runs, precision):
    """Accuracy of each group, and its draws, in the runs for which that group was cut."""
    found = [_accuracies(runs[f"{CUT}{name}"], precision) for name in runs[BALANCED][0].group_names]
    value = np.stack([value[g] for g, (value, _) in enumerate(found)])
    return value, np.stack([draws[:, g] for g, (_, draws) in enumerate(found)], axis=1)


def _difference(first, second):
    return first[0] - second[0], first[1] - second[1]


def _rows(audits, value, draws, **fixed):
    return [
        {**fixed, "group": name, **interval(value[g], draws[:, g]), "seeds": len(audits)}
        for g, name in enumerate(audits[0].group_names)
    ]
