"""The network in the page, in headless Chromium: it gives what Python gives, codes, logits and measures."""

import base64
import dataclasses
import json
import random

import numpy as np
import pytest
import torch

import samples
from browser import needs_browser
from quantskew.audits.model import audit_model, audit_models
from quantskew.figures.style import number
from quantskew.groups import group_means
from quantskew.interactive.page import InPage, model_text
from quantskew.interactive.views import CHAIN
from quantskew.measures.fairness import flipped, fvo, overall_accuracy
from quantskew.measures.weights import absolute_difference, sparsity
from quantskew.quantization import checked
from quantskew.quantization.grids import QParams, dequantize, on_own_grid, quantize
from quantskew.quantization.ptq import QuantizedWeight, quantize_model, weight_parameters
from quantskew.quantization.quantizer import SCHEMES, Quantizer

IMAGES = 120
COMPUTE = """
const model = new quantskew.Model(quantskewModels.digits);
const plain = {precision: "fp32", bits: null};
const text = (array) => {
  const bytes = new Uint8Array(array.buffer);
  let signs = "";
  for (let k = 0; k < bytes.length; k += 32768) signs += String.fromCharCode(...bytes.subarray(k, k + 32768));
  return btoa(signs);
};
globalThis.compute = async (quantizer) => {
  globalThis.reference ??= await model.run(plain);
  const layers = model.quantized(quantizer), logits = await model.run(quantizer);
  const { groups, whole, lost, gained } = quantskew.measured(model, layers, logits, reference);
  const codes = layers.map((layer) => layer.codes && text(layer.codes));
  return { codes, logits: text(logits), groups, whole, lost, gained };
};
"""


@pytest.fixture(scope="module")
def small_digits(digits):
    return dataclasses.replace(digits, test=digits.test.subset(range(IMAGES)))


@pytest.fixture(scope="module")
def made_model():
    model = samples.small_resnet(num_classes=10, in_channels=1)
    with torch.no_grad():
        # A channel without a zero between its weights, one of a single value, and one of zeros.
        model.stem.weight[0].abs_().add_(0.01)
        model.stem.weight[1] = -0.2
        model.stages[0].conv1.weight[3] = 0
    return model


@pytest.fixture
def opened(tmp_path, repository, made_model, small_digits, open_in_browser):
    """A page with the script and a model, and nothing else."""
    (tmp_path / "digits.js").write_text(model_text("digits", made_model, small_digits))
    (tmp_path / "compute.js").write_text(COMPUTE)
    script = (repository / "book" / "_static" / "live-model.js").as_uri()
    scripts = "".join(f'<script src="{src}"></script>' for src in (script, "digits.js", "compute.js"))
    (tmp_path / "page.html").write_text(f"<!doctype html><title>A model</title>{scripts}")
    return open_in_browser(tmp_path / "page.html")


def drawn(count, layers, seed=0):
    """Random quantizers: a `Quantizer`, and for some layers bits or the ends of the grid."""
    rng = random.Random(seed)
    for place in range(count):
        options = {
            "scheme": rng.choice(SCHEMES),
            "per_channel": rng.random() < 0.5,
            "fold_batchnorm": rng.random() < 0.5,
            "boundary_precision": rng.choice([None, "int8"]),
        }
        # Every fourth has layers of their own.
        chosen = rng.sample(range(layers), 3) if place % 4 == 3 else []
        own = {k: {"bits": rng.randint(1, 8)} for k in chosen}
        if own:
            low, high = -rng.uniform(0.02, 0.4), rng.uniform(0.02, 0.4)
            own[chosen[0]]["clip"] = (low, high)
        yield Quantizer(f"int{rng.randint(1, 8)}", **options), own


def clipped(weight, low, high, bits):
    """The codes of a weight on a grid from one end to the other."""
    scale = torch.tensor((np.float32(high) - np.float32(low)) / np.float32(2**bits - 1))
    grid = QParams(scale, torch.round(-torch.tensor(low) / scale), None, 0, 2**bits - 1, half_away=True)
    return quantize(weight, grid), grid


@pytest.fixture(scope="module")
def references(made_model, small_digits):
    """The float model with batch norm kept and folded, and its Audit."""
    models = {False: made_model, True: checked.fold(made_model)}
    return {
        folded: (own, audit_models(own, {"fp32": quantize_model(own, "fp32")}, small_digits))
        for folded, own in models.items()
    }


def by_python(model, data, quantizer, own, order, references):
    """The Audit of a quantizer whose layers may have choices of their own, and the codes of every layer."""
    result = quantize_model(model, quantizer)
    original, audit = references[quantizer.fold_batchnorm]
    weights = weight_parameters(original)
    for k, choice in own.items():
        name = f"{order[k]}.weight"
        precision = f"int{choice['bits']}"
        if "clip" in choice:
            codes, grid = clipped(weights[name].detach(), *choice["clip"], choice["bits"])
            values = dequantize(codes, grid)
        else:
            chosen = dataclasses.replace(quantizer, precision=precision)
            codes, grid, values = on_own_grid(weights[name].detach(), chosen)
        result.quantized[name] = QuantizedWeight(codes, grid, precision)
        weight_parameters(result)[name].data = values
    audit = audit.join(audit_models([original], {quantizer.name: result}, data))
    return audit, [result.quantized[f"{name}.weight"].codes for name in order]


def asked(quantizer, own):
    """The quantizer as the page has it."""
    options = dataclasses.asdict(quantizer) | {"bits": quantizer.bits}
    return options | {"layers": {str(k): choice for k, choice in own.items()}}


def array(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def agrees(found, expected, digits, scientific=False):
    """Whether two numbers are printed alike; where rounding decides between two digits either may be."""
    if found is None or np.isnan(expected):
        return found is None and np.isnan(expected)
    near = (expected * (1 + sign * 1e-5) + sign * 1e-6 * (not scientific) for sign in (-1, 0, 1))
    return number(found, digits, scientific) in {number(own, digits, scientific) for own in near}


@needs_browser
def test_sixty_quantizers_give_what_python_gives(opened, made_model, small_digits, references):
    order = opened.evaluate("model.layers.map(({name}) => name)")
    assert sorted(f"{name}.weight" for name in order) == sorted(weight_parameters(made_model))
    kinds = set()
    for quantizer, own in drawn(60, len(order)):
        audit, codes = by_python(made_model, small_digits, quantizer, own, order, references)
        page = opened.evaluate(f"compute({json.dumps(asked(quantizer, own))})")
        what = f"{quantizer} {own}"
        for name, text, expected in zip(order, page["codes"], codes, strict=True):
            assert np.array_equal(array(text, np.int16), expected.numpy().ravel()), f"{what}: {name}"
        logits = array(page["logits"], np.float32).reshape(IMAGES, -1)
        assert np.abs(logits - audit.logits[1]).max() < 1e-4, what
        for measure in CHAIN.measures:
            values = group_means(measure.of_samples(audit), audit.groups, len(audit.group_names))[1]
            for group, value in zip(page["groups"][measure.key], values, strict=True):
                close = agrees(group["value"], value, measure.digits, measure.scientific)
                assert close, f"{what}: {measure.name} {group['value']} {value}"
        whole = {
            "sparsity": (sparsity, 4),
            "absolute_difference": (lambda audit: absolute_difference(audit, mean=True), 4),
            "accuracy": (overall_accuracy, 2),
            "fvo": (fvo, 2),
        }
        for name, (measure, digits) in whole.items():
            assert agrees(page["whole"][name], measure(audit)["value"].iloc[1], digits), f"{what}: {name}"
        assert page["lost"] == flipped(audit, quantizer.name)["sample"].tolist(), what
        kinds.add((quantizer.scheme, quantizer.per_channel, quantizer.fold_batchnorm, bool(own)))
    assert len(kinds) > 15
    assert opened.seen == []


@needs_browser
@pytest.mark.parametrize("name", ["fp32", "fp16", "fp16:folded"])
def test_floating_point_gives_the_logits_of_python(opened, made_model, small_digits, name):
    quantizer = Quantizer.parse(name)
    audit = audit_model(made_model, small_digits, ["fp32", quantizer] if name != "fp32" else [quantizer])
    page = opened.evaluate(f"compute({json.dumps(asked(quantizer, {}))})")
    logits = array(page["logits"], np.float32).reshape(IMAGES, -1)
    # Sums that end beside the middle of two halves are rounded to either.
    tolerance = 1e-4 if name == "fp32" else 4 * np.spacing(np.abs(logits).max().astype(np.float16))
    assert np.abs(logits - audit.logits[-1]).max() < tolerance
    assert np.abs(logits - audit.logits[-1]).mean() < tolerance / 10
    assert page["codes"] == [None] * 10


@needs_browser
def test_one_image_more_has_the_logits_that_it_has_among_all(opened):
    for quantizer in ("int3:mse,per-channel", "fp16"):
        own = json.dumps(asked(Quantizer.parse(quantizer), {}))
        whole = array(opened.evaluate(f"compute({own})")["logits"], np.float32)[70:80]
        alone = opened.evaluate(f"Array.from(model.of(model.pixels.slice(7 * 64, 8 * 64), {own}))")
        assert np.allclose(whole, alone, atol=1e-6)


def test_the_file_of_a_model_is_small_and_says_what_the_package_knows(made_model, digits):
    text = model_text("digits", made_model, digits)
    assert len(text) <= 600_000
    described = json.loads(text.partition(" = ")[2].rstrip(";\n"))
    assert [own["key"] for own in described["measures"]] == [own.key for own in CHAIN.measures]
    assert described["order"] == list(range(10))
    assert described["groups"][9]["images"] == digits.train.group_counts[9]
    assert list(described["choices"]["scheme"]) == list(SCHEMES)


def test_what_a_page_cannot_compute_is_left_out(monkeypatch, small_digits):
    class Made:
        experiment = dataclasses.make_dataclass("Named", ["name"])("other")
        model, data = torch.nn.Linear(1, 1), small_digits

    page = InPage([Made()], ["fp32"])
    assert page.files == {}
    assert 'data-files=""' in page._repr_mimebundle_()["text/html"]
