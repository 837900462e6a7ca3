"""What a run is, so that a checkpoint is not taken up by another one.

The record is made of what can be had without asking: the shapes of a batch, and the step as JAX traces it, constants
included. The program holds the method, the optimizer and its schedule, the model, the tasks and every dtype; none of
them can be read off the state or an optax transformation.
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

from mtljax.training.checkpoint import leaves
from mtljax.types import PyTree, TrainState

SHOWN = 160


def describe(step: Callable[..., Any], state: TrainState, batch: PyTree, config: dict[str, Any] | None) -> dict:
    """The record of a run, as JSON.

    Args:
        step: of the run; traced where JAX can trace it (`jax.jit`, `jax.pmap`), else its program is not known.
        state: any of the run.
        batch: any of the run.
        config: what the user says of the run.
    """
    text = program(step, state, batch)
    return {
        "circumstances": {
            "jax": jax.__version__,
            "backend": jax.default_backend(),
            "devices": jax.device_count(),
            "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        },
        "batch": shapes(batch),
        "program": None if text is None else base64.b64encode(zlib.compress(text.encode())).decode(),
        "config": config,
    }


def without_shapes(run: dict[str, Any]) -> dict[str, Any]:
    """The record of a run whose batches differ in shape, and with them its programs."""
    return {**run, "batch": None, "program": None}


def check_config(where: str, saved: Mapping[str, Any] | None, config: dict[str, Any] | None) -> None:
    """Raises where both configurations are given and differ."""
    before = (saved or {}).get("config")
    if before is None or config is None:
        return
    for name in sorted({*before, *config}):
        old, new = (json.dumps(each[name]) if name in each else "nothing" for each in (before, config))
        if old != new:
            raise ValueError(f"fit: config[{name!r}] must be {old} as in {where}, found {new}; {REMEDY}")


def checked(where: str, saved: Mapping[str, Any] | None, run: dict[str, Any]) -> dict[str, Any]:
    """The record, after checking that the run is the one that a checkpoint is of; warns where that cannot be told."""
    if saved is None:
        return run
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
            f"fit: {where} was written with {old}, this run has {new}; whether it is the same run cannot be told",
            stacklevel=3,
        )
        return run
    old, new = _first_difference(
        *(zlib.decompress(base64.b64decode(each["program"])).decode() for each in (saved, run))
    )
    raise ValueError(
        f"fit: step must be the program that {where} was written by (method, optimizer, schedule, model, tasks, dtypes "
        f"and constants). Where they differ first, the checkpoint has\n    {old}\nand this run has\n    {new}\n{REMEDY}"
    )


REMEDY = "give fit(..., changed=True) if the run is to go on as it is now"


def shapes(batch: PyTree) -> dict[str, str]:
    """Shape and dtype of each leaf of a batch."""
    return {name: f"{_dtype(leaf)}{list(np.shape(leaf))}" for name, leaf in leaves.named(batch).items()}


def signature(batch: PyTree) -> list[Any]:
    """Shapes and dtypes of a batch: quick, for every step."""
    return [(np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in jax.tree.leaves(batch)]


def program(step: Callable[..., Any], state: TrainState, batch: PyTree) -> str | None:
    """The step as text, with a hash for each array in it, the same in every process; None where JAX cannot trace it.

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
    traceable = inspect.unwrap(step, stop=lambda function: hasattr(function, "lower"))
    if not hasattr(traceable, "lower"):  # an ordinary function may do things that are not to be done twice
        return None

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        # Without weak types, which a first state has and a restored one may not.
        return jax.ShapeDtypeStruct(np.shape(leaf), _dtype(leaf))

    try:
        closed = jax.make_jaxpr(traceable)(*jax.tree.map(abstract, (state, batch)))
    except Exception:  # whatever is wrong is better said by the step itself
        return None
    text = re.sub(r"0x[0-9a-f]+", "0x", str(closed))  # addresses of functions
    text = re.sub(r"\{('[^{}\n]*')\}", lambda match: f"{{{', '.join(sorted(match[1].split(', ')))}}}", text)  # sets
    return "\n".join([text, *(f"array {_hash(array)}" for array in _arrays(closed))])


def _arrays(closed: Any) -> Iterator[Any]:
    """The arrays that a program holds, its own and those of the programs in it."""
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
