"""The identity of a run, so that another run does not resume from its checkpoint by mistake.

The record of a run consists of the shapes of a batch and of the step as JAX traces it, with constants. The traced
program depends on the method, the optimizer and its schedule, the model, the tasks and every dtype. A state or an optax
transformation does not show these.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core

from mtljax.banks import ByTask
from mtljax.training.checkpoint import leaves
from mtljax.types import PyTree, TrainState

SHOWN = 160


def describe(step: Callable[..., Any], state: TrainState, batch: PyTree, config: dict[str, Any] | None) -> dict:
    """The record of a run, as JSON.

    Args:
        step: the run's step; traced if JAX can trace it (`jax.jit`, `jax.pmap`), else its program is not known.
        state: any state of the run.
        batch: any batch of the run.
        config: the user's description of the run.
    """
    traced = _traced(step, state, batch)
    return {
        "circumstances": {
            "jax": jax.__version__,
            "backend": jax.default_backend(),
            "devices": jax.device_count(),
            "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        },
        "batch": shapes(batch),
        "program": None if traced is None else base64.b64encode(zlib.compress(_text(traced[0]).encode())).decode(),
        "banks": {} if traced is None else _banks_in(traced[1]),
        "config": config,
    }


def without_shapes(run: dict[str, Any]) -> dict[str, Any]:
    """The record of a run whose batches, and therefore programs, differ in shape."""
    return {**run, "batch": None, "program": None}


def check_config(where: str, saved: Mapping[str, Any] | None, config: dict[str, Any] | None) -> None:
    """Raise if both configurations are given and differ."""
    before = (saved or {}).get("config")
    if before is None or config is None:
        return
    for name in sorted({*before, *config}):
        old, new = (json.dumps(each[name]) if name in each else "nothing" for each in (before, config))
        if old != new:
            raise ValueError(f"fit: config[{name!r}] must be {old} as in {where}, found {new}; {REMEDY}")


def checked(where: str, saved: Mapping[str, Any] | None, run: dict[str, Any]) -> dict[str, Any]:
    """The record, after checking that the run is that of the checkpoint; warns if this cannot be decided."""
    if saved is None:
        return run
    for name, tasks in run["banks"].items():
        before = saved.get("banks", {}).get(name, tasks)
        if before != tasks:
            k = next(k for k, (old, new) in enumerate(zip([*before, None], [*tasks, None], strict=False)) if old != new)
            raise ValueError(
                f"fit: the tasks of the bank {name!r} must be those of {where} in their order, found "
                f"{tasks[k : k + 1]} in place of {before[k : k + 1]} at {k}; {REMEDY}"
            )
    if saved["batch"] is None:
        return without_shapes(run)
    for name in sorted({*saved["batch"], *run["batch"]}):
        old, new = (each["batch"].get(name, "nothing") for each in (saved, run))
        if old != new:
            raise ValueError(
                f"fit: {f'leaf {name!r} of ' if name else ''}batch must be {old} as in {where}, found {new}; {REMEDY}"
            )
    if saved["program"] is None or run["program"] is None or saved["program"] == run["program"]:
        return run
    if saved["circumstances"] != run["circumstances"]:
        old, new = (
            ", ".join(f"{k} {v}" for k, v in each["circumstances"].items() if v != other["circumstances"].get(k))
            for each, other in ((saved, run), (run, saved))
        )
        warnings.warn(
            f"fit: {where} was written with {old}, this run has {new}; fit cannot decide whether it is the same run",
            stacklevel=3,
        )
        return run
    old, new = _first_difference(
        *(zlib.decompress(base64.b64decode(each["program"])).decode() for each in (saved, run))
    )
    raise ValueError(
        f"fit: step must be the program of {where} (method, optimizer, schedule, model, tasks, dtypes and constants). "
        f"At the first difference the checkpoint has\n    {old}\nand this run has\n    {new}\n{REMEDY}"
    )


REMEDY = "give fit(..., changed=True) to continue with the run as it is now"


def shapes(batch: PyTree) -> dict[str, str]:
    """Shape and dtype of each leaf of a batch."""
    return {name: f"{_dtype(leaf)}{list(np.shape(leaf))}" for name, leaf in leaves.named(batch).items()}


def signature(batch: PyTree) -> list[Any]:
    """Shapes and dtypes of a batch; fast enough for every step."""
    return [(np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in jax.tree.leaves(batch)]


def program(step: Callable[..., Any], state: TrainState, batch: PyTree) -> str | None:
    """The step as text, with a hash per array, the same in every process; None if JAX cannot trace the step.

    Example:
        >>> import jax.numpy as jnp
        >>> step = jax.jit(lambda x, batch: x - 0.5 * batch)
        >>> print(program(step, jnp.ones(2), np.ones(2, np.float32)))
        { lambda ; a:f32[2] b:f32[2]. let
            c:f32[2] = jit[
              name=<lambda>
              jaxpr={ lambda ; a:f32[2] b:f32[2]. let
                  d:f32[2] = mul 0.5:f32[] b
                  c:f32[2] = sub a d
                in (c,) }
            ] a b
          in (c,) }
    """
    traced = _traced(step, state, batch)
    return None if traced is None else _text(traced[0])


def _traced(step: Callable[..., Any], state: TrainState, batch: PyTree) -> tuple[Any, Any] | None:
    """The step's program, and the shapes of what it returns; None if JAX cannot trace the step."""
    traceable = inspect.unwrap(step, stop=lambda function: hasattr(function, "lower"))
    if not hasattr(traceable, "lower"):  # an ordinary function may have side effects, so it is not called here
        return None

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        # Without weak types, which a first state may have and a restored state may lack.
        return jax.ShapeDtypeStruct(np.shape(leaf), _dtype(leaf))

    try:
        return jax.make_jaxpr(traceable, return_shape=True)(*jax.tree.map(abstract, (state, batch)))
    except Exception:  # the step itself raises a better error
        return None


def _text(closed: Any) -> str:
    text = re.sub(r"0x[0-9a-f]+", "0x", str(closed))  # addresses of functions
    text = re.sub(r"\{('[^{}\n]*')\}", lambda match: f"{{{', '.join(sorted(match[1].split(', ')))}}}", text)  # sets
    return "\n".join([text, *(f"array {_hash(array)}" for array in _arrays(closed))])


def _banks_in(metrics: Any) -> dict[str, list[str]]:
    """The tasks of banks in their order, which no path and no shape of a state tells."""
    told = jax.tree.leaves(metrics, is_leaf=lambda node: isinstance(node, ByTask))
    return {entry: list(bank) for each in told if isinstance(each, ByTask) for entry, bank in each.names if bank}


def _arrays(closed: Any) -> Iterator[Any]:
    """The constants of a program and of the programs in it."""
    yield from closed.consts
    for equation in closed.jaxpr.eqns:
        yield from (each.val for each in equation.invars if isinstance(each, core.Literal) and np.shape(each.val))
        for value in jax.tree.leaves(equation.params, is_leaf=_is_program):
            if _is_program(value):
                yield from _arrays(value if hasattr(value, "consts") else core.ClosedJaxpr(value, ()))


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _hash(array: Any) -> str:
    data = np.asarray(leaves.data_of(array))
    return f"{data.dtype}{list(data.shape)} {hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()[:16]}"


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") and leaves.is_key(leaf) else jax.numpy.result_type(leaf)


def _first_difference(old: str, new: str) -> tuple[str, str]:
    before, after = ([line.strip() for line in [*text.splitlines(), "(the end)"]] for text in (old, new))
    number = next(n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    return before[number][:SHOWN], after[number][:SHOWN]
