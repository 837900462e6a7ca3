"""The interface of engines: the evidence that a method reads, and the gradient of the method's answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax.checks import check_refine, expect
from mtljax.engines.cut import Cut
from mtljax.ranges import Ranged
from mtljax.types import Array, Method, MethodState, PyTree, Reads


class Reading(NamedTuple):
    """The result of `Engine.read`; it holds only arrays, so that it may leave a `lax.cond`.

    Attributes:
        evidence: the Gramian, float32 `[T, T]`, or rows with leaves `[T, ...]`; zero where a task does not take part.
        kept: what the engine keeps for its pull: the rows (`full`), or `()`.
        active: bool `[T]`, the tasks of the cut whose rows are finite.
        scale: float32 `[]`, the power of two by which rows were multiplied before the Gramian was made of them
            (`mtljax.ranges`); None where the evidence is rows.
    """

    evidence: PyTree
    kept: PyTree
    active: Array
    scale: Array | None


class Engine(NamedTuple):
    """A way to build as much of the Jacobian as a method reads. An engine knows only the method's `reads`.

    Attributes:
        name: for messages and `engines.explain`.
        read: `read(cut, reads) -> Reading`, with `reads` "gramian" or "task_grads". A method that reads losses needs
            one weighted backward pass and never reaches an engine.
        pull: `pull(cut, reads, answer, kept) -> gradient like shared`, of what the method answered: weights `[T]`
            where it read a Gramian, else an update like one row.
        serves: what `read` can read.
        refines: whether Gramians are float64, for methods whose `refines` is True.
    """

    name: str
    read: Callable[[Cut, Reads], Reading]
    pull: Callable[[Cut, Reads, PyTree, PyTree], PyTree]
    serves: tuple[Reads, ...] = ("gramian", "task_grads")
    refines: bool = False


def check_engine(where: str, engine: Any) -> Any:
    """Returns the engine, after a check that it is an `Engine` and not the function that makes one; None stays None.

    Example:
        >>> check_engine("value_and_grad", "full")
        Traceback (most recent call last):
        ...
        TypeError: value_and_grad: engine must be a mtljax.engines.Engine or None, found 'full'
    """
    expected = "a mtljax.engines.Engine or None"
    expect(engine is None or isinstance(engine, Engine), where, "engine", expected, engine, TypeError)
    return engine


def check_serves(engine: Engine, method: Method) -> None:
    """Raises unless the engine can read what the method reads.

    Example:
        >>> import mtljax
        >>> check_serves(mtljax.engines.gramian(), mtljax.methods.graddrop())
        Traceback (most recent call last):
        ...
        ValueError: engine gramian does not read task_grads, but graddrop does; use engines.full()
    """
    if method.reads not in engine.serves:
        raise ValueError(
            f"engine {engine.name} does not read {method.reads}, but {method.name} does; use engines.full()"
        )
    check_refine(engine.name, engine.refines, method)


def check_rows(engine: Engine, method: Method, state: MethodState, rows: PyTree, shared: PyTree) -> None:
    """Raises where a method's state is like the parameters, and the rows that it is to read are not.

    Args:
        engine: whose rows they are.
        method: reads "task_grads".
        state: the method's state.
        rows: leaves `[T, ...]`.
        shared: the shared parameters.
    """
    shapes = jax.tree.map(lambda row: jax.ShapeDtypeStruct(row.shape[1:], row.dtype), rows)
    if shapes == jax.eval_shape(lambda: shared):
        return
    expected = jax.eval_shape(lambda: method.init(state.weights.shape[0], shapes))
    if expected != jax.eval_shape(lambda: state):
        raise ValueError(
            f"{engine.name}: {method.name} keeps a state like the shared parameters, but this engine hands it "
            "gradients at the representation; use engines.full()"
        )


def reading_of(cut: Cut, found: Ranged, kept: PyTree = ()) -> Reading:
    """A Gramian as a `Reading`: rows and columns of tasks that do not take part are zero, whatever they hold."""
    active = cut.active & found.finite
    return Reading(jnp.where(active[:, None] & active[None, :], found.gramian, 0.0), kept, active, found.scale)
