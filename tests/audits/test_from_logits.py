"""What `Audit.from_logits` takes: the groups that were meant, or a refusal that says why."""

import numpy as np
import pandas as pd
import pytest
import torch

from quantskew import groups as of_groups
from quantskew.audits.audit import Audit
from quantskew.measures.forward import group_accuracy

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 40)
LOGITS = RNG.normal(size=(40, 3)).astype(np.float32)
IDS = np.arange(40) % 2
NAMES = np.array(["old", "young"])[IDS]
COLUMN = pd.Series(NAMES)


def audit(logits=LOGITS, labels=LABELS, groups=IDS, **options):
    return Audit.from_logits(
        logits if isinstance(logits, dict) else {"fp32": logits}, labels, groups, **options
    )


def by_hand(groups):
    right = LOGITS.argmax(axis=1) == LABELS
    return [right[np.asarray(groups) == group].mean() for group in np.unique(groups)]


@pytest.mark.parametrize(
    "groups",
    [
        NAMES.tolist(), NAMES.astype("S9"), NAMES.astype(object), NAMES.astype(np.dtypes.StringDType()),
        COLUMN, COLUMN.values, COLUMN.astype(object), COLUMN.astype("category"), COLUMN.astype("string"),
        pd.Index(NAMES), [f" {name}\n" for name in NAMES], [np.str_(name) for name in NAMES],
    ],
)  # fmt: skip
def test_names_are_names_whatever_holds_them(groups):
    made = audit(groups=groups)
    assert made.group_names == ("old", "young")
    assert made.groups.tolist() == IDS.tolist()
    assert group_accuracy(made)["value"].tolist() == pytest.approx(by_hand(NAMES))


@pytest.mark.parametrize("ids", [(0, 1), (0, 2), (7, 40), (10115, 99950), (5, 10**12)])
@pytest.mark.parametrize(
    "hold", [np.array, list, pd.Series, torch.tensor, lambda i: pd.Series(i, dtype="Int64")]
)
def test_ids_are_numbered_by_their_distinct_values(ids, hold):
    made = audit(groups=hold(np.array(ids)[IDS]))
    assert made.group_names == tuple(f"group {i}" for i in ids)
    assert group_accuracy(made)["value"].tolist() == pytest.approx(by_hand(IDS))


@pytest.mark.parametrize("dtype", ["u1", ">i4", "<u8", "i2"])
def test_any_integers_serve(dtype):
    made = audit(labels=LABELS.astype(dtype), groups=IDS.astype(dtype))
    assert (made.labels.tolist(), made.groups.tolist()) == (LABELS.tolist(), IDS.tolist())


@pytest.mark.parametrize(
    "logits",
    [
        torch.tensor(LOGITS, requires_grad=True), torch.tensor(LOGITS).double(), pd.DataFrame(LOGITS),
        LOGITS.tolist(), np.asfortranarray(LOGITS), LOGITS.astype(">f4"), LOGITS.astype(np.float64),
    ],
)  # fmt: skip
def test_logits_are_the_same_whatever_holds_them(logits):
    assert audit(logits).logits[0].tolist() == LOGITS.tolist()


def test_logits_of_fewer_bits_are_taken_as_they_are():
    for dtype in (torch.bfloat16, torch.half):
        low = torch.tensor(LOGITS).to(dtype)
        assert audit(low).logits[0].tolist() == low.float().tolist()
    assert audit((LOGITS * 20).astype(np.int8)).logits[0].tolist() == (LOGITS * 20).astype(np.int8).tolist()


def test_truth_values_are_names_and_accents_are_composed():
    assert audit(groups=IDS > 0).group_names == ("False", "True")
    assert audit(groups=["é", "e\u0301"] * 20).group_names == ("é",)


NOTHING = None, np.nan, pd.NA, pd.NaT, "", " ", "NA", b"nan"


def replaced(first, values=NAMES):
    return [first, *list(values)[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"groups": replaced(own)}, "sample 0 has no group") for own in NOTHING),
        ({"groups": COLUMN.where(COLUMN.index > 2)}, "sample 0 has no group"),
        ({"groups": pd.Series(IDS).astype("Int64").where(COLUMN.index > 2)}, "sample 0 has no group"),
        ({"groups": np.where(IDS > 0, np.nan, 0.0)}, r"sample 1 has no group \(NaN\); leave"),
        ({"groups": np.where(IDS > 0, -1, 0)}, "sample 1 has -1: leave such samples out"),
        ({"groups": IDS / 2}, "integers or names"),
        ({"groups": [1, "old"] * 20}, "numbers for some samples and names for others"),
        ({"groups": replaced([1, 2])}, "sample 0 is .* of type list"),
        ({"groups": replaced(b"\xff\xfe")}, "not UTF-8"),
        ({"groups": IDS + 0j}, "got dtype complex128"),
        ({"groups": np.stack([IDS, IDS], axis=1)}, r"got shape \(40, 2\).* join several columns"),
        ({"groups": np.arange(40), "group_names": ["a"]}, "but only 1 are named; name every id"),
        ({"groups": ["all", "some"] * 20}, "no group can be named 'all'"),
        ({"group_names": ["a", "a"]}, "two groups are named 'a'"),
        ({"group_names": ["a", " "]}, "group 1 must have a name"),
        ({"group_names": "ab"}, "must be a list of names"),
        ({"group_names": {0: "a", 1: "b"}}, "must be a list of names"),
        ({"class_names": ["k", "k", "l"]}, "two classes are named .k."),
        ({"labels": [str(label) for label in LABELS]}, "labels are names, such as '0'; give for each"),
        ({"labels": LABELS > 1}, "labels are names"),
        ({"labels": LABELS.astype(float)}, r"labels must be integers .*\.astype\(int\)"),
        ({"labels": LABELS[:, None]}, r"\(40, 1\).*\.ravel\(\)"),
        ({"labels": np.eye(3)[LABELS]}, "one-hot"),
        ({"labels": np.where(IDS > 0, -100, LABELS)}, "sample 1 has -100"),
        ({"labels": LABELS + 10**15}, "but only 3 are named; number the classes from 0"),
        ({"logits": LOGITS + 0j}, "real numbers; got dtype complex64"),
        ({"logits": LOGITS > 0}, "real numbers; got dtype bool"),
        ({"logits": LOGITS.astype(str)}, "real numbers; got dtype object"),
        ({"logits": LOGITS[:, :1]}, "two classes or more"),
        ({"logits": LOGITS[:0], "labels": [], "groups": []}, "no samples to audit"),
        ({"logits": {8: LOGITS}}, "precision 0 must have a name; got 8"),
        ({"logits": {"int8": LOGITS, "int8 ": LOGITS}}, "two precisions are named 'int8'"),
        ({"logits": np.ma.masked_greater(LOGITS, 1)}, "are masked"),
        ({"train_counts": [-1, 2]}, "whole numbers from 0 on"),
        ({"train_counts": [0.5, 2]}, "whole numbers from 0 on"),
        ({"train_counts": [1, 2, 3]}, "3 training counts for 2 groups"),
    ],
)  # fmt: skip
def test_what_is_missing_or_contradictory_is_refused(change, message):
    with pytest.raises(ValueError, match=message) as error:
        audit(**change)
    assert len(str(error.value)) < 400


def test_logits_without_a_name_are_refused():
    with pytest.raises(ValueError, match="by the name of each precision"):
        Audit.from_logits(LOGITS, LABELS, IDS)


def test_ids_of_samples_are_no_groups():
    many = of_groups.MOST + 1
    with pytest.raises(ValueError, match="1,001 groups are more than the 1,000"):
        Audit.from_logits({"fp32": np.eye(2)[np.zeros(many, int)]}, np.zeros(many, int), np.arange(many))


def test_sums_of_many_groups_are_those_of_few():
    values, groups = RNG.normal(size=(2, 3, 500)), RNG.integers(0, 90, 500)
    few, many = (of_groups.group_means(values, groups, number) for number in (90, 400))
    np.testing.assert_allclose(few, many[..., :90], rtol=1e-12)
    assert np.isnan(many[..., 90:]).all()
