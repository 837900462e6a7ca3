"""Write the tables of methods and of peers' numbers into the README and docs: python docs/write_tables.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks import peer_numbers
from mtljax import methods

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "methods.md", ROOT / "README.md")
PLACE = r"(?<=<!-- {0}: begin -->\n).*?(?=<!-- {0}: end -->)"


def filled(page: Path) -> str:
    """A page with its tables as they are now; the README's is narrower and has no papers."""
    tables = {
        "table": methods.as_markdown(methods.table(), papers=page.name != "README.md"),
        "peers": peer_numbers.as_markdown(json.loads(peer_numbers.RESULT.read_text())["lines"]),
    }
    text = page.read_text()
    for name, table in tables.items():
        text = re.sub(PLACE.format(name), lambda _, table=table: table + "\n", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page))
