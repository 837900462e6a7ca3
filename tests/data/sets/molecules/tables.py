"""Files as DeepChem publishes them, of made-up molecules."""

from __future__ import annotations

import gzip

SMILES = ["C" * (1 + i) + "O" * (i % 2) for i in range(20)]


def table(labels, header, smiles=SMILES):
    """Gzipped rows of labels, a name and a molecule; `header` is of all these columns."""
    rows = [",".join([*row, f"TOX{i}", text]) for i, (row, text) in enumerate(zip(labels, smiles, strict=True))]
    return gzip.compress("\n".join([",".join(header), *rows, ""]).encode())
