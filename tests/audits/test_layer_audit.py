"""One layer at a time: bit for bit what a pass for each column gives, with about half of the work."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import samples
from quantskew.audits import layers
from quantskew.audits.layers import audit_layers
from quantskew.datasets import Split, normalise
from quantskew.figures import lines
from quantskew.figures.style import compare, number
from quantskew.measures import fairness, forward, weights
from quantskew.quantization.ptq import quantize_model, weight_parameters
from quantskew.report import write_layers
from quantskew.training.models import build


def split_of(count=20, side=8, classes=4):
    images = torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0))
    ids = torch.arange(count) % classes
    names = tuple("abcdefgh"[:classes])
    return Split(images.to(torch.uint8), ids, ids, names, names)


def naive(model, split, quantizer):
    """A whole network and a whole pass for each column."""
    reference = "fp32:folded" if "folded" in quantizer else "fp32"
    original, quantized = (quantize_model(model, name) for name in (reference, quantizer))
    new = {name: weight.data for name, weight in weight_parameters(quantized).items()}
    chosen = [[], *([name] for name in new), *([n for n in new if n != name] for name in new), list(new)]
    logits = []
    for own in chosen:
        network = copy.deepcopy(original)
        for name in own:
            weight_parameters(network)[name].data.copy_(new[name])
        with torch.inference_mode():
            logits.append(np.concatenate([network(normalise(own)).numpy() for own in split.images.split(8)]))
    return np.stack(logits)


class Odd(nn.Module):
    """A residual that is added in place, a view, a layer that is called twice, a weight that two layers
    share, one that is read without its layer, and a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.unused = nn.ReLU(inplace=True), nn.Linear(2, 2)
        self.one, self.tied = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied.weight = self.one.weight
        self.branch, self.read, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.relu(self.first(x))
        y = self.again(x)
        halves = y[:, :2]
        y.add_(self.again(x))
        halves.mul_(0.5)
        y = self.relu(y + x).mean((2, 3))
        kept = self.one(y)
        side = self.branch(kept)
        kept += self.tied(side)
        return self.head(kept + functional.linear(side, self.read.weight) + torch.ones(4))


class Branching(nn.Module):
    """Looks at its images to decide what to do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))

    def forward(self, x):
        return self.body(x) if x.mean() > -100 else self.body(-x)


def odd():
    torch.manual_seed(0)
    return Odd().eval()


@pytest.mark.parametrize("quantizer", ["int3", "int2:folded,ends-int8"])
def test_a_small_resnet_has_the_logits_of_the_naive_loop(quantizer):
    model, split = samples.small_resnet(), split_of()
    audit = audit_layers(model, split, quantizer, batch_size=8)
    assert audit.provenance["passes"] == "shared"
    expected = naive(model, split, quantizer)
    assert len(np.unique(expected[:, 0, 0])) > 15
    np.testing.assert_array_equal(audit.logits, expected)


def test_an_odd_network_has_them_too(caplog):
    model, split = odd(), split_of()
    audit = audit_layers(model, split, "int2", batch_size=8)
    assert (audit.provenance["passes"], caplog.text) == ("shared", "")
    np.testing.assert_array_equal(audit.logits, naive(model, split, "int2"))
    assert audit.precisions[:4] == ("fp32", "int2 in first", "int2 in again", "int2 in unused")
    assert (audit.logits[audit.index("int2 in unused")] == audit.logits[0]).all()
    assert (audit.logits[audit.index("int2 except unused")] == audit.logits[-1]).all()


def test_what_cannot_be_traced_takes_whole_passes_and_says_so(caplog):
    model, split = Branching().eval(), split_of()
    audit = audit_layers(model, split, "int2", batch_size=8)
    assert audit.provenance["passes"] == "whole"
    assert "every layer takes whole passes, since the model cannot be traced" in caplog.text
    np.testing.assert_array_equal(audit.logits, naive(model, split, "int2"))


def test_a_trace_that_is_not_the_model_is_not_used(caplog):
    model = samples.small_resnet()
    # The hook of the whole model is no part of what is traced.
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    audit = audit_layers(model, split_of(), "int3", batch_size=8)
    assert "what was traced gives other logits for fp32" in caplog.text
    np.testing.assert_array_equal(audit.logits, naive(model, split_of(), "int3"))


def test_a_resnet18_takes_at_most_sixty_percent_of_the_operations(monkeypatch):
    counted = []

    def count(originals, models, data, **options):
        image = torch.zeros(1, 3, 32, 32)
        for networks in (originals[:1], models.values()):
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                for network in networks:
                    network(image)
            counted.append(counter.get_total_flops())

    monkeypatch.setattr(layers, "audit_models", count)
    layers.audit_layers(build("resnet18", 4).eval(), split_of(4, side=32), "int4")
    single, together = counted
    assert 0.4 < together / single / (2 * 21 + 2) < 0.55


def test_every_measure_works_on_it():
    audit = audit_layers(samples.small_resnet(), split_of(), "int3")
    assert (audit.precisions[0], audit.precisions[-1], len(audit.precisions)) == ("fp32", "int3", 22)
    assert forward.group_loss(audit)["precision"].nunique() == len(fairness.fvo(audit)) == 22
    changed = audit.weights.absolute_difference
    np.testing.assert_array_equal(changed[1:11], np.diag(changed[-1]))
    np.testing.assert_array_equal(changed[11:-1], changed[-1] * (1 - np.eye(10)))
    zeros = weights.sparsity(audit, per_layer=True).pivot(index="layer", columns="precision", values="value")
    assert zeros.loc["stem.weight", "int3 in stem"] == zeros.loc["stem.weight", "int3"] > 0.1
    assert zeros.loc["stem.weight", "int3 except stem"] == zeros.loc["stem.weight", "fp32"] < 0.1


@pytest.mark.parametrize("quantizer", ["fp16", "A8", "W8A8", "int4:gptq"])
def test_only_weights_on_a_grid_have_layers(quantizer):
    with pytest.raises(ValueError, match=f"give int4 or int4:mse, not {quantizer}"):
        audit_layers(samples.small_resnet(), split_of(), quantizer)


def test_changes_of_a_layer_are_alone_and_last():
    audit = audit_layers(samples.small_resnet(), split_of(120), "int2")
    table = fairness.layer_changes(audit, forward.group_loss)
    table = table.set_index(["others", "layer", "group"])
    loss = forward.group_loss(audit).set_index(["precision", "group"])["value"]
    assert len(table) == 2 * (10 + 1) * 4
    for (others, layer, group), row in table.iterrows():
        less, more = "fp32", "int2"
        if layer != "all" and others == "float":
            more = f"int2 in {layer}"
        elif layer != "all":
            less = f"int2 except {layer}"
        assert row["value"] == pytest.approx(loss[more, group] - loss[less, group], abs=1e-12)
        assert row["low"] <= row["value"] <= row["high"]


def test_an_audit_of_whole_models_has_no_layers():
    with pytest.raises(ValueError, match="no 'int2 in int8'"):
        fairness.layer_changes(
            samples.random_audit(precisions=("fp32", "int8", "int3", "int2")), forward.group_loss
        )


def test_layers_are_written_as_tables_and_maps(tmp_path):
    audit = layers.audit_layers(samples.small_resnet(), split_of(120), "int2")
    paths = write_layers(audit, tmp_path)
    assert [path.name for path in paths] == [
        *("audit.safetensors", "layers_loss.csv", "layers_loss.png"),
        *("layers_accuracy.csv", "layers_accuracy.png"),
    ]
    table = pd.read_csv(paths[1])
    assert table["value"].tolist() == fairness.layer_changes(audit, forward.group_loss)["value"].tolist()
    own = table[table["others"] == "float"]
    figure = compare(lines.layer_map(forward.group_loss, own), {"a title": audit}, legend=False)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == list(own["layer"].unique())
    shades = axes.images[0].get_array().ravel()
    for text, shade, value in zip(axes.texts, shades, own["value"], strict=True):
        assert text.get_text() == (number(value, 2).replace("0.", ".") if shade > 0.05 else "")
    sure = (own["low"] > 0) | (own["high"] < 0)
    assert ((shades > 0) == sure).all()
    assert 0 < sure.sum() < len(sure)
