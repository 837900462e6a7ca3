"""Write the table of methods into docs/methods.md and the README: python docs/write_tables.py."""

from __future__ import annotations

import re
from pathlib import Path

from mtljax import methods

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "methods.md", ROOT / "README.md")
PLACE = re.compile(r"(?<=<!-- table: begin -->\n).*?(?=<!-- table: end -->)", re.DOTALL)


def filled(page: Path) -> str:
    """A page with the table as it is now; the README's is narrower and has no papers."""
    table = methods.as_markdown(methods.table(), papers=page.name != "README.md")
    return PLACE.sub(lambda _: table + "\n", page.read_text())


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page))
