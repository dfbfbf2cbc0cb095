"""Image files decoded once, in parallel, into an array of bytes that later runs map into memory."""

import concurrent.futures
import gzip
import io
import json
import os
import tarfile
import zlib
from collections import deque
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from quantskew.cache import cache_dir, digest, replacing, write_bytes

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_READERS = max(2, os.cpu_count() or 1)


def is_image_name(name):
    """Whether a file name ends like an image's."""
    return name.lower().endswith(_IMAGE_SUFFIXES)


def folder_members(folder):
    """(relative name, bytes) of each file below a folder, in order of name."""
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def archive_members(archive):
    """(name, bytes) of each file in a tar archive, in the archive's order; refused where it is cut short."""
    try:
        with _uncompressed(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, tar.extractfile(member).read()
            # The checksum of a compressed archive is at its very end, behind the last member.
            while stream.read(2**20):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{archive} is not a whole tar archive ({error}); download it again or compare its size with "
            "the source's"
        ) from error


def _uncompressed(archive):
    with open(archive, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(archive) if compressed else open(archive, "rb")


def source_key(source):
    """Digest of a source's file names, sizes and times: changes when a file is replaced."""
    source = Path(source)
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    stats = [(p.name if p == source else p.relative_to(source).as_posix(), p.stat()) for p in files]
    return digest([str(source.resolve()), [[name, s.st_size, s.st_mtime_ns] for name, s in stats]])


def decode_image(content, size):
    """Pixels (3, size, size) of an encoded image, or None where it cannot be decoded whole."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            # JPEG scales down for free by powers of two while it decodes.
            image.draft("RGB", (size, size))
            pixels = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return np.asarray(pixels).transpose(2, 0, 1)


def decode(members, size, title="decoding"):
    """Pixels (3, size, size) of each member (name, bytes), by name and in its order; and the broken names."""
    decoded, broken, waiting = {}, [], deque()

    def collect():
        name, result = waiting.popleft()
        pixels = result.result()
        if pixels is None:
            broken.append(name)
        else:
            decoded[name] = pixels

    # Threads suffice: the JPEG decoder and the resizing release the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        for name, content in tqdm(members, desc=title, unit=" images", leave=False):
            waiting.append((name, pool.submit(decode_image, content, size)))
            if len(waiting) > 64 * _READERS:
                collect()
        while waiting:
            collect()
    return dict(sorted(decoded.items())), sorted(broken)


def cached_decode(name, source, members, size, reject):
    """Images (N, 3, size, size) of `source` in order of name, their names, and what was left out and why.

    They are decoded once; later calls map the same array into memory, until the source changes.  `members()`
    gives (name, bytes) of each file, `reject(name)` the reason to leave a file out, or None.
    """
    folder = cache_dir() / "datasets" / f"{name}-{size}-{source_key(source)}"
    index_path, images_path = folder / "index.json", folder / "images.npy"
    # The index is written last: where it is, the array is whole.
    if not index_path.exists():
        skipped = {}
        decoded, broken = decode(_accepted(members(), reject, skipped), size, f"decoding {name}")
        skipped |= dict.fromkeys(broken, "the image cannot be decoded")
        if not decoded:
            raise ValueError(f"no image in {source} could be used: {_summary(skipped)}")
        with replacing(images_path) as partial:
            shape = (len(decoded), 3, size, size)
            array = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
            for row, pixels in zip(array, decoded.values(), strict=True):
                row[:] = pixels
            array.flush()
            del array
        write_bytes(index_path, json.dumps({"names": list(decoded), "skipped": skipped}).encode())
        if skipped:
            files = len(decoded) + len(skipped)
            print(f"{name}: {len(skipped)} of {files} files left out: {_summary(skipped)}")
    index = json.loads(index_path.read_text())
    return np.load(images_path, mmap_mode="r"), index["names"], index["skipped"]


def _accepted(members, reject, skipped):
    for name, content in members:
        reason = reject(name)
        if reason is None:
            yield name, content
        else:
            skipped[name] = reason


def _summary(skipped, limit=5):
    shown = [f"{name} ({reason})" for name, reason in sorted(skipped.items())[:limit]]
    more = len(skipped) - len(shown)
    return ", ".join(shown or ["there are no files"]) + (f", and {more} more" if more > 0 else "")
