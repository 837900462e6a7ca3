"""Batches in `fit`: functions of the step or iterators, and their position after a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Batches = Callable[[int], Iterable[Any]] | Iterable[Any]


def state_of(batches: Any) -> dict[str, Any] | None:
    """The position of an iterator; None if it has no `get_state`, and for a function of the step."""
    stateful = not callable(batches) and hasattr(batches, "get_state") and hasattr(batches, "set_state")
    return batches.get_state() if stateful else None


def move_to(batches: Any, saved: Any, where: str) -> None:
    """Restore the position of an iterator from a checkpoint."""
    if state_of(batches) is None:
        raise ValueError(
            f"fit: batches must be a function of the step to resume from {where}, or an iterator with get_state and "
            f"set_state, found {type(batches).__name__}"
        )
    if saved is None:
        raise ValueError(
            f"fit: batches must be a function of the step to resume from {where}, which was written without the state "
            f"of an iterator, found {type(batches).__name__}"
        )
    batches.set_state(saved)


def tell(batches: Any, metrics: Any) -> None:
    """Pass the losses of a step to loss-driven rates of `mtljax.data.mix`, unless the step has done so itself."""
    if getattr(batches, "waiting", False) and isinstance(metrics, dict) and "losses" in metrics:
        batches.observe(metrics["losses"], metrics.get("active"))


def stream_of(batches: Batches, start: int, num_steps: int) -> Iterator[Any]:
    """The batches of the remaining steps."""
    if start == num_steps:
        return
    iterator = iter(batches(start)) if callable(batches) else iter(batches)
    for done in range(start, num_steps):
        try:
            batch = next(iterator)
        except StopIteration:
            raise ValueError(
                f"fit: batches must last until num_steps, step {num_steps}, found their end after step {done}"
            ) from None
        yield batch
