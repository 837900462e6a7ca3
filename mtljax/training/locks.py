"""Locks on what a run writes: held as long as its process lives, whatever it dies of."""

from __future__ import annotations

import fcntl
import warnings
from typing import Any


def lock(file: Any, where: str, what: str) -> None:
    """Takes the lock of an open file; it goes when the file is closed.

    Args:
        file: opened for writing.
        where: the public function's name, which opens the message.
        what: what the file stands for, as the message names it.

    Raises:
        ValueError: another open file holds the lock, of this process or of another.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{where}: {what} must be of one run at a time, found another run that writes to it") from None
    except OSError as error:  # some network file systems have no locks
        warnings.warn(f"{where}: {what} cannot be locked ({error}); start no second run on it", stacklevel=4)
