"""The network in the page, in headless Chromium: it gives what Python gives, and the playground shows it."""

import base64
import dataclasses
import json
import random
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import samples
from browser import grave, needs_browser
from quantskew.audits.model import audit_model, audit_models
from quantskew.figures.style import number
from quantskew.groups import group_means
from quantskew.interactive.page import InPage, model_text
from quantskew.interactive.pictures import radio_page
from quantskew.interactive.views import CHAIN
from quantskew.measures.fairness import fvo, overall_accuracy
from quantskew.measures.forward import dtdb
from quantskew.measures.harm import flipped
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


@pytest.mark.parametrize(("model", "side"), [("resnet18", 8), ("small_resnet", 28)])
def test_what_a_page_cannot_compute_is_left_out_and_not_trained(model, side):
    class Made:
        experiment = SimpleNamespace(name="other", model=model)
        data = SimpleNamespace(test=SimpleNamespace(images=torch.zeros(5, 1, side, side)))

    page = InPage([Made()], ["fp32"])
    assert page.files == {}
    assert 'data-files=""' in page._repr_mimebundle_()["text/html"]


STATIC = "book/_static"


@pytest.fixture(scope="module")
def playground(repository, digits_model, made_model, small_digits, tmp_path_factory):
    """A page with the pictures of a control, two models, and the scripts that make the playground."""
    folder = tmp_path_factory.mktemp("playground")
    for name in ("bit-width.js", "live-model.js", "drawing.js", "playground.js", "playground.css"):
        shutil.copy(repository / STATIC / name, folder)
    for name, model in {"digits": digits_model, "balanced_digits": made_model}.items():
        (folder / f"{name}.js").write_text(model_text(name, model, small_digits))
    pictures = radio_page(
        "Bit-width", {"fp32": "<p>fp32</p>", "int4": "<p>int4</p>", "int3": "<p>int3</p>"}, "int4"
    )
    models = '<div class="playground-models" data-files="digits.js?v=1 balanced_digits.js?v=2" hidden></div>'
    scripts = '<script src="bit-width.js"></script>' + "".join(
        f'<script defer src="{name}.js"></script>' for name in ("live-model", "drawing", "playground")
    )
    head = f'<meta charset="utf-8"><title>A playground</title>{scripts}'
    head += '<link rel="stylesheet" href="playground.css">'
    dark = "html[data-theme=dark] { --pst-color-text-base: #eee; --pst-color-background: #111; "
    dark += "--pst-color-text-muted: #aaa; color: #eee; background: #111; }"
    head += f'<meta name="viewport" content="width=device-width"><style>{dark}</style>'
    body = f"<main><h1>A playground</h1>{pictures}{models}</main>"
    path = folder / "page.html"
    path.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>')
    return path


@pytest.fixture
def play(open_in_browser, playground):
    """Open the playground, with a state or without one, and wait until all is measured."""

    def opened(state="", **options):
        address = SimpleNamespace(as_uri=lambda: playground.as_uri() + state)
        page = open_in_browser(address, **options)
        page.wait_for_selector(".live-gallery p")
        return page

    return opened


def press(page, act):
    """What the page says when all is measured after something was done."""
    page.evaluate("performance.clearMeasures()")
    act()
    page.wait_for_function("performance.getEntriesByName('measures').length")
    return page.text_content(".live-summary")


def choose(page, name, value):
    """As `press`, after a button."""
    button = f".live-choice input[name=live-{name}][value='{value}'] + label"
    return press(page, lambda: page.click(button))


def told(audit):
    """The sentence of a page, in the numbers of an Audit of the reference and one precision."""
    values = [number(own(audit)["value"].iloc[1], 2) for own in (overall_accuracy, fvo)]
    zeros = number(100 * sparsity(audit)["value"].iloc[1], 1)
    difference = number(absolute_difference(audit, mean=True)["value"].iloc[1], 4)
    lost = len(flipped(audit, audit.precisions[1]))
    return (
        f"overall accuracy {values[0]}, FVO {values[1]}, share of zeros {zeros} %, "
        f"mean |W~ − W| {difference}. No longer right: {lost} of {IMAGES} test images. "
    )


@needs_browser
def test_every_button_of_the_playground_works_in_the_page(play, digits_model, small_digits):
    page, chosen = play(), {"precision": "int5"}
    choices = {
        "scheme": ("mse", {"scheme": "mse"}),
        "grid": ("per channel", {"per_channel": True}),
        "first_and_last_layer": ("int8", {"boundary_precision": "int8"}),
        "batch_norm": ("folded", {"fold_batchnorm": True}),
    }
    choose(page, "precision", "int5")
    for name, (value, option) in choices.items():
        chosen |= option
        said, quantizer = choose(page, name, value), Quantizer(**chosen)
        audit = audit_model(digits_model, small_digits, [quantizer.at("fp32"), quantizer])
        assert told(audit) in said, quantizer
    assert page.locator(".live-mark").count() == 60
    assert page.locator(".live-mark:not([d]), .live-hollow:not([d])").count() == 0
    assert "balanced_digits, int5, mse, per channel" in choose(page, "experiment", "balanced_digits")
    assert page.seen == []


@needs_browser
def test_the_address_brings_everything_back(play):
    page = play()
    choose(page, "precision", "int6")
    choose(page, "scheme", "symmetric")
    page.fill("#live-image", "17")
    press(page, lambda: page.press("#live-image", "Enter"))
    said = press(page, lambda: page.fill("[aria-label='bits of stages.0.conv2']", "2"))
    assert "1 layer set by hand" in said
    state = page.evaluate("location.hash")
    # A place of the page is no state.
    page.evaluate("location.hash = 'place'")
    assert page.text_content(".live-summary") == said
    again = play(state)
    assert again.text_content(".live-summary") == said
    assert again.input_value("#live-image") == "17"
    broken = play("#precision=int99&layers=99:3,0:77,1:x:2:1&image=-4&drawn=zz&layer=1e9&scheme=__proto__")
    assert "digits, int4: overall" in broken.text_content(".live-summary")
    assert again.seen == broken.seen == []
    press(again, lambda: again.click("text=Start again"))
    assert "#" not in again.url
    assert "digits, int4: overall" in again.text_content(".live-summary")


@needs_browser
def test_the_end_of_a_grid_is_dragged_and_zeros_climb(play):
    page = play("#precision=int3&layer=9")

    def zeros():
        return float(page.text_content(".live-layer:last-child span").split()[0])

    before, handle = zeros(), page.locator("[data-end='1']")
    box = handle.locator(".live-grip").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y)
    press(page, lambda: page.mouse.move(x + 60, y))
    page.mouse.up()
    stretched = zeros()
    assert stretched > before
    value = float(handle.get_attribute("aria-valuenow"))
    press(page, lambda: page.keyboard.press("ArrowRight"))
    assert float(handle.get_attribute("aria-valuenow")) > value
    press(page, lambda: page.click("text=The scheme's ends"))
    assert zeros() == before


@needs_browser
def test_the_playground_works_by_keyboard_alone(play):
    page = play()
    page.focus(".live-panels")
    page.keyboard.press("ArrowDown")
    first = page.text_content(".live-readout")
    assert first.startswith("0 (")
    assert re.search(r"; accuracy [01]\.\d\d \[", first)
    page.keyboard.press("ArrowUp")
    assert page.text_content(".live-readout").startswith("9 (")
    page.focus("input[name=live-precision]:checked")
    # At two bits some images change their answer, whatever the model.
    for precision in ("int3", "int2"):
        assert precision in press(page, lambda: page.keyboard.press("ArrowRight"))
    page.focus("[aria-label='bits of head']")
    assert "1 layer set by hand" in press(page, lambda: page.keyboard.press("ArrowRight"))
    page.focus(".live-tile")
    page.keyboard.press("ArrowRight")
    words = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    image = words.split()[2].rstrip(",")
    assert f"Test image {image}, a " in page.text_content(".live-story [role=status]")


@needs_browser
def test_one_digit_can_be_followed_and_drawn(play, digits_model, small_digits):
    page = play("#precision=int2&image=5")
    audit = audit_model(digits_model, small_digits, ["fp32", "int2"])
    (then, now), label = audit.predictions[:, 5], audit.labels[5]
    said = page.text_content(".live-story [role=status]")
    names = f"says {then}" if then == now else f"at fp32 the model says {then}, at int2 it says {now}"
    assert f"Test image 5, a {label}: " in said
    assert names in said
    distances = [number(own, 2) for own in dtdb.of_samples(audit)[:, 5]]
    assert f"Distance to the boundary {distances[0]} at fp32, {distances[1]} now" in said
    lost = flipped(audit, "int2")["sample"].tolist()
    shown = page.locator(".live-gallery [role=group]").first.locator(".live-tile")
    images = shown.evaluate_all("all => all.map(tile => parseInt(tile.title.match(/\\d+/)[0]))")
    assert sorted(images) == lost
    page.click("text=Empty sheet")
    page.focus(".live-sheet")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert "Your drawing" in page.text_content(".live-story [role=status]")
    assert page.evaluate("location.hash").count("0") >= 63
    assert page.locator(".live-sheet rect[fill='rgb(255 255 255)']").count() == 1
    box = page.locator(".live-sheet").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.9)
    assert page.locator(".live-sheet rect[fill='rgb(255 255 255)']").count() == 2


@needs_browser
def test_numbers_are_printed_as_python_prints_them(play):
    rng, page = random.Random(0), play()
    drawn = [rng.choice([-1, 1]) * rng.random() * 10 ** rng.randint(-6, 3) for _ in range(200)]
    # Accuracies of groups lie in the middle between two numbers, which powers of ten do not.
    exact = [0, 0.5, 0.125, 0.375, 2.5, 45 / 72, -0.004, 0.285, 8.345, 1.005, 99.995, 1e-7, 0.00995]
    for digits, scientific in ((0, False), (1, False), (2, False), (3, False), (4, False), (1, True)):
        values = drawn if scientific else drawn + exact
        options = f"{digits}, {str(scientific).lower()}"
        printed = page.evaluate(f"all => all.map(own => quantskewDrawing.number(own, {options}))", values)
        assert printed == [number(own, digits, scientific) for own in values]


@needs_browser
def test_without_javascript_and_in_print_the_pictures_stay(play, open_in_browser, playground):
    page = open_in_browser(playground, java_script_enabled=False)
    assert page.locator(".bit-width").is_visible()
    assert page.locator(".live").count() == 0
    page = play()
    assert not page.locator(".bit-width").is_visible()
    choose(page, "precision", "int3")
    # As the pictures of other pages: a reload without a state begins there.
    page.goto("about:blank")
    page.goto(playground.as_uri())
    page.wait_for_selector(".live-gallery p")
    assert page.url.endswith("#precision=int3")
    page.emulate_media(media="print")
    assert page.locator(".bit-width").is_visible()
    # Of the precision that was chosen last.
    assert page.locator(".bit-width-panels > :visible").text_content() == "int3"
    assert not page.locator(".live").is_visible()


@needs_browser
def test_where_the_page_cannot_compute_the_pictures_stay(open_in_browser, playground):
    broken = playground.with_name("broken.html")
    broken.write_text(playground.read_text().replace("digits.js?v=1", "nowhere.js?v=1"))
    page = open_in_browser(broken)
    page.wait_for_function("!document.querySelector('.live-host')")
    assert page.locator(".bit-width").is_visible()


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_playground_can_be_used_by_everybody(theme, play):
    page = play("#precision=int3")
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.seen == []
    # Last: axe itself asks for the style sheets again, which a browser refuses on a page from disk.
    assert grave(page) == []
