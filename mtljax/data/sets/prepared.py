"""Prepared TFDS builders, and their rows as arrays in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.checks import expect


def prepare(where: str, make_builder: Callable[..., Any], data_dir: str | Path | None) -> Any:
    """A builder whose files are on disk; it is prepared now if it was not prepared before.

    TFDS writes to a temporary folder and renames it at the end, so an interrupted preparation is never read. Several
    processes may prepare one data set at once: the first one that finishes wins.

    Args:
        where: the public function's name, which opens the message.
        make_builder: `(*, data_dir) -> tfds.core.DatasetBuilder`. It is called again if another process was faster,
            since a builder looks at the disk only when it is made.
        data_dir: TFDS's data directory; None is TFDS's own default.

    Returns:
        The builder.
    """
    folder = data_dir is None or (isinstance(data_dir, str | Path) and str(data_dir) != "")
    expect(folder, where, "data_dir", "the path of a folder or None", data_dir, TypeError)
    builder = make_builder(data_dir=data_dir)
    # TFDS prints that it downloads, even if all files are on disk. Its progress bars, on stderr, are correct.
    for announcement in ("_log_download_bytes", "_log_download_done"):
        setattr(builder, announcement, lambda: None)
    try:
        builder.download_and_prepare()
    except FileExistsError:
        builder = make_builder(data_dir=data_dir)
    return builder


def columns(builder: Any, split: str) -> dict[str, np.ndarray]:
    """All rows of a split, one array `[N, ...]` per feature.

    One request reads all rows: tens of thousands per second, against a few thousand with one request per row.

    Args:
        builder: a prepared builder whose features have one shape in every row.
        split: the split's name.

    Returns:
        Dict by feature.
    """
    source = builder.as_data_source(split)
    rows = source.__getitems__(list(range(len(source))))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
