import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import samples
from quantskew.datasets import decode

NOISE = samples.noise_jpeg(0)

KILLED = """
import os, signal, sys
from pathlib import Path
from quantskew.datasets import decode

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

source, moment = Path(sys.argv[1]), sys.argv[2]
if moment == "while the array is written":
    open_memmap = decode.np.lib.format.open_memmap
    decode.np.lib.format.open_memmap = lambda *a: open_memmap(*a).flush() or die()
elif moment == "before the index is written":
    decode.write_bytes = die

def members():
    for number, member in enumerate(decode.folder_members(source)):
        if number == 5 and moment == "while files are read":
            die()
        yield member

decode.cached_decode("noise", source, members, 8, lambda name: None)
"""


def cached(source, size=8, reject=lambda name: None):
    return decode.cached_decode("noise", source, lambda: decode.folder_members(source), size, reject)


@pytest.fixture
def folder(tmp_path):
    return samples.write_folder(tmp_path / "noise", samples.face_files(12))


def test_pixels_are_those_of_pillow():
    with Image.open(io.BytesIO(NOISE)) as image:
        expected = np.asarray(image.convert("RGB").resize((20, 20))).transpose(2, 0, 1)
    pixels = decode.decode_image(NOISE, 20)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_rgb(mode):
    buffer = io.BytesIO()
    Image.new(mode, (5, 7)).save(buffer, "TIFF")
    assert decode.decode_image(buffer.getvalue(), 4).shape == (3, 4, 4)


@pytest.mark.parametrize("content", [b"", b"not an image", NOISE[:20], NOISE[: len(NOISE) // 2], NOISE[100:]])
def test_what_cannot_be_decoded_is_none(content):
    assert decode.decode_image(content, 8) is None


@given(st.lists(st.tuples(st.integers(0, len(NOISE) - 1), st.integers(0, 255)), max_size=6))
def test_damaged_files_never_crash(damage):
    content = bytearray(NOISE)
    for place, value in damage:
        content[place] = value
    pixels = decode.decode_image(bytes(content), 8)
    assert pixels is None or pixels.shape == (3, 8, 8)


def test_many_images_come_back_in_order_of_name():
    files = dict(samples.face_files(300))
    decoded, broken = decode.decode([*reversed(files.items()), ("0.jpg", b"x")], 8)
    assert list(decoded) == sorted(files)
    assert broken == ["0.jpg"]
    for name, content in files.items():
        np.testing.assert_array_equal(decoded[name], decode.decode_image(content, 8))


def test_the_second_call_maps_the_array(fresh_cache, folder, monkeypatch):
    images, names, _ = cached(folder)
    monkeypatch.setattr(decode, "decode_image", lambda *_: pytest.fail("decoded again"))
    again, names_again, _ = cached(folder)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    np.testing.assert_array_equal(images, again)
    assert names == names_again == sorted(names)


@pytest.mark.parametrize("change", ["file replaced", "same size", "file added", "file removed", "size"])
def test_a_changed_source_is_decoded_again(fresh_cache, folder, change):
    first, names, _ = cached(folder)
    name = folder / names[0]
    if change == "file replaced":
        name.write_bytes(samples.noise_jpeg(99, side=21))
    elif change == "same size":
        largest = folder / max(names, key=lambda n: (folder / n).stat().st_size)
        content = samples.noise_jpeg(99, side=16)
        largest.write_bytes(content + bytes(largest.stat().st_size - len(content)))
    elif change == "file added":
        (folder / "0_extra.jpg").write_bytes(NOISE)
    elif change == "file removed":
        name.unlink()
    second, *_ = cached(folder, size=9 if change == "size" else 8)
    assert first.shape != second.shape or (first != second).any()


MOMENTS = ["while files are read", "while the array is written", "before the index is written"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_while_decoding_leaves_nothing_that_is_read(fresh_cache, folder, killed, monkeypatch, moment):
    killed(KILLED, folder, moment)
    assert not list(fresh_cache.rglob("index.json"))
    after, names, _ = cached(folder)
    left = sorted(path.name for path in fresh_cache.rglob("*") if path.is_file())
    assert left == ["images.npy", "index.json"]
    monkeypatch.setenv("QUANTSKEW_CACHE", str(fresh_cache / "another"))
    expected, expected_names, _ = cached(folder)
    np.testing.assert_array_equal(after, expected)
    assert names == expected_names


def test_what_is_left_out_is_listed(fresh_cache, folder, capsys):
    (folder / "broken.jpg").write_bytes(NOISE[:50])
    (folder / "notes.txt").write_text("hello")
    images, names, skipped = cached(folder, reject=lambda n: "a text" if n.endswith(".txt") else None)
    assert len(images) == len(names) == 12
    assert skipped == {"broken.jpg": "the image cannot be decoded", "notes.txt": "a text"}
    assert "2 of 14 files left out: broken.jpg (the image cannot be decoded)" in capsys.readouterr().out
    assert cached(folder)[2] == skipped
    index = next(fresh_cache.rglob("index.json"))
    assert json.loads(index.read_text())["skipped"] == skipped


def test_a_source_without_images_is_refused(fresh_cache, tmp_path):
    empty = samples.write_folder(tmp_path / "empty", [])
    empty.mkdir()
    with pytest.raises(ValueError, match=r"no image in .*empty could be used: there are no files"):
        cached(empty)
    texts = samples.write_folder(tmp_path / "texts", [(f"{n}.jpg", b"text") for n in range(7)])
    with pytest.raises(ValueError, match=r"0\.jpg \(the image cannot be decoded\).*and 2 more"):
        cached(texts)
    assert not list(fresh_cache.rglob("*.*"))


def test_members_of_an_archive_are_its_files(tmp_path):
    files = list(samples.face_files(5))
    for name in ("a.tar", "a.tar.gz"):
        archive = samples.write_archive(tmp_path / name, files)
        assert list(decode.archive_members(archive)) == [(f"UTKFace/{n}", content) for n, content in files]


def test_folders_and_links_in_an_archive_are_passed_over(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "elsewhere"
            tar.addfile(member)
    assert list(decode.archive_members(path)) == []


@pytest.mark.parametrize("kind", ["truncated gz", "truncated tar", "empty", "text", "damaged gz", "no end"])
def test_an_archive_that_is_not_whole_is_refused_by_name(tmp_path, kind):
    path = samples.write_archive(tmp_path / "faces.tar", samples.face_files(20))
    if kind.endswith("gz") or kind == "no end":
        path = samples.write_archive(tmp_path / "faces.tar.gz", samples.face_files(20))
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated gz": whole[: len(whole) * 2 // 3],
            "truncated tar": whole[: 512 + 100],
            "empty": b"",
            "text": b"download failed\n" * 100,
            "no end": whole[:-5],
            "damaged gz": whole[:1000] + bytes(1000) + whole[2000:],
        }[kind]
    )
    with pytest.raises(ValueError, match=r"faces\.tar.* is not a whole tar archive .*download it again"):
        list(decode.archive_members(path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", True), ("a.JPEG", True), ("a.png", True), ("a.txt", False), ("jpg", False)],
)
def test_image_names(name, expected):
    assert decode.is_image_name(name) is expected
