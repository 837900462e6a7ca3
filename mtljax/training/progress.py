"""The progress bar in the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextlib.contextmanager
def progress_bar(
    total: int, *, start: int = 0, enabled: bool = True, console: Console | None = None
) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error, drawn only by `update`, without a thread.

    Args:
        total: number of steps at which the bar is full.
        start: first step of a resumed run, from which its speed is measured.
        enabled: False draws nothing. Nothing is drawn either if standard error is not a terminal.
        console: another console to draw on.

    Yields:
        `update(step, text)`, with the text behind the bar.

    Example:
        >>> with progress_bar(10, enabled=False) as update:
        ...     update(5, "loss 0.5")
    """
    console = Console(stderr=True) if console is None else console
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, auto_refresh=False, disable=not (enabled and console.is_terminal)) as bar:
        task = bar.add_task("", total=total, completed=start)

        def update(step: int, text: str) -> None:
            bar.update(task, completed=step, description=text, refresh=True)

        yield update
