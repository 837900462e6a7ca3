"""Applies each mutant of the table to a copy of the tree and runs the tests that ought to notice.

    python -m tests.mutants                        # all of them, one after the other
    python -m tests.mutants --only losses sweeps   # those whose file below mtljax/ begins with one of these
    python -m tests.mutants --processes 2

First the tests are run without any mutant, all in one process: they must pass. Then one line is printed per mutant:

    caught          a test failed
    SURVIVED        all tests passed: a test is missing, or the mutant changes nothing
    equivalent      all tests passed, and the table says why
    NOT EQUIVALENT  a test failed, though the table says that none can
    slow            the tests did not end within the limit, so nothing is known
    does not apply  the line is not found exactly once in its file

The exit code is 0 if every mutant is caught or equivalent.
"""

from __future__ import annotations

import argparse
import collections
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import cache_from_source
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.table import MUTANTS

ROOT = Path(__file__).parents[2]
GOOD = ("caught", "equivalent")


def copy_of_the_tree(folder: Path) -> Path:
    """The files that git knows, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def passes(tree: Path, tests: str, limit: float, *flags: str) -> tuple[bool | None, str]:
    """Whether the tests pass in that tree, None where they do not end in time; and what they printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", "-p", "no:cacheprovider", *flags]
    # The copy comes before what is installed, finds real data beside this checkout, and draws the same examples.
    data = os.environ.get("MTLJAX_DATA", str(ROOT.parent / "shared" / "data"))
    environment = {**os.environ, "PYTHONPATH": str(tree), "MTLJAX_DATA": data, "CI": "1"}
    try:
        run = subprocess.run(
            [*command, *tests.split()], cwd=tree, env=environment, timeout=limit, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return None, ""
    if run.returncode not in (0, 1, 2):  # 2: a module raised while it was imported
        raise RuntimeError(f"pytest ended with {run.returncode}: {tests}\n{run.stdout}{run.stderr}")
    return run.returncode == 0, run.stdout


def verdict(mutant: Mutant, tree: Path, limit: float) -> str:
    """Applies the mutant, runs its tests, and takes the mutant back."""
    path = tree / "mtljax" / mutant.file
    before = path.read_text()
    if before.count(mutant.old) != 1:
        return "does not apply"
    compiled = Path(cache_from_source(str(path)))  # trusted where seconds and sizes agree, as they may here
    try:
        path.write_text(before.replace(mutant.old, mutant.new))
        compiled.unlink(missing_ok=True)
        passed, _ = passes(tree, mutant.tests, limit, "-x")
    finally:
        path.write_text(before)
        compiled.unlink(missing_ok=True)
    if passed is None:
        return "slow"
    if mutant.equivalent:
        return "equivalent" if passed else "NOT EQUIVALENT"
    return "SURVIVED" if passed else "caught"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Runs the mutants of the table.")
    parser.add_argument("--only", nargs="+", default=[""], help="take those whose file begins with one of these")
    parser.add_argument("--processes", type=int, default=1, help="how many run at a time")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that the tests of one mutant may take")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if mutant.file.startswith(tuple(options.only))]
    if not chosen:
        parser.error(f"no mutant's file begins with one of {options.only}")

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        trees = [copy_of_the_tree(Path(temporary) / str(number)) for number in range(options.processes)]
        tests = " ".join(dict.fromkeys(test for mutant in chosen for test in mutant.tests.split()))
        passed, printed = passes(trees[0], tests, options.limit * len(chosen))
        if not passed:
            print(f"The tests do not pass without a mutant:\n{printed}")
            return 1
        print(f"The tests pass without a mutant, in {time.monotonic() - began:.0f} s.", flush=True)

        idle: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for tree in trees:
            idle.put(tree)

        def run(mutant: Mutant) -> tuple[str, float]:
            tree, start = idle.get(), time.monotonic()
            try:
                return verdict(mutant, tree, options.limit), time.monotonic() - start
            finally:
                idle.put(tree)

        found = collections.Counter()
        with ThreadPoolExecutor(options.processes) as pool:
            for mutant, (word, seconds) in zip(chosen, pool.map(run, chosen), strict=True):
                found[word] += 1
                print(f"{word:14s} {seconds:4.0f} s  {mutant.file}: {' '.join(mutant.new.split())}", flush=True)
    judged = len(chosen) - found["equivalent"]
    print(f"{found['caught']} of {judged} caught, {dict(found)}, in {(time.monotonic() - began) / 60:.0f} minutes.")
    return int(any(word not in GOOD for word in found))


if __name__ == "__main__":
    sys.exit(main())
