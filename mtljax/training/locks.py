"""Locks on the files of a run: the system releases them when the process ends, even if it is killed."""

from __future__ import annotations

import fcntl
import warnings
from typing import Any


def lock(file: Any, where: str, what: str) -> None:
    """Take the lock of an open file; closing the file releases it.

    Args:
        file: opened for writing.
        where: the public function's name, which opens the message.
        what: name of the file in messages.

    Raises:
        ValueError: another open file holds the lock, of this process or of another.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{where}: {what} must be of one run at a time, found another run that writes to it") from None
    except OSError as error:  # some network file systems have no locks
        warnings.warn(f"{where}: {what} cannot be locked ({error}); do not start a second run on it", stacklevel=4)
