import concurrent.futures
import errno
import gzip
import io
import json
import os
import struct
import tarfile
import time
import warnings
import zlib

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
    decode.os.fsync = die
elif moment == "before the index is written":
    decode.write_bytes = die

def read_bytes(path, read=Path.read_bytes, numbers=iter(range(99))):
    if next(numbers) == 5 and moment == "while files are read":
        die()
    return read(path)

Path.read_bytes = read_bytes
decode.cached_decode("noise", source, decode.folder_files(source), 8)
"""


def cached(source, size=8, **options):
    files = decode.folder_files(source) if source.is_dir() else None
    return decode.cached_decode("noise", source, files, size, **options)


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
def test_what_cannot_be_decoded_has_a_reason(content):
    assert decode.decode_image(content, 8) == "the image cannot be decoded"


@given(st.lists(st.tuples(st.integers(0, len(NOISE) - 1), st.integers(0, 255)), max_size=6))
def test_damaged_files_never_crash(damage):
    content = bytearray(NOISE)
    for place, value in damage:
        content[place] = value
    pixels = decode.decode_image(bytes(content), 8)
    assert isinstance(pixels, str) or pixels.shape == (3, 8, 8)


def test_many_images_come_back_in_order_of_name():
    files = dict(samples.face_files(300))
    decoded, left_out = decode.decode([*reversed(files.items()), ("0.jpg", b"x"), ("1.jpg", "lost")], 8)
    assert list(decoded) == sorted(files)
    assert left_out == {"0.jpg": "the image cannot be decoded", "1.jpg": "lost"}
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
    assert not list(fresh_cache.rglob("*.json"))
    after, names, _ = cached(folder)
    left = sorted(path.suffix for path in fresh_cache.rglob("*") if path.is_file())
    assert left == [".json", ".npy"]
    monkeypatch.setenv("QUANTSKEW_CACHE", str(fresh_cache / "another"))
    expected, expected_names, _ = cached(folder)
    np.testing.assert_array_equal(after, expected)
    assert names == expected_names


def test_what_is_left_out_is_listed(fresh_cache, folder, capsys):
    (folder / "broken.jpg").write_bytes(NOISE[:50])
    (folder / "notes.txt").write_text("hello")
    (folder / "other.jpg").write_bytes(NOISE)
    options = {"reject": lambda name: "another" if name == "other.jpg" else None}
    # On every run.
    for _ in range(2):
        images, names, skipped = cached(folder, **options)
        assert len(images) == len(names) == 12
        assert skipped == {
            "broken.jpg": "the image cannot be decoded",
            "notes.txt": "not an image",
            "other.jpg": "another",
        }
        assert (
            "noise: 3 of 15 files left out: the image cannot be decoded: 1 ('broken.jpg'), "
            "not an image: 1 ('notes.txt'), another: 1 ('other.jpg')" in capsys.readouterr().out
        )
    index = next(fresh_cache.rglob("*.json"))
    assert json.loads(index.read_text())["skipped"] == skipped


def test_a_source_without_images_is_refused(fresh_cache, tmp_path):
    empty = samples.write_folder(tmp_path / "empty", [])
    empty.mkdir()
    with pytest.raises(ValueError, match=r"no image in .*empty could be used: there are no files"):
        cached(empty)
    texts = samples.write_folder(tmp_path / "texts", [(f"{n}.jpg", b"text") for n in range(7)])
    with pytest.raises(ValueError, match=r"'0\.jpg' \(the image cannot be decoded\).*and 2 more"):
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
        for name, kind in (("folder", tarfile.DIRTYPE), ("link.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "elsewhere"
            tar.addfile(member)
    assert list(decode.archive_members(path)) == [("link.png", "a link in the archive")]


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
    [
        *(
            (f"a.{suffix}", True)
            for suffix in [
                "jpg",
                "JPEG",
                "jfif",
                "png",
                "apng",
                "tif",
                "TIFF",
                "gif",
                "webp",
                "bmp",
                "jp2",
                "ppm",
                "mpo",
            ]
        ),
        *((name, False) for name in ("a.txt", "jpg", "a.eps", "a.pdf", "a.heic", "a.mp4", "a.jpg.part")),
    ],
)
def test_image_names(name, expected):
    assert decode.is_image_name(name) is expected


RAMP = np.linspace(0, 65535, 48).astype(np.uint16)[None].repeat(48, axis=0)
FINE = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep_png(levels):
    """A PNG of 16 bits a channel, which Pillow does not write."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width, channels = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*own) for own in chunks)


def pgm(levels, white):
    return f"P5 {levels.shape[1]} {levels.shape[0]} {white}\n".encode() + levels.astype(">u2").tobytes()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(RAMP), RAMP / 257),
        (encoded(RAMP // 16), RAMP // 16 / 257),
        (encoded(RAMP, "TIFF"), RAMP / 257),
        (encoded(RAMP, "TIFF", tiffinfo={262: 0}), 255 - RAMP / 257),
        (encoded((RAMP / 65535).astype(np.float32), "TIFF"), RAMP / 257),
        (encoded(RAMP, "JPEG2000"), RAMP / 257),
        (deep_png(np.stack([RAMP] * 3, axis=-1)), RAMP / 257),
        (deep_png(np.stack([RAMP, np.full_like(RAMP, 65535)], axis=-1)), RAMP / 257),
        (pgm(RAMP, 65535), RAMP / 257),
        (pgm(RAMP // 16, 4095), RAMP // 16 * (255 / 4095)),
        (encoded(RAMP > 30000), (RAMP > 30000) * 255),
    ],
)
def test_more_than_8_bits_are_scaled(content, expected):
    pixels = decode.decode_image(content, 48)
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[0] == pixels[2]).all()
    np.testing.assert_allclose(pixels[0], expected, atol=1)


@pytest.mark.parametrize(
    "image",
    [
        RAMP.astype(np.int32),
        RAMP.astype(np.float32),
        np.array([[0.5, np.nan]], dtype=np.float32),
        np.array([[-0.5, 0.5]], dtype=np.float32),
    ],
)
def test_grey_levels_without_a_known_white_are_left_out_by_name(image):
    assert "which grey level is white" in decode.decode_image(encoded(image, "TIFF"), 8)


def with_alpha(colour, alpha):
    return np.dstack([np.broadcast_to(np.uint8(colour), (12, 12, 3)), alpha])


BLACK = Image.fromarray(np.uint8(FINE > 99))
BLACK.putpalette([9, 9, 9, 200, 0, 0])


@pytest.mark.parametrize(
    ("content", "colour", "alpha"),
    [
        (encoded(with_alpha((0, 90, 255), FINE)), (0, 90, 255), FINE),
        (encoded(with_alpha((0, 90, 255), FINE), "WEBP", lossless=True, exact=True), (0, 90, 255), FINE),
        (encoded(with_alpha((0, 90, 255), FINE), "TIFF"), (0, 90, 255), FINE),
        (encoded(np.dstack([np.zeros_like(FINE), FINE])), (0, 0, 0), FINE),
        (encoded(BLACK, transparency=1), (9, 9, 9), (FINE <= 99) * 255),
        (encoded(BLACK, transparency=bytes([80, 0])), (9, 9, 9), (FINE <= 99) * 80),
        (encoded(BLACK, "GIF", transparency=1), (9, 9, 9), (FINE <= 99) * 255),
        (encoded(np.uint8(FINE > 99) * 7, transparency=7), (0, 0, 0), (FINE <= 99) * 255),
        (encoded(np.uint16(FINE > 99) * 7, transparency=7), (0, 0, 0), (FINE <= 99) * 255),
    ],
)
def test_transparent_parts_are_white(content, colour, alpha):
    share = np.asarray(alpha)[None] / 255
    expected = share * np.reshape(colour, (3, 1, 1)) + (1 - share) * 255
    np.testing.assert_allclose(decode.decode_image(content, 12), expected, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.T),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].T),
        (8, lambda a: np.rot90(a)),
        (9, lambda a: a),
    ],
)
def test_images_stand_upright(kind, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    blocks = np.kron(FINE[:5, :7], np.ones((8, 8), np.uint8))
    content = encoded(blocks, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    # Large enough that a JPEG is not scaled down while it is decoded.
    expected = decode.decode_image(encoded(turned(blocks)), 24).astype(int)
    tolerance = {"JPEG": 12, "WEBP": 1}.get(kind, 0)
    np.testing.assert_allclose(decode.decode_image(content, 24), expected, atol=tolerance)


def test_damaged_exif_hides_no_image():
    content = encoded(FINE, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode.decode_image(content, 12)[0], FINE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_of_several_frames_is_shown(kind):
    first, second = (Image.new("RGB", (12, 12), colour) for colour in ("black", "white"))
    content = encoded(first, kind, save_all=True, append_images=[second])
    assert decode.decode_image(content, 4).max() <= 2


def test_programs_are_no_images():
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 9 9 rectfill\nshowpage\n"
    assert decode.decode_image(script, 8) == "the image cannot be decoded"


@pytest.mark.parametrize("side", [8_000, 13_000, 60_000])
def test_images_of_too_many_pixels_are_left_out(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = bytearray(encoded(FINE))
    content[16:33] = header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with warnings.catch_warnings():
        # Pillow's own, of what is larger still.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert decode.decode_image(bytes(content), 8) == "more than 50 million pixels"
    assert decode.decode([("a.png", bytes(content))], 8)[1] == {"a.png": "more than 50 million pixels"}


def test_files_of_too_many_bytes_are_not_read(tmp_path, fresh_cache, monkeypatch):
    monkeypatch.setattr(decode, "FILE_LIMIT", 2**20)
    files = [*samples.face_files(8), ("huge.jpg", bytes(2**20 + 1)), ("large.jpg", NOISE.ljust(2**20, b"\0"))]
    folder = samples.write_folder(tmp_path / "folder", files)
    for source in (folder, samples.write_archive(tmp_path / "a.tar.gz", files)):
        _, names, skipped = cached(source, bare=True)
        assert skipped == {"huge.jpg": "larger than 1 MiB"}
        assert len(names) == 9


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "w") as file:
        header = tarfile.TarInfo("x")
        header.type, header.size = tarfile.XHDTYPE, 2**40
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(2**20))
    with pytest.raises(ValueError, match=f"a header of {2**40} bytes"):
        list(decode.archive_members(path))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    files = list(samples.face_files(6))
    path = samples.write_archive(tmp_path_factory.mktemp("tar") / "a.tar", files)
    with tarfile.open(path) as tar:
        return path, path.read_bytes(), [member.offset for member in tar]


def test_a_plain_archive_that_is_cut_is_refused(plain):
    path, whole, _ = plain
    end = len(whole.rstrip(b"\0"))
    for cut in [*range(0, end, 256), *range(1, end, 509)]:
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="is not a whole tar archive"):
            list(decode.archive_members(path))


def test_any_flipped_bit_of_a_header_is_refused(plain):
    path, whole, starts = plain
    rng = np.random.default_rng(0)
    refused = 0
    for start in starts:
        for place in rng.choice(np.flatnonzero(np.frombuffer(whole[start : start + 257], np.uint8)), 12):
            damaged = bytearray(whole)
            damaged[start + place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                list(decode.archive_members(path))
            except ValueError:
                refused += 1
            else:
                # These two bytes of a header are spaces and mean nothing.
                assert place in (154, 155)
    assert refused > 60


def test_a_hole_in_an_archive_is_not_its_end(plain):
    path, whole, starts = plain
    path.write_bytes(whole[: starts[3]] + bytes(512) + whole[starts[3] + 512 :])
    with pytest.raises(ValueError, match="something stands behind its end"):
        list(decode.archive_members(path))


def test_a_name_that_is_twice_in_an_archive_is_refused(tmp_path, fresh_cache):
    files = [*samples.face_files(5), ("more/again.jpg", NOISE), ("again.jpg", samples.noise_jpeg(1))]
    path = samples.write_archive(tmp_path / "a.tar", files)
    assert len(cached(path)[1]) == 7
    with pytest.raises(ValueError, match=r"a\.tar has two files named 'again\.jpg'; rename or remove"):
        cached(path, bare=True)


def test_hidden_files_are_counted_and_not_read(tmp_path, fresh_cache):
    hidden = [".git/x.jpg", "__MACOSX/._1.jpg", ".DS_Store", "a/.ipynb_checkpoints/1.jpg", "a/Thumbs.db"]
    files = [*samples.face_files(5), *((name, NOISE) for name in hidden)]
    folder = samples.write_folder(tmp_path / "folder", files)
    _, names, skipped = cached(folder)
    assert len(names) == 5
    # A folder counts once and is not entered.
    assert sorted(skipped) == [".DS_Store", ".git", "__MACOSX", "a/.ipynb_checkpoints", "a/Thumbs.db"]
    assert set(skipped.values()) == {"hidden"}
    _, names, skipped = cached(samples.write_archive(tmp_path / "a.tar", files, folder="."))
    assert len(names) == 5
    assert {name.removeprefix("./"): reason for name, reason in skipped.items()} == dict.fromkeys(
        hidden, "hidden"
    )


@pytest.mark.parametrize(
    ("good", "bad", "refused"), [(8, 2, False), (7, 2, True), (40, 10, False), (40, 11, True)]
)
@pytest.mark.parametrize("name", ["{}.jpg", "{}.heic"])
def test_more_than_a_fifth_left_out_is_refused_on_every_run(tmp_path, fresh_cache, good, bad, refused, name):
    files = [(f"{n}.jpg", samples.noise_jpeg(n)) for n in range(good)]
    files += [(name.format(f"bad{n}"), b"x") for n in range(bad)]
    # Texts beside the images do not count.
    files += [(f"{n}.txt", b"x") for n in range(60)]
    folder = samples.write_folder(tmp_path / "folder", files)
    for _ in range(2):
        if refused:
            with pytest.raises(ValueError, match=rf"{good} of {good + bad} files can be used .*but 80% must"):
                cached(folder)
        else:
            assert len(cached(folder)[1]) == good


@pytest.mark.parametrize("what", ["pixels", "header", "index", "no json", "cut", "no array"])
def test_a_damaged_entry_is_made_again(fresh_cache, folder, caplog, what):
    images, names, _ = cached(folder)
    expected = images.copy()
    index, array = next(fresh_cache.rglob("*.json")), next(fresh_cache.rglob("*.npy"))
    content = bytearray(array.read_bytes())
    if what == "pixels":
        content[-100] ^= 4
    elif what == "header":
        content[70] ^= 1
    elif what == "cut":
        content = content[:-64]
    elif what == "index":
        index.write_text(index.read_text().replace(names[0], "x" + names[0][1:]))
    elif what == "no json":
        index.write_bytes(b"\xff{")
    array.unlink()
    if what != "no array":
        array.write_bytes(content)
    images, again, _ = cached(folder)
    np.testing.assert_array_equal(images, expected)
    assert again == names
    assert ("is made again" in caplog.text) is (what != "no array")


@pytest.mark.parametrize("change", ["code", "Pillow"])
def test_a_mended_reader_reaches_what_is_kept(fresh_cache, folder, monkeypatch, change):
    cached(folder)
    if change == "code":
        monkeypatch.setattr(decode, "source_digest", lambda *names: "mended")
    else:
        monkeypatch.setattr(decode.PIL, "__version__", "mended")
    cached(folder)
    assert len(list(fresh_cache.rglob("*.json"))) == 2


def test_of_several_that_ask_one_decodes(fresh_cache, folder, monkeypatch):
    made, once = [], decode.decode
    monkeypatch.setattr(decode, "decode", lambda *a: (made.append(1), time.sleep(0.3), once(*a))[-1])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: cached(folder)[0].copy(), range(4)))
    assert len(made) == 1
    assert all((images == results[0]).all() for images in results)


@pytest.mark.parametrize("moment", [".npy", ".json"])
def test_a_full_disk_is_one_error_with_the_place(fresh_cache, folder, monkeypatch, moment):
    flush = os.fsync

    def full(number):
        if f"{moment}." in os.readlink(f"/proc/self/fd/{number}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left .*make room, .*QUANTSKEW_CACHE.*datasets/noise-8"):
            cached(folder)
    assert not [path for path in fresh_cache.rglob("*") if path.is_file()]
    assert len(cached(folder)[1]) == 12


def test_links_are_followed_once(tmp_path, fresh_cache):
    store = samples.write_folder(
        tmp_path / "store", [(f"dog/{n}.jpg", samples.noise_jpeg(n)) for n in range(6)]
    )
    root = samples.write_folder(
        tmp_path / "root", [(f"cat/{n}.jpg", samples.noise_jpeg(9 + n)) for n in range(6)]
    )
    (root / "dog").symlink_to(store / "dog")
    (root / "cat" / "linked.jpg").symlink_to(store / "dog" / "0.jpg")
    (root / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "cat" / "self.jpg").symlink_to("self.jpg")
    (root / "cat" / "up").symlink_to("..")
    (root / "cat" / "top").symlink_to(tmp_path)
    # Sorted before the folder that it leads to.
    (root / "cat" / "a").symlink_to(root / "dog2")
    samples.write_folder(root, [("dog2/1.jpg", NOISE)])
    os.mkfifo(root / "cat" / "pipe.jpg")
    os.symlink("/dev/zero", root / "cat" / "endless.jpg")
    reasons = {name: reason for name, _, reason in decode.folder_files(root)}
    assert {name: reason for name, reason in reasons.items() if reason} == {
        "cat/gone.jpg": "a broken link",
        "cat/self.jpg": "a broken link",
        "cat/up/": "a link to a folder above",
        "cat/top/": "a link to a folder above",
        "cat/a/": "a link to a folder that is read already",
        "cat/pipe.jpg": "no ordinary file",
        "cat/endless.jpg": "a broken link",
    }
    used = [name for name, reason in reasons.items() if not reason]
    expected = [*(f"cat/{n}.jpg" for n in range(6)), "cat/linked.jpg", *(f"dog/{n}.jpg" for n in range(6))]
    assert used == [*expected, "dog2/1.jpg"]


def test_names_that_are_not_utf_8_are_written_in_another_way(tmp_path, fresh_cache):
    folder = samples.write_folder(tmp_path / "folder", samples.face_files(3))
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(NOISE)
    _, names, _ = cached(folder)
    assert "caf\\xe9.jpg" in names
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        tar.add(os.fsencode(folder).decode() + "/caf\udce9.jpg", "caf\xe9.jpg")
    assert [name for name, _ in decode.archive_members(path)] == ["caf\\xe9.jpg"]
