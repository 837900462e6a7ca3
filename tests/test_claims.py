"""What the pages count and list is there, and no more and no less."""

from __future__ import annotations

import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import mtljax
from mtljax import methods, penalties, sharing

ROOT = Path(__file__).parents[1]
README, CHANGES = (ROOT / "README.md").read_text(), (ROOT / "CHANGELOG.md").read_text()
FILES = {path.name: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
PAGES = {name: path.read_text() for name, path in FILES.items()}
METHODS = [row.reads for row in methods.table()]
# Functions of penalties, and what applies them; the others are penalties.
NO_PENALTIES = {"by_path", "on", "proximal", "task_covariance", "total", "weighted"}
NO_ARCHITECTURES = {
    *(
        "Bank",
        "Experts",
        "Network",
        "add_task",
        "carry_over",
        "freeze",
        "part_labels",
        "prune",
        "successive_regularization",
    ),
    *("statistics_by_task", "thaw", "without_task"),
}


def names(cell: str) -> list[str]:
    """The names in the first cell of a table's line: `cgc, ple` or `ltb, then prune`."""
    return re.findall(r"\b[a-z]\w*\b", re.sub(r"\(.*?\)|then \w+", "", cell))


def first_column(page: str, header: str) -> list[str]:
    """All names of the first column of the table that has this header."""
    lines = page[page.index(f"| {header} |") :].split("\n\n")[0].splitlines()[2:]
    return [name for line in lines for name in names(line.split("|")[1])]


def count(text: str, pattern: str) -> int:
    """The one number that the pattern finds."""
    (number,) = re.findall(pattern, text)
    return int(number)


def test_methods_are_counted():
    assert count(README, r"one of \[(\d+) methods\]") == len(METHODS)
    assert "Five of them read batches" in README and METHODS.count("batches") == 5
    for number, reads in [("losses", "losses"), ("the Gramian", "gramian")]:
        assert count(CHANGES, rf"(\d+) that read {number}") == METHODS.count(reads)
    assert count(CHANGES, r"(\d+) that read task\s+gradients") == METHODS.count("task_grads")
    assert count(CHANGES, r"(\d+) wrappers") == METHODS.count("any")


def test_penalties_are_counted_and_listed():
    public = {name for name in penalties.__all__ if inspect.isfunction(getattr(penalties, name))} - NO_PENALTIES
    for name in public:
        assert inspect.signature(getattr(penalties, name)).return_annotation == "Penalty", name
    listed = first_column(PAGES["sharing.md"], "penalty")
    assert sorted(listed) == sorted(public)
    assert count(README, r"`mtljax.penalties`, (\d+) of them") == len(public)


def test_architectures_are_counted_and_listed():
    public = set(sharing.__all__) - NO_ARCHITECTURES
    listed = first_column(PAGES["sharing.md"], "architecture")
    assert sorted(listed) == sorted(public)
    sentence = README[README.index("become a `Model`") : README.index("Penalties\non copies")]
    assert sorted(re.findall(r"`(\w+)`", sentence)[1:]) == sorted(public)
    assert count(README, r"`mtljax.sharing`, (\d+) of them") == len(public)
    assert count(CHANGES, r"(\d+) architectures over any blocks") == len(public)


def test_data_sets_are_counted_and_listed():
    public = mtljax.data.names()
    assert sorted(first_column(PAGES["data.md"], "name")) == sorted(public)
    assert count(README, r"knows (\d+) data sets") == len(public)


def test_the_map_is_of_what_is_there():
    tree = README[README.index("```\nmtljax/") :].split("```")[1]
    package, others = tree.split("\nexamples/")
    entries = re.findall(r"\b(?:\w+/|\w+\.py)", package.removeprefix("\nmtljax/"))
    missing = [entry for entry in entries if not any(ROOT.glob(f"mtljax/**/{entry.rstrip('/')}"))]
    assert not missing
    drawn = {entry.rstrip("/") for entry in entries}
    folders = {path.parent.name for path in ROOT.glob("mtljax/*/__init__.py")}
    assert folders <= drawn
    for folder in re.findall(r"^(\w+)/ ", "examples/" + others, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_tests_are_filed_as_the_package_is():
    for folder in ROOT.glob("mtljax/*/__init__.py"):
        name = folder.parent.name
        places = (name, f"test_{name}.py", f"bad_calls/{name}.py")
        assert any((ROOT / "tests" / place).exists() for place in places), name


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_of_a_page_exist(page):
    named = re.findall(r"`((?:examples|benchmarks|tests|docs|mtljax)/[\w/.]+)`", PAGES[page])
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGES[page]) if not link.startswith("http")]
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing + [link for link in linked if not (FILES[page].parent / link).exists()]


def test_guides_are_short_and_linked():
    guides = sorted((ROOT / "docs" / "guide").glob("*.md"))
    assert [path.name for path in guides if len(path.read_text().splitlines()) >= 60] == []
    assert sorted(re.findall(r"\]\(docs/guide/([^)]+)\)", README)) == [path.name for path in guides]


@pytest.mark.parametrize("page", PAGES)
def test_names_of_a_page_exist(page):
    """Whatever a page calls `mtljax.something`, options of calls left out."""
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    missing = []
    for name in set(re.findall(r"`mtljax\.([\w.]+)", text)):
        try:
            pkgutil.resolve_name(f"mtljax.{name}")
        except (AttributeError, ImportError):
            missing.append(name)
    assert not missing
