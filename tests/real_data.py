"""Where the real data stand, for tests and benchmarks alike."""

from __future__ import annotations

import os
from pathlib import Path


def roots() -> list[Path]:
    """The folder that `MTLJAX_DATA` names, then `../shared/data` beside the checkout."""
    named = os.environ.get("MTLJAX_DATA")
    return [*([Path(named)] if named else []), Path(__file__).resolve().parents[2] / "shared" / "data"]


def folder(name: str) -> Path | None:
    """The folder of that data set, None where it is not there."""
    return next((root / name for root in roots() if (root / name).exists()), None)


def missing(name: str) -> str:
    return f"no real data {name!r} in {' or '.join(map(str, roots()))}; set MTLJAX_DATA to the folder that has it"
