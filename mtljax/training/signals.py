"""SIGTERM and SIGINT: a run ends after the step it is at."""

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
    """Takes SIGTERM and SIGINT as a wish to end, and ends the process when the body is through.

    The body asks after each step, saves what it has, and returns. The process then ends with 128 plus the signal's
    number (143 for SIGTERM, 130 for SIGINT), as shells count, through `SystemExit`, and one line on standard error says
    why. A second signal acts as it would have without this. So does the first where it cannot be waited for (outside of
    the main thread), and where somebody else handles it.

    Among several processes SIGTERM alone is waited for: JAX agrees on a step at which all of them end.

    Args:
        message: what was done about it, for the line.
        enabled: False leaves signals alone.

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
