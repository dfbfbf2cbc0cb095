import pytest

import samples
from quantskew import datasets

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
    write_groups(table, [(name, "wild" if number % 3 else "NA") for number, name in enumerate(NAMES)])
    data = datasets.load("folder", root, size=8, group=None if place == "in the folder" else str(table))
    assert data.group_names == ("NA", "wild")
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
            r"groups\.csv names no group for 1 images, the first cat/0",
        ),
        (
            [(name, "g") for name in NAMES],
            "name,kind",
            r"groups\.csv needs the columns file and group; it has name, kind",
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
