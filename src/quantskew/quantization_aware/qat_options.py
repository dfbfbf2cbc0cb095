"""How weights are quantized while they are trained, as data: each part of QAT is a switch."""

from dataclasses import dataclass

from quantskew.quantization_aware.learned_step import trainable_bits
from quantskew.quantization_aware.oscillation import cosine


@dataclass(frozen=True)
class QATOptions:
    """How weights are quantized while they are trained.

    Attributes
    ----------
    precision : str
        ``int2`` to ``int16``.
    boundary_precision : str, optional
        Of the first and the last layer; None gives them `precision`.
    plan : dict of str to str, optional
        Precisions of single layers by the name of their weight, ``fp32`` for one that is left alone; they go
        before `precision` and `boundary_precision`.
    learn_steps : bool
        Whether the steps are learned or keep their first values, those of least squared error.
    step_learning_rate : float
        Of the steps' own Adam, which has no weight decay and no schedule.
    dampening : float
        lambda at the end of training; 0 for none.
    ramp_start : float
        Share of all steps after which lambda rises from 0, in [0, 1).
    track : bool
        Whether oscillations are counted (see `oscillating`); freezing counts them in any case.
    freezing : None, float or pair of float
        Weights that oscillate more often than this are frozen; a pair moves the threshold from its first to
        its second value by half a cosine (Nagel et al.: 0.1, 0.01).
    reestimate_batches : int
        Batches from which batch norm is re-estimated at the end of each epoch; 0 keeps the running averages.

    Raises
    ------
    ValueError
        If a precision cannot be trained or a number is out of range.

    Examples
    --------
    >>> QATOptions("int2", plan={"fc.weight": "fp32"}).boundary_precision
    'int8'
    """

    precision: str = "int4"
    boundary_precision: str | None = "int8"
    plan: dict | None = None
    learn_steps: bool = True
    step_learning_rate: float = 1e-5
    dampening: float = 0.1
    ramp_start: float = 0.25
    track: bool = False
    freezing: float | tuple | None = None
    reestimate_batches: int = 50

    def __post_init__(self):
        trainable_bits(self.precision)
        if self.boundary_precision is not None:
            trainable_bits(self.boundary_precision)
        for name, precision in (self.plan or {}).items():
            if precision != "fp32":
                try:
                    trainable_bits(precision)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        if not self.step_learning_rate > 0:
            raise ValueError(f"step_learning_rate must be larger than 0; got {self.step_learning_rate}")
        if not self.dampening >= 0:
            raise ValueError(f"dampening must be at least 0; got {self.dampening}")
        if not 0 <= self.ramp_start < 1:
            raise ValueError(f"ramp_start must be in [0, 1); got {self.ramp_start}")
        pair = isinstance(self.freezing, tuple | list) and len(self.freezing) == 2
        if not (self.freezing is None or pair or isinstance(self.freezing, float | int)):
            raise ValueError(f"freezing is None, a number or a pair of numbers; got {self.freezing!r}")
        if self.freezing is not None and not all(0 < value < 1 for value in self._thresholds):
            raise ValueError(f"freezing thresholds must be between 0 and 1; got {self.freezing}")
        if self.reestimate_batches < 0:
            raise ValueError(f"reestimate_batches must be at least 0; got {self.reestimate_batches}")

    @property
    def _thresholds(self):
        if isinstance(self.freezing, float | int):
            return (self.freezing, self.freezing)
        return tuple(self.freezing)

    def threshold(self, progress):
        """Frequency above which a weight is frozen when `progress` of the steps are done."""
        return cosine(*self._thresholds, progress)
