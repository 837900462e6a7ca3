"""The published files of data sets: found on disk or downloaded, and checked against a checksum."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

MANUAL = "manual:"


class Registered(NamedTuple):
    """The registered facts of a published file.

    Attributes:
        size: bytes.
        sha256: checksum, in hexadecimal.
        name: the file's name.
    """

    size: int
    sha256: str
    name: str


def roots() -> list[Path]:
    """The folders to search for raw files: the one that `MTLJAX_DATA` names, then `../shared/data` by the checkout."""
    named = os.environ.get("MTLJAX_DATA")
    return [*([Path(named)] if named else []), Path(__file__).resolve().parents[3].parent / "shared" / "data"]


@functools.cache
def registered() -> dict[str, Registered]:
    """Every known file by its URL, from the `checksums.tsv` of each folder, which TFDS also uses for its downloads.

    A file without a public URL is registered as `manual:<folder>/<name>`.
    """
    table = {}
    for file in sorted(Path(__file__).parent.rglob("checksums.tsv")):
        for line in file.read_text().splitlines():
            url, size, sha256, name = line.split("\t")
            table[url] = Registered(int(size), sha256, name)
    return table


def fetch(dl_manager: Any, folder: str, urls: Sequence[str]) -> list[Path]:
    """The files of these URLs: `<root>/<folder>/<name>` if one of `roots()` has it, else TFDS's download.

    Args:
        dl_manager: TFDS's download manager, the argument of a builder's `_split_generators`.
        folder: the data set's folder under each root, for example `"mnist"`.
        urls: URLs of `registered()`.

    Returns:
        One path per URL.

    Raises:
        ValueError: a file that is damaged or truncated; the message has its path and both checksums.
        FileNotFoundError: a file that is missing and cannot be downloaded; the message says what to fetch and where
            to put it.

    Example:
        >>> fetch(None, "school", ["manual:nowhere/nothing.mat"])
        Traceback (most recent call last):
        ...
        KeyError: 'manual:nowhere/nothing.mat is not registered in a checksums.tsv'
    """
    return [_fetch(dl_manager, folder, url) for url in urls]


def _fetch(dl_manager: Any, folder: str, url: str) -> Path:
    known = registered().get(url)
    if known is None:
        raise KeyError(f"{url} is not registered in a checksums.tsv")
    for root in roots():
        path = root / folder / known.name
        if path.exists():
            check(path, known)
            return path
    where = f"{folder}/{known.name} in the folder that MTLJAX_DATA names (sha256 {known.sha256})"
    if url.startswith(MANUAL):
        raise FileNotFoundError(f"{known.name} is missing and has no known public URL: put it at {where}")
    try:
        path = Path(dl_manager.download(url))
    except Exception as error:
        raise FileNotFoundError(f"could not download {url} ({error}): fetch it and put it at {where}") from error
    check(path, known)  # TFDS does not check the files in its cache again
    return path


def check(path: Path, known: Registered) -> None:
    """Raise ValueError unless the file has the registered size and checksum."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    if found != known.sha256:
        raise ValueError(
            f"{path} is damaged: it has {size} bytes and sha256 {found}, "
            f"expected {known.size} bytes and sha256 {known.sha256}"
        )
