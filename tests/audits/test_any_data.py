"""Audits of any model on any iterable: text, tables, functions, loaders; or one sentence on what to do."""

import numpy as np
import pytest
import torch
from torch import nn

import quantskew as qs
from quantskew.quantization.ptq import quantize_model

GENERATOR = torch.Generator().manual_seed(0)
IDS = torch.randint(0, 50, (40, 6), generator=GENERATOR)
LABELS = torch.randint(0, 2, (40,), generator=GENERATOR)
GROUPS = ["a", "b"] * 20
TABLE = np.random.default_rng(0).normal(size=(40, 5))


class Text(nn.Module):
    """A binary head with one logit over the mean of embeddings."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(50, 8), nn.Linear(8, 1)

    def forward(self, input_ids, attention_mask=None):
        return self.head(self.words(input_ids).mean(1))


class HuggingFace:
    """What a data set of Hugging Face has of itself."""

    column_names = ("input_ids", "label", "group")

    def iter(self, batch_size):
        for start in range(0, 40, batch_size):
            part = slice(start, start + batch_size)
            yield {"input_ids": IDS[part].tolist(), "label": LABELS[part].tolist(), "group": GROUPS[part]}


@pytest.fixture
def text():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Text()


@pytest.fixture
def tabular():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def test_text_with_one_logit_is_audited_with_its_embedding(text):
    parts = (slice(start, start + 8) for start in range(0, 40, 8))
    loader = [
        {"input_ids": IDS[p], "attention_mask": IDS[p] > 0, "labels": LABELS[p], "group": GROUPS[p]}
        for p in parts
    ]
    audit = qs.audit(text, loader, ["fp32", "fp16", "int4"])
    assert audit.weights.layers == ("model.words.weight", "model.head.weight")
    assert (audit.group_names, audit.labels.tolist()) == (("a", "b"), LABELS.tolist())
    with torch.inference_mode():
        for row, name in enumerate(audit.precisions):
            one = quantize_model(text, name)(IDS).numpy()
            assert audit.logits[row] == pytest.approx(
                np.hstack([0 * one, one]), abs=1e-6 if row != 1 else 1e-2
            )
    same = qs.audit(text, HuggingFace(), ["fp32", "int4"])
    assert np.array_equal(same.logits, audit.logits[[0, 2]])


def test_arrays_loaders_and_data_sets_of_torch_give_the_same(tabular):
    labels, groups = np.arange(40) % 3, np.array(GROUPS)
    names = {"class_names": list("xyz"), "calibration": torch.tensor(TABLE).float()}
    audit = qs.audit(tabular, (TABLE, labels, groups), ["fp32", "int8", "W8A8"], **names)
    with torch.inference_mode():
        expected = tabular(torch.tensor(TABLE).float()).numpy()
    assert np.array_equal(audit.logits[0], expected)
    assert audit.class_names == ("x", "y", "z")
    rows = [(TABLE[row].astype(np.float32), labels[row], GROUPS[row]) for row in range(40)]

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, row):
            return rows[row]

    for data in (torch.utils.data.DataLoader(rows, 7), Rows()):
        again = qs.audit(tabular, data, ["fp32", "int8"])
        assert again.logits == pytest.approx(audit.logits[:2], abs=1e-6)
        assert again.group_names == ("a", "b")


def test_functions_are_audited_as_they_are(tabular):
    other = {"fp32": tabular, "doubled": lambda inputs: (2 * tabular(inputs)).numpy()}
    audit = qs.audit(other, (TABLE, np.arange(40) % 3, GROUPS))
    assert audit.precisions == ("fp32", "doubled")
    assert np.array_equal(2 * audit.logits[0], audit.logits[1])
    assert audit.weights is None
    further = {"doubled": other["doubled"]}
    joined = qs.audit(tabular, (TABLE, np.arange(40) % 3, GROUPS), ["fp32", "int4"], further=further)
    assert joined.precisions == ("fp32", "int4", "doubled")
    assert np.array_equal(joined.logits[[0, 2]], audit.logits)
    with pytest.raises(ValueError, match="a function's weights cannot be replaced"):
        qs.audit(further, (TABLE, np.arange(40) % 3, GROUPS), ["fp32"])


REFUSED = {
    "regression": ((TABLE, TABLE[:, 0], GROUPS), "of a regression make ranges of the target classes"),
    "several labels": ((TABLE, np.eye(40)[:, :3], GROUPS), "of several labels a sample audit each by itself"),
    "two of three": ([(1, 2)], r"each batch must be \(inputs, labels, groups\)"),
    "nothing": ([], "there are no samples"),
    "more labels than logits": ((TABLE, np.arange(40), GROUPS), "has label 39, but only 3 are named"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_cannot_be_audited_are_refused(name, tabular):
    data, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        qs.audit(tabular, data, ["fp32"])


def test_models_that_cannot_be_audited_are_refused(tabular):
    data = TABLE, np.arange(40) % 3, GROUPS
    for model, message in (
        ("m.pt2", r"got a str: load files with qs\.load_model"),
        (tabular.state_dict(), "got a OrderedDict"),
        (lambda inputs: [{"boxes": inputs}], "of a detector: the classifier of its boxes"),
        (lambda inputs: tabular(inputs).softmax(1), "take off the softmax"),
    ):
        with pytest.raises(ValueError, match=message):
            qs.audit(model, data)
    with pytest.raises(ValueError, match="not one split of it, calibration, or --train"):
        qs.audit(tabular, data, ["W8A8"])


def test_probabilities_are_no_logits():
    shares = np.full((4, 2), 0.5) + [[0.1, -0.1]] * 4
    with pytest.raises(ValueError, match=r"the rows of onnx are probabilities .* np\.log\(np\.maximum"):
        qs.Audit.from_logits({"fp32": np.log(shares), "onnx": shares}, [0, 1, 0, 1], list("aabb"))
    decisions = np.eye(2)[[0, 1, 0, 1]]
    assert qs.Audit.from_logits({"fp32": decisions}, [0, 1, 0, 1], list("aabb")).predictions.tolist() == [
        [0, 1] * 2
    ]
