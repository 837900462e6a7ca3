"""The rules of the house that can be read off the source: CONTRIBUTING says which test holds which rule."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

import mtljax

ROOT = Path(mtljax.__file__).parent
FILES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}
# Where a name of the first entry may stand; anywhere else it breaks the rule.
OWNERS = {
    # Estimators run to convergence, and a generator renders: neither is a function to compose.
    "jax.jit": ("training/", "convex/estimators/common.py", "data/sets/scenes/rendered_scenes.py"),
    "print": ("training/signals.py",),
    "os.environ": ("data/sets/raw.py",),
    "os.getenv": (),
    "jax.config.update": (),
    "jax.pure_callback": (),
    "jax.debug.callback": (),
    "jax.debug.print": (),
    "jax.experimental.io_callback": (),
    # MATLAB files are read with SciPy.
    "scipy": ("data/sets/",),
    # What a penalty is made of, such as a graph, is decomposed once, when it is made.
    "np.linalg": ("penalties/",),
}
# These two are for the library itself.
FOLDERS = [
    each.name for each in pkgutil.iter_modules([str(ROOT)]) if each.ispkg and each.name not in ("checks", "partition")
]
MODULES = ["mtljax", *(f"mtljax.{name}" for name in FOLDERS)]
PUBLIC = {
    f"{module}.{name}": getattr(importlib.import_module(module), name)
    for module in MODULES
    for name in getattr(importlib.import_module(module), "__all__", [])
    if inspect.isfunction(getattr(importlib.import_module(module), name))
}


@pytest.mark.parametrize("name", OWNERS)
def test_only_its_owners_use_it(name):
    users = set()
    for file, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) == name:
                users.add(file)
    assert [file for file in sorted(users) if not file.startswith(OWNERS[name] or ("nobody",))] == []


# Third arguments that read by themselves: `warmup(mgda(), 100, equal())`.
READ_BY_POSITION = {"feature_learning", "mean_regularized", "relation_learning", "soft", "warmup"}


def test_options_are_keyword_only():
    """Beyond the first two, what may be given by position is what must be given."""
    for name, function in PUBLIC.items():
        if function.__name__ in READ_BY_POSITION:
            continue
        parameters = list(inspect.signature(function).parameters.values())
        late = [each for each in parameters[2:] if each.kind is each.POSITIONAL_OR_KEYWORD]
        assert [each.name for each in late if each.default is not each.empty] == [], name


def test_every_public_function_has_an_example():
    assert [name for name, function in PUBLIC.items() if ">>>" not in (inspect.getdoc(function) or "")] == []


def test_only_the_function_of_its_own_name_stands_before_a_module():
    for found in pkgutil.walk_packages(mtljax.__path__, "mtljax."):
        if found.name.startswith("mtljax.data.sets"):
            continue  # modules that TFDS makes slow to import
        importlib.import_module(found.name)
        package, _, name = found.name.rpartition(".")
        exported = getattr(sys.modules[package], name)
        if not inspect.ismodule(exported):
            assert (exported.__module__, exported.__name__) == (found.name, name)


def test_files_are_short():
    long = {file: len(path.read_text().splitlines()) for file, path in FILES.items()}
    assert {file: lines for file, lines in long.items() if lines > 320} == {}


def raising(node: ast.AST) -> list[ast.With]:
    """The blocks in a node that expect an error."""
    blocks = [each for each in ast.walk(node) if isinstance(each, ast.With)]
    return [each for each in blocks if any("pytest.raises" in ast.unparse(item.context_expr) for item in each.items)]


def test_each_bad_call_is_a_test_of_its_own():
    """A test expects two errors at most, and none in a loop: a failure then names the call, and hides no other."""
    crowded = []
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                loops = [each for each in ast.walk(node) if isinstance(each, ast.For | ast.While) and raising(each)]
                if loops or len(raising(node)) > 2:
                    crowded.append(f"{path.name}::{node.name}")
    assert crowded == []
