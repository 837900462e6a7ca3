"""The quick start stays short, and prints its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import quickstart


def test_the_quick_start_is_at_most_forty_lines():
    assert len(Path(quickstart.__file__).read_text().splitlines()) <= 40


@pytest.mark.slow
def test_the_quick_start_prints_a_row_for_each_way_to_train(tmp_path, capsys):
    quickstart.main(steps=150, data_dir=str(tmp_path))
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["method", "left", "%", "right", "%", "sum,", "error"]
    assert [row[:16].strip() for row in rows] == ["single-task", "equal weighting", "IMTL-G"]
    for row in rows:
        left, right, error = map(float, row[16:].split())
        # Chance is 10 %; always saying 9 leaves an error of 3.3.
        assert 20 < left <= 100 and 20 < right <= 100 and 0 < error < 3.3
