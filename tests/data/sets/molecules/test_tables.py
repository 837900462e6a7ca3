"""Tables of molecules and labels: read from a file, split by index."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from mtljax.data.sets.molecules.tables import Table, index_split, read_table


def test_a_table_has_labels_and_gaps_by_the_names_of_its_columns(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(b'b,mol_id,"a, x",smiles\r\n1,M1,,CCO\r\n0,"M,2",1,C\r\n,M3,0,CC\r\n'))
    table = read_table(path, ["a, x", "b"], np.uint8)
    assert table.smiles == ["CCO", "C", "CC"]
    assert table.labels.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert table.present.tolist() == [[0, 1], [1, 1], [1, 0]]
    assert table.labels.dtype == table.present.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("smiles,b\nC,0\n", r"table: expected a column a, found 1 rows with 2 columns, the first of them smiles, b$"),
        ("a,b,SMILES\n0,0,C\n", "expected a column smiles, found 1 rows with 3 columns, .* a, b, SMILES$"),
        ("smiles,a,b\n", "expected at least one row, found 0 rows"),
        ("", "expected a column smiles, found 0 rows with 0 columns"),
        (
            "smiles,a,b\nC,0,1\nC,0\n",
            r"expected 3 fields and a molecule in row 2, found 2 fields",
        ),
        ("smiles,a,b\n,0,1\n", "expected 3 fields and a molecule in row 1"),
        ("smiles,a,b\nC,0,1\nC,0,2\n", "expected labels 0, 1 or none in row 2, found '2'"),
    ],
)
def test_a_table_of_another_form_is_refused_with_what_was_expected_and_found(content, message, tmp_path):
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(content.encode()))
    with pytest.raises(ValueError, match=message):
        read_table(path, ["a", "b"], np.uint8)


def test_numbers_are_float32_and_zero_where_missing(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(b"smiles,a,b\nC,4.25,\nCC,,1e1\n"))
    table = read_table(path, ["a", "b"], np.float32)
    assert table.labels.dtype == np.float32 and table.labels.tolist() == [[4.25, 0], [0, 10]]
    assert table.present.dtype == np.uint8 and table.present.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("size", "ends"), [(8014, (6411, 7212)), (1427, (1141, 1284)), (10, (8, 9)), (15, (12, 13))])
def test_the_split_is_by_index(size, ends):
    numbers = np.arange(size)
    parts = index_split(Table([str(i) for i in numbers], numbers[:, None], numbers[:, None]))
    assert list(parts) == ["train", "validation", "test"]
    bounds = [0, *ends, size]
    for part, start, stop in zip(parts.values(), bounds, bounds[1:], strict=False):
        assert part.smiles == [str(i) for i in range(start, stop)]
        assert part.labels[:, 0].tolist() == part.present[:, 0].tolist() == list(range(start, stop))
