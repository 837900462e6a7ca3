"""IDX, the file format of MNIST and Fashion-MNIST, and their published files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.checks import expect
from mtljax.data.sets import raw

SIDE = 28  # of an image of MNIST and Fashion-MNIST, in pixels
ROOTS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
_STEMS = {"train": "train", "test": "t10k"}  # prefixes of the published file names
_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 20  # bytes


def read_idx(path: str | Path, shape: Sequence[int | None]) -> np.ndarray:
    """The array of unsigned bytes in a gzipped IDX file.

    The format, as Y. LeCun's page on MNIST describes it: two bytes 0, one for the type (8: unsigned byte), one for
    the number of dimensions; the dimensions, big-endian and 32 bits each; the values, the last dimension fastest.

    Args:
        path: the file.
        shape: the expected dimensions, None for any length: `(None, 28, 28)` for MNIST's images and `(None,)` for its
            labels.

    Returns:
        uint8 array, its own memory.

    Raises:
        ValueError: the file is not gzip, is truncated or damaged; another type or number of dimensions, dimensions
            other than `shape`, fewer or more values than the dimensions say. The message names the file, what was
            expected and what was found. At most one byte beyond the dimensions is unpacked.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.gz"
        >>> _ = path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4])))
        >>> read_idx(path, (None,)).tolist()
        [5, 0, 4]
    """
    expect(isinstance(shape, Sequence), "read_idx", "shape", "a sequence of integers or None", shape, TypeError)
    try:
        with gzip.open(path) as file:
            magic, wanted = file.read(4), bytes([0, 0, _UNSIGNED_BYTE, len(shape)])
            if magic != wanted:
                raise ValueError(
                    f"read_idx: {path} must begin with {wanted.hex(' ')} (unsigned bytes in {len(shape)} dimensions), "
                    f"found {magic.hex(' ') or 'nothing'}"
                )
            header = file.read(4 * len(shape))
            if len(header) != 4 * len(shape):
                raise ValueError(f"read_idx: {path} must have {len(shape)} dimensions, found its end")
            found = [int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4)]
            if any(length not in (None, there) for length, there in zip(shape, found, strict=True)):
                expected = ", ".join("any" if length is None else str(length) for length in shape)
                raise ValueError(f"read_idx: {path} must have the dimensions [{expected}], found {found}")
            size = math.prod(found)
            content = bytearray()
            # In chunks: a small file cannot unpack to more than its header says, and a header alone does not allocate
            # memory.
            while len(content) < size and (chunk := file.read(min(size - len(content), _CHUNK))):
                content += chunk
            longer = file.read(1)  # at the end of the file, gzip checks its checksum
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"read_idx: {path} must be a whole gzip file, found a damaged one: {error}") from error
    if len(content) != size or longer:
        there = "more" if longer else len(content)
        raise ValueError(f"read_idx: {path} must hold {size} values for its dimensions {found}, found {there}")
    return np.frombuffer(content, np.uint8).reshape(found)


def read_published(dl_manager: Any, folder: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """MNIST or Fashion-MNIST as published.

    The files of both have the same names, but each data set has its own folder of raw files, and TFDS distinguishes
    downloads by URL.

    Args:
        dl_manager: TFDS's download manager, the argument of a builder's `_split_generators`.
        folder: `"mnist"` or `"fashion_mnist"`.

    Returns:
        `(images, labels)` for `"train"` and `"test"`: uint8 `[N, 28, 28]`, and int32 `[N]`, 0 to 9. N is 60,000 and
        10,000.

    Raises:
        FileNotFoundError: a file is missing and cannot be downloaded.
        ValueError: a file that is damaged or has unexpected content.

    Example:
        >>> read_published(None, "mnist")["train"][0].shape  # doctest: +SKIP
        (60000, 28, 28)
    """
    parts = {}
    for part, stem in _STEMS.items():
        urls = [f"{ROOTS[folder]}{stem}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
        of_images, of_labels = raw.fetch(dl_manager, folder, urls)
        images, labels = read_idx(of_images, (None, SIDE, SIDE)), read_idx(of_labels, (None,))
        if len(images) != len(labels) or labels.max(initial=0) > 9:
            raise ValueError(
                f"read_published: {of_labels} must have a label from 0 to 9 for each of the {len(images)} images of "
                f"{of_images}, found {len(labels)} labels up to {labels.max(initial=0)}"
            )
        parts[part] = images, labels.astype(np.int32)
    return parts
