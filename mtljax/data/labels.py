"""Missing labels of a batch: they are found, masked and counted here, before a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_count, check_mask, check_number, check_weights, expect
from mtljax.losses.masked import product
from mtljax.types import Array, Batch, PyTree

AnyBatch = TypeVar("AnyBatch", Batch, dict[str, Batch])


class LabelCounts(NamedTuple):
    """Numbers of labels per task; dicts of int by task.

    Attributes:
        labels: number of examples with a label, of an element at least.
        examples: number of examples, labelled or not.
        empty: number of batches without a label of the task.
    """

    labels: dict[str, int]
    examples: dict[str, int]
    empty: dict[str, int]


def mask_missing(
    batch: AnyBatch,
    *,
    sentinel: float | Mapping[str, float] | None = None,
    present: Mapping[str, Array] | None = None,
    axes: int | Mapping[str, int] = 1,
) -> AnyBatch:
    """Mask the labels that are missing, and replace them by zeros.

    A label is missing in three cases: the target has NaN or the sentinel in any of its entries, the mask of the batch
    is False or 0, or `present` is False. All its entries then become 0, so that no NaN enters arithmetic. Every task
    gets a mask, so that the structure of the result does not depend on which labels are missing.

    What a label is, `axes` says: the number of axes of the mask. With 1, each example has one label: a depth map with
    one NaN pixel is missing as a whole. With `axes=3`, a map `[B, H, W]` has one per pixel, and a map of normals
    `[B, H, W, 3]` too; with `axes=2`, a row of labels `[B, L]` has L of them.

    A task may have no labels in a batch, or in the whole data set: its loss is 0, the task is inactive, and the step
    treats other tasks as if it were absent (`mtljax.make_losses_fn`).

    Args:
        batch: `Batch`, or dict of `Batch` by task name. NumPy arrays give NumPy arrays; JAX arrays, traced or not, give
            JAX arrays.
        sentinel: number that marks a missing label, for all tasks or by task name; None (default) for no sentinel. NaN
            needs no sentinel.
        present: dict by task of bool `[B, ...]`, True where the label is present; may leave out tasks.
        axes: number of axes of the masks, for all tasks or by task name (1 for a name that is left out). A mask of the
            batch, or of `present`, that has more axes keeps them.

    Returns:
        The same batch with targets `[B, ...]` of the same dtypes, and a mask for every task: bool, or weights where the
        batch's own mask holds weights.

    Raises:
        ValueError: `sentinel`, `present`, `axes` or the batch's mask names an unknown task; a mask that does not have
            the shape of the first axes of the targets; a target whose arrays have several lengths, or fewer axes than
            the mask; a task's own sentinel that the target's dtype cannot hold.
        TypeError: a mask that is neither bool nor floating; a batch that is not a `Batch`.

    Example:
        >>> batch = Batch(np.arange(3), {"a": np.array([1.0, np.nan, 2.0]), "b": np.array([4, 5, -1])})
        >>> masked = mask_missing(batch, sentinel={"b": -1})
        >>> masked.mask["a"].tolist(), masked.mask["b"].tolist(), masked.targets["a"].tolist()
        ([True, False, True], [True, True, False], [1.0, 0.0, 2.0])
    """
    known = {name for each in _batches(batch, "mask_missing").values() for name in each.targets}
    if present is not None:
        expect(isinstance(present, Mapping), "mask_missing", "present", "a dict by task", present, TypeError)
    for argument, given in (("sentinel", sentinel), ("present", present), ("axes", axes)):
        if isinstance(given, Mapping) and set(given) - known:
            raise ValueError(f"mask_missing: {argument} must be for the targets {sorted(known)}, found {sorted(given)}")
    for number in sentinel.values() if isinstance(sentinel, Mapping) else () if sentinel is None else (sentinel,):
        check_number("mask_missing", "sentinel", number, finite=False)
    for number in axes.values() if isinstance(axes, Mapping) else (axes,):
        check_count("mask_missing", "axes", number)
    axes = dict(axes) if isinstance(axes, Mapping) else dict.fromkeys(known, axes)
    if isinstance(batch, Batch):
        return _masked(batch, sentinel, present or {}, axes)
    found = {name: _masked(each, sentinel, present or {}, axes) for name, each in batch.items()}
    return found  # pyright: ignore[reportReturnType]


def label_counts(batches: Batch | dict[str, Batch] | Iterable[Batch | dict[str, Batch]]) -> LabelCounts:
    """Count the labels of each task in a batch, a whole split, or a stream of batches.

    Masks decide what is a label: NaN and sentinels count as labels until `mask_missing` has masked them.

    Args:
        batches: `Batch`, dict of `Batch` by task name, or an iterable of either, which is read to its end; pass a part
            of an endless stream with `itertools.islice`. If a batch does not have a task, the task is empty in it.

    Returns:
        `LabelCounts`, tasks in sorted order.

    Raises:
        ValueError, TypeError: as `mask_missing`.

    Example:
        >>> batch = Batch(np.arange(3), {"a": np.zeros(3), "b": np.zeros(3)}, {"b": np.array([True, False, False])})
        >>> label_counts(batch).labels
        {'a': 3, 'b': 1}
    """
    found: list[dict[str, tuple[int, int]]] = []
    for batch in [batches] if isinstance(batches, (Batch, dict)) else batches:
        counts: dict[str, tuple[int, int]] = {}
        for each in _batches(batch, "label_counts").values():
            for name, target in each.targets.items():
                size = _size(target, f"label_counts: targets[{name!r}]")
                mask = _mask_of(each, name, size, "label_counts")
                labeled = size if mask is None else int((np.asarray(mask) != 0).reshape(size, -1).any(1).sum())
                counts[name] = (labeled, size)
        found.append(counts)
    names = sorted({name for counts in found for name in counts})

    def total(what: int) -> dict[str, int]:
        return {name: sum(counts.get(name, (0, 0))[what] for counts in found) for name in names}

    empty = {name: sum(counts.get(name, (0, 0))[0] == 0 for counts in found) for name in names}
    return LabelCounts(total(0), total(1), empty)


def _batches(batch: Any, caller: str) -> dict[str, Batch]:
    entries = {"": batch} if isinstance(batch, Batch) else batch
    if not isinstance(entries, dict) or not all(isinstance(each, Batch) for each in entries.values()):
        raise TypeError(f"{caller}: batch must be a Batch, or a dict of Batch by task, found {type(batch).__name__}")
    for each in entries.values():
        check_masks_named(caller, each)
    return entries


def check_masks_named(where: str, batch: Batch) -> None:
    """Raise unless targets and masks are dicts by task, and every mask has a target of its name.

    Example:
        >>> check_masks_named("label_counts", Batch(0, {"a": 0}, {"b": True}))
        Traceback (most recent call last):
        ...
        ValueError: label_counts: mask must be for the targets ['a'], found ['b']
    """
    for what, entries in (("targets", batch.targets), ("mask", batch.mask)):
        expect(isinstance(entries, Mapping), where, what, "a dict by task name", entries, TypeError)
    if set(batch.mask) - set(batch.targets):
        raise ValueError(f"{where}: mask must be for the targets {sorted(batch.targets)}, found {sorted(batch.mask)}")


def _mask_of(batch: Batch, name: str, size: int, caller: str) -> Array | None:
    mask = batch.mask.get(name)
    return None if mask is None else check_weights(caller, f"mask[{name!r}]", mask, size)


def _size(target: PyTree, what: str) -> int:
    """The length B of the first axis of all leaves."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(target)]
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"{what} must be arrays [B, ...] of one length, found shapes {shapes}")
    return shapes[0][0]


def _masked(batch: Batch, sentinel: Any, present: Mapping[str, Any], axes: Mapping[str, int]) -> Batch:
    targets, masks = {}, {}
    for name, target in batch.targets.items():
        size = _size(target, f"mask_missing: targets[{name!r}]")
        own = sentinel.get(name) if isinstance(sentinel, Mapping) else sentinel
        if isinstance(sentinel, Mapping) and own is not None:
            _check_sentinel(name, own, target)
        known = [_mask_of(batch, name, size, "mask_missing")]
        if name in present:
            what = f"present[{name!r}]"
            known.append(check_mask("mask_missing", what, present[name], (size, *np.shape(present[name])[1:])))
        given = [each for each in known if each is not None]
        count = max([axes.get(name, 1), *(each.ndim for each in given)])
        leaves = jax.tree.leaves(target)
        shape = leaves[0].shape[:count]
        fits = all(leaf.shape[:count] == shape for leaf in leaves) and len(shape) == count
        if not fits or any(each.shape != shape[: each.ndim] for each in given):
            found = [list(each.shape) for each in given]
            raise ValueError(
                f"mask_missing: targets[{name!r}] must be arrays with the {count} axes of the mask in front, "
                f"found {[list(leaf.shape) for leaf in leaves]}{f' and masks {found}' if found else ''}"
            )
        mask = np.ones(shape, bool)
        for each in (*given, *(_there(leaf, own, count) for leaf in leaves)):
            mask = product(mask, each)
        masks[name] = mask
        targets[name] = jax.tree.map(lambda leaf, mask=mask: _hidden(leaf, mask != 0), target)
    return batch._replace(targets=targets, mask=masks)


def _there(leaf: Any, sentinel: float | None, axes: int) -> Any:
    """Bool, of the leaf's first axes: True where no entry behind them is NaN or the sentinel."""
    xp = jnp if isinstance(leaf, jax.Array) else np
    there = xp.ones(leaf.shape, bool)
    if jnp.issubdtype(leaf.dtype, jnp.floating):  # jnp's: for np.issubdtype, bfloat16 is not a floating type
        there = there & ~xp.isnan(leaf)
    if sentinel is not None and _holds(leaf.dtype, sentinel):
        there = there & (leaf != xp.asarray(sentinel, leaf.dtype))
    return there.all(axis=tuple(range(axes, leaf.ndim)))


def _hidden(leaf: Any, mask: Any) -> Any:
    xp = np if isinstance(leaf, np.ndarray) and isinstance(mask, np.ndarray) else jnp
    return xp.where(mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim)), leaf, xp.zeros_like(leaf))


def _holds(dtype: Any, number: float) -> bool:
    """Whether a label of this dtype can equal the number."""
    if jnp.issubdtype(dtype, jnp.integer):
        return float(number).is_integer() and jnp.iinfo(dtype).min <= number <= jnp.iinfo(dtype).max
    return jnp.issubdtype(dtype, jnp.floating) and not float(jnp.finfo(dtype).max) < abs(number) < np.inf


def _check_sentinel(name: str, sentinel: float, target: PyTree) -> None:
    for leaf in jax.tree.leaves(target):
        if not _holds(leaf.dtype, sentinel):
            raise ValueError(
                f"mask_missing: sentinel of {name!r} must be a number that {leaf.dtype} can hold, found {sentinel}"
            )
