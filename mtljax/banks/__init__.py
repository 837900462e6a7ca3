"""Banks: entries of the tasks that stand for many tasks of one form, as arrays with a task axis."""

from mtljax.banks.apart import is_mark, keep_apart, marked
from mtljax.banks.by_task import ByTask, Names, names_of
from mtljax.banks.entries import Entries, rows_scaled

__all__ = ["ByTask", "Entries", "Names", "is_mark", "keep_apart", "marked", "names_of", "rows_scaled"]
