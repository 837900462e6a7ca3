"""Views as tasks: `add` puts views into a batch, `with_views` does so inside the loss function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_callable, check_count, check_key, check_weights, expect
from mtljax.data import evaluation
from mtljax.losses.masked import product
from mtljax.sharing.frames.network import key_for
from mtljax.types import Batch, Key, PyTree, TaskInputs

View = Callable[[Key, Any], tuple[Any, ...]]
"""`view(key, inputs) -> (inputs, targets)` or `(inputs, targets, mask [B, ...])`; pure JAX, shapes static."""


def add(batch: Any, key: Key, views: Mapping[str, View]) -> Any:
    """Add one task per view to a batch: its inputs, its targets, and its mask if the view returns one.

        inputs = TaskInputs({"digit": x, "rotate": view(key, x)[0]}), targets |= {"rotate": view(key, x)[1]}

    The tasks in the batch keep their inputs, targets and masks. Views also use examples without labels, whose masks are
    False. Each view draws from `key` folded with its task's name, so its draws do not depend on the other views.

    With a dict of `Batch` by task, a view reads the inputs of its own entry. So a batch may hold some labelled examples
    and many more unlabelled ones.

    Args:
        batch: `Batch` with inputs that all views accept, any pytree of arrays `[B, ...]`; or a dict of `Batch` with one
            entry per view, which needs no targets. `batch.mask` may have entries for views: False leaves an example
            out.
        key: for all views.
        views: by task name, at least one.

    Returns:
        `Batch` with `TaskInputs`; or a dict of `Batch`.

    Raises:
        TypeError: `batch` of another type; a view that does not return a tuple of two or three; a mask that is
            neither bool nor floating.
        ValueError: no views; a task that has targets already; inputs that are `TaskInputs` or hold no arrays; inputs,
            targets or a mask of a view that are not `[B, ...]`.

    Example:
        >>> x = jnp.arange(2.0)
        >>> views = {"negate": lambda key, x: (-x, x)}
        >>> batch = add(Batch(x, {"label": x}), jax.random.key(0), views)
        >>> batch.inputs.by_task["negate"].tolist(), sorted(batch.targets)
        ([-0.0, -1.0], ['label', 'negate'])
    """
    _check_views("add", views)
    check_key("add", "key", key)
    if isinstance(batch, Batch):
        _check_new("the batch", batch, views)
        shown = {name: _look(name, view, key, batch) for name, view in views.items()}
        return Batch(
            TaskInputs(dict.fromkeys(batch.targets, batch.inputs) | {name: own.inputs for name, own in shown.items()}),
            {**batch.targets, **{name: own.targets[name] for name, own in shown.items()}},
            {**batch.mask, **{name: own.mask[name] for name, own in shown.items() if name in own.mask}},
        )
    batches = isinstance(batch, dict) and all(isinstance(each, Batch) for each in batch.values())
    expect(batches, "add", "batch", "a Batch, or a dict of Batch by task name", batch, TypeError)
    new = dict(batch)
    for name, view in views.items():
        if name not in batch:
            raise ValueError(f"add: batch must have an entry for view '{name}', found entries for {sorted(batch)}")
        _check_new(f"the batch of task '{name}'", batch[name], {name: view})
        new[name] = _look(name, view, key, batch[name])
    return new


def with_views(losses_fn: Callable[..., Any], views: Mapping[str, View], *, seed: int = 0) -> Callable[..., Any]:
    """A loss function that first draws views of its batch, inside the jitted step.

    In training, views are drawn from the key of the step: new views at every step, and the same views after a resume.
    In evaluation (`train=False`), views are drawn from `seed`, with the same draws for every batch.

    Args:
        losses_fn: `(params, state, batch, key, train) -> (losses, mtljax.Aux)`, as `mtljax.make_losses_fn` makes it,
            for the tasks of the batch and of the views. It gets the other half of the split key.
        views: by task name, as for `add`.
        seed: for the views in evaluation.

    Returns:
        Function with the same signature and attributes, for a batch without the tasks of the views.

    Raises:
        ValueError: no views; from the function, at trace time, `train` without a key.
        TypeError, ValueError: (by the function) as `add`.

    Example:
        >>> import mtljax
        >>> def losses_fn(params, state, batch, key=None, train=False):
        ...     return {name: params * batch.inputs.by_task[name].sum() for name in batch.targets}, mtljax.Aux(state)
        >>> f = with_views(losses_fn, {"negate": lambda key, x: (-x, x)})
        >>> f(2.0, (), Batch(jnp.ones(3), {}), jax.random.key(0), True)[0]
        {'negate': Array(-6., dtype=float32)}
    """
    check_callable("with_views", "losses_fn", losses_fn)
    _check_views("with_views", views)
    check_count("with_views", "seed", seed, least=0)
    views = dict(views)

    @functools.wraps(losses_fn)
    def f(params: Any, state: PyTree, batch: Any, key: Key | None = None, train: bool = False) -> Any:
        if not train:
            return losses_fn(params, state, add(batch, jax.random.key(seed), views), key, train)
        if key is None:
            raise ValueError("with_views: key must be given in training, since views are drawn from it, found None")
        view_key, key = jax.random.split(key)
        return losses_fn(params, state, add(batch, view_key, views), key, train)

    return f


def evaluation_batches(batch: Batch, batch_size: int, views: Mapping[str, View], *, seed: int = 0) -> Iterator[Batch]:
    """All examples once, in batches of one shape, with views: `mtljax.data.evaluation_batches` and then `add`.

    The views of batch i are drawn from `(seed, i)`, so they are the same at every evaluation. The copies that fill up
    the last batch count for no task. A contrastive loss compares the examples of one batch. So its mean depends on
    `batch_size`, and the last batch may have fewer negatives.

    Args:
        batch: `Batch` of arrays `[B, ...]`, B at least 1, without targets for the views.
        batch_size: examples per batch, at least 1.
        views: by task name.
        seed: for the views.

    Returns:
        Iterator of batches, for `mtljax.training.make_evaluate`.

    Raises:
        TypeError: a batch that is not a `Batch`; else as `add`.
        ValueError: as `mtljax.data.evaluation_batches` and `add`.

    Example:
        >>> data = Batch(np.arange(3.0), {})
        >>> [b.mask["negate"].tolist() for b in evaluation_batches(data, 2, {"negate": lambda key, x: (-x, x)})]
        [[True, True], [True, False]]
    """
    expect(isinstance(batch, Batch), "evaluation_batches", "batch", "a Batch", batch, TypeError)
    _check_views("evaluation_batches", views)
    check_count("evaluation_batches", "batch_size", batch_size)
    check_count("evaluation_batches", "seed", seed, least=0)
    _check_new("the batch", batch, views)
    size = _size(batch)
    return _evaluated(batch, batch_size, views, seed, size)


def _evaluated(batch: Batch, batch_size: int, views: Mapping[str, View], seed: int, size: int) -> Iterator[Batch]:
    # Placeholder targets, so that the views get masks which leave out the copies in the last batch.
    widened = batch._replace(targets={**batch.targets, **{name: np.zeros(size, bool) for name in views}})
    for index, part in enumerate(evaluation.evaluation_batches(widened, batch_size)):
        part = part._replace(targets={name: part.targets[name] for name in batch.targets})
        yield add(part, jax.random.fold_in(jax.random.key(seed), index), views)


def _check_views(where: str, views: Any) -> None:
    expect(isinstance(views, Mapping), where, "views", "a dict of views by task name", views, TypeError)
    expect(len(views) > 0, where, "views", "at least one view by task name", views, ValueError)
    for name, view in views.items():
        expect(isinstance(name, str), where, "the names of views", "strings", name, TypeError)
        check_callable(where, f"views[{name!r}]", view, expected="a view, a function of a key and inputs")


def _check_new(what: str, batch: Batch, views: Mapping[str, View]) -> None:
    if isinstance(batch.inputs, TaskInputs):
        raise ValueError(f"add: the inputs of {what} are TaskInputs already; add all views at once, to plain inputs")
    taken = sorted(set(views) & set(batch.targets))
    if taken:
        raise ValueError(f"add: {what} has targets for task '{taken[0]}' already; give the view another name")


def _look(name: str, view: View, key: Key, batch: Batch) -> Batch:
    """The batch of one view, after checks."""
    size = _size(batch)
    found = view(key_for(key, name), batch.inputs)
    if type(found) is not tuple or len(found) not in (2, 3):
        raise TypeError(
            f"add: view '{name}' must return a tuple (inputs, targets) or (inputs, targets, mask), "
            f"found {type(found).__name__}"
        )
    parts = dict(zip(("inputs", "targets", "mask"), found, strict=False))
    for part, tree in parts.items():
        for leaf in jax.tree.leaves(tree):
            if jnp.shape(leaf)[:1] != (size,):
                raise ValueError(f"add: {part} of view '{name}' must be [{size}, ...], found {list(jnp.shape(leaf))}")
    masks = [jnp.asarray(mask) for mask in (parts.get("mask"), batch.mask.get(name)) if mask is not None]
    for mask in masks:
        check_weights("add", f"the mask of view '{name}'", mask, size)
    own = {name: masks[0] if len(masks) == 1 else product(*masks)} if masks else {}
    return Batch(parts["inputs"], {name: parts["targets"]}, own)


def _size(batch: Batch) -> int:
    leaves = jax.tree.leaves(batch.inputs)
    if not leaves or not jnp.ndim(leaves[0]):
        raise ValueError("add: the inputs of the batch must be arrays [B, ...], found none")
    return jnp.shape(leaves[0])[0]
