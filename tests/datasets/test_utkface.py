import os
from pathlib import Path

import numpy as np
import pytest

import samples
from quantskew import datasets
from quantskew.datasets import utkface
from quantskew.datasets.decode import decode_image

FILES = list(samples.face_files(60))
IRREGULAR = {
    "39_1_20170116174525125.jpg.chip.jpg": None,
    "24_0_1_20170116220224657 .jpg.chip.jpg": (24, 0, 1),
    "55_0_0_20170116232725357jpg.chip.jpg": (55, 0, 0),
}
REAL = Path(
    os.environ.get("QUANTSKEW_UTKFACE")
    or Path(__file__).parents[2].parent / "shared" / "data" / "UTKFace.tar.gz"
)


@pytest.fixture
def archive(tmp_path, fresh_cache):
    return samples.write_archive(tmp_path / "UTKFace.tar.gz", FILES)


def whole(data, what):
    splits = (data.train, data.validation, data.test)
    return np.concatenate([getattr(split, what).numpy() for split in splits])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *IRREGULAR.items(),
        ("1_0_2_20161219140627985.jpg.chip.jpg", (1, 0, 2)),
        ("116_1_4_20170120134921760.jpg", (116, 1, 4)),
        ("UTKFace/26_1_3_20170117195420803.JPG", (26, 1, 3)),
        ("26_2_3_20170117195420803.jpg", None),
        ("26_1_5_20170117195420803.jpg", None),
        ("121_1_3_20170117195420803.jpg", None),
        ("1000_1_3_20170117195420803.jpg", None),
        ("._26_1_3_20170117195420803.jpg", None),
        ("26_1_3_.jpg", None),
        ("readme.txt", None),
    ],
)
def test_names(name, expected):
    assert utkface.parse_name(name) == expected


def test_irregular_files_are_kept_or_left_out_with_the_reason(archive, capsys):
    irregular = [(name, samples.noise_jpeg(900 + n)) for n, name in enumerate(IRREGULAR)]
    truncated = ("30_0_0_1.jpg", samples.noise_jpeg(1)[:100])
    samples.write_archive(archive, [*FILES, *irregular, truncated, ("readme.txt", b"hello")])
    data = datasets.load("utkface", archive, size=8)
    reason = "the name does not give age, gender and ethnicity"
    assert data.skipped == {
        "39_1_20170116174525125.jpg.chip.jpg": reason,
        "30_0_0_1.jpg": "the image cannot be decoded",
        "readme.txt": "not an image",
    }
    assert len(whole(data, "labels")) == 62
    assert "3 of 65 files left out" in capsys.readouterr().out


BANDS = [0, 18, 30, 45, 60]
VALUES = {
    "age": (list(utkface.AGE_BANDS), lambda age, gender, ethnicity: sum(age >= band for band in BANDS) - 1),
    "gender": (["male", "female"], lambda age, gender, ethnicity: gender),
    "ethnicity": (["White", "Black", "Asian", "Indian", "Others"], lambda age, gender, ethnicity: ethnicity),
}


@pytest.mark.parametrize("label", [None, *utkface.LABELS])
@pytest.mark.parametrize("group", [None, *utkface.LABELS])
def test_any_attribute_is_label_and_any_is_group(archive, label, group):
    data = datasets.load("utkface", archive, size=8, label=label, group=group)
    label_names, label_of = VALUES[label or "ethnicity"]
    group_names, group_of = VALUES[group or label or "ethnicity"]
    assert list(data.class_names) == label_names
    assert list(data.group_names) == group_names
    # Each image is recognised by its pixels.
    values_of = {decode_image(content, 8).tobytes(): utkface.parse_name(name) for name, content in FILES}
    for split in (data.train, data.validation, data.test):
        for image, own_label, own_group in zip(split.images.numpy(), split.labels, split.groups, strict=True):
            values = values_of[image.tobytes()]
            assert (own_label, own_group) == (label_of(*values), group_of(*values))


def test_an_unpacked_folder_is_the_same_data_set(archive, tmp_path):
    samples.write_folder(tmp_path / "unpacked" / "UTKFace", FILES)
    sources = [archive, tmp_path / "unpacked" / "UTKFace", tmp_path / "unpacked", str(archive)]
    sources.append(archive.parent)
    digests = {datasets.load("utkface", source, size=8).digest for source in sources}
    assert len(digests) == 1


def test_the_split_is_stratified_disjoint_and_complete(archive):
    samples.write_archive(archive, list(samples.face_files(400)))
    data = datasets.load("utkface", archive, size=8, group="gender")
    images = [image.tobytes() for image in whole(data, "images")]
    assert len(set(images)) == len(images) == 400
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    assert sizes == [260, 60, 80]
    for split, share in zip((data.train, data.validation, data.test), (0.65, 0.15, 0.2), strict=True):
        strata = np.bincount(split.labels.numpy() * 2 + split.groups.numpy(), minlength=10)
        np.testing.assert_allclose(strata, 40 * share, atol=1)


def test_the_seed_decides_the_split(archive):
    once, again, other = (datasets.load("utkface", archive, size=8, seed=seed) for seed in (0, 0, 1))
    assert once.digest == again.digest
    assert once.digest != other.digest
    assert sorted(whole(once, "labels")) == sorted(whole(other, "labels"))


def test_64_pixels_a_side_by_default(archive):
    assert datasets.load("utkface", archive).train.images.shape[1:] == (3, 64, 64)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, FileNotFoundError, r"faces does not exist; give the UTKFace\.tar\.gz"),
        (lambda path: path.mkdir(), ValueError, r"faces holds no images and no UTKFace\.tar\.gz"),
        (lambda path: path.write_text("hello"), ValueError, "neither a folder nor a tar archive"),
        (
            lambda path: samples.write_folder(path, [("a.jpg", b"text")]),
            ValueError,
            r"no image in .*faces could be used: 'a\.jpg' \(the name does not give",
        ),
    ],
)
def test_wrong_paths_are_refused(tmp_path, fresh_cache, make, error, message):
    path = tmp_path / "faces"
    make(path)
    with pytest.raises(error, match=message):
        datasets.load("utkface", path)


def test_no_path_is_refused_with_what_to_give():
    with pytest.raises(ValueError, match=r"utkface needs data_dir: the official UTKFace\.tar\.gz"):
        datasets.load("utkface")


def test_a_truncated_archive_is_refused_by_name(archive):
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"UTKFace\.tar\.gz is not a whole tar archive"):
        datasets.load("utkface", archive)


@pytest.mark.skipif(not REAL.exists(), reason=f"the real UTKFace is not at {REAL}; set QUANTSKEW_UTKFACE")
def test_the_real_archive_as_downloaded():
    data = datasets.load("utkface", REAL, size=32)
    assert dict(zip(data.class_names, np.bincount(whole(data, "labels")).tolist(), strict=True)) == {
        "White": 10_078,
        "Black": 4_525,
        "Asian": 3_434,
        "Indian": 3_975,
        "Others": 1_692,
    }
    assert len(whole(data, "labels")) == 23_704
    assert sorted(data.skipped.values()) == ["the name does not give age, gender and ethnicity"] * 3
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    np.testing.assert_allclose(sizes, np.array([0.65, 0.15, 0.2]) * 23_704, atol=5)
    # Bit for bit what the records were made of, however the reader is changed.
    assert data.digest == "0ceef94b9f3b5fef0537"
    seen, repeated = set(), 0
    for split in (data.train, data.validation, data.test):
        own = [image.numpy().tobytes() for image in split.images]
        repeated += sum(image in seen for image in own)
        seen.update(own)
    # As book/data.md says.
    assert repeated == 199
