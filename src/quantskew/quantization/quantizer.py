"""The `Quantizer`: how the weights and activations of a model become integers, as one value with a name.

A name is a head and, behind a colon, options: ``int4``, ``int4:mse,per-channel``, ``W8A8``, ``A4``,
``int3:ends-int8``.  It parses back to the same quantizer, so that the columns of an Audit, the options of a
command, a grid, a cache key and the axis of a figure are the same text.
"""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass

from quantskew.checks import check_flag, check_known, shortened

SCHEMES = ("banner", "symmetric", "mse")
INTEGER_PRECISIONS = tuple(f"int{bits}" for bits in range(1, 17))
# Schemes that round by what layers are fed on calibration images.
CALIBRATED = ("gptq", "adaround")
PRECISIONS = ("fp32", "fp16", *reversed(INTEGER_PRECISIONS))
DEFAULT_PRECISIONS = ("fp32", "fp16", "int8", "int4", "int3", "int2")
_FLAGS = {"per-channel": "per_channel", "folded": "fold_batchnorm", "bias-corrected": "bias_correction"}
_ENDS = "ends-"
_HEADS = "fp32, fp16, int1 to int16, A8 (activations alone), W8A8 (weights and activations)"
# Each is a model in memory.
_MOST = 64
_HEAD = re.compile(r"(?P<weights>fp32|fp16|int\d+)|(?:W(?P<w>\d+))?A(?P<a>\d+)")


def integer_bits(precision):
    """Number of bits b of an integer precision, or None for fp32 and fp16.

    Raises
    ------
    ValueError
        If `precision` is not known; the message lists the known ones.

    Examples
    --------
    >>> integer_bits("int4"), integer_bits("fp16")
    (4, None)
    """
    check_known("precision", precision, PRECISIONS)
    return int(precision[3:]) if precision.startswith("int") else None


@dataclass(frozen=True)
class Quantizer:
    """How weights and activations become integers; validated when it is made.

    Attributes
    ----------
    precision : str
        Of the weights: ``fp32``, ``fp16`` or ``int1`` to ``int16``.
    scheme : {"banner", "symmetric", "mse", "gptq", "adaround"}
        How the grid of a weight is laid, see `quantskew.quantization.grids`; the last two have the grids of
        ``mse`` and round by what a layer is fed, see `quantskew.quantization.rounding`.
    per_channel : bool
        One grid for each output channel instead of one for each tensor.
    fold_batchnorm : bool
        Merge batch norm into the convolutions first, as most runtimes do; of floating-point models too.
    boundary_precision : str, optional
        Integer precision of the first and the last layer.
    bias_correction : bool
        Give each output channel of a weight the mean that it had before (Banner et al. 2019).
    activation_precision : str, optional
        Integer precision of what each layer is fed; None and ``fp32`` leave it as it is.

    Raises
    ------
    ValueError
        If a value is not known, or an option has nothing to act on, as a scheme has at ``fp32``.

    Examples
    --------
    >>> Quantizer("int4", scheme="mse", per_channel=True).name
    'int4:mse,per-channel'
    >>> Quantizer.parse("W8A8")
    Quantizer('W8A8')
    """

    precision: str = "int8"
    scheme: str = "banner"
    per_channel: bool = False
    fold_batchnorm: bool = False
    boundary_precision: str | None = None
    bias_correction: bool = False
    activation_precision: str | None = None

    def __post_init__(self):
        if self.activation_precision == "fp32":
            object.__setattr__(self, "activation_precision", None)
        check_known("scheme", self.scheme, (*SCHEMES, *CALIBRATED))
        for flag in _FLAGS.values():
            check_flag(flag, getattr(self, flag))
        for what, known in (("boundary_precision", ""), ("activation_precision", " or fp32")):
            value = getattr(self, what)
            if value is not None and integer_bits(value) is None:
                raise ValueError(f"{what} must be an integer precision{known}; got {value!r}")
        if integer_bits(self.precision) is not None:
            return
        if self.precision == "fp16" and self.activation_precision:
            raise ValueError(
                "fp16 computes with fp16 activations; quantize them with fp32 or integer weights"
            )
        useful = ("folded", _ENDS) if self.activation_precision else ("folded",)
        idle = [word for word in self._words if not word.startswith(useful)]
        if idle:
            raise ValueError(f"{self.precision} has no integer grid for {', '.join(idle)} to act on")

    @property
    def bits(self):
        """Number of bits of the weights, or None where they are floating-point."""
        return integer_bits(self.precision)

    @property
    def needs_images(self):
        """Whether a model is quantized with calibration images."""
        return self.scheme in CALIBRATED or self.activation_precision is not None

    @property
    def name(self):
        """The name that parses back, str."""
        head = self.precision
        if self.activation_precision:
            head = (f"W{self.bits}" if self.bits else "") + f"A{integer_bits(self.activation_precision)}"
        return f"{head}:{','.join(self._words)}" if self._words else head

    @property
    def _words(self):
        words = [self.scheme] if self.scheme != "banner" else []
        words += [word for word, flag in _FLAGS.items() if getattr(self, flag)]
        return words + ([f"{_ENDS}{self.boundary_precision}"] if self.boundary_precision else [])

    def __str__(self):
        return self.name

    def __repr__(self):
        return f"Quantizer({self.name!r})"

    @classmethod
    def parse(cls, text):
        """The quantizer of a name.

        Parameters
        ----------
        text : str
            A head (``fp32``, ``fp16``, ``int1`` to ``int16``, ``A8``, ``W8A8``) and, behind a colon, options:
            a scheme, ``per-channel``, ``folded``, ``bias-corrected``, ``ends-int8``; in any order.

        Raises
        ------
        ValueError
            If it is no name; the message lists the known words.

        Examples
        --------
        >>> Quantizer.parse("int3:per-channel,mse") == Quantizer("int3", scheme="mse", per_channel=True)
        True
        """
        try:
            return cls(**_attributes(text))
        except ValueError as error:
            told = "" if shortened(text) in str(error) else f"quantizer {shortened(text)}: "
            raise ValueError(f"{told}{error}") from None

    @classmethod
    def of(cls, value):
        """The quantizer itself, or that of a name: where one is asked for, a string serves."""
        return value if isinstance(value, cls) else cls.parse(value)

    @classmethod
    def each(cls, values, **options):
        """Several quantizers, with attributes for those that can take them and do not name their own.

        The first is the reference, each is there once, and floating-point weights take folding alone.

        Examples
        --------
        >>> Quantizer.each(["fp32", "int4", "int2:symmetric"], scheme="mse")
        (Quantizer('fp32'), Quantizer('int4:mse'), Quantizer('int2:symmetric'))
        """
        listed = () if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)
        if not 1 <= len(listed) <= _MOST:
            said = f"give 1 to {_MOST} precisions in a list, the reference first"
            raise ValueError(f"{said}, as in [fp32, int4]; got {shortened(values)}")
        template, chosen = cls(**options), []
        for value in listed:
            own = cls.of(value)
            chosen.append(own._with(template, () if value is own else _attributes(value)))
        names = [own.name for own in chosen]
        if len(set(names)) < len(names):
            raise ValueError(f"each precision is named once; got {', '.join(names)}")
        if template.activation_precision and not any(own.activation_precision for own in chosen):
            raise ValueError(
                f"activation_precision acts where the weights are integers; none of {', '.join(names)} is"
            )
        return tuple(chosen)

    def _with(self, template, named=()):
        """The quantizer with what a template chooses, it does not, and its name has not said."""
        usable = _DEFAULTS if self.bits else ("fold_batchnorm",)
        left = [name for name in usable if getattr(self, name) == _DEFAULTS[name] and name not in named]
        return dataclasses.replace(self, **{name: getattr(template, name) for name in left})

    def at(self, precision):
        """The same quantizer with weights of another precision, without what has no meaning there."""
        return Quantizer(precision)._with(self)

    @classmethod
    def parse_list(cls, text):
        """Names in one text, separated by commas as their options are.

        Examples
        --------
        >>> Quantizer.parse_list("fp32,int4:mse,per-channel,int2,ort:fp32")
        ['fp32', 'int4:mse,per-channel', 'int2', 'ort:fp32']
        """
        names = []
        for part in (part.strip() for part in text.split(",")):
            # A colon is behind the head of a name, as in ort:fp32, which is another runtime's.
            if names and ":" in names[-1] and ":" not in part and not _HEAD.match(part):
                names[-1] += f",{part}"
            else:
                names.append(part)
        return names


def _attributes(text):
    """What a name says: attributes of a `Quantizer`, not yet validated together."""
    if not isinstance(text, str):
        raise ValueError(f"a quantizer is a Quantizer or its name; got {shortened(text)}")
    head, colon, rest = text.partition(":")
    found = _HEAD.fullmatch(head)
    if not found:
        raise ValueError(f"unknown quantizer {shortened(text)}; a name begins with one of {_HEADS}")
    said = {"precision": found["weights"] or (f"int{found['w']}" if found["w"] else "fp32")}
    if found["a"]:
        said["activation_precision"] = f"int{found['a']}"
    for word in rest.split(",") if colon else ():
        if word in (*SCHEMES, *CALIBRATED):
            attribute, value = "scheme", word
        elif word.startswith(_ENDS):
            attribute, value = "boundary_precision", word.removeprefix(_ENDS)
        else:
            check_known("option", word, [*SCHEMES, *_FLAGS, f"{_ENDS}int8", *CALIBRATED])
            attribute, value = _FLAGS[word], True
        if attribute in said:
            raise ValueError(f"{text!r} says twice what its {attribute.replace('_', ' ')} is")
        said[attribute] = value
    return said


_DEFAULTS = {own.name: own.default for own in dataclasses.fields(Quantizer) if own.name != "precision"}
