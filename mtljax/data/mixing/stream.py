"""The stream of a mixture: batches of tasks that have their own data, in shapes that never change."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mtljax.checks import check_callable, check_count, check_number, check_weights, expect, found
from mtljax.data.batches import Stream
from mtljax.data.lengths import leading_length
from mtljax.data.mixing.draws import Draw, one_task
from mtljax.data.mixing.rates import LossDriven, Rates
from mtljax.losses.masked import product
from mtljax.sharing.frames.network import check_entries, task_names
from mtljax.types import Batch


class Mixture:
    """A `Stream` of dicts of `Batch` by task; made by `mix`."""

    def __init__(
        self,
        decks: dict[str, Any],
        rates: Rates | Callable[[int], Rates] | LossDriven,
        draw: Draw,
        batch_size: int,
        seed: int,
    ):
        self._decks, self._rates, self._draw, self._size, self._seed = decks, rates, draw, batch_size, seed
        self._step = 0
        self._driven = rates.init() if isinstance(rates, LossDriven) else None
        self._waiting = False

    def __iter__(self) -> Iterator[dict[str, Batch]]:
        return self

    @property
    def waiting(self) -> bool:
        """Whether loss-driven rates still wait for the losses of the last batch."""
        return self._waiting

    def __next__(self) -> dict[str, Batch]:
        if self._waiting:
            raise ValueError(
                "mix: loss_driven rates need the losses of each step before the next batch: call "
                'mixture.observe(metrics["losses"], metrics["active"]), as mtljax.training.fit does'
            )
        counts = self.counts()
        self._step += 1
        self._waiting = self._driven is not None
        return {name: deck.take(count) for (name, deck), count in zip(self._decks.items(), counts, strict=True)}

    def counts(self) -> list[int]:
        """Numbers of examples per task in the next batch, in sorted order of tasks."""
        rates = self._rates
        if isinstance(rates, LossDriven):
            rates = rates.rates(self._driven or {})
        elif not isinstance(rates, dict):
            rates = rates(self._step)
        rates = _checked_rates(rates, list(self._decks))
        counts = np.asarray(self._draw(self._seed, self._step, rates, self._size))
        if counts.shape != rates.shape or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
            raise ValueError(
                f"mix: draw must return integers [{len(rates)}] that are not negative, the examples per task, "
                f"found {counts.tolist()}"
            )
        return counts.tolist()

    def observe(self, losses: Mapping[str, Any], active: Mapping[str, Any] | None = None) -> None:
        """Pass the losses of the last step to loss-driven rates.

        Args:
            losses: scalars by task, as a step's `metrics["losses"]`; the call waits for the device. Of a bank, `[n]`,
                the mean over its active tasks counts.
            active: bool by task, as `metrics["active"]`; losses of inactive tasks are ignored. Without `active`, leave
                inactive tasks out of `losses`: a step reports 0 for them, which would count.

        Raises:
            ValueError: the rates are not driven by losses.
        """
        if not isinstance(self._rates, LossDriven):
            raise ValueError(f"observe: the rates of the mixture must be loss_driven, found {found(self._rates)}")
        seen: dict[str, float] = {}
        for name, loss in losses.items():
            taking_part = np.asarray(True if active is None else active[name])
            if taking_part.any():
                seen[name] = float(np.mean(np.asarray(loss), where=taking_part))
        self._driven, self._waiting = self._rates.update(self._driven or {}, seen), False

    def get_state(self) -> dict[str, Any]:
        """The position of the stream: the step, each task's position in its data, and the state of the rates."""
        places = {name: deck.get_state() for name, deck in self._decks.items()}
        return {"step": self._step, "places": places, "driven": self._driven}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a saved position."""
        if sorted(state["places"]) != list(self._decks):
            names = sorted(state["places"])
            raise ValueError(f"set_state: state must be of the tasks {list(self._decks)}, found {names}")
        if (state["driven"] is None) != (self._driven is None):
            raise ValueError("set_state: state and mixture must both have loss_driven rates, or neither; found one")
        self._step, self._driven, self._waiting = state["step"], state["driven"], False
        for name, deck in self._decks.items():
            deck.set_state(state["places"][name])

    def skip(self, steps: int) -> None:
        """Skip the next batches. The draws are made; examples are read only where the source is a stream."""
        for _ in range(steps):
            for deck, count in zip(self._decks.values(), self.counts(), strict=True):
                deck.skip(count)
            self._step += 1


def mix(
    sources: Mapping[str, Batch | Stream],
    rates: Rates | Callable[[int], Rates] | LossDriven,
    *,
    batch_size: int,
    seed: int,
    draw: Draw = one_task,
    capacity: int | Mapping[str, int] | None = None,
    start_step: int = 0,
) -> Mixture:
    """Batches of tasks that have their own data, as dicts of `Batch` by task, all of one shape and structure.

    At each step `draw` divides `batch_size` examples among the tasks by their rates. The `Batch` of every task has
    `capacity` rows. Copies of one example, with mask False, fill up the rows that were not drawn; the `Batch` of an
    absent task has only such copies. So one trace serves every subset of tasks, and the losses leave out absent tasks.
    The price is computation: the step computes all rows of all tasks.

    Each task goes through its own data in exact epochs, permuted by `(seed, task, epoch)`, however often it is drawn.

    Networks that normalize over the batch see the copies too. If several processes train together, give each process
    its own part through streams of `mtljax.data.batches(shard=...)`: the draws are the same in all processes.

    Args:
        sources: by task, its data in memory: a `Batch` with this task as its only target. Or a `Stream` of such
            batches, such as `mtljax.data.batches`, all `[batch_size, ...]`; then `draw` must give every step to one
            task. Inputs may differ in kind between tasks.
        rates: numbers by task, not negative, which need not sum to 1; or a function `rates(step)` that returns them,
            such as `annealed`; or `loss_driven`: then call `observe` after every step, as `mtljax.training.fit` does.
        batch_size: examples per step, B, at least 1.
        seed: non-negative integer.
        draw: `(seed, step, rates [T], batch_size) -> examples [T]`: `one_task` (default), `round_robin`,
            `multinomial`, `largest_remainder`, `systematic`, or another pure function.
        capacity: rows of each task's batch, for all tasks or by task; None is `batch_size`, which always suffices.
            `ceil(batch_size * rate)` suffices for `largest_remainder` and `systematic` with fixed rates.
        start_step: number of batches to skip. Their draws are made again, 20 to 100 microseconds each; `set_state`
            costs nothing. With streams or `loss_driven` it must be 0.

    Returns:
        `Mixture`: an iterator with `get_state` and `set_state`, which `mtljax.training.fit` writes into its
        checkpoints, and `observe`.

    Raises:
        ValueError: rates or capacities for other tasks than the sources', rates that are negative or all 0, a source
            without its task's target or with another target, a mask that is not `[N]`, an impossible `start_step`;
            from the iterator, a draw that is not integers `[T]`, exceeds a capacity, or splits the batch of a stream;
            a `loss_driven` mixture that asks for a batch before `observe`.
        TypeError: a source that is neither a `Batch` nor a stream with `get_state` and `set_state`; a mask that is not
            bool.

    Example:
        >>> from mtljax.data.mixing.draws import systematic
        >>> cats, dogs = (Batch(np.arange(n), {name: np.arange(n)}) for name, n in (("cats", 3), ("dogs", 5)))
        >>> stream = mix({"cats": cats, "dogs": dogs}, {"cats": 1, "dogs": 3}, batch_size=4, seed=0, draw=systematic)
        >>> batch = next(stream)
        >>> batch["dogs"].mask["dogs"].tolist(), batch["cats"].mask["cats"].tolist()
        ([True, True, True, False], [True, False, False, False])
    """
    expect(isinstance(sources, Mapping), "mix", "sources", "a dict by task name", sources, TypeError)
    names = task_names("mix", sources, what="sources")
    check_count("mix", "batch_size", batch_size)
    check_count("mix", "seed", seed, least=0)
    check_count("mix", "start_step", start_step, least=0)
    check_callable("mix", "draw", draw)
    if isinstance(capacity, Mapping):
        check_entries("mix", "capacity", capacity, names)
    decks: dict[str, Any] = {}
    for name in names:
        source = sources[name]
        rows = capacity[name] if isinstance(capacity, Mapping) else batch_size if capacity is None else capacity
        check_count("mix", f"capacity[{name!r}]" if isinstance(capacity, Mapping) else "capacity", rows)
        if isinstance(source, Batch):
            decks[name] = _Deck(name, source, rows, seed)
        elif hasattr(source, "get_state") and hasattr(source, "set_state"):
            decks[name] = _Whole(name, source, rows)
        else:
            expected = "a Batch, or a stream with get_state and set_state"
            raise TypeError(f"mix: sources[{name!r}] must be {expected}, found {found(source)}")
    if isinstance(rates, dict):
        _checked_rates(rates, list(names))
    elif not isinstance(rates, LossDriven):
        check_callable("mix", "rates", rates, expected="a dict by task, a function of the step, or LossDriven")
    mixture = Mixture(decks, rates, draw, batch_size, seed)
    if start_step and (isinstance(rates, LossDriven) or not all(isinstance(deck, _Deck) for deck in decks.values())):
        raise ValueError(f"mix: start_step must be 0 with streams or loss_driven, found {start_step}")
    mixture.skip(start_step)
    return mixture


class _Deck:
    """A task's data in memory, drawn in exact epochs."""

    def __init__(self, name: str, source: Batch, capacity: int, seed: int):
        _check_target(name, source)
        self._name, self._capacity, self._taken = name, capacity, 0
        self._size = leading_length(source._replace(mask={}), f"mix: sources[{name!r}]")
        own = source.mask.get(name, np.ones(self._size, bool))
        own = np.asarray(check_weights("mix", f"the mask of sources[{name!r}]", own, self._size))
        self._arrays = jax.tree.map(np.asarray, source._replace(mask={name: own}))
        self._absent = _filler(name, self._arrays, capacity)
        stem = [seed, zlib.crc32(name.encode())]
        self._order = functools.lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([*stem, epoch, 2]).permutation(self._size)
        )

    def take(self, count: int) -> Batch:
        if count == 0:
            return self._absent
        _check_count(self._name, count, self._capacity)
        places = np.arange(self._taken, self._taken + count)
        rows = np.zeros(self._capacity, int)
        for epoch in range(places[0] // self._size, places[-1] // self._size + 1):
            here = places // self._size == epoch
            rows[:count][here] = self._order(epoch)[places[here] % self._size]
        self._taken += count
        found = jax.tree.map(lambda array: array[rows], self._arrays)
        drawn = np.arange(self._capacity) < count
        return found._replace(mask={self._name: product(found.mask[self._name], drawn)})

    def skip(self, count: int) -> None:
        self._taken += count

    def get_state(self) -> int:
        return self._taken

    def set_state(self, state: int) -> None:
        self._taken = state


class _Whole:
    """A task's stream of batches, each taken as a whole."""

    def __init__(self, name: str, source: Stream, capacity: int):
        self._name, self._source, self._capacity = name, source, capacity
        start = source.get_state()
        first = jax.tree.map(np.asarray, next(source))
        source.set_state(start)
        _check_target(name, first)
        size = leading_length(first, f"mix: sources[{name!r}]")
        if size != capacity:
            raise ValueError(f"mix: the batches of sources[{name!r}] must have {capacity} examples, found {size}")
        self._absent = _filler(name, first, capacity)

    def take(self, count: int) -> Batch:
        if count == 0:
            return self._absent
        if count != self._capacity:
            raise ValueError(
                f"mix: {count} of the {self._capacity} examples of a batch were drawn for {self._name!r}, whose source "
                "is a stream; give its data in memory, or a draw that gives a step to one task"
            )
        batch = next(self._source)
        mask = batch.mask.get(self._name, np.ones(self._capacity, bool))
        return batch._replace(mask={self._name: mask})

    def skip(self, count: int) -> None:
        self.take(count)

    def get_state(self) -> Any:
        return self._source.get_state()

    def set_state(self, state: Any) -> None:
        self._source.set_state(state)


def _filler(name: str, arrays: Batch, capacity: int) -> Batch:
    """Masked copies of the first example. A real example, since zeros are harmful to some networks."""
    filler = jax.tree.map(lambda array: np.repeat(array[:1], capacity, axis=0), arrays)
    mask = arrays.mask.get(name, np.zeros(1, bool))
    filler = filler._replace(mask={name: np.zeros((capacity, *mask.shape[1:]), mask.dtype)})
    for leaf in jax.tree.leaves(filler):
        leaf.setflags(write=False)  # handed out at every step without the task
    return filler


def _check_target(name: str, batch: Batch) -> None:
    if not isinstance(batch, Batch) or set(batch.targets) != {name} or set(batch.mask) - {name}:
        found = (sorted(batch.targets), sorted(batch.mask)) if isinstance(batch, Batch) else type(batch).__name__
        raise ValueError(
            f"mix: sources[{name!r}] must have the target {name!r} alone, and no other mask, found {found}"
        )


def _check_count(name: str, count: int, capacity: int) -> None:
    if count > capacity:
        raise ValueError(f"mix: {count} examples were drawn for {name!r}, whose capacity is {capacity}")


def _checked_rates(rates: Rates, names: list[str]) -> np.ndarray:
    """Rates as `[T]` in task order, which sum to 1."""
    check_entries("mix", "rates", rates, tuple(names))
    known = np.array([check_number("mix", f"rates[{name!r}]", rates[name], least=0) for name in names], np.float64)
    if not 0 < known.sum() < np.inf:
        raise ValueError(f"mix: rates must be finite, not negative and somewhere positive, found {dict(rates)}")
    return known / known.sum()
