"""Image files decoded once, in parallel, into an array of bytes that later runs map into memory.

Files of more than `FILE_LIMIT` bytes and images of more than `PIXEL_LIMIT` pixels are left out, as is what
cannot be shown.  What is left out is counted on every run; more than `SHARE` of a class is refused.
"""

import concurrent.futures
import contextlib
import gzip
import io
import json
import os
import re
import tarfile
import threading
import warnings
import zlib
from collections import Counter, defaultdict, deque
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from quantskew.cache import cache_dir, make_once, source_digest
from quantskew.checks import shortened, some
from quantskew.files import Damaged, digest, digest_of, replacing, sealed, unsealed, write_bytes

FILE_LIMIT = 64 * 2**20
PIXEL_LIMIT = 50_000_000
SHARE = 1 / 5
_READERS = max(2, os.cpu_count() or 1)
_large_image = threading.Lock()

Image.init()
# Those that Pillow reads itself and knows by their first bytes: for PostScript it would run a program.
_FORMATS = {"JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM", "QOI", "ICO"}
_FORMATS = sorted(_FORMATS & Image.OPEN.keys())
_SUFFIXES = tuple(s for s, name in Image.registered_extensions().items() if name in [*_FORMATS, "MPO"])
_TEXT = re.compile(r".*\.(txt|[ct]sv|jsonl?|xml|ya?ml|toml|md|log|ini|py|ipynb)", re.IGNORECASE)
_OF_THE_SYSTEM = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "lost+found")

HIDDEN = "hidden"
LOOP = "a link to a folder above"
TEXT = "not an image"
TWICE = "a link to a folder that is read already"


def is_image_name(name):
    """Whether a file name ends like that of an image which Pillow reads."""
    return name.lower().endswith(_SUFFIXES)


def _refusal(name, size=0):
    """Why a file of this name and size in bytes is not read, or None."""
    parts = [part for part in name.split("/") if part != "."]
    if any(part.startswith(".") or part in _OF_THE_SYSTEM for part in parts):
        return HIDDEN
    if not is_image_name(name):
        return TEXT if _TEXT.fullmatch(name) else "no image format that is read"
    return f"larger than {FILE_LIMIT // 2**20} MiB" if size > FILE_LIMIT else None


def as_text(name):
    r"""A file name in which each byte that is not UTF-8 is written as \xff."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def folder_files(folder):
    """(relative name, path, reason or None) of each file below a folder; what has a reason is not read.

    Links are followed, but no folder is read twice.
    """
    root, files, waiting = Path(folder), [], deque([""])
    read = set(Path(os.path.realpath(root)).parents)
    while waiting:
        name = waiting.popleft()
        real = Path(os.path.realpath(root / name))
        entries = [] if real in read else sorted(os.listdir(real))
        if name and not entries:
            loop = Path(os.path.realpath((root / name).parent)).is_relative_to(real)
            reason = "an empty folder" if real not in read else LOOP if loop else TWICE
            files.append((as_text(name) + "/", root / name, reason))
        read.add(real)
        for own in (f"{name}/{entry}".lstrip("/") for entry in entries):
            path = root / own
            if path.is_dir() and _refusal(path.name) != HIDDEN:
                # A linked folder waits until all real ones are read.
                (waiting.append if path.is_symlink() else waiting.appendleft)(own)
                continue
            reason = _refusal(own, path.stat().st_size if path.is_file() else 0)
            if reason != HIDDEN and not path.is_file():
                reason = "a broken link" if path.is_symlink() else "no ordinary file"
            files.append((as_text(own), path, reason))
    return sorted(files)


class _Member(tarfile.TarInfo):
    """A member whose header must be whole: tarfile takes a damaged one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tar):
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from error

    @classmethod
    def frombuf(cls, *arguments):
        member = super().frombuf(*arguments)
        # These are read into memory whole.
        if member.type in (b"x", b"g", b"X", b"L", b"K") and member.size > 2**20:
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member


def archive_members(archive):
    """(name, bytes or the reason why it is not read) of each file in a tar archive, in its order.

    An archive that is cut short, has a damaged header or anything behind its end is refused.
    """
    try:
        options = {"mode": "r|", "tarinfo": _Member, "encoding": "utf-8"}
        with _uncompressed(archive) as stream, tarfile.open(fileobj=stream, **options) as tar:
            for member in tar:
                if not member.isdir():
                    name = as_text(member.name)
                    reason = _refusal(name, member.size)
                    if reason is None and not member.isfile():
                        reason = "a link in the archive"
                    yield name, reason or tar.extractfile(member).read()
            # The checksum of a compressed archive is at its very end.
            while rest := tar.fileobj.read(2**20):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("something stands behind its end")
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError) as error:
        remedy = "download it again or compare its size with the source's"
        raise ValueError(f"{archive} is not a whole tar archive ({error}); {remedy}") from error


def _uncompressed(archive):
    with open(archive, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(archive) if compressed else open(archive, "rb")


class _NotShown(Exception):
    """An image is left out; the text says why."""


def decode_image(content, size):
    """Pixels (3, size, size) of an encoded image as a viewer shows it, or the reason why there are none.

    Upright, the first of several frames, transparent parts over white; more than 8 bits are scaled to 8.
    Instead of a size, a function may make the pixels of the whole RGB image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            area = image.width * image.height
            if area > PIXEL_LIMIT:
                raise Image.DecompressionBombError
            # One large image at a time, so that memory does not grow with the number of readers.
            with _large_image if area > 2**24 else contextlib.nullcontext():
                if callable(size):
                    return size(_shown(image))
                # JPEG scales down for free by powers of two while it decodes.
                image.draft("RGB", (size, size))
                pixels = _shown(image).resize((size, size), Image.Resampling.BILINEAR)
                return np.asarray(pixels).transpose(2, 0, 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"more than {PIXEL_LIMIT // 10**6} million pixels"
    except _NotShown as error:
        return str(error)
    except MemoryError:
        raise
    except Exception:  # Whatever bytes from outside make a decoder raise.
        return "the image cannot be decoded"


def _shown(image):
    """An opaque, upright RGB image of 8 bits."""
    image.load()
    with contextlib.suppress(Exception):  # A viewer shows an image in spite of damaged EXIF.
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        image = _eight_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(image):
    """A grey image of more than 8 bits, scaled; refused where it is not said which level is white."""
    levels, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        white = 2 ** tags.get(258, (16,))[0] - 1
    elif image.mode == "I" and image.format in ("PNG", "PPM"):
        white = 2**16 - 1
    elif image.mode == "F" and levels.min() >= 0 and levels.max() <= 1:
        white = 1
    else:
        raise _NotShown("it is not known which grey level is white: save it with 8 or 16 bits")
    scaled = np.round(levels * np.float32(255 / white)).clip(0, 255)
    # In TIFF the lowest level can be white.
    scaled = 255 - scaled if tags.get(262) == 0 else scaled
    scaled[levels == image.info.get("transparency", -1)] = 255
    return Image.fromarray(scaled.astype(np.uint8))


def decode(members, size, title="decoding"):
    """Pixels (3, size, size) of each member by name, in its order, and why others have none, by name.

    A member is a name with the encoded image, or with the reason why it was not read.
    """
    decoded, left_out, turn = {}, {}, threading.Lock()
    members = iter(tqdm(members, title, unit=" images", leave=False, delay=1))

    def work():
        while True:
            with turn:
                name, content = next(members, (None, None))
            if content is None:
                return
            found = content if isinstance(content, str) else decode_image(content, size)
            (left_out if isinstance(found, str) else decoded)[name] = found

    # Threads suffice: the JPEG decoder and the resizing release the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool, warnings.catch_warnings():
        # Of an image that is large or has odd metadata.
        warnings.simplefilter("ignore")
        try:
            for result in [pool.submit(work) for _ in range(_READERS)]:
                result.result()
        finally:
            # Where this is interrupted, the readers stop too.
            members = iter(())
    return dict(sorted(decoded.items())), dict(sorted(left_out.items()))


def cached_decode(title, source, files, size, reject=lambda name: None, class_of=lambda name: "", bare=False):
    """Images (N, 3, size, size) of `source` in order of name, their names, and what was left out and why.

    `files` are `folder_files`, or None where `source` is an archive.  `reject(name)` gives the reason to
    leave a file out, or None; `class_of(name)` its class; with `bare`, names are without their folders.
    Images are decoded once; later calls map the same array, until source, code or array have changed.
    """
    source = Path(source)
    state = _state(source) if files is None else [(name, why or _state(path)) for name, path, why in files]
    how = [size, bare, reject.__qualname__, source_digest("quantskew.datasets"), PIL.__version__]
    key = digest([str(source.resolve()), state, how])
    index = cache_dir() / "datasets" / f"{re.sub('[^A-Za-z0-9]+', '_', title)[:40]}-{size}-{key}.json"

    def make():
        found = ((name, why or path.read_bytes()) for name, path, why in files or ())
        members = _named_once(source, archive_members(source) if files is None else found, reject, bare)
        _write(index, *decode(members, size, f"decoding {title}"), source)

    images, names, skipped = make_once(index, make, _read)
    _report_left_out(title, source, names, skipped, class_of)
    return images, names, skipped


def _state(path):
    """What changes when a file is replaced."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _named_once(source, members, reject, bare):
    """(name, bytes or reason) of members, none of which may be read under another's name."""
    seen = {}
    for name, content in members:
        own = name.rsplit("/", 1)[-1] if bare else name
        reason = content if isinstance(content, str) else reject(own)
        if reason is None and seen.get(own, "") is None:
            raise ValueError(f"{source} has two files named {shortened(own)}; rename or remove one")
        own = name if own in seen else own
        seen[own] = reason
        yield own, reason or content


def _write(index, decoded, skipped, source):
    """Keep decoded images beside their index; nothing stays there where it cannot be done."""
    if not decoded:
        why = [f"{shortened(name)} ({reason})" for name, reason in skipped.items()]
        why = some(why) or "there are no files"
        raise ValueError(f"no image in {source} could be used: {why}; give images such as PNG or JPEG")
    pixels, shape = index.with_suffix(".npy"), (len(decoded), *next(iter(decoded.values())).shape)
    # Not through a map into memory: where the disk is full, that ends the process.
    with replacing(pixels) as partial, open(partial, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.writelines(map(np.ascontiguousarray, decoded.values()))
    facts = {"names": list(decoded), "skipped": skipped, "pixels": digest_of(pixels)}
    try:
        # Written last: where it is, the array is whole.
        write_bytes(index, json.dumps(sealed(facts)).encode())
    except OSError:
        pixels.unlink()
        raise


def _read(index):
    """Images, names and what was left out; refused where they are not what was written."""
    facts, pixels = unsealed(index.read_bytes()), index.with_suffix(".npy")
    if digest_of(pixels) != facts["pixels"]:
        raise Damaged("its images do not agree with their digest")
    return np.load(pixels, mmap_mode="r"), facts["names"], facts["skipped"]


def _report_left_out(title, source, names, skipped, class_of):
    """Say by class and reason what was left out; refused where that is more than `SHARE` of a class."""
    left_out = defaultdict(lambda: defaultdict(list))
    for name, reason in sorted(skipped.items(), key=lambda item: class_of(item[0])):
        left_out[class_of(name)][reason].append(name)
    told, used = {}, Counter(map(class_of, names))
    for of, reasons in left_out.items():
        told[of] = ", ".join(f"{why}: {len(own)} ({shortened(own[0])})" for why, own in reasons.items())
    if told:
        shown = some([f"{of and f'{shortened(of)}: '}{why}" for of, why in told.items()], 10)
        print(f"{title}: {len(skipped)} of {len(names) + len(skipped)} files left out: {shown}")
    for of, reasons in left_out.items():
        lost = sum(len(own) for reason, own in reasons.items() if reason not in (HIDDEN, LOOP, TEXT, TWICE))
        kept = used[of] if of else len(names)
        if lost > SHARE * (lost + kept) or (not kept and reasons.keys() - {HIDDEN, LOOP}):
            said = f"{kept} of {kept + lost} files can be used ({told[of]}), but {1 - SHARE:.0%} must"
            remedy = "mend the others, save them as PNG or JPEG, or move them elsewhere"
            raise ValueError(f"{source}{of and f', class {shortened(of)}'}: {said}; {remedy}")
