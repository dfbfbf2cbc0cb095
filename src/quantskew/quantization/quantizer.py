"""The `Quantizer`: how the weights and activations of a model become integers, as one value with a name.

A name is a head and, behind a colon, options: ``int4``, ``int4:mse,per-channel``, ``W8A8``, ``A4``,
``int3:ends-int8``.  It parses back to the same quantizer, so that the columns of an Audit, the options of a
command, a grid, a cache key and the axis of a figure are the same text.
"""

import dataclasses
import re
from dataclasses import dataclass

SCHEMES = ("banner", "symmetric", "mse")
INTEGER_PRECISIONS = tuple(f"int{bits}" for bits in range(1, 17))
PRECISIONS = ("fp32", "fp16", *reversed(INTEGER_PRECISIONS))
DEFAULT_PRECISIONS = ("fp32", "fp16", "int8", "int4", "int3", "int2")
_PER_CHANNEL, _FOLDED, _BIAS, _ENDS = "per-channel", "folded", "bias-corrected", "ends-"
_OPTIONS = (*SCHEMES, _PER_CHANNEL, _FOLDED, f"{_ENDS}int8", _BIAS)
_HEADS = "fp32, fp16, int1 to int16, A8 (activations alone), W8A8 (weights and activations)"
_HEAD = re.compile(r"(?P<weights>fp32|fp16|int\d+)|(?:W(?P<w>\d+))?A(?P<a>\d+)")


def integer_bits(precision):
    """Number of bits of an integer precision, or None for fp32 and fp16.

    Raises
    ------
    ValueError
        If `precision` is not known; the message lists the known ones.

    Examples
    --------
    >>> integer_bits("int4"), integer_bits("fp16")
    (4, None)
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    return int(precision[3:]) if precision.startswith("int") else None


@dataclass(frozen=True)
class Quantizer:
    """How weights and activations become integers; validated when it is made.

    Attributes
    ----------
    precision : str
        Of the weights: ``fp32``, ``fp16`` or ``int1`` to ``int16``.
    scheme : {"banner", "symmetric", "mse"}
        How the grid of a weight is laid, see `quantskew.quantization.grids`.
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
        if self.scheme not in SCHEMES:
            raise ValueError(f"unknown scheme {self.scheme!r}; known: {', '.join(SCHEMES)}")
        for what in ("boundary_precision", "activation_precision"):
            value = getattr(self, what)
            if value is not None and integer_bits(value) is None:
                raise ValueError(f"{what} must be an integer precision; got {value!r}")
        if integer_bits(self.precision) is not None:
            return
        if self.precision == "fp16" and self.activation_precision:
            raise ValueError(
                "fp16 computes with fp16 activations; quantize them with fp32 or integer weights"
            )
        idle = [
            word
            for word in self._words
            if word != _FOLDED and not (word.startswith(_ENDS) and self.activation_precision)
        ]
        if idle:
            raise ValueError(f"{self.precision} has no integer grid for {', '.join(idle)} to act on")

    @property
    def bits(self):
        """Number of bits of the weights, or None where they are floating-point."""
        return integer_bits(self.precision)

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
        words += [
            word
            for word, given in ((_PER_CHANNEL, self.per_channel), (_FOLDED, self.fold_batchnorm))
            if given
        ]
        words += [f"{_ENDS}{self.boundary_precision}"] if self.boundary_precision else []
        return words + ([_BIAS] if self.bias_correction else [])

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
            a scheme, ``per-channel``, ``folded``, ``ends-int8``, ``bias-corrected``; in any order.

        Raises
        ------
        ValueError
            If it is no name; the message lists the known words.

        Examples
        --------
        >>> Quantizer.parse("int3:per-channel,mse") == Quantizer("int3", scheme="mse", per_channel=True)
        True
        """
        if not isinstance(text, str):
            raise ValueError(f"a quantizer is a Quantizer or its name; got {text!r}")
        head, colon, rest = text.partition(":")
        found = _HEAD.fullmatch(head)
        if not found:
            raise ValueError(f"unknown quantizer {text!r}; a name begins with one of {_HEADS}")
        weights = found["weights"] or (f"int{found['w']}" if found["w"] else "fp32")
        options = {"activation_precision": f"int{found['a']}"} if found["a"] else {}
        words = rest.split(",") if colon else []
        for word in words:
            field, value = _field(word, text)
            if field in options:
                raise ValueError(f"{text!r} says twice what its {field.replace('_', ' ')} is")
            options[field] = value
        try:
            return cls(weights, **options)
        except ValueError as error:
            raise ValueError(f"quantizer {text!r}: {error}") from None

    @classmethod
    def of(cls, value):
        """The quantizer itself, or that of a name: where one is asked for, a string serves."""
        return value if isinstance(value, cls) else cls.parse(value)

    @classmethod
    def each(cls, values, **options):
        """Several quantizers, with options for those that can take them and do not choose otherwise.

        Parameters
        ----------
        values : sequence of Quantizer or str
            At least one, each once; the first is the reference.
        **options
            Attributes of a `Quantizer`.

        Returns
        -------
        tuple of Quantizer

        Examples
        --------
        >>> Quantizer.each(["fp32", "int4", "int2:symmetric"], scheme="mse")
        (Quantizer('fp32'), Quantizer('int4:mse'), Quantizer('int2:symmetric'))
        """
        if not values:
            raise ValueError("no precisions were given; the first one is the reference")
        chosen = tuple(cls.of(value)._with(cls(**options)) for value in values)
        names = [own.name for own in chosen]
        if len(set(names)) < len(names):
            raise ValueError(f"each precision is named once; got {', '.join(names)}")
        return chosen

    def _with(self, template):
        """The quantizer with what a template chooses and it does not."""
        usable = _FIELDS if self.bits else ("fold_batchnorm",)
        changes = {name: getattr(template, name) for name in usable if getattr(self, name) == _DEFAULTS[name]}
        return dataclasses.replace(self, **changes)

    def at(self, precision):
        """The same quantizer with weights of another precision, without what has no meaning there.

        Examples
        --------
        >>> Quantizer.parse("int4:mse,folded").at("fp32")
        Quantizer('fp32:folded')
        """
        return Quantizer(precision)._with(self)

    @classmethod
    def parse_list(cls, text):
        """Names in one text, separated by commas as their options are.

        Examples
        --------
        >>> Quantizer.parse_list("fp32,int4:mse,per-channel,int2")
        ['fp32', 'int4:mse,per-channel', 'int2']
        """
        names = []
        for part in (part.strip() for part in text.split(",")):
            if names and ":" in names[-1] and not _HEAD.match(part):
                names[-1] += f",{part}"
            else:
                names.append(part)
        return names


def _field(word, text):
    """The attribute that an option sets, and its value."""
    if word in SCHEMES:
        return "scheme", word
    if word.startswith(_ENDS):
        return "boundary_precision", word.removeprefix(_ENDS)
    known = {_PER_CHANNEL: "per_channel", _FOLDED: "fold_batchnorm", _BIAS: "bias_correction"}
    if word not in known:
        raise ValueError(f"unknown option {word!r} of the quantizer {text!r}; known: {', '.join(_OPTIONS)}")
    return known[word], True


_DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(Quantizer) if field.name != "precision"
}
_FIELDS = tuple(_DEFAULTS)
