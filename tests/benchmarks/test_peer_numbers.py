"""The differences from TorchJD and LibMTL are those that the docs quote and, where both are installed, those found."""

from __future__ import annotations

import json

import pytest

from benchmarks import peer_numbers
from docs.write_tables import ROOT
from mtljax.types import Method

KEPT = {(line["library"], line["theirs"]): line for line in json.loads(peer_numbers.RESULT.read_text())["lines"]}
NUMBERS = ("median", "worst", "heads", "trained", "trained_heads")


def test_every_line_is_measured_as_it_stands():
    assert {(line.library, line.theirs): line.ours for line in peer_numbers.LINES} == {
        key: line["ours"] for key, line in KEPT.items()
    }
    assert len(KEPT) == len(peer_numbers.LINES)


@pytest.mark.parametrize("line", peer_numbers.LINES, ids=lambda line: f"{line.library}: {line.theirs}")
def test_what_stands_for_it_here_is_a_method(line):
    assert isinstance(peer_numbers.our_method(line), Method)


def test_the_page_quotes_the_result():
    page = (ROOT / "docs" / "methods.md").read_text()
    assert peer_numbers.as_markdown(list(KEPT.values())) in page, "run python docs/write_tables.py"


@pytest.mark.parametrize(
    "line",
    [line for line in peer_numbers.LINES if line.library != "LibMTL main"],
    ids=lambda line: f"{line.library}: {line.theirs}",
)
def test_the_difference_is_what_the_page_says(line):
    """Both libraries on the same Jacobians, and for 200 steps from the same start."""
    pytest.importorskip("torch")
    pytest.importorskip("torchjd")
    peers = pytest.importorskip("benchmarks.peers")
    found = peer_numbers.measure(line, peers.import_libmtl()[1])
    print(peer_numbers.as_markdown([found]).splitlines()[-1])
    kept = KEPT[line.library, line.theirs]
    for name in NUMBERS:
        assert abs(found[name] - kept[name]) <= 0.2 * kept[name] + 1e-3, (name, found[name], kept[name])
