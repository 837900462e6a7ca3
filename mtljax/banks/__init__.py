"""Banks: entries of the tasks that stand for many tasks of one form, as arrays with a task axis."""

from mtljax.banks.apart import is_mark, keep_apart, marked
from mtljax.banks.entries import Entries, rows_scaled

__all__ = ["Entries", "is_mark", "keep_apart", "marked", "rows_scaled"]
