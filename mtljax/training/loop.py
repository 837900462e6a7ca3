"""The training loop: steps, evaluation, log, progress bar, checkpoints and exact resume."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mtljax.training import checkpoint as checkpoints
from mtljax.training import log as logs
from mtljax.training.log import Record, Writer
from mtljax.training.progress import progress_bar
from mtljax.types import TrainState

Batches = Callable[[int], Iterable[Any]] | Iterable[Any]
Log = str | os.PathLike[str] | Writer


class FitResult(NamedTuple):
    """What a run ends with.

    Attributes:
        state: the last `TrainState`.
        history: the records that were logged, oldest first, as `log.read` returns them. Where the log is a file,
            those of the run before a resume are among them.
    """

    state: TrainState
    history: list[Record]


def fit(
    step: Callable[[TrainState, Any], tuple[TrainState, Any]],
    state: TrainState,
    batches: Batches,
    *,
    num_steps: int,
    evaluate: Callable[[TrainState], Any] | None = None,
    eval_every: int | None = None,
    log: Log | Sequence[Log] | None = None,
    log_every: int = 50,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    keep: int = 3,
    progress: bool = True,
) -> FitResult:
    """Trains until `num_steps` steps are complete, and picks up where an earlier process stopped.

    At a step that is due, in this order: the record is logged (with the evaluation in it, where one is due), then
    the checkpoint is written. So a log never lacks what a checkpoint knows, and on resume the lines beyond the
    checkpoint are cut off. The device is waited for at these steps only.

    A resumed run equals an undisturbed one to the bit, provided that `batches` is a function of the step or an iterator
    with a state, `step` is deterministic, and its randomness comes from `state.key` and `state.step`.

    Args:
        step: `(state, batch) -> (state, metrics)`, already jitted. `metrics` is a pytree of small arrays, whose
            values at the logged steps are logged. Where it donates its state, the given `state` is used up.
        state: where to start, and the structure into which a checkpoint is read.
        batches: `batches(start) -> iterable` whose first element is the batch of step `start`, counted from 0; or an
            iterator with `get_state()` and `set_state(state)`, such as `mtljax.data.batches` and Grain make, whose
            state, which JSON must hold, is written into every checkpoint; or any iterable, which is taken from where it
            stands and cannot be resumed.
        num_steps: number of completed steps at which to stop, those of earlier processes included.
        evaluate: `state -> pytree of small arrays`, called every `eval_every` steps and at the end.
        eval_every: steps between evaluations; None evaluates at the end alone.
        log: a path of a JSONL file, a writer `record -> None` (such as `log.tensorboard_writer`), or several.
        log_every: steps between records; the last step is always recorded.
        checkpoint_dir: folder of checkpoints, made where it is missing; None writes none.
        checkpoint_every: steps between checkpoints; None writes one at the end alone.
        keep: how many of the newest checkpoints stay.
        progress: whether to draw a bar, where standard error is a terminal.

    Returns:
        `FitResult(state, history)`.

    Raises:
        ValueError: an interval is not a positive integer; `batches` ends early, or cannot be resumed; the checkpoint
            is of another structure or beyond `num_steps`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mtljax.types import MethodState, Params
        >>> method_state = MethodState(weights=jnp.ones(1), residual=jnp.float32(0))
        >>> start = TrainState(jnp.int32(0), Params(jnp.float32(0), {}), {}, (), method_state, jax.random.key(0))
        >>> def sgd(state, batch):
        ...     loss, gradient = jax.value_and_grad(lambda w: (w - batch) ** 2)(state.params.shared)
        ...     params = Params(state.params.shared - 0.25 * gradient, {})
        ...     return state._replace(step=state.step + 1, params=params), {"losses": {"w": loss}}
        >>> result = fit(jax.jit(sgd), start, lambda step: iter([jnp.float32(8)] * 3), num_steps=3, log_every=1)
        >>> float(result.state.params.shared), [record["train"]["losses"]["w"] for record in result.history]
        (7.0, [64.0, 16.0, 4.0])
    """
    for name, value in (
        ("num_steps", num_steps),
        ("eval_every", eval_every),
        ("log_every", log_every),
        ("checkpoint_every", checkpoint_every),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be a positive integer, found {value!r}")

    with contextlib.ExitStack() as stack:
        manager = None
        start = int(state.step)
        if checkpoint_dir is not None:
            manager = checkpoints.make_manager(checkpoint_dir, keep=keep)
            stack.callback(manager.close)
            restored = checkpoints.restore(manager, state)
            if restored is not None:
                state, start = restored, int(restored.step)
                if start > 0 and not callable(batches):
                    _move(batches, checkpoints.restore_batches(manager, start), f"step {start} of {manager.directory}")
        if start > num_steps:
            raise ValueError(f"num_steps is {num_steps}, but the state is already at step {start}")

        writers, history = _open_logs(log, start)

        def record(done: int, parts: dict[str, Any]) -> Record:
            entry: Record = {"step": done, "time": round(time.time(), 3)}
            entry.update((name, logs.to_record(part)) for name, part in parts.items())
            for write in writers:
                write(entry)
            history.append(entry)
            return entry

        if start == num_steps and evaluate is not None and not (history and history[-1]["step"] == start):
            record(start, {"eval": evaluate(state)})

        stream = _stream(batches, start, num_steps)
        bar = stack.enter_context(progress_bar(num_steps, start=start, enabled=progress))
        for done, batch in enumerate(stream, start=start + 1):
            state, metrics = step(state, batch)
            last = done == num_steps
            parts = {}
            if last or done % log_every == 0:
                parts["train"] = metrics
            if evaluate is not None and (last or (eval_every is not None and done % eval_every == 0)):
                parts["eval"] = evaluate(state)
            if parts:
                bar(done, _describe(record(done, parts)))
            if manager is not None and (last or (checkpoint_every is not None and done % checkpoint_every == 0)):
                checkpoints.save(manager, state, batches=_state_of(batches))
        return FitResult(state, history)


def _state_of(batches: Any) -> dict[str, Any] | None:
    """Where an iterator stands; None for one that cannot say, and for a function of the step, which need not."""
    stateful = not callable(batches) and hasattr(batches, "get_state") and hasattr(batches, "set_state")
    return batches.get_state() if stateful else None


def _move(batches: Any, saved: dict[str, Any] | None, where: str) -> None:
    """Put an iterator where it stood at a checkpoint."""
    if _state_of(batches) is None:
        raise ValueError(
            f"batches must be a function of the step to resume from {where}, or an iterator with get_state and "
            f"set_state, found {type(batches).__name__}"
        )
    if saved is None:
        raise ValueError(f"batches cannot resume from {where}, which was written without the state of an iterator")
    batches.set_state(saved)


def _stream(batches: Batches, start: int, num_steps: int) -> Iterator[Any]:
    if start == num_steps:
        return
    iterator = iter(batches(start)) if callable(batches) else iter(batches)
    for done in range(start, num_steps):
        try:
            batch = next(iterator)
        except StopIteration:
            raise ValueError(f"batches ended after step {done}, but num_steps is {num_steps}") from None
        yield batch


def _open_logs(log: Log | Sequence[Log] | None, start: int) -> tuple[list[Writer], list[Record]]:
    targets = [] if log is None else list(log) if isinstance(log, (list, tuple)) else [log]
    writers: list[Writer] = []
    history: list[Record] = []
    for target in targets:
        if callable(target):
            writers.append(target)
        elif isinstance(target, (str, os.PathLike)):
            kept = logs.rewind(target, start)
            history = history or kept
            writers.append(functools.partial(logs.append, target))
        else:
            raise TypeError(f"log must be a path or a function of a record, found {type(target).__name__}")
    return writers, history


def _describe(entry: Record) -> str:
    """The task losses of a record, or whatever numbers stand at the top of its metrics."""
    metrics = entry.get("train", {})
    metrics = metrics.get("losses", metrics) if isinstance(metrics, dict) else {}
    if not isinstance(metrics, dict):
        return ""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, (int, float)))
