"""Ways to mitigate the disparate harm of quantization, as data (section 5 of the paper, and beyond it)."""

import dataclasses
from dataclasses import dataclass, field

from quantskew.checks import check_known
from quantskew.quantization.quantizer import CALIBRATED, Quantizer
from quantskew.training.recipe import Recipe

_PLAIN = Quantizer()
# What methods take beside the float model, from the least to the most.
TAKES = ("nothing", "unlabelled images", "labels, some more training", "labels, training from scratch")


@dataclass(frozen=True)
class Method:
    """A way to a quantized model.

    Attributes
    ----------
    key : str
    title : str
        As figures and tables name it.
    targets : str, optional
        U-O: what the groups are sampled to, see `quantskew.training.sampling.target_counts`.
    weights : {None, "paper", "difficulty"}
        WCR: the paper's scheme for the group with fewest training images, or the validation losses of the
        model that is trained without weights.
    retraining : {None, "fp32", "qat", "qat from scratch"}
        What follows the float training: `tuning_recipe` in floating point, or with quantized weights, or
        (without any float training) all of its steps with quantized weights.
    quantizer : Quantizer
        What it is at each precision, see `quantskew.quantization.quantizer.Quantizer.at`.
    reestimate : bool
        Whether the batch norms of the quantized model are re-estimated on training images.
    shift : bool
        Whether the quantized model's answers are shifted by a number for each class that brings them closest
        to the float model's, on calibration images whose labels have no part in it.
    qat : dict
        What it changes in the `quantskew.quantization.qat.QATOptions` of its training.
    """

    key: str
    title: str
    targets: str | None = None
    weights: str | None = None
    retraining: str | None = None
    quantizer: Quantizer = _PLAIN
    reestimate: bool = False
    shift: bool = False
    qat: dict = field(default_factory=dict)

    @property
    def trains_quantized(self):
        """Whether each precision has a model that was trained at that precision."""
        return self.retraining in ("qat", "qat from scratch")

    @property
    def takes(self):
        """What one must have beside the float model, one of `TAKES`."""
        if self.targets or self.weights or self.retraining == "qat from scratch":
            return TAKES[3]
        if self.retraining:
            return TAKES[2]
        return TAKES[self.reestimate or self.shift or self.quantizer.scheme in CALIBRATED]


_FAIR = {"targets": "mean", "weights": "paper"}
_MSE = Quantizer(scheme="mse", per_channel=True)
_GPTQ, _ADAROUND = (Quantizer(scheme=own, per_channel=True) for own in CALIBRATED)
_MSE_ENDS, _GPTQ_ENDS = (dataclasses.replace(own, boundary_precision="int8") for own in (_MSE, _GPTQ))
# The grids that QAT starts from: one a tensor, laid by least squared error, 8 bits at both ends.
_OF_QAT = {"quantizer": Quantizer(scheme="mse", boundary_precision="int8")}
_STRAIGHT_THROUGH = {"learn_steps": False, "dampening": 0.0}
_METHODS = (
    Method("ptq", "PTQ"),
    Method("u-o", "U-O", targets="mean"),
    Method("wcr", "WCR", weights="paper"),
    Method("wcr-difficulty", "WCR by difficulty", weights="difficulty"),
    Method("u-o+wcr", "U-O + WCR", **_FAIR),
    Method("mpqat", "MPQAT", retraining="qat"),
    Method("mpqat-freezing", "MPQAT with freezing", retraining="qat", qat={"freezing": (0.1, 0.01)}),
    Method("fair-qat", "Fair QAT", **_FAIR, retraining="qat"),
    Method("fine-tuned", "fp32 fine-tuning, then PTQ", retraining="fp32"),
    Method("qat-scratch", "MPQAT from scratch", retraining="qat from scratch"),
    Method("ends+mse", "QAT's quantizer", **_OF_QAT),
    Method("ends+mse+batchnorm", "QAT's quantizer + batch norm", **_OF_QAT, reestimate=True),
    Method(
        "fine-tuned-equal",
        "fp32 fine-tuning, then QAT's quantizer + batch norm",
        retraining="fp32",
        **_OF_QAT,
        reestimate=True,
    ),
    Method("straight-through", "QAT, its steps fixed", retraining="qat", qat=_STRAIGHT_THROUGH),
    Method("learned-step", "QAT, its steps learned", retraining="qat", qat={"dampening": 0.0}),
    Method("per-channel", "per-channel steps", quantizer=Quantizer(per_channel=True)),
    Method("mse", "MSE clipping", quantizer=Quantizer(scheme="mse")),
    Method("per-channel-mse", "per-channel MSE clipping", quantizer=_MSE),
    Method("bias", "bias correction", quantizer=Quantizer(bias_correction=True)),
    Method("boundary", "first and last layer int8", quantizer=Quantizer(boundary_precision="int8")),
    Method("batchnorm", "batch norm re-estimated", reestimate=True),
    Method("shift", "one number per class", shift=True),
    Method("batchnorm+shift", "batch norm + one number per class", reestimate=True, shift=True),
    Method("mse+batchnorm", "per-channel MSE + batch norm", quantizer=_MSE, reestimate=True),
    Method("no-training", "per-channel MSE + batch norm + int8 ends", quantizer=_MSE_ENDS, reestimate=True),
    # The same grids as per-channel MSE, rounded by what layers are fed on a few training images.
    Method("gptq", "per-channel GPTQ", quantizer=_GPTQ),
    Method("adaround", "per-channel AdaRound", quantizer=_ADAROUND),
    Method("gptq+batchnorm", "per-channel GPTQ + batch norm", quantizer=_GPTQ, reestimate=True),
    Method("calibrated", "GPTQ + batch norm + int8 ends", quantizer=_GPTQ_ENDS, reestimate=True),
)
METHODS = {method.key: method for method in _METHODS}
# Figures 11 and 12 of the paper.
PAPER = ("ptq", "u-o", "wcr", "u-o+wcr", "mpqat", "fair-qat")
# PTQ against QAT, the start and the number of steps held equal; the second control has QAT's grids too.
CONTROLLED = ("ptq", "fine-tuned", "fine-tuned-equal", "mpqat")
# From PTQ to QAT, one part more a rung: what each adds to the one before it.
LADDER = {
    "ptq": "min-max PTQ",
    "boundary": "+ int8 ends",
    "ends+mse": "+ MSE steps",
    "ends+mse+batchnorm": "+ batch norm",
    "fine-tuned-equal": "+ fp32 training",
    "straight-through": "+ straight-through",
    "learned-step": "+ learned steps",
    "mpqat": "+ dampening: MPQAT",
    "mpqat-freezing": "+ freezing",
}
# What needs no training.
FIXES = (
    "ptq",
    "per-channel",
    "mse",
    "per-channel-mse",
    "bias",
    "boundary",
    "batchnorm",
    "shift",
    "batchnorm+shift",
    "mse+batchnorm",
    "gptq",
    "calibrated",
    "no-training",
)
# The methods that the book keeps records of, and those of which it keeps several seeds: claims rest on
# them, and all of all would be too large for a repository.
RECORDED = tuple(dict.fromkeys([*PAPER, "wcr-difficulty", *CONTROLLED, *FIXES, *LADDER]))
REPEATED = (*PAPER, "fine-tuned")


def get(key):
    """The method of that key; ValueError with the known ones if there is none."""
    check_known("method", key, METHODS)
    return METHODS[key]


def titled(audits, keys):
    """Those of some keys that Audits by key have, by the titles that figures and tables show."""
    return {get(key).title: audits[key] for key in keys if key in audits}


def counted(audits, keys):
    """As `titled`, where they have not the same seeds: with how many behind each title."""
    return {f"{title} ({len(own)})": own for title, own in titled(audits, keys).items()}


def tuning_recipe(recipe: Recipe):
    """How a trained model is trained again: a seventh of the epochs, a fifth of the learning rate, cosine.

    Examples
    --------
    >>> recipe = tuning_recipe(Recipe(epochs=13, learning_rate=0.05))
    >>> recipe.epochs, recipe.learning_rate, recipe.schedule
    (2, 0.01, 'cosine')
    """
    return dataclasses.replace(
        recipe,
        epochs=max(1, round(recipe.epochs / 7)),
        learning_rate=recipe.learning_rate / 5,
        schedule="cosine",
    )
