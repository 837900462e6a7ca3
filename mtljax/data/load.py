"""Every data set by name: in memory, or as a source of rows on disk."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtljax.checks import expect
from mtljax.data.prepared import prepare

# Looked up when asked for: TFDS is slow to import, and some builders need packages of their own to prepare.
_LOADERS = {
    "computer_survey": "computer_survey:load_computer_survey",
    "dsprites_factors": "dsprites_factors:load_dsprites_factors",
    "mnist_fashion": "multi_mnist:load_mnist_fashion",
    "moving_shapes": "moving_shapes:load_moving_shapes",
    "multi_digits": "multi_digits:load_multi_digits",
    "multi_fashion": "multi_mnist:load_multi_fashion",
    "multi_mnist": "multi_mnist:load_multi_mnist",
    "rendered_scenes": "rendered_scenes:load_rendered_scenes",
    "sarcos": "sarcos:load_sarcos",
    "school": "school:load_school",
    "sider": "sider:load_sider",
    "tox21": "tox21:load_tox21",
    "ud_english": "ud_english:load_ud_english",
}
_BUILDERS = {
    "computer_survey": "computer_survey:ComputerSurvey",
    "dsprites_factors": "dsprites_factors:DspritesFactors",
    "mnist_fashion": "two_digits:TwoDigits",
    "multi_digits": "multi_digits:MultiDigits",
    "multi_fashion": "two_digits:TwoDigits",
    "multi_mnist": "two_digits:TwoDigits",
    "sarcos": "sarcos:Sarcos",
    "school": "school:School",
    "sider": "sider:Sider",
    "tox21": "tox21:Tox21",
    "ud_english": "ud_english:UdEnglish",
}
_CONFIGS = {
    "mnist_fashion": "mnist_fashion_pareto_overlap_20_seed_0",
    "multi_fashion": "multi_fashion_pareto_overlap_20_seed_0",
    "multi_mnist": "multi_mnist_pareto_overlap_20_seed_0",
}


def names() -> tuple[str, ...]:
    """The names that `load` knows, sorted.

    Example:
        >>> names()[:2]
        ('computer_survey', 'dsprites_factors')
    """
    return tuple(sorted(_LOADERS))


def load(name: str, split: str | None = None, *, data_dir: str | Path | None = None, **options: Any) -> Any:
    """A data set in memory, ready for `batches` and `on_device`.

    Args:
        name: one of `names()`.
        split: its name, such as "train"; None for all.
        data_dir: TFDS's data directory; None is TFDS's own default. Data sets that are generated anew each time, and
            store nothing, take none.
        **options: what the data set's own function takes: `load("multi_mnist", variant="mgda")` is
            `load_multi_mnist(variant="mgda")`, whose docstring says what there is.

    Returns:
        The split, a `Batch` of NumPy arrays, or a dict of `Batch` by task where tasks have examples of their own; with
        `split=None` the dict of all of them.

    Raises:
        ValueError: a name, a split or an option that is not known; the message lists those that are.
        FileNotFoundError: a published file that is neither at hand nor to be downloaded.

    Example:
        >>> load("multi_digit")
        Traceback (most recent call last):
        ...
        ValueError: load: name must be one of computer_survey, ..., ud_english, found 'multi_digit'
    """
    loader = _find(_LOADERS, name, "load")
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


def source(name: str, split: str, *, data_dir: str | Path | None = None, config: str | None = None) -> Any:
    """The rows of a data set as a random-access source on disk, as TFDS stores them, prepared where they were not.

    Args:
        name: one of `names()` that is prepared by a TFDS builder.
        split: the builder's split.
        data_dir: as in `load`.
        config: the name of the builder's configuration; None is the one that `load` takes without options.

    Returns:
        An object with `__len__`, `__getitem__(int)` and `__getitems__(list of int)`, which `batches` takes together
        with `collate`. Rows are dicts by feature; large images stand in blocks of 100 (see the builder's description).

    Raises:
        ValueError: a name or split that is not known, or a data set that is generated and not stored.

    Example:
        >>> source("moving_shapes", "train")
        Traceback (most recent call last):
        ...
        ValueError: source: moving_shapes is generated, not stored; use load
    """
    if name in _LOADERS and name not in _BUILDERS:
        raise ValueError(f"source: {name} is generated, not stored; use load")
    make = _find(_BUILDERS, name, "source")
    config = _CONFIGS.get(name) if config is None else config
    expect(isinstance(split, str), "source", "split", "a string", split, TypeError)
    expect(config is None or isinstance(config, str), "source", "config", "a string or None", config, TypeError)
    options = {} if config is None else {"config": config}
    builder = prepare("source", functools.partial(make, **options), data_dir)
    if split not in builder.info.splits:
        raise ValueError(f"source: split of {name} must be one of {sorted(builder.info.splits)}, found {split!r}")
    return builder.as_data_source(split)


def _find(table: dict[str, str], name: str, caller: str) -> Callable[..., Any]:
    expect(isinstance(name, str), caller, "name", "a string", name, TypeError)
    if name not in table:
        raise ValueError(f"{caller}: name must be one of {', '.join(sorted(table))}, found {name!r}")
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(f"mtljax.data.{module}"), attribute)
