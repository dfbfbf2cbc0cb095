import os
import re
import unicodedata

import pytest

import samples
from quantskew import datasets
from quantskew.datasets.decode import decode_image

NAMES = [f"{kind}/{number}.png" for kind in ("cat", "dog", "bird") for number in range(10)]


@pytest.fixture
def root(tmp_path, fresh_cache):
    files = ((name, samples.noise_jpeg(number)) for number, name in enumerate(NAMES))
    return samples.write_folder(tmp_path / "animals", files)


def write_groups(path, rows, header="file,group"):
    path.write_text("\n".join([header, *(f"{name},{group}" for name, group in rows)]))
    return path


def counts(data):
    return sum(split.group_counts for split in (data.train, data.validation, data.test)).tolist()


def test_folders_are_classes_and_groups(root):
    data = datasets.load("folder", root, size=8)
    assert data.name == "animals"
    assert data.class_names == data.group_names == ("bird", "cat", "dog")
    assert counts(data) == [10, 10, 10]
    assert [len(split) for split in (data.train, data.validation, data.test)] == [18, 6, 6]
    assert data.train.images.shape[1:] == (3, 8, 8)
    assert datasets.load("folder", root).train.images.shape[2:] == (64, 64)


@pytest.mark.parametrize("place", ["in the folder", "elsewhere"])
def test_a_table_names_the_groups(root, tmp_path, place):
    table = (root if place == "in the folder" else tmp_path) / "groups.csv"
    write_groups(table, [(name, "wild" if number % 3 else "tame") for number, name in enumerate(NAMES)])
    data = datasets.load("folder", root, size=8, group=None if place == "in the folder" else str(table))
    assert data.group_names == ("tame", "wild")
    assert counts(data) == [10, 20]
    assert data.class_names == ("bird", "cat", "dog")
    by_class = datasets.load("folder", root, size=8, group="class")
    assert by_class.group_names == by_class.class_names


def test_what_is_not_an_image_in_a_class_folder_is_left_out(root):
    samples.write_folder(
        root, [("cat/notes.txt", b"x"), ("cat/broken.jpg", b"x"), ("top.jpg", samples.noise_jpeg(0))]
    )
    assert datasets.load("folder", root, size=8).skipped == {
        "cat/notes.txt": "not an image",
        "cat/broken.jpg": "the image cannot be decoded",
        "top.jpg": "not in a class folder",
    }


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            [(name, "g") for name in NAMES[1:]],
            "file,group",
            r"groups\.csv names no group for 1 images, the first 'cat/0\.png'; add their rows",
        ),
        (
            [(name, "g") for name in NAMES],
            "name,kind",
            r"groups\.csv needs the columns file and group; it has 'name', 'kind'",
        ),
    ],
)
def test_an_incomplete_table_is_refused(root, rows, header, message):
    write_groups(root / "groups.csv", rows, header)
    with pytest.raises(ValueError, match=message):
        datasets.load("folder", root, size=8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data_dir": None}, ValueError, "'folder' needs data_dir"),
        ({"data_dir": "nowhere"}, FileNotFoundError, "nowhere is not a folder; give one that holds"),
        ({"group": "none.csv"}, FileNotFoundError, r"none\.csv does not exist; give 'class' or a CSV"),
    ],
)
def test_missing_files_are_named(root, arguments, error, message):
    with pytest.raises(error, match=message):
        datasets.load("folder", **{"data_dir": root, "size": 8, **arguments})


def test_an_empty_folder_is_refused(tmp_path, fresh_cache):
    with pytest.raises(ValueError, match="there are no files"):
        datasets.load("folder", tmp_path)


def make(path, counts):
    """A folder with so many images in each of its folders, no two alike; returns the class of each image."""
    places = [(place, number) for place, count in counts.items() for number in range(count)]
    contents = [samples.noise_jpeg(seed, side=8) for seed in range(len(places))]
    samples.write_folder(
        path, ((f"{place}/{n}.jpg", own) for (place, n), own in zip(places, contents, strict=True))
    )
    return {decode_image(own, 8).tobytes(): place for (place, _), own in zip(places, contents, strict=True)}


def places(split, place_of):
    return sorted(place_of[image.numpy().tobytes()] for image in split.images)


@pytest.mark.parametrize("names", ["train val test", "Train valid TEST", "training validation testing"])
def test_given_splits_are_the_splits(tmp_path, fresh_cache, names):
    train, validation, test = names.split()
    counts = {train: (7, 5), validation: (2, 3), test: (4, 3)}
    counts = {f"{s}/{c}": n for s, own in counts.items() for c, n in zip(("cat", "dog"), own, strict=True)}
    place_of = make(tmp_path / "x", counts)
    data = datasets.load("folder", tmp_path / "x", size=8)
    assert data.class_names == ("cat", "dog")
    for split, name in ((data.train, train), (data.validation, validation), (data.test, test)):
        expected = [f"{name}/{kind}" for kind in ("cat", "dog") for _ in range(counts[f"{name}/{kind}"])]
        assert places(split, place_of) == expected
        labels = [["cat", "dog"][label] for label in split.labels]
        assert sorted(f"{name}/{label}" for label in labels) == expected


def test_validation_that_is_not_given_is_drawn_from_training(tmp_path, fresh_cache):
    place_of = make(tmp_path / "x", {"train/a": 20, "train/b": 40, "test/a": 3, "test/b": 4})
    first, again, other = (datasets.load("folder", tmp_path / "x", size=8, seed=seed) for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    for data in (first, other):
        assert places(data.test, place_of) == ["test/a"] * 3 + ["test/b"] * 4
        assert places(data.validation, place_of) == ["train/a"] * 3 + ["train/b"] * 6
        assert places(data.train, place_of) == ["train/a"] * 17 + ["train/b"] * 34


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"train/a": 6, "train/b": 6, "val/a": 6, "val/b": 6},
            "holds 'train', 'val': splits are train, test and",
        ),
        ({"train/a": 6, "test/b": 6, "more/a": 6}, "move what else there is"),
        ({"train/a": 6, "test/a": 6, "val/a": 6, "valid/a": 6}, "one of val, valid and validation"),
        ({"train": 6, "test": 6}, "each with a folder per class"),
        ({"train/a": 6, "train/b": 6}, "a single folder; the classes are in .*/x/train: give that"),
        (
            {"train/a": 6, "train/b": 6, "test/a": 6},
            "of the class 'b' there are 5/1/0 images .* put some there",
        ),
        ({"data/a": 6, "data/b": 6}, "a single folder; the classes are in .*/x/data: give that"),
        ({"x/y/a": 6, "x/y/z/b": 6}, "the classes are in .*/x/x/y: give that"),
        (
            {"one/a": 6, "one/b": 6, "two/a": 6, "two/b": 6},
            "holds 'one', 'two', each with the same folders, such as 'a'",
        ),
        ({"a": 20}, "holds 'a', a single class; give a folder with"),
        ({"a/b": 20}, "holds 'a', a single class"),
        ({".": 20}, "20 images are in no folder; make a folder for each class"),
        ({"a": 9, "b": 1}, "of the class 'b' there are 1/0/0 images .* 5 of one group are enough"),
        ({"a": 9, "b": 4}, "of the class 'b' there are 3/0/1 images"),
        ({"a": 1, "b": 1}, "2 images give 2/0/0 of training, validation and test"),
    ],
)
def test_a_folder_that_is_not_one_of_classes_is_refused(tmp_path, fresh_cache, counts, message):
    make(tmp_path / "x", counts)
    with pytest.raises(ValueError, match=message):
        datasets.load("folder", tmp_path / "x", size=8)


@pytest.mark.parametrize("count", range(5, 40))
def test_five_images_of_a_class_are_enough_for_every_split(count):
    parts = datasets.split.stratified_indices([0] * count, (0.65, 0.15, 0.2), 0)
    assert all(map(len, parts))


@pytest.mark.parametrize(
    "counts", [{"train": 9, "bus": 9, "car": 9}, {"a/x": 9, "b/y": 9}, {"a/x": 5, "a": 5, "b/x": 9}]
)
def test_other_folders_are_classes(tmp_path, fresh_cache, counts):
    make(tmp_path / "x", counts)
    data = datasets.load("folder", tmp_path / "x", size=8)
    assert data.class_names == tuple(sorted({place.split("/")[0] for place in counts}))


def test_a_class_that_is_a_link_is_a_class(root, tmp_path):
    expected = datasets.load("folder", root, size=8)
    (root / "dog").rename(tmp_path / "stored")
    (root / "dog").symlink_to(tmp_path / "stored")
    data = datasets.load("folder", root, size=8)
    assert data.skipped == {}
    assert data.digest == expected.digest


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fish/1.heic", "0 of 1 files .*no image format that is read: 1"),
        ("fish/1.txt", "0 of 0 files .*not an image: 1"),
        ("fish/", "0 of 1 files .*an empty folder: 1"),
    ],
)
def test_a_class_that_would_vanish_is_refused(root, name, why):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).mkdir(exist_ok=True) if name.endswith("/") else (root / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"animals, class 'fish': {why}"):
        datasets.load("folder", root, size=8)
    (root / "fish").rename(root / ".fish")
    assert datasets.load("folder", root, size=8).class_names == ("bird", "cat", "dog")


def test_a_class_that_is_linked_twice_is_refused(root):
    (root / "hound").symlink_to("dog")
    with pytest.raises(ValueError, match=r"class 'hound': .*a link to a folder that is read already"):
        datasets.load("folder", root, size=8)


def test_the_two_ways_to_write_an_accent_are_one_class(tmp_path, fresh_cache):
    two = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")]
    make(tmp_path / "x", {two[0]: 6, two[1]: 6, "tea": 6})
    write_groups(
        tmp_path / "x" / "groups.csv", [(f"{own}/{n}.jpg", own) for own in (*two, "tea") for n in range(6)]
    )
    data = datasets.load("folder", tmp_path / "x", size=8)
    assert data.class_names == data.group_names == (two[0], "tea")
    assert counts(data) == [12, 6]


def test_classes_that_differ_in_case_only_are_said(tmp_path, fresh_cache, capsys):
    make(tmp_path / "x", {"a": 6, "A": 6})
    assert datasets.load("folder", tmp_path / "x", size=8).class_names == ("A", "a")
    assert "x: the classes 'A' and 'a' differ in case only" in capsys.readouterr().out


def test_a_class_that_is_not_utf_8_has_a_name(tmp_path, fresh_cache):
    make(tmp_path / "x", {"a": 6, "b": 6})
    os.rename(tmp_path / "x" / "b", os.fsencode(tmp_path) + b"/x/caf\xe9")
    data = datasets.load("folder", tmp_path / "x", size=8)
    assert data.class_names == ("a", "caf\\xe9")
    assert len(data.digest) == 20


def test_images_in_two_splits_are_counted_on_every_run(root, capsys):
    for number in range(10):
        (root / "cat" / f"copy{number}.png").write_bytes((root / "cat" / f"{number}.png").read_bytes())
    for _ in range(2):
        data = datasets.load("folder", root, size=8)
        seen, repeated = set(), 0
        for split in (data.train, data.validation, data.test):
            own = [image.numpy().tobytes() for image in split.images]
            repeated += sum(image in seen for image in own)
            seen |= set(own)
        assert repeated > 0
        assert f"{repeated} images of validation and test are, pixel by pixel" in capsys.readouterr().out


def test_the_folder_has_its_own_name(root, monkeypatch):
    monkeypatch.chdir(root)
    assert {datasets.load("folder", path, size=8).name for path in (".", "./", "../animals", "cat/..")} == {
        "animals"
    }


ROWS = [(name, "ab"[number % 2]) for number, name in enumerate(NAMES)]


def text(rows=ROWS, header="file,group", separator=","):
    return "\n".join([header.replace(",", separator), *(f"{f}{separator}{g}" for f, g in rows), ""])


def changed(change_file=str, change_group=str):
    return [(change_file(file), change_group(group)) for file, group in ROWS]


@pytest.mark.parametrize(
    "content",
    [
        text().encode("utf-8-sig"),
        text().encode("utf-16"),
        text(separator="\t").encode("utf-16"),
        b"\xfe\xff" + text(separator=";").encode("utf-16-be"),
        text(separator=";"),
        text(separator="\t"),
        text().replace("\n", "\r\n"),
        text().replace("\n", "\r"),
        text(changed(lambda file: "./" + file)),
        text(changed(lambda file: file.replace("/", "\\"))),
        text(changed(lambda file: ".\\" + file.replace("/", "\\"))),
        text(changed(lambda file: "animals/" + file)),
        text(changed(lambda file: "{root}/" + file)),
        text(changed(lambda file: "C:\\me\\animals\\" + file.replace("/", "\\"))),
        text(changed(lambda file: f'"{file}"', lambda group: f' "{group} "')),
        text(changed(lambda file: f" {file} ", lambda group: f"  {group}\u00a0"), header=" File , GROUP "),
        text([*ROWS, *ROWS]),
        text([*ROWS, ("cat/gone.png", "c"), ("cat/gone.png", ""), ("elsewhere/animal/cat/0.png", "c")]),
        text([*ROWS, ("", ""), (" ", "")]) + "\n\n",
        text([(f"x,{f}", f"{g},y") for f, g in ROWS], header="note,file,group,more"),
        text([(f, f"{g},,") for f, g in ROWS]),
        text(changed(str, lambda group: f"{group},"), header="file,group,x"),
    ],
)
def test_tables_are_read_as_they_are_meant(root, content):
    content = content.replace("{root}", str(root)).encode() if isinstance(content, str) else content
    (root / "groups.csv").write_bytes(content)
    data = datasets.load("folder", root, size=8)
    assert data.group_names == ("a", "b")
    group_of = {decode_image((root / name).read_bytes(), 8).tobytes(): group for name, group in ROWS}
    for split in (data.train, data.validation, data.test):
        expected = [group_of[image.numpy().tobytes()] for image in split.images]
        assert [data.group_names[group] for group in split.groups] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            text(changed(str, lambda group: "\u00c4" + group)).encode("latin-1"),
            "row 2: not UTF-8; save it as",
        ),
        (text().encode("utf-16-le"), "needs the columns file and group"),
        (
            text([*ROWS, ("cat/3.png", "a")]),
            "row 32: 'cat/3.png' is in 'a', in row 5 in 'b': remove one row",
        ),
        (text([*ROWS, ("./cat/3.png", "B")]), "row 32: './cat/3.png' is in 'B', in row 5 in 'b'"),
        *(
            (
                text([*ROWS[:4], (ROWS[4][0], group), *ROWS[5:]]),
                "row 6: 'cat/4.png' has no group .*write one, 'unknown'",
            )
            for group in ("", " ", "NA", "N/A", "nan", "NaN", "None", "null", "#N/A", "-", "<NA>")
        ),
        ("file,group\n" + "\n".join(NAMES), "row 2: 'cat/0.png' has no group"),
        (text(ROWS[3:]), "names no group for 3 images, the first 'cat/0.png'"),
        (
            text(changed(lambda file: file.split("/")[1])),
            r"30 images, .* \(30 rows name no file in .*animals\)",
        ),
        (
            text([(f, g.upper() if n % 4 else g) for n, (f, g) in enumerate(ROWS)]),
            "the groups 'A' and 'a' differ in case",
        ),
        (
            text([*ROWS, ("cat/0.png", "a,b")]),
            "row 32: 3 values for 2 columns; remove the row, or put values with ','",
        ),
        (text([*ROWS[:3], (ROWS[3][0], '"b'), *ROWS[4:]]), "row 31: unexpected end of data"),
        (text(header="filename,label"), "has 'filename', 'label'"),
        (text(header="file,Group,group"), "has 'file', 'group', 'group'"),
        ("", "it has none"),
        ("file,group\n", "names no group for 30 images"),
        (text([(f, n) for n, (f, _) in enumerate(ROWS)]), "30 images give 30/0/0 of training"),
    ],
)
def test_tables_that_say_too_little_or_too_much_are_refused(root, content, message):
    (root / "groups.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message) as error:
        datasets.load("folder", root, size=8)
    assert str(root) in str(error.value) or "animals" in str(error.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("10 2 1", "1 2 10"),
        ("1.5 -2 0.5", "-2 0.5 1.5"),
        ("10 2 x", "10 2 x"),
        ("30+ 0-9 10-29", "0-9 10-29 30+"),
    ],
)
def test_groups_that_are_numbers_are_sorted_as_numbers(root, names, expected):
    write_groups(root / "groups.csv", [(name, names.split()[n // 10]) for n, name in enumerate(NAMES)])
    assert datasets.load("folder", root, size=8).group_names == tuple(expected.split())


def test_rows_of_files_that_are_gone_are_counted(root, capsys):
    samples.write_folder(root, [("cat/broken.png", b"x")])
    write_groups(root / "groups.csv", [*ROWS, ("cat/gone.png", "c"), ("cat/broken.png", "a")])
    datasets.load("folder", root, size=8)
    assert "animals: 1 rows of groups.csv name files that are not there" in capsys.readouterr().out


def test_another_table_leaves_what_is_decoded(root, fresh_cache):
    write_groups(root / "groups.csv", ROWS)
    first = datasets.load("folder", root, size=8)
    write_groups(root / "groups.csv", [(name, "c") for name in NAMES])
    assert datasets.load("folder", root, size=8).digest != first.digest
    assert len(list(fresh_cache.rglob("*.json"))) == 1


def test_long_names_are_shortened_in_messages(tmp_path, fresh_cache):
    make(tmp_path / "x", {"a" * 200: 9, "b" * 200: 1})
    with pytest.raises(ValueError, match=r"class 'b{37}\.\.\.b{38}' there") as error:
        datasets.load("folder", tmp_path / "x", size=8)
    assert len(re.sub(re.escape(str(tmp_path)), "", str(error.value))) < 250
