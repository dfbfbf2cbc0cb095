"""A model in a file, on listed images: what is read, what it is fed, and what is named before any number."""

import base64
import csv
import functools
import io
import json
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from quantskew.audits import shipped
from quantskew.audits.audit import Audit
from quantskew.cli import main
from quantskew.datasets import listed
from quantskew.datasets.listed import Preprocessing
from quantskew.measures import harm
from quantskew.quantization.ptq import quantize_model

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HOW = Preprocessing(16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GIVEN = {"size": 16, "mean": HOW.mean, "std": HOW.std, "classes": WORDS}


class Net(nn.Module):
    """Sees colours: its digit is in the red channel, another one in the blue channel."""

    def __init__(self, num_classes=10):
        super().__init__()
        first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.body = nn.Sequential(first, nn.BatchNorm2d(16), nn.Tanh(), nn.Conv2d(16, 32, 3, 2, 1), nn.Tanh())
        self.head = nn.Linear(512, num_classes)

    def forward(self, x):
        return self.head(nn.functional.adaptive_avg_pool2d(self.body(x), 4).flatten(1))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with 400 images, their table and a network that was trained on others."""
    root, rng = tmp_path_factory.mktemp("shipped"), np.random.default_rng(0)
    digits, labels = load_digits(return_X_y=True)
    digits = digits.reshape(-1, 8, 8) / 16
    other = digits[rng.permutation(len(digits))]
    images = np.stack([digits, 0.5 * digits + 0.3 * other, 0.8 * other], axis=3).repeat(2, 1).repeat(2, 2)
    images = (20 + 200 * images + rng.normal(0, 8, images.shape)).clip(0, 255).astype(np.uint8)
    with open(root / "test.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "pen", "side", "number"])
        for row in range(400):
            Image.fromarray(images[row]).save(root / f"{row}.png")
            pen = "thin" if digits[row].sum() < 19 else "thick"
            table.writerow([f"{row}.png", WORDS[labels[row]], pen, "left" if row % 2 else "right", row])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), 5e-3)
        inputs, targets = HOW.inputs(images.transpose(0, 3, 1, 2)), torch.tensor(labels)
        for _ in range(5):
            for batch in (400 + torch.randperm(len(labels) - 400)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(inputs[batch]), targets[batch]).backward()
                optimizer.step()
    return root, net.eval(), inputs[:400], labels[:400]


@pytest.fixture(scope="module")
def expected(place):
    _, net, inputs, _ = place
    with torch.inference_mode():
        return net(inputs).numpy()


@pytest.fixture(scope="module")
def program(place, tmp_path_factory):
    """The path of the network as an exported program."""
    path = tmp_path_factory.mktemp("program") / "m.pt2"
    exported(place[1], place[2], path)
    return path


@pytest.fixture
def no_report(monkeypatch):
    """Of an audit only itself is written."""
    for part in ("tables", "figures"):
        monkeypatch.setattr(f"quantskew.report.{part}", lambda audit: ())


def exported(net, inputs, path, batch=None, **more):
    shapes = ({0: torch.export.Dim("batch")},) if batch is None else None
    torch.export.save(torch.export.export(net, (inputs[: batch or 2],), dynamic_shapes=shapes), path, **more)


def scripted(net, inputs, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, inputs[:2]).save(path)


def as_onnx(net, inputs, path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(net, (inputs[:2],), path, dynamic_shapes=shapes, dynamo=True, verbose=False)


FILES = {
    "m.pt2": exported,
    "fixed.pt2": lambda net, inputs, path: exported(net, inputs, path, batch=3),
    "m.pth": lambda net, inputs, path: torch.save({"state_dict": net.state_dict()}, path),
    "m.safetensors": lambda net, inputs, path: save_file(
        {f"model.{n}": v for n, v in net.state_dict().items()}, path
    ),
    "m.ts": scripted,
    "m.onnx": as_onnx,
}


@pytest.fixture
def builder(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text("from test_shipped import Net as build\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(__file__).rpartition("/")[0])
    return "own_net:build"


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_logits_of_the_network(name, place, expected, builder, tmp_path):
    root, net, inputs, labels = place
    FILES[name](net, inputs, tmp_path / name)
    arch = builder if name in ("m.pth", "m.safetensors") else None
    replaced = name not in ("m.ts", "m.onnx")
    columns = ["fp32", "int4"] if replaced else ["fp32"]
    audits = shipped.audit_file(tmp_path / name, root / "test.csv", columns, arch=arch, given=GIVEN)
    assert list(audits) == ["pen", "side", "pen x side"]
    made = audits["side"]
    assert made.logits[0] == pytest.approx(expected, abs=1e-4)
    assert made.labels.tolist() == labels.tolist()
    assert made.group_names == ("left", "right")
    assert audits["pen x side"].group_counts.sum() == 400
    assert made.provenance["warnings"] == []
    assert made.provenance["samples"][:2] == ["0.png", "1.png"]
    assert "; channels, range from the default" in made.provenance["preprocessing"].replace(
        "resize, interpolation, ", ""
    )
    if replaced:
        with torch.inference_mode():
            quantized = quantize_model(net, "int4")(inputs).numpy()
        assert made.logits[1] == pytest.approx(quantized, abs=1e-4)
        assert len(made.weights.layers) == 3
    else:
        with pytest.raises(ValueError, match="cannot be replaced; give --precisions fp32"):
            shipped.audit_file(tmp_path / name, root / "test.csv", ["fp32", "int8"], given=GIVEN)


class Adapted(nn.Module):
    """The network, changed exactly to expect other inputs."""

    def __init__(self, net, how, order=range(10)):
        super().__init__()
        self.net, self.how, self.order = net, how, list(order)

    def forward(self, inputs):
        mean, std = (torch.tensor(own).view(-1, 1, 1) for own in (self.how.mean, self.how.std))
        pixels = (inputs * std + mean) * (255 if self.how.range == "0-1" else 1)
        return self.net(HOW.inputs(pixels.flip(1) if self.how.channels == "bgr" else pixels))[:, self.order]


def ways(**changes):
    return Preprocessing(**{"size": 16, "mean": HOW.mean, "std": HOW.std} | changes)


PLAIN, WHOLE, HALF = (
    {"mean": 0.0, "std": 1.0},
    {"mean": 0.0, "std": 1.0, "range": "0-255"},
    {"mean": 0.5, "std": 0.5},
)
CAFFE = {"mean": (103.9, 116.8, 123.7), "std": 1.0, "range": "0-255", "channels": "bgr"}
# What the model expects, what it is fed, and what is said of it.
PLANTED = {
    "values from 0 to 1": ({}, PLAIN, "ImageNet's mean"),
    "values from 0 to 255": ({}, WHOLE, "ImageNet's mean"),
    "blue first": ({}, {"channels": "bgr"}, "channels rgb would score"),
    "a larger size": ({}, {"size": 64}, "size 16 would score"),
    "half the size": ({}, {"size": 8}, "size 16 would score"),
    "no mean for 0.5": (HALF, PLAIN, "would score"),
    "0 to 255 for 0.5": (HALF, WHOLE, "would score"),
    "ImageNet's for 0 to 1": (PLAIN, {}, "would score"),
    "0 to 1 for 0 to 255": (WHOLE, PLAIN, "values from 0 to 255 as they are"),
    "red first": (CAFFE, CAFFE | {"channels": "rgb"}, "channels bgr would score"),
    "ImageNet's for 0 to 255": (WHOLE, {}, "values from 0 to 255 as they are"),
    "crop": ({}, {"resize": 32}, "would score"),
}
RIGHT = {
    "ImageNet's": {},
    "0.5": HALF,
    "0 to 1": PLAIN,
    "0 to 255": WHOLE,
    "blue first": {"channels": "bgr"},
    "Caffe's": CAFFE,
    "CIFAR's": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616)},
}


@pytest.fixture(scope="module")
def named(place):
    found = listed.read(place[0] / "test.csv")
    return Once(found.names, found.paths, found.labels, found.columns)


@functools.cache
def decoded(path, how):
    with Image.open(path) as image:
        return how.pixels(image)


class Once(listed.Listed):
    """Listed images that are decoded once in each way."""

    def batches(self, how, index, size, left_out):
        plain = Preprocessing(how.size, 0, 1, how.resize)
        for start in range(0, len(index), size):
            own = index[start : start + size]
            yield own, np.stack([decoded(self.paths[row], plain) for row in own])


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_preprocessing_is_named(name, place, named):
    expects, fed, said = PLANTED[name]
    told = shipped.better_ways(Adapted(place[1], ways(**expects)), named, place[3], ways(**fed))
    assert len(told) == 1
    assert said in told[0]


@pytest.mark.parametrize("name", RIGHT)
def test_no_alarm_where_the_preprocessing_is_right(name, place, named):
    how = ways(**RIGHT[name])
    assert shipped.better_ways(Adapted(place[1], how), named, place[3], how) == []


@pytest.mark.parametrize("spoilt", ["untrained", "int3", "int2", "noise", "few images"])
def test_no_alarm_where_the_model_is_bad(spoilt, place, named):
    _, net, _, labels = place
    torch.manual_seed(1)
    net = {"untrained": lambda: Net().eval(), "noise": lambda: lambda x: torch.randn(len(x), 10)}.get(
        spoilt, lambda: quantize_model(net, spoilt) if spoilt.startswith("int") else net
    )()
    if spoilt == "few images":
        named = Once(named.names[:30], named.paths[:30], named.labels[:30], {})
        labels = labels[:30]
    assert shipped.better_ways(net, named, labels, HOW) == []
    with torch.inference_mode():
        predictions = net(place[2][: len(labels)]).argmax(1).numpy()
    assert shipped.better_order(predictions, labels, WORDS) == []


ORDERS = {"sorted": sorted(WORDS), "reversed": WORDS[::-1], "two": (*WORDS[:3], "four", "three", *WORDS[5:])}


@pytest.mark.parametrize("name", ORDERS)
def test_a_wrong_order_of_classes_is_named_with_the_right_one(name, place, expected):
    labels, names = shipped.class_ids([WORDS[label] for label in place[3]], ORDERS[name])
    (told,) = shipped.better_order(expected.argmax(1), labels, names)
    assert told.endswith(f"perhaps {','.join(WORDS)}")
    assert shipped.better_order(expected.argmax(1), place[3], WORDS) == []


def test_what_lowers_the_accuracy_is_named_before_any_number(place, program, no_report, tmp_path, capsys):
    root = place[0]
    command = ["audit", str(program), "--test", str(root / "test.csv"), "--precisions", "fp32"]
    command += ["--size", "16", "--std", "1", "--group", "pen", "--output", str(tmp_path / "out")]
    assert main([*command, "--mean", "0", "--accuracy", "0.95", "--classes", ",".join(WORDS)]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("WARNING")]
    assert len(said) == 2
    assert "ImageNet's mean and deviation would score" in said[0]
    assert "where 95.0% is expected" in said[1]
    assert lines.index(said[1]) < lines.index("accuracy with 95 % interval")
    assert "classes: zero, one, two, three, four and 5 more, from --classes" in lines
    made = Audit.load(tmp_path / "out" / "audit.safetensors")
    assert made.group_names == ("thick", "thin")
    assert made.counted == "test images"
    assert main([*command, "--classes", ",".join(WORDS)]) == 2
    assert "is not known: give --mean, or --preprocessing" in capsys.readouterr().err
    assert main(command[:2]) == 2
    assert "is a file: give test images with --test" in capsys.readouterr().err


def test_a_report_has_pictures_of_what_flips_where_they_are_asked_for(
    place, program, no_report, tmp_path, capsys
):
    root, page = place[0], tmp_path / "report.html"
    how = ["--size", "16", "--mean", ",".join(map(str, HOW.mean)), "--std", ",".join(map(str, HOW.std))]
    command = ["audit", str(program), "--test", str(root / "test.csv"), "--precisions", "fp32,int3", *how]
    command += ["--group", "pen", "--classes", ",".join(WORDS), "--output", str(tmp_path / "out")]
    pictures = re.compile(
        r'<li><img alt="" src="data:image/png;base64,([^"]+)"> (\w+) at int3: (\w+) (.*?)</li>'
    )
    assert main([*command, "--report", str(page)]) == 0
    assert not pictures.findall(page.read_text())
    assert main([*command, "--report", str(page), "--thumbnails"]) == 0
    made = harm.flips(Audit.load(tmp_path / "out" / "audit.safetensors"))
    found = pictures.findall(page.read_text())
    assert 0 < len(found) == min(len(made), 100)
    # The harmed come first, and each picture is of its sample.
    first = made[made["flip"] == "harmed"].iloc[0]
    encoded, *words = found[0]
    assert words == [first["group"], first["label"], f"taken for {first['prediction']}"]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as shown, Image.open(root / first["id"]) as own:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(own))
    capsys.readouterr()
    for refused in ([], ["--report", str(page), "--curvature"]):
        assert main([*command, *refused, "--thumbnails"]) == 2
        assert "--thumbnails are of the images of --test, in --report" in capsys.readouterr().err


def test_metadata_say_how_a_model_is_fed_and_options_come_first(place, program, builder, tmp_path):
    root, net, inputs, _ = place
    said = {"size": 16, "mean": HOW.mean, "std": HOW.std, "classes": WORDS, "accuracy": 0.999, "resize": 16}
    save_file(net.state_dict(), tmp_path / "m.safetensors", {"preprocessing": json.dumps(said)})
    exported(net, inputs, tmp_path / "m.pt2", extra_files={"preprocessing.json": json.dumps(said)})
    (tmp_path / "own.toml").write_text("channels = 'bgr'\nsize = 20\n")
    for path, arch in (("m.safetensors", builder), ("m.pt2", None)):
        _, facts = shipped.load(tmp_path / path, arch)
        assert facts["classes"] == (list(WORDS), path)
        made = shipped.audit_file(tmp_path / path, root / "test.csv", arch=arch)["pen"]
        assert made.class_names == WORDS
        assert ["99.9% is expected" in told for told in made.provenance["warnings"]] == [True]
        given = {"size": 8, "preprocessing": tmp_path / "own.toml"}
        words = shipped.audit_file(tmp_path / path, root / "test.csv", arch=arch, given=given)[
            "pen"
        ].provenance
        assert "8 x 8 pixels (the whole image; bilinear; bgr;" in words["preprocessing"]
        assert "size from --size" in words["preprocessing"]
        assert "channels from own.toml" in words["preprocessing"]
    (tmp_path / "own.json").write_text('{"seize": 20}')
    with pytest.raises(ValueError, match=r"own\.json is no table of size, .*seize"):
        shipped.audit_file(program, root / "test.csv", given={"preprocessing": tmp_path / "own.json"})


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('this has run')",)


def test_a_program_is_loaded_without_running_what_is_pickled_in_it(program, tmp_path):
    torch.save((Evil(),), tmp_path / "evil.pt")
    for path, part in (("a.pt2", "sample_inputs/model.pt"), ("b.pt2", "constants/opaque_obj_0")):
        with zipfile.ZipFile(program) as whole, zipfile.ZipFile(tmp_path / path, "w") as changed:
            for entry in whole.namelist():
                if not entry.endswith(part):
                    changed.writestr(entry, whole.read(entry))
            changed.writestr(f"m/data/{part}", (tmp_path / "evil.pt").read_bytes())
        with pytest.raises(ValueError, match=r"cannot be read as torch.export|run or unpickled"):
            shipped.load(tmp_path / path)


def test_files_that_cannot_be_used_are_refused_with_a_remedy(place, program, builder, tmp_path):
    root, net, *_ = place
    torch.save(net.state_dict(), tmp_path / "m.pth")
    (tmp_path / "half.pt2").write_bytes((program).read_bytes()[:3000])
    for path, arch, message in (
        ("no.pt2", None, "there is no model"),
        ("m.pth", None, "holds weights alone; say with --arch"),
        ("m.pth", "resnet18", "--arch is torchvision:NAME"),
        ("m.pth", "torchvision:resnet1", "unknown model 'resnet1'"),
        ("m.pth", "torchvision:resnet18", "another architecture"),
        ("m.pth", "nowhere:build", "nowhere cannot be imported"),
        ("m.pth", "own_net:other", "own_net has no function other"),
        (program, builder, "is a whole model"),
        ("half.pt2", builder, "more than tensors, or is damaged"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            shipped.load(tmp_path / path, arch, 10)
    short = listed.Listed(["0.png"] * 3, [root / "0.png"] * 3, list("abc"), {"class": list("abc")})
    with pytest.raises(ValueError, match="gives 10 logits, but there are 3 classes, from the labels, sorted"):
        shipped.audit_file(program, short, given={"size": 16, "mean": 0.5, "std": 0.5})
    grey = GIVEN | {"channels": "grey", "mean": 0.5, "std": 0.5}
    with pytest.raises(ValueError, match=r"cannot take images of 16 x 16 .*grey"):
        shipped.audit_file(program, root / "test.csv", given=grey)


def test_the_usual_preprocessing_of_torchvision_is_read(tmp_path):
    model, facts = shipped._built("torchvision:resnet18", 3)
    how, words = shipped.prepared("m.pth", facts)
    assert "from ResNet18_Weights.IMAGENET1K_V1" in words
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (301, 260, 3), dtype=np.uint8))
    from torchvision.models import ResNet18_Weights

    expected = ResNet18_Weights.DEFAULT.transforms()(image)
    assert how.inputs(how.pixels(image)[None])[0].numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    assert model.fc.out_features == 3


def test_timm_says_how_its_models_are_fed():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model, facts = shipped._built("timm:resnet18", 3)
    how, words = shipped.prepared("m.pth", facts)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (301, 260, 3), dtype=np.uint8))
    expected = timm.data.create_transform(**timm.data.resolve_model_data_config(model))(image)
    assert how.inputs(how.pixels(image)[None])[0].numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    assert "from timm's resnet18" in words


def test_logits_are_written_with_ids_and_put_in_one_order(
    place, program, no_report, expected, tmp_path, capsys
):
    root, *_, labels = place
    (tmp_path / "own.json").write_text(json.dumps(GIVEN))
    command = ["logits", str(program), "--test", str(root / "test.csv")]
    assert (
        main([*command, "--preprocessing", str(tmp_path / "own.json"), "--output", str(tmp_path / "a.npz")])
        == 0
    )
    own = dict(np.load(tmp_path / "a.npz"))
    assert own["logits"] == pytest.approx(expected, abs=1e-4)
    order = np.random.default_rng(0).permutation(400)
    shuffled = {name: array if name == "class_names" else array[order] for name, array in own.items()}
    np.savez(tmp_path / "b.npz", **shuffled)
    np.savez(tmp_path / "c.npz", **own | {"logits": own["logits"][order]})
    np.savez(
        tmp_path / "d.npz",
        **{name: array if name == "class_names" else array[1:] for name, array in own.items()},
    )
    files = [str(tmp_path / f"{name}.npz") for name in "abc"]
    capsys.readouterr()
    assert main(["audit", "--logits", *files, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "b: its samples are put in the order of those of a" in said.err
    assert [line for line in said.out.splitlines() if "WARNING" in line] == [
        line for line in said.out.splitlines() if line.startswith("WARNING: c agrees with a on")
    ]
    made = Audit.load(tmp_path / "out" / "pen" / "audit.safetensors")
    assert np.array_equal(made.logits[0], made.logits[1])
    assert made.class_names == WORDS
    assert main(["audit", "--logits", files[0], str(tmp_path / "d.npz"), "--output", str(tmp_path)]) == 2
    assert "d and a are not of the same samples, each once: only one has 0.png" in capsys.readouterr().err
    np.save(tmp_path / "plain.npy", own["logits"])
    table = ["--test", str(root / "test.csv"), "--classes", ",".join(WORDS), "--group", "side"]
    plain = [
        "audit",
        "--logits",
        f"fp32={tmp_path / 'plain.npy'}",
        *table,
        "--output",
        str(tmp_path / "plain"),
    ]
    assert main(plain) == 0
    again = Audit.load(tmp_path / "plain" / "audit.safetensors")
    assert again.labels.tolist() == labels.tolist()
    assert again.group_names == ("left", "right")


def test_images_that_cannot_be_decoded_are_left_out_and_said(place, program, tmp_path):
    rows = [f"{place[0] / f'{row}.png'},{WORDS[label]},a" for row, label in enumerate(place[3][:40])]
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "test.csv").write_text("\n".join(["file,label,group", "broken.png,one,b", *rows]))
    made = shipped.audit_file(program, tmp_path / "test.csv", given=GIVEN)["group"]
    assert made.provenance["left_out"] == {"broken.png": "the image cannot be decoded"}
    assert made.group_names == ("a",)
    assert len(made.provenance["samples"]) == len(made.labels) == 40
    (tmp_path / "test.csv").write_text("\n".join(["file,label,group", "broken.png,one,b", *rows[:3]]))
    with pytest.raises(ValueError, match=r"1 images cannot be used: 'broken\.png'"):
        shipped.audit_file(program, tmp_path / "test.csv", given=GIVEN)
