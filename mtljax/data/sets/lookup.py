"""Data sets by name: in memory with `load`, or as rows on disk with `source`."""

from __future__ import annotations

import functools
import importlib
import inspect
from pathlib import Path
from typing import Any

from mtljax.checks import expect
from mtljax.data.sets.prepared import prepare
from mtljax.data.sets.table import TABLE, DataSet, imported


def names() -> tuple[str, ...]:
    """The names that `load` knows, sorted.

    Example:
        >>> names()[:2]
        ('chembl', 'computer_survey')
    """
    return tuple(sorted(TABLE))


def load(name: str, split: str | None = None, *, data_dir: str | Path | None = None, **options: Any) -> Any:
    """A data set in memory, ready for `batches` and `on_device`.

    Args:
        name: one of `names()`.
        split: its name, such as "train"; None for all.
        data_dir: TFDS's data directory; None is TFDS's own default. Data sets that are generated and not stored do not
            take it.
        **options: options of the data set's own loader: `load("multi_mnist", variant="mgda")` is
            `load_multi_mnist(variant="mgda")`. The docstring of the loader lists them.

    Returns:
        The split: a `Batch` of NumPy arrays, or a dict of `Batch` by task if each task has its own examples. With
        `split=None`, a dict of all splits.

    Raises:
        ValueError: an unknown name, split or option; the message lists the known ones.
        FileNotFoundError: a published file that is missing and cannot be downloaded.

    Example:
        >>> load("multi_digit")
        Traceback (most recent call last):
        ...
        ValueError: load: name must be one of chembl, ..., ud_english, found 'multi_digit'
    """
    row = _row(name, "load")
    loader = imported(f"{row.module}:{row.loader}")
    expect(split is None or isinstance(split, str), "load", "split", "a string or None", split, TypeError)
    known = inspect.signature(loader).parameters
    if data_dir is not None:
        options["data_dir"] = data_dir
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"load: options of {name} must be among {sorted(known)}, found {unknown}")
    splits = loader(**options)
    if split is None:
        return splits
    if split not in splits:
        raise ValueError(f"load: split of {name} must be one of {sorted(splits)}, found {split!r}")
    return splits[split]


def banks(name: str) -> dict[str, tuple[str, ...]]:
    """The tasks of a data set that are banks: by entry, the names of its tasks in the order of the arrays.

    An entry of n tasks has targets and masks `[N, n]`, and its head is `sharing.Bank(network, banks(name)[entry])`.

    Args:
        name: one of `names()`.

    Returns:
        Dict by entry of n names; empty if every entry of the data set is a single task.

    Raises:
        ValueError: an unknown name; the message lists the known ones.

    Example:
        >>> banks("tox21")["assays"][:2]
        ('NR-AR', 'NR-AR-LBD')
        >>> banks("moving_shapes")
        {}
    """
    module = importlib.import_module(f"mtljax.data.sets.{_row(name, 'banks').module}")
    return dict(getattr(module, "BANKS", {}))


def source(name: str, split: str, *, data_dir: str | Path | None = None, config: str | None = None) -> Any:
    """The rows of a data set on disk, as a random-access source; prepared with TFDS on first use.

    Args:
        name: one of `names()` that is prepared by a TFDS builder.
        split: the builder's split.
        data_dir: as in `load`.
        config: the name of the builder's configuration; None is the configuration of `load` without options.

    Returns:
        An object with `__len__`, `__getitem__(int)` and `__getitems__(list of int)`. Pass it to `batches` with
        `collate`. Rows are dicts by feature. In the Multi-MNIST family a row is a block of 100 images.

    Raises:
        ValueError: an unknown name or split, or a data set that is generated and not stored.

    Example:
        >>> source("moving_shapes", "train")
        Traceback (most recent call last):
        ...
        ValueError: source: moving_shapes is generated, not stored; use load
    """
    row = _row(name, "source")
    if row.builder is None:
        raise ValueError(f"source: {name} is generated, not stored; use load")
    config = row.config if config is None else config
    expect(isinstance(split, str), "source", "split", "a string", split, TypeError)
    expect(config is None or isinstance(config, str), "source", "config", "a string or None", config, TypeError)
    options = {} if config is None else {"config": config}
    builder = prepare("source", functools.partial(imported(row.builder), **options), data_dir)
    if split not in builder.info.splits:
        raise ValueError(f"source: split of {name} must be one of {sorted(builder.info.splits)}, found {split!r}")
    return builder.as_data_source(split)


def _row(name: str, caller: str) -> DataSet:
    expect(isinstance(name, str), caller, "name", "a string", name, TypeError)
    if name not in TABLE:
        raise ValueError(f"{caller}: name must be one of {', '.join(names())}, found {name!r}")
    return TABLE[name]
