"""Where the real data stand, for tests and benchmarks alike."""

from __future__ import annotations

from pathlib import Path

from mtljax.data.sets.raw import roots


def folder(name: str) -> Path | None:
    """The folder of that data set, None where it is not there."""
    return next((root / name for root in roots() if (root / name).exists()), None)


def missing(name: str) -> str:
    return f"no real data {name!r} in {' or '.join(map(str, roots()))}; set MTLJAX_DATA to the folder that has it"
