"""Claims about causes, which are this book's: what an intervention on one link of the chain does.

The paper says what changes together; none of these sentences is its own.
"""

import functools

from quantskew.claims.backward import ranks
from quantskew.claims.effects import NATS, POINTS, RANKS, claim
from quantskew.claims.forward import minority_less_majority
from quantskew.experiments import interventions
from quantskew.experiments.runs import CAUSES
from quantskew.measures.forward import group_loss

_cause = functools.partial(claim, None)
_of_weights = functools.partial(_cause, "10_causes#fig-weights-changed", NATS, needs=(CAUSES,), grouped=False)


def _added(run, name=""):
    """Loss that an intervention adds, over all images (B,)."""
    row = run.find(f"{run.precision} {name}".strip())
    return run.overall(group_loss, row) - run.overall(group_loss, 0)


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
    return _gap(run) - _gap(run, run.find(f"{run.precision} batch norm"))


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
    """One number for each class, fitted without labels, takes back some of the gap.

    FVO minus FVO with the numbers added to the logits
    """
    return run.fvo() - run.after(interventions.corrected).fvo()


@_cause("10_causes#fig-prior", POINTS, at="int3")
def shift_leaves(run):
    """With one number for each class the gap is still wider than before quantization.

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
