"""Handlers of SIGTERM and SIGINT, which end a run after the current step."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

DEFAULTS = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


@contextlib.contextmanager
def ending_after_a_step(message: str, *, enabled: bool = True) -> Iterator[Callable[[int], bool]]:
    """Catch SIGTERM and SIGINT, and end the process after the body of the `with` statement.

    The body asks `ends(step)` after each step, saves its state, and returns. The process then ends by `SystemExit` with
    128 plus the number of the signal (143 for SIGTERM, 130 for SIGINT), as in shells, and one line on standard error
    says why. A second signal acts as without this handler. So does the first signal outside of the main thread, or if
    another handler is installed.

    With several processes only SIGTERM is caught: JAX agrees on a step at which all processes end.

    Args:
        message: text for the line on standard error.
        enabled: False does not catch signals.

    Yields:
        `ends(step)`: whether to end at this step.
    """
    if jax.process_count() > 1:
        with _among_processes(message, enabled) as ends:
            yield ends
        return
    received: list[int] = []
    before = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: Any) -> None:
        received.append(number)
        restore()

    if enabled and threading.current_thread() is threading.main_thread():
        before = {number: usual for number, usual in DEFAULTS.items() if signal.getsignal(number) == usual}
        for number in before:
            signal.signal(number, note)
    try:
        yield lambda _: bool(received)
    finally:
        restore()
    if received:
        _end(received[0], message)


@contextlib.contextmanager
def _among_processes(message: str, enabled: bool) -> Iterator[Callable[[int], bool]]:
    reached: list[int] = []

    def ends(step: int) -> bool:
        if enabled and multihost_utils.reached_preemption_sync_point(step):
            reached.append(step)
        return bool(reached)

    yield ends
    if reached:
        _end(signal.SIGTERM, message)


def _end(number: int, message: str) -> None:
    print(f"{signal.Signals(number).name}: {message}", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)
