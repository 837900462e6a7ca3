"""IDX files: read to the byte, refused where anything is not as the format says."""

from __future__ import annotations

import gzip
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mtljax.data.sets import raw
from mtljax.data.sets.multi_mnist.idx import ROOTS, read_idx, read_published

VALUES = bytes(range(24))
IMAGES = b"\0\0\x08\x03" + struct.pack(">3i", 2, 3, 4) + VALUES
LABELS = b"\0\0\x08\x01" + struct.pack(">i", 3) + bytes([5, 0, 255])


def packed(array):
    """An array as a gzipped IDX file, written apart from what is tested."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + np.ascontiguousarray(array).tobytes(), 1)


@pytest.fixture
def write(tmp_path):
    def to(content, *, compress=True):
        path = tmp_path / "some-idx-ubyte.gz"
        path.write_bytes(gzip.compress(content) if compress else content)
        return path

    return to


def test_values_stand_where_the_format_puts_them(write):
    images = read_idx(write(IMAGES), (None, 3, 4))
    assert images.dtype == np.uint8 and images.shape == (2, 3, 4)
    assert (images[0, 0, 1], images[0, 1, 0], images[1, 0, 0], images[1, 2, 3]) == (1, 4, 12, 23)
    labels = read_idx(write(LABELS), (3,))
    assert labels.tolist() == [5, 0, 255]
    labels[0] = 7  # its own memory
    assert read_idx(write(b"\0\0\x08\x02" + struct.pack(">2i", 0, 28)), (None, 28)).shape == (0, 28)


@pytest.mark.parametrize(
    ("content", "shape", "message"),
    [
        (b"", (None,), "must begin with 00 00 08 01 (unsigned bytes in 1 dimensions), found nothing"),
        (
            b"\0\0\x0d" + LABELS[3:],
            (None,),
            "must begin with 00 00 08 01 (unsigned bytes in 1 dimensions), found 00 00 0d",
        ),
        (b"\0\1" + LABELS[2:], (None,), "found 00 01 08 01"),
        (IMAGES, (None,), "must begin with 00 00 08 01 (unsigned bytes in 1 dimensions), found 00 00 08 03"),
        (LABELS, (None, 28, 28), "must begin with 00 00 08 03 (unsigned bytes in 3 dimensions), found 00 00 08 01"),
        (IMAGES[:10], (None, 3, 4), "must have 3 dimensions, found its end"),
        (IMAGES, (None, 28, 28), "must have the dimensions [any, 28, 28], found [2, 3, 4]"),
        (IMAGES, (3, 3, 4), "must have the dimensions [3, 3, 4], found [2, 3, 4]"),
        (IMAGES[:-1], (None, 3, 4), "must hold 24 values for its dimensions [2, 3, 4], found 23"),
        (IMAGES[:16], (None, 3, 4), "must hold 24 values for its dimensions [2, 3, 4], found 0"),
        (IMAGES + b"\0", (None, 3, 4), "must hold 24 values for its dimensions [2, 3, 4], found more"),
        (b"\0\0\x08\x02" + b"\xff" * 8 + b"\1", (None, None), "found 1"),  # 2^64 values are not asked for at once
    ],
)
def test_a_file_that_is_not_as_expected_is_refused_with_its_name(write, content, shape, message):
    path = write(content)
    with pytest.raises(ValueError, match=f"read_idx: {re.escape(str(path))} .*{re.escape(message)}"):
        read_idx(path, shape)


def test_no_more_is_unpacked_than_the_header_says(write):
    bomb = write(LABELS + bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"must hold 3 values for its dimensions \[3\], found more"):
            read_idx(bomb, (None,))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


WHOLE = gzip.compress(IMAGES, mtime=0)  # pytest-xdist wants the same cases in each process


@pytest.mark.parametrize(
    "content",
    [
        IMAGES,
        WHOLE[:20],
        WHOLE[:-4],
        WHOLE[:-8] + bytes([WHOLE[-8] ^ 1]) + WHOLE[-7:],
        WHOLE[:10] + b"\xff" + WHOLE[11:],
    ],
    ids=["not gzip", "20 bytes", "4 bytes fewer", "another sum", "a damaged block"],
)
def test_a_file_that_is_not_whole_gzip_is_refused_with_its_name(write, content):
    path = write(content, compress=False)
    with pytest.raises(ValueError, match=r"some-idx-ubyte\.gz must be a whole gzip file, found a damaged one: \w"):
        read_idx(path, (None, 3, 4))


def published(folder, seed):
    """The four files of a tiny data set, by URL, and their arrays."""
    rng, files, arrays = np.random.default_rng(seed), {}, {}
    for part, stem, size in (("train", "train", 6), ("test", "t10k", 3)):
        images, labels = rng.integers(0, 256, (size, 28, 28), np.uint8), rng.integers(0, 10, size, np.uint8)
        arrays[part] = images, labels
        files[f"{ROOTS[folder]}{stem}-images-idx3-ubyte.gz"] = packed(images)
        files[f"{ROOTS[folder]}{stem}-labels-idx1-ubyte.gz"] = packed(labels)
    return files, arrays


def test_the_two_data_sets_are_kept_apart_though_their_files_have_the_same_names(fake_raw):
    expected = {}
    for seed, folder in enumerate(ROOTS):
        files, expected[folder] = published(folder, seed)
        fake_raw(folder, files)
    for folder in (*ROOTS, *ROOTS):
        for part, (images, labels) in read_published(None, folder).items():
            np.testing.assert_array_equal(images, expected[folder][part][0])
            np.testing.assert_array_equal(labels, expected[folder][part][1])
            assert labels.dtype == np.int32


def test_the_two_data_sets_are_downloaded_from_their_own_addresses(fake_raw, tmp_path):
    class Downloads:
        def download(self, url):
            return str(tmp_path / "cache" / str(sorted(cached).index(url)))

    cached = {}
    for seed, folder in enumerate(ROOTS):
        files, _ = published(folder, seed)
        cached |= files
        for path in fake_raw(folder, files).iterdir():
            path.unlink()  # registered, and not at hand
    (tmp_path / "cache").mkdir()
    for url, content in cached.items():
        Path(Downloads().download(url)).write_bytes(content)
    for seed, folder in enumerate(ROOTS):
        found = read_published(Downloads(), folder)["train"][0]
        np.testing.assert_array_equal(found, published(folder, seed)[1]["train"][0])


def test_labels_that_do_not_fit_the_images_are_refused(fake_raw):
    files, arrays = published("mnist", 0)
    url = ROOTS["mnist"] + "t10k-labels-idx1-ubyte.gz"
    fake_raw("mnist", files | {url: packed(arrays["test"][1][:-1])})
    with pytest.raises(ValueError, match=r"t10k-labels.* for each of the 3 images of .*t10k-images.*, found 2 labels"):
        read_published(None, "mnist")
    fake_raw("mnist", files | {url: packed(np.array([0, 10, 2], np.uint8))})
    with pytest.raises(ValueError, match=r"t10k-labels.* a label from 0 to 9 .*, found 3 labels up to 10"):
        read_published(None, "mnist")


def test_the_real_files_have_the_numbers_that_everyone_knows(real_data):
    """Counts by class, and the mean and deviation to which everyone normalises."""
    for folder in ROOTS:
        real_data(folder)
    digits, articles = read_published(None, "mnist"), read_published(None, "fashion_mnist")
    for parts in (digits, articles):
        assert {part: images.shape for part, (images, _) in parts.items()} == {
            "train": (60_000, 28, 28),
            "test": (10_000, 28, 28),
        }
    assert digits["train"][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(digits["train"][1]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(articles["train"][1]).tolist() == [6000] * 10
    assert np.bincount(articles["test"][1]).tolist() == [1000] * 10
    mean = digits["train"][0].mean(dtype=np.float64) / 255
    square = np.square(digits["train"][0], dtype=np.float32).mean(dtype=np.float64) / 255**2
    assert round(mean, 4) == 0.1307 and round(np.sqrt(square - mean**2), 4) == 0.3081


def test_every_address_is_registered():
    for folder, root in ROOTS.items():
        stems = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        assert {f"{root}{stem}-ubyte.gz" for stem in stems} <= set(raw.registered()), folder
