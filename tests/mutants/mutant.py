"""What a mutant is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One line of the package changed into a mistake, and the tests that ought to notice.

    Attributes:
        file: Path below mtljax/.
        old: Text that stands exactly once in the file.
        new: Text that stands there instead.
        tests: Node ids of pytest, parted by spaces, as few and as quick as will do.
        equivalent: Why the change changes nothing that a caller could see; empty for a mistake.
    """

    file: str
    old: str
    new: str
    tests: str
    equivalent: str = ""
