"""From a TFDS builder to arrays in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.checks import expect


def prepare(where: str, make_builder: Callable[..., Any], data_dir: str | Path | None) -> Any:
    """A builder whose files are on disk, prepared now where they were not.

    TFDS writes to a folder of another name and renames it when all is there, so an interrupted preparation leaves
    nothing that is read later. Several processes may prepare one data set at once: the first that is done wins.

    Args:
        where: the public function's name, which opens the message.
        make_builder: `(*, data_dir) -> tfds.core.DatasetBuilder`; called again where another process was faster, since
            a builder looks at the disk once, when it is made.
        data_dir: TFDS's data directory; None is TFDS's own default.

    Returns:
        The builder.
    """
    folder = data_dir is None or (isinstance(data_dir, str | Path) and str(data_dir) != "")
    expect(folder, where, "data_dir", "the path of a folder or None", data_dir, TypeError)
    builder = make_builder(data_dir=data_dir)
    # TFDS prints that it downloads, also where all files are at hand. Its progress bars, on stderr, tell the truth.
    for announcement in ("_log_download_bytes", "_log_download_done"):
        setattr(builder, announcement, lambda: None)
    try:
        builder.download_and_prepare()
    except FileExistsError:
        builder = make_builder(data_dir=data_dir)
    return builder


def columns(builder: Any, split: str) -> dict[str, np.ndarray]:
    """All rows of a split as one array for each feature, `[N, ...]`.

    One request for all rows: tens of thousands a second, against a few thousand one at a time.

    Args:
        builder: a prepared builder whose features have one shape in every row.
        split: the split's name.

    Returns:
        Dict by feature.
    """
    source = builder.as_data_source(split)
    rows = source.__getitems__(list(range(len(source))))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
