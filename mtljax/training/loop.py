"""The training loop: steps, evaluation, log, progress bar, checkpoints and exact resume."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mtljax.checks import check_callable, check_count, check_flag
from mtljax.checks import found as found_words
from mtljax.training import checkpoint as checkpoints
from mtljax.training import identity, records
from mtljax.training.checkpoint.packing import pack
from mtljax.training.health import watch
from mtljax.training.log import Record
from mtljax.training.progress import progress_bar
from mtljax.training.records import Log
from mtljax.training.signals import ending_after_a_step
from mtljax.training.streams import Batches, move_to, state_of, stream_of, tell
from mtljax.types import TrainState


class FitResult(NamedTuple):
    """The result of a run.

    Attributes:
        state: the last `TrainState`.
        record: the last record; `fit(log=...)` gets all records. None if there was none.
    """

    state: TrainState
    record: Record | None


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
    log_tasks: bool = False,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    keep: int = 3,
    config: Mapping[str, Any] | None = None,
    changed: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train until `num_steps` steps are complete; continue where an earlier process stopped.

    When records and checkpoints are due, `fit` first logs the record, with the evaluation if one is due, and then
    writes the checkpoint. So the log has every record up to the checkpoint, and a resume cuts off later lines. `fit`
    waits for the device only at these steps, and keeps no history in memory.

    A resumed run equals a run without a break to the bit, if `batches` is a function of the step or an iterator with a
    state, `step` is deterministic, and its randomness comes from `state.key` and `state.step`.

    A checkpoint also identifies the run, by the shapes of a batch and the step's program as JAX traces it. To resume
    with another method, learning rate, schedule, batch size, model, task set or dtype is an error. `fit` cannot compare
    a `step` that is not made by `jax.jit` or `pmap`, nor batches whose shape changes from step to step; use `config`
    there. Another version of JAX or other devices change the program too: then `fit` warns.

    With `checkpoint_dir`, SIGTERM and SIGINT end the run after the current step, with a checkpoint: the process exits
    with 143 or 130 (`SystemExit`), and one line on standard error says why. A second signal acts at once. Handlers are
    set only in the main thread, only in place of Python's own, and are removed at the end. With several processes only
    SIGTERM is handled.

    `fit` warns, once, if a task is inactive in most steps because its loss or gradient is not finite, if a penalty's
    value or gradient is not finite, and if a method does not trust its solver at most of the first steps.

    Args:
        step: `(state, batch) -> (state, metrics)`, already jitted. `metrics` is a pytree of small arrays; its values at
            the logged steps are logged. If `step` donates its state, the given `state` is consumed.
        state: the first state; also the structure into which a checkpoint is read.
        batches: one of three. A function `batches(start) -> iterable` whose first element is the batch of step `start`,
            counted from 0. An iterator with `get_state()` and `set_state(state)`, such as that of `mtljax.data.batches`
            or Grain; every checkpoint holds its state (numbers, strings, and dicts, lists and tuples of these). Any
            other iterable, which is read from its current position and cannot be resumed. Loss-driven rates of
            `mtljax.data.mix` get the losses after every step, for which `fit` waits for the device.
        num_steps: number of completed steps at which to stop, including those of earlier processes.
        evaluate: `state -> pytree of small arrays`, called every `eval_every` steps and at the end.
        eval_every: steps between evaluations; None (default) evaluates only at the end.
        log: a path of a JSONL file, a writer `record -> None` (such as `log.tensorboard_writer`, or the `append` of a
            list), or several of them. A file must be new or a log of mtljax; `log.read` reads it. Of several processes
            only the first one writes.
        log_every: steps between records; the last step is always recorded.
        log_tasks: whether records hold a value for every task of a bank; by default the mean, least and largest of
            them, so that a record of hundreds of tasks is short (see `log.to_record`).
        checkpoint_dir: folder of checkpoints, for one run at a time; a missing folder is made. None (default) writes
            no checkpoints.
        checkpoint_every: steps between checkpoints; None (default) writes one only at the end.
        keep: number of checkpoints to keep, the newest ones.
        config: a further description of the run, such as its arguments, as values that JSON can hold. It is written
            into every checkpoint. A resume compares it if run and checkpoint both have one.
        changed: True resumes even if the checkpoint is of another program, batch or configuration.
        progress: whether to draw a progress bar if standard error is a terminal.

    Returns:
        `FitResult(state, record)`.

    Raises:
        ValueError: an interval that is not a positive integer, or is given without `evaluate`, `log` or
            `checkpoint_dir`; `batches` ends early, or cannot be resumed; the checkpoint is of another structure or run,
            before the given state, or beyond `num_steps`; the folder or a log cannot be written to, belongs to another
            run, or is not of mtljax.
        Exception: errors of `evaluate`, of the log or of writing a checkpoint. The state is not lost: it is in the
            folder of checkpoints or, if that is not possible, in the attribute `state` of the exception.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mtljax.types import MethodState, Params
        >>> method_state = MethodState(weights=jnp.ones(1), residual=jnp.float32(0))
        >>> start = TrainState(jnp.int32(0), Params(jnp.float32(0), {}), {}, (), method_state, jax.random.key(0))
        >>> def sgd(state, batch):
        ...     loss, gradient = jax.value_and_grad(lambda w: (w - batch) ** 2)(state.params.shared)
        ...     params = Params(state.params.shared - 0.25 * gradient, {})
        ...     return state._replace(step=state.step + 1, params=params), {"losses": {"w": loss}}
        >>> records = []
        >>> stream = lambda step: iter([jnp.float32(8)] * 3)
        >>> result = fit(jax.jit(sgd), start, stream, num_steps=3, log_every=1, log=records.append)
        >>> float(result.state.params.shared), [record["train"]["losses"]["w"] for record in records]
        (7.0, [64.0, 16.0, 4.0])
    """
    flags = {"changed": changed, "progress": progress, "log_tasks": log_tasks}
    _check_arguments(step, state, batches, evaluate, num_steps, log_every, flags)
    _check_interval("eval_every", eval_every, "evaluate", evaluate)
    _check_interval("checkpoint_every", checkpoint_every, "checkpoint_dir", checkpoint_dir)
    settings = _as_json(config)
    with contextlib.ExitStack() as stack:
        done_about_it = f"the step is complete, and its checkpoint is in {checkpoint_dir}; start again to continue"
        ends = stack.enter_context(ending_after_a_step(done_about_it, enabled=checkpoint_dir is not None))
        folder, found = None, None
        if checkpoint_dir is not None:
            folder = stack.enter_context(checkpoints.opened(checkpoint_dir, keep=keep, where="fit"))
            found = checkpoints.resume(folder, state)
            pack("fit: batches.get_state()", state_of(batches))
        if found is not None:
            _check_resumable(found, state, settings, changed)
            state = found.state
            if not callable(batches):
                move_to(batches, found.batches, str(found.path))
        start = int(state.step)
        if start > num_steps:
            raise ValueError(f"fit: num_steps must be at least {start}, the step of the state, found {num_steps}")

        stream = stream_of(batches, start, num_steps)
        run, shapes = None, None
        if folder is not None and start < num_steps:
            first = next(stream)
            stream, shapes = itertools.chain([first], stream), identity.signature(first)
            run = identity.describe(step, state, first, settings)
            if found is not None and not changed:
                run = identity.checked(str(found.path), found.run, run)

        writers, record = records.open_logs(stack, log, start, found)
        record = record if found is None or found.record is None else found.record

        def save(state: TrainState, record: Record | None) -> None:
            if folder is not None:
                checkpoints.save(folder, state, batches=state_of(batches), run=run, record=record)

        def rescue(state: TrainState, record: Record, error: BaseException) -> None:
            # Several processes write a checkpoint together, and the other processes have not failed.
            if folder is None or jax.process_count() > 1 or (found is not None and found.step == record["step"]):
                return
            try:
                save(state, record)
                checkpoints.wait(folder)
                error.add_note(f"fit: a checkpoint of step {record['step']} is in {folder.path}")
            except Exception as other:
                error.add_note(f"fit: no checkpoint could be written ({type(other).__name__}: {other})")

        if evaluate is not None and records.evaluation_is_missing(start, num_steps, eval_every, record):
            with records.state_survives(state):
                parts = {"eval": functools.partial(evaluate, state)}
                record = records.make_record(start, parts, writers, functools.partial(rescue, state), log_tasks)

        look = watch(start, num_steps)
        bar = stack.enter_context(progress_bar(num_steps, start=start, enabled=progress))
        for done, batch in enumerate(stream, start=start + 1):
            if run is not None and identity.signature(batch) != shapes:
                run = identity.without_shapes(run)
            state, metrics = step(state, batch)
            tell(batches, metrics)
            at_end, new = done == num_steps, None
            parts = {}
            if at_end or done % log_every == 0:
                parts["train"] = lambda metrics=metrics: metrics
            if evaluate is not None and (at_end or (eval_every is not None and done % eval_every == 0)):
                parts["eval"] = functools.partial(evaluate, state)
            with records.state_survives(state):
                if parts:
                    rescue_here = functools.partial(rescue, state)
                    record = new = records.make_record(done, parts, writers, rescue_here, log_tasks)
                    bar(done, records.describe(record))
                ending = ends(done)
                if at_end or ending or (checkpoint_every is not None and done % checkpoint_every == 0):
                    save(state, new)
            look(done, metrics, new)
            if ending:
                break
        with records.state_survives(state):
            if folder is not None:
                checkpoints.wait(folder)
        return FitResult(state, record)


def _check_arguments(
    step: Any, state: Any, batches: Any, evaluate: Any, num_steps: Any, log_every: Any, flags: dict[str, Any]
) -> None:
    check_callable("fit", "step", step)
    if not isinstance(state, TrainState):
        raise TypeError(f"fit: state must be a mtljax.TrainState, found {found_words(state)}")
    if not callable(batches) and not isinstance(batches, Iterable):
        raise TypeError(f"fit: batches must be a function of the step or an iterable, found {found_words(batches)}")
    if evaluate is not None:
        check_callable("fit", "evaluate", evaluate)
    check_count("fit", "num_steps", num_steps)
    check_count("fit", "log_every", log_every)
    for name, flag in flags.items():
        check_flag("fit", name, flag)


def _check_interval(name: str, every: Any, of: str, what: Any) -> None:
    if every is None:
        return
    check_count("fit", name, every)
    if what is None:
        raise ValueError(f"fit: {name} must be None where there is no {of}, found {every}")


def _check_resumable(
    found: checkpoints.Checkpoint, state: TrainState, settings: dict[str, Any] | None, changed: bool
) -> None:
    if int(state.step) > found.step:
        raise ValueError(
            f"fit: state must not be ahead of the newest checkpoint, {found.path}, found step {int(state.step)}; give "
            "another folder, or a state at step 0 to continue from the checkpoint"
        )
    if not changed:
        identity.check_config(str(found.path), found.run, settings)


def _as_json(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        return None
    if not isinstance(config, Mapping) or not all(isinstance(name, str) for name in config):
        raise TypeError(f"fit: config must be a mapping by name, found a {type(config).__name__}")
    try:
        return json.loads(json.dumps(dict(config)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"fit: config must hold only values that JSON can hold, found others ({error})") from None
