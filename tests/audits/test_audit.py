import dataclasses
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

import samples
from quantskew.audits.audit import Audit
from quantskew.audits.model import audit_model
from quantskew.measures.forward import dtdb, group_loss, logit_variance, softmax_variance, top_probability

HALVES = (("whole", False), ("half", True))

KILLED_WHILE_SAVING = """
import os, signal, sys
from quantskew import files
from quantskew.audits.audit import Audit
def half(path):
    os.truncate(path, os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)
files._flush = half
Audit.from_logits({"fp32": [[0.0] * 9] * 99}, [1] * 99, [0] * 99).save(sys.argv[1])
"""


def assert_same_audit(one, other):
    for field in dataclasses.fields(Audit):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), field.name
        elif dataclasses.is_dataclass(a):
            assert_same_statistics(a, b)
        else:
            assert a == b, field.name


def assert_same_statistics(one, other):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        # Bytes, since NaN is the same as NaN here.
        same = a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else a == b
        assert same, field.name


@pytest.fixture(scope="module")
def measured():
    """An Audit with weights and provenance."""
    data = samples.tiny_data()
    return audit_model(
        samples.tiny_model(), data, ["fp32", "fp16", "int2"], facts={"seed": 3, "ümlaut": [1.5]}
    )


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, measured):
    measured.save(tmp_path / "a.safetensors")
    assert_same_audit(Audit.load(tmp_path / "a.safetensors"), measured)


def test_half_the_size_keeps_every_answer_and_the_digits_that_are_printed(tmp_path, digits_audit):
    logits = digits_audit.logits.copy()
    # Nearer to each other than float16 can tell, in either order.
    for row, step in ((0, 1e-4), (1, -1e-4)):
        logits[:, row] = 0.0
        logits[:, row, 3:5] = 8.0, 8.0 + step
    audit = dataclasses.replace(digits_audit, logits=logits)
    sizes = [audit.save(tmp_path / name, half) or (tmp_path / name).stat().st_size for name, half in HALVES]
    whole, found = (Audit.load(tmp_path / name) for name, _ in HALVES)
    assert sizes[0] - sizes[1] == logits.nbytes // 2
    assert np.array_equal(whole.logits, logits)
    assert found.logits.dtype == np.float32
    assert np.array_equal(found.predictions, audit.predictions)
    for measure in (group_loss, softmax_variance, top_probability, logit_variance, dtdb):
        before, after = measure(audit)["value"], measure(found)["value"]
        assert (
            before.round(measure.digits) - after.round(measure.digits)
        ).abs().max() < 1.5 * 10**-measure.digits
        assert (before - after).abs().max() < 0.6 * 10**-measure.digits
    with pytest.raises(ValueError, match="65504"):
        dataclasses.replace(audit, logits=1e6 * logits).save(tmp_path / "large", half=True)


@pytest.mark.parametrize("audit", [samples.random_audit(), samples.uneven_audit(), samples.empty_audit()])
def test_audits_of_logits_are_saved_and_loaded(tmp_path, audit):
    audit.save(str(tmp_path / "a.safetensors"))
    assert_same_audit(Audit.load(str(tmp_path / "a.safetensors")), audit)


def test_a_kill_while_saving_leaves_the_old_audit(tmp_path, killed):
    path = tmp_path / "a.safetensors"
    samples.random_audit(seed=0).save(path)
    killed(KILLED_WHILE_SAVING, path)
    assert_same_audit(Audit.load(path), samples.random_audit(seed=0))


def test_groups_by_name_are_numbered_in_alphabetical_order():
    audit = Audit.from_logits({"a": np.eye(4)}, [0, 1, 2, 3], ["x", "ä", "b", "x"])
    assert audit.group_names == ("b", "x", "ä")
    assert audit.groups.tolist() == [1, 2, 0, 1]
    assert audit.group_counts.tolist() == [1, 2, 1]


def test_names_and_counts_are_made_up_where_they_are_not_given():
    audit = Audit.from_logits({"a": np.eye(3)}, [0, 1, 2], [0, 2, 2])
    assert audit.class_names == ("class 0", "class 1", "class 2")
    assert audit.group_names == ("group 0", "group 2")
    assert audit.train_counts.tolist() == [1, 2]
    given = Audit.from_logits({"a": np.eye(3)}, [0, 1, 2], [0, 0, 1], ["p", "q"], ["k", "l", "m"], [30, 4])
    assert (given.group_names, given.class_names) == (("p", "q"), ("k", "l", "m"))
    assert given.train_counts.tolist() == [30, 4]


def test_predictions_are_the_largest_logits():
    audit = samples.random_audit()
    expected = [[int(max(range(4), key=list(row).__getitem__)) for row in rows] for rows in audit.logits]
    assert audit.predictions.tolist() == expected


def test_selecting_precisions_takes_their_rows(measured):
    chosen = measured.select(["int2", "fp32"])
    assert chosen.precisions == ("int2", "fp32")
    np.testing.assert_array_equal(chosen.logits, measured.logits[[2, 0]])
    np.testing.assert_array_equal(chosen.weights.zeros, measured.weights.zeros[[2, 0]])
    np.testing.assert_array_equal(chosen.weights.histogram, measured.weights.histogram[[2, 0]])
    np.testing.assert_array_equal(chosen.train_counts, measured.train_counts)
    assert_same_audit(measured.select(measured.precisions), measured)


def test_parts_of_an_audit_join_to_the_whole(measured, curved_audit):
    for whole in (measured, curved_audit):
        first, *others = whole.precisions
        assert_same_audit(whole.select([first]).join(whole.select(others)), whole)
    norms = curved_audit.curvature.gradient_norms
    joined = curved_audit.select(["int2"]).join(curved_audit.select(["fp32"]))
    np.testing.assert_array_equal(joined.curvature.gradient_norms, norms[[2, 0]])
    assert (
        samples.random_audit(precisions=["fp32"]).join(samples.random_audit(precisions=["int2"])).weights
        is None
    )


def test_audits_of_other_samples_or_of_the_same_precision_do_not_join():
    audit = samples.random_audit()
    with pytest.raises(ValueError, match="different labels; they cannot be joined"):
        audit.join(samples.random_audit(seed=1, precisions=["int4"]))
    with pytest.raises(ValueError, match="each precision is named once; got fp32, int8, int2, int2"):
        audit.join(audit.select(["int2"]))


def test_a_precision_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"no 'int5'; it has fp32, int8, int2"):
        samples.random_audit().select(["fp32", "int5"])


COLUMNS = ("fp32", "int4", "int4:mse", "W4A4", "int2:mse,per-channel", "onnx", "A8", "int9:nonsense")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("int4", 1),  # the exact name goes before the other four bits
        ("int4:mse", 2),
        ("W4A4", 3),
        ("int2", 4),  # the only one of its bits
        ("onnx", 5),
        ("fp32", 0),
        ("int9:nonsense", 7),
    ],
)
def test_a_column_is_found_by_its_name_or_by_its_bits(name, found):
    assert samples.random_audit(precisions=COLUMNS).index(name) == found


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        (COLUMNS, "int9", "no 'int9'; it has fp32, int4, int4:mse"),
        (COLUMNS, "int2:mse", "no 'int2:mse'"),
        (("fp32", "W4A4"), "int4", "no 'int4'; it has fp32, W4A4"),
        (("fp32", "int4:mse", "int4:per-channel"), "int4", "several columns of int4; it has fp32, int4:mse"),
    ],
)
def test_a_column_that_is_absent_or_ambiguous_is_refused(names, asked, message):
    with pytest.raises(ValueError, match=message):
        samples.random_audit(precisions=names).index(asked)


def test_plain_names_are_given_where_they_are_unambiguous(curved_audit):
    plain = ("fp32", "int4", "int4:mse", "W4A4", "int2", "onnx", "A8", "int9:nonsense")
    assert samples.random_audit(precisions=COLUMNS).plain().precisions == plain
    names = ("fp32:folded", "W8A8", "int2:mse")
    curvature = dataclasses.replace(curved_audit.curvature, profile_precision="int2:mse")
    renamed = dataclasses.replace(curved_audit, precisions=names, curvature=curvature).plain()
    assert renamed.precisions == ("fp32", "int8", "int2")
    assert renamed.curvature.profile_precision == "int2"


GOOD = {"a": [[1.0, 2.0], [3.0, 4.0]], "b": [[1.0, 2.0], [3.0, 4.0]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": {}}, "no logits were given"),
        ({"logits": {"a": [1.0, 2.0]}}, r"logits of a must have the shape \(samples, classes\)"),
        ({"logits": {"a": [[1.0, 2.0]] * 2, "b": [[1.0, 2.0]]}}, "logits of b have the shape"),
        ({"logits": {"a": [[1.0, 2.0]] * 2, "b": [[1.0], [2.0]]}}, "same samples in the same order"),
        ({"logits": {"a": [[1.0, 2.0], [np.nan, 0.0]]}}, "sample 1 at a"),
        ({"logits": {**GOOD, "b": [[1.0, 2.0], [0.0, np.inf]]}}, "sample 1 at b"),
        ({"logits": {"a": [[1e300, 0.0], [0.0, 1.0]]}}, "sample 0 at a"),
        ({"labels": [0, 2]}, "sample 1 has label 2, but only 2"),
        ({"labels": [0, -1]}, "labels must be 0 or larger"),
        ({"labels": [0.0, 1.0]}, "labels must be integers"),
        ({"labels": [0]}, r"labels have the shape \(1,\)"),
        ({"groups": [0]}, r"groups have the shape \(1,\)"),
        ({"groups": [0, 3], "group_names": ["p", "q"]}, "sample 1 has group 3, but only 2"),
        ({"groups": ["p", "q"], "group_names": ["p", "q"]}, "only where the groups are numbers"),
        ({"class_names": ["k"]}, "2 logits a sample but 1 class names"),
        ({"train_counts": [1, 2, 3]}, "3 training counts for 2 groups"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, message):
    arguments = {"logits": GOOD, "labels": [0, 1], "groups": [0, 1], **change}
    with pytest.raises(ValueError, match=message):
        Audit.from_logits(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precisions": ("a",)}, "with 1 precisions"),
        ({"precisions": ("a", "a")}, "named once; got a, a"),
        ({"logits": np.zeros((2, 2))}, "must have the shape"),
    ],
)
def test_wrong_precisions_are_refused(change, message):
    good = {"precisions": ("a", "b"), "logits": np.zeros((2, 2, 2), np.float32)}
    rest = (("k", "l"), ("g",))
    arguments = {**good, **change}
    with pytest.raises(ValueError, match=message):
        Audit(arguments["logits"], np.zeros(2, int), np.zeros(2, int), arguments["precisions"], *rest)


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def _truncated(path):
    samples.random_audit().save(path)
    path.write_bytes(path.read_bytes()[:-100])


def _header_only(path):
    samples.random_audit().save(path)
    path.write_bytes(path.read_bytes()[:20])


def _numpy(path):
    with path.open("wb") as file:
        np.save(file, np.array([_Bomb()], dtype=object), allow_pickle=True)


def _foreign_version(path):
    save_file({"logits": np.zeros(2)}, path, {"quantskew.audit": '{"format": 99}'})


def _array_missing(path):
    save_file(
        {"logits": np.zeros((1, 0, 0))},
        path,
        {"quantskew.audit": '{"format": 1, "names": {}, "provenance": {}}'},
    )


def _names_missing(path):
    save_file({"logits": np.zeros(2)}, path, {"quantskew.audit": '{"format": 1}'})


WRONG_FILES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("precision,value\n" * 20),
    "truncated": _truncated,
    "header only": _header_only,
    "pickle": lambda path: path.write_bytes(pickle.dumps(_Bomb())),
    "npy": _numpy,
    "foreign": lambda path: save_file({"weight": np.zeros(3)}, path),
    "foreign version": _foreign_version,
    "array missing": _array_missing,
    "names missing": _names_missing,
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_file_that_is_no_whole_audit_is_refused_by_name(tmp_path, kind):
    path = tmp_path / "wrong.safetensors"
    WRONG_FILES[kind](path)
    with pytest.raises(ValueError, match=r"wrong\.safetensors .*make it again"):
        Audit.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no Audit at .*nothing\.safetensors"):
        Audit.load(tmp_path / "nothing.safetensors")


def test_curvature_survives_the_file(curved_audit, tmp_path):
    curved_audit.save(tmp_path / "a")
    loaded = Audit.load(tmp_path / "a").curvature
    assert loaded.profile_precision == curved_audit.curvature.profile_precision
    for name, array in curved_audit.curvature.arrays().items():
        np.testing.assert_array_equal(getattr(loaded, name), array)
