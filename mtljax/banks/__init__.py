"""Banks: entries of the tasks that stand for many tasks of one form, as arrays with a task axis."""

from mtljax.banks.apart import Group, group_of, is_apart, is_mark, keep_apart, marked
from mtljax.banks.by_task import ByTask, Names, names_of
from mtljax.banks.entries import Entries, entries_of, in_order, rows_scaled
from mtljax.banks.moved import Banks, Moves, moved, moves_at, moves_of

__all__ = [
    "Banks",
    "ByTask",
    "Entries",
    "Group",
    "Moves",
    "Names",
    "entries_of",
    "group_of",
    "in_order",
    "is_apart",
    "is_mark",
    "keep_apart",
    "marked",
    "moved",
    "moves_at",
    "moves_of",
    "names_of",
    "rows_scaled",
]
