"""The name of a quantizer parses back, and whatever is no name is refused with the words that there are."""

import dataclasses
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantskew.audits.audit import Audit
from quantskew.quantization.quantizer import (
    CALIBRATED,
    INTEGER_PRECISIONS,
    PRECISIONS,
    SCHEMES,
    Quantizer,
)

NUMBERS = st.sampled_from(INTEGER_PRECISIONS)
TEMPLATES = st.builds(
    Quantizer,
    NUMBERS,
    st.sampled_from((*SCHEMES, *CALIBRATED)),
    st.booleans(),
    st.booleans(),
    st.none() | NUMBERS,
    st.booleans(),
    st.none() | NUMBERS,
)
FLOATS = st.builds(
    Quantizer,
    st.just("fp32"),
    fold_batchnorm=st.booleans(),
    boundary_precision=NUMBERS,
    activation_precision=NUMBERS,
)
QUANTIZERS = st.one_of(
    TEMPLATES, FLOATS, st.builds(Quantizer, st.sampled_from(["fp32", "fp16"]), fold_batchnorm=st.booleans())
)
WORDS = ("per-channel", "folded", "bias-corrected", "ends-int8", *CALIBRATED)


@given(QUANTIZERS)
def test_every_quantizer_parses_back_from_its_name(quantizer):
    assert Quantizer.parse(quantizer.name) == quantizer
    assert Quantizer.parse(str(quantizer)).name == quantizer.name
    assert Quantizer.of(quantizer) is quantizer


@given(QUANTIZERS, st.randoms(use_true_random=False))
def test_the_order_of_the_options_is_irrelevant(quantizer, random):
    head, colon, rest = quantizer.name.partition(":")
    words = rest.split(",")
    random.shuffle(words)
    assert Quantizer.parse(f"{head}{colon}{','.join(words)}") == quantizer


@given(QUANTIZERS, QUANTIZERS)
def test_names_tell_quantizers_apart(one, other):
    assert (one.name == other.name) == (one == other)


@given(st.lists(QUANTIZERS, min_size=1, unique=True))
def test_a_list_in_one_text_is_read_back(quantizers):
    names = [own.name for own in quantizers]
    assert Quantizer.parse_list(",".join(names)) == names
    assert Quantizer.each(names) == tuple(quantizers)


@given(st.text() | st.lists(st.sampled_from("WA48:,-intfpmsebanner3162 "), max_size=12).map("".join))
def test_whatever_is_no_name_is_refused_with_the_known_words(text):
    try:
        found = Quantizer.parse(text)
    except ValueError as error:
        message = str(error)
    else:
        message = None
        assert Quantizer.parse(found.name) == found
    # The last ones are of names whose words are known but do not go together.
    known = ("one of fp32, fp16, int1 to int16", ", ".join(PRECISIONS), ", ".join([*SCHEMES, *WORDS]))
    known += ("says twice", "must be an integer precision", "fp16 computes with", "has no integer grid for")
    assert message is None or any(words in message for words in known), message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fp8", "unknown quantizer 'fp8'; a name begins with one of fp32, fp16, int1 to int16, A8"),
        ("int99", "unknown precision 'int99'; known: fp32, fp16, int16"),
        ("W4", "a name begins with one of"),
        ("W32A8", "quantizer 'W32A8': unknown precision 'int32'; known: fp32"),
        ("int4:", "quantizer 'int4:': unknown option ''; known: banner, symmetric, mse, per-channel"),
        ("int4:best", "unknown option 'best'; known: banner, symmetric, mse, per-channel, folded"),
        ("int4:mse,banner", "'int4:mse,banner' says twice what its scheme is"),
        ("int4:ends-fp16", "boundary_precision must be an integer precision; got 'fp16'"),
        ("fp32:mse,per-channel", "fp32 has no integer grid for mse, per-channel to act on"),
        ("A8:gptq", "fp32 has no integer grid for gptq to act on"),
        ("int4:gptq,mse", "'int4:gptq,mse' says twice what its scheme is"),
        ("A8:mse", "fp32 has no integer grid for mse to act on"),
        (8, "a quantizer is a Quantizer or its name; got 8"),
        (None, "a quantizer is a Quantizer or its name; got None"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(text, message):
    with pytest.raises(ValueError, match=message):
        Quantizer.of(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_channel": "yes"}, "per_channel is True or False; got 'yes'"),
        ({"scheme": "minmax"}, "unknown scheme 'minmax'; known: banner, symmetric, mse"),
        ({"precision": "fp16", "activation_precision": "int8"}, "fp16 computes with fp16 activations"),
        ({"activation_precision": "fp16"}, "must be an integer precision or fp32; got 'fp16'"),
    ],
)
def test_attributes_are_validated_when_it_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        Quantizer(**options)
    assert dataclasses.replace(Quantizer(), activation_precision="fp32") == Quantizer()


def test_options_are_for_those_that_can_take_them_and_have_not_said_otherwise():
    chosen = Quantizer.each(["fp32", "int4", "int4:banner", "int2:symmetric"], scheme="mse")
    assert [own.name for own in chosen] == ["fp32", "int4:mse", "int4", "int2:symmetric"]
    assert [own.name for own in Quantizer.each(["fp16", "int2"], fold_batchnorm=True, per_channel=True)] == [
        "fp16:folded",
        "int2:per-channel,folded",
    ]
    for values, message in (
        ([], "the reference first"),
        ("fp32", "in a list, the reference first"),
        (["int4:mse", "int4"], "each precision is named once; got int4:mse, int4:mse"),
    ):
        with pytest.raises(ValueError, match=message):
            Quantizer.each(values, scheme="mse")
    with pytest.raises(ValueError, match="where the weights are integers; none of fp32, fp16 is"):
        Quantizer.each(["fp32", "fp16"], activation_precision="int8")


def test_every_record_of_the_book_still_loads(repository):
    paths = sorted((repository / "book" / "records").glob("*.safetensors"))
    assert paths
    for path in paths:
        audit = Audit.load(path)
        assert audit.index("fp32") == 0
        if "plans" in audit.provenance:
            continue  # its columns are named by their mean bits
        # Behind a blank stands what else was done.
        names = [name.partition(" ")[0] for name in audit.precisions]
        assert [Quantizer.parse(name).name for name in names] == names, path
        assert audit.plain().precisions == audit.precisions or "A8" in audit.precisions


def test_names_are_read_without_torch():
    code = (
        "import sys, quantskew.quantization.quantizer, quantskew.audits.audit; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


NEW_SCHEME = """@_scheme
def halved(weight, bits, channel_axis):
    return _signed(0.5 * _symmetric_scale(weight, bits, channel_axis), bits)


"""
USE_IT = """
import torch
from quantskew.quantization.grids import fake_quantize
from quantskew.quantization.quantizer import Quantizer
print(fake_quantize(torch.tensor([-1.0, 0.9]), "int2:halved").tolist(), Quantizer.parse("int2:halved"))
"""


@pytest.mark.parametrize("named", [True, False])
def test_a_scheme_is_a_function_of_grids_and_its_name_in_quantizer(named, repository, tmp_path):
    shutil.copytree(repository / "src", tmp_path / "src")
    grids, quantizer = (
        tmp_path / "src/quantskew/quantization" / name for name in ("grids.py", "quantizer.py")
    )
    grids.write_text(grids.read_text().replace("if tuple(_SCHEMES)", f"{NEW_SCHEME}if tuple(_SCHEMES)"))
    if named:
        quantizer.write_text(
            quantizer.read_text().replace('"symmetric", "mse")', '"symmetric", "mse", "halved")')
        )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run([sys.executable, "-c", USE_IT], capture_output=True, text=True, env=environment)
    if named:
        assert done.stdout == "[-1.0, 0.5] int2:halved\n", done.stderr
    else:
        assert "has the schemes banner, symmetric, mse, halved, but SCHEMES of" in done.stderr
