"""Claims of this book: what an intervention on one link of the chain does, and what helps without training.

The paper says what changes together, and retrains; none of these sentences is its own.
"""

import functools

from quantskew.claims.backward import ranks
from quantskew.claims.effects import NATS, POINTS, RANKS, claim
from quantskew.claims.forward import minority_less_majority
from quantskew.experiments import interventions
from quantskew.experiments.runs import CALIBRATION, CAUSES, FRONT
from quantskew.measures.forward import group_accuracy, group_loss

_cause = functools.partial(claim, None)
_of_weights = functools.partial(_cause, "10_causes#fig-weights-changed", NATS, needs=(CAUSES,), grouped=False)


def _row(run, name):
    """Row of an intervention at the precision that is judged."""
    return run.find(f"{run.precision} {name}")


def _added(run, name=None):
    """Loss that an intervention adds, or quantization itself, over all images (B,)."""
    return run.overall(group_loss, name and _row(run, name)) - run.overall(group_loss, 0)


def _gap(run, row=None):
    """Loss added to the minority minus that added to the majority (B,)."""
    return minority_less_majority(run, run.of(group_loss, row) - run.of(group_loss, 0))


@_of_weights(at="int3")
def zeros_alone(run):
    """The weights that turn to zero add more loss than the rounding of all others.

    loss with only these set to zero minus that with only the others rounded
    """
    return _added(run, "zeros") - _added(run, "rest")


@_of_weights()
def errors_cancel(run):
    """Zeros and the rest together add less loss than both apart.

    added loss of the zeros alone and of the rest alone minus that of full quantization
    """
    return _added(run, "zeros") + _added(run, "rest") - _added(run)


@_of_weights()
def error_against_noise(run):
    """The rounding error adds more loss than noise of the same size in each layer.

    added loss of quantization minus that of Gaussian noise of the same length
    """
    return _added(run) - _added(run, "noise")


@_of_weights()
def error_against_permuted(run):
    """The rounding error adds more loss than the same errors at other places of their layer.

    added loss of quantization minus that of its permuted errors
    """
    return _added(run) - _added(run, "permuted")


@_of_weights()
def error_against_mirrored(run):
    """The rounding error adds more loss than its mirror image.

    added loss of quantization minus that of its errors with the other sign
    """
    return _added(run) - _added(run, "mirrored")


@_cause("10_causes#fig-weights-changed", NATS, needs=(CAUSES,))
def stale_statistics(run):
    """Statistics of batch norm that no longer fit widen the gap in loss.

    gap in added loss between minority and majority minus that with batch norm re-estimated
    """
    return _gap(run) - _gap(run, _row(run, "batch norm"))


@_cause("10_causes#fig-logits-changed", NATS, at="int3")
def shrinking_widens(run):
    """That logits become shorter widens the gap in loss.

    gap in added loss between minority and majority where the logits change their lengths alone
    """
    return _gap(run.after(interventions.shrunk))


@_cause("10_causes#fig-logits-changed", NATS, at="int3")
def turning_widens(run):
    """That logits turn widens the gap in loss.

    gap in added loss between minority and majority where the logits change their directions alone
    """
    return _gap(run.after(interventions.rotated))


@_cause("10_causes#fig-logits-changed", NATS, at="int3")
def shift_widens(run):
    """A shift of all logits that one number for each class undoes widens the gap in loss.

    gap in added loss between minority and majority minus that with the numbers added, fitted without labels
    """
    return _gap(run) - _gap(run.after(interventions.corrected))


@_cause("10_causes#fig-prior", POINTS, at="int3")
def shift_of_answers(run):
    """One number for each class, fitted without labels, takes back some of the gap in accuracy.

    FVO minus FVO with the numbers added to the logits
    """
    return run.fvo() - run.after(interventions.corrected).fvo()


@_cause("10_causes#fig-prior", POINTS, at="int3")
def shift_leaves(run):
    """With one number for each class the gap in accuracy is still wider than before quantization.

    FVO with the numbers added to the logits minus FVO at the reference
    """
    return run.after(interventions.corrected).fvo() - run.fvo(0)


@_cause("10_causes#fig-margins", POINTS)
def nearness_flips(run):
    """More of the minority's answers change than its nearness to the boundary says.

    its share of changed answers minus that of all images that are as near
    """
    return run.of(interventions.CHANGED_BEYOND_MARGIN)[:, run.minority]


@_cause("10_causes#fig-margins", POINTS)
def nearness_harms(run):
    """The minority loses more accuracy than its nearness to the boundary says.

    its lost accuracy minus that of all images that are as near
    """
    return run.of(interventions.LOST_BEYOND_MARGIN)[:, run.minority]


@_cause("10_causes#fig-expansion", RANKS, needs=(CAUSES,), curvature=True)
def expansion_orders(run):
    """Gradient and Hessian say which group's loss rises more.

    rank correlation over the groups of the two terms of Eq. 4 with the added loss
    """
    return ranks(*run.expansion())


def _mended(shown, *needs):
    return _cause(f"11_calibrated#fig-{shown}", at="int3", needs=(CALIBRATION, *needs))


def _least(run, row=None):
    """Accuracy of the worst-served group (B,)."""
    return run.of(group_accuracy, row).min(axis=-1)


def _for_minority(run):
    """Accuracy of each group (B, G) calibrated on the minority less that calibrated on the majority."""
    minority, majority = (_row(run, f"gptq {mix}") for mix in ("minority", "majority"))
    return run.of(group_accuracy, minority) - run.of(group_accuracy, majority)


@_mended("rounded")
def inputs_serve(run):
    """Rounding by what layers are fed serves the worst-served group better than rounding to the nearest.

    its accuracy with GPTQ less that with rounding to the nearest
    """
    return _least(run, _row(run, "gptq")) - _least(run)


@_mended("rounded")
def inputs_fairer(run):
    """Rounding by what layers are fed leaves a narrower gap than rounding to the nearest.

    FVO of rounding to the nearest less that of GPTQ
    """
    return run.fvo() - run.fvo(_row(run, "gptq"))


@_mended("rounded")
def statistics_serve(run):
    """Re-estimated batch norms serve the worst-served group better, after GPTQ too.

    its accuracy with GPTQ and batch norm re-estimated less that with GPTQ alone
    """
    return _least(run, _row(run, "gptq batch norm")) - _least(run, _row(run, "gptq"))


@_mended("mixes")
def mix_serves(run):
    """A calibration set of the minority alone serves it better than one of the majority alone.

    its accuracy with the one less that with the other
    """
    return _for_minority(run)[:, run.minority]


@_mended("mixes")
def mix_decides(run):
    """Whether the minority or the majority calibrates decides which of the two is served better.

    gap in accuracy between majority and minority calibrated on the one less calibrated on the other
    """
    return minority_less_majority(run, _for_minority(run))


@_mended("mixes")
def balance_fairer(run):
    """A balanced calibration set leaves a narrower gap than one in proportion.

    FVO calibrated in proportion less FVO calibrated on as many of each group
    """
    return run.fvo(_row(run, "gptq")) - run.fvo(_row(run, "gptq balanced"))


@_mended("rounded", "mpqat")
def pipeline_serves(run, mpqat):
    """Without labels or training the worst-served group is served better than by MPQAT.

    its accuracy with GPTQ and batch norm re-estimated less that with MPQAT
    """
    return _least(run, _row(run, "gptq batch norm")) - _least(mpqat)


@_mended("rounded", "mpqat")
def pipeline_fairer(run, mpqat):
    """Without labels or training the gap is narrower than after MPQAT.

    FVO of MPQAT less that of GPTQ with batch norm re-estimated
    """
    return mpqat.fvo() - run.fvo(_row(run, "gptq batch norm"))


@_cause("11_calibrated#fig-front", at="int3", needs=(FRONT,))
def bits_serve(run):
    """Bits where the worst group needs them serve it better than as many bits everywhere.

    accuracy of the worst-served group with 3 bits in the mean, chosen for it, less that with int3
    """
    return _least(run, run.find("3 bits for worst-group")) - _least(run)


@_cause("11_calibrated#fig-front", at="int3", needs=(FRONT,))
def goal_serves(run):
    """Bits chosen for the worst group serve it better than bits chosen for the mean loss.

    accuracy of the worst-served group with 3 bits in the mean, chosen for it, less that chosen for the mean
    """
    return _least(run, run.find("3 bits for worst-group")) - _least(run, run.find("3 bits for mean"))
