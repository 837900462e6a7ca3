"""What an engine is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from mtljax.checks import expect
from mtljax.engines.linear import Cotangents, Linearised
from mtljax.ranges import Ranged
from mtljax.types import Array, Key, Method, MethodState, PyTree


class Problem(NamedTuple):
    """One step's differentiated losses, ready for an engine.

    Attributes:
        linear: the losses' derivative, cut at the shared representation.
        cotangents: list of T, each task's cotangents at the boundary, already times its seed.
        seeds: list of T scalars, what each loss was pulled with (1, or the device's share of the examples).
        shared: the shared parameters (only shapes are read).
        losses: float32 `[T]`, inactive entries 0.
        active: bool `[T]`.
        key: PRNG key or None.
        extra: what else the method may read, arrays by name, the same on every device.
        reduce: sums a pytree over devices; the identity on one device.
        squared: whether the squares of rows must be finite, too.
    """

    linear: Linearised
    cotangents: list[Cotangents]
    seeds: list[Array]
    shared: PyTree
    losses: Array
    active: Array
    key: Key | None
    extra: dict[str, Array]
    reduce: Callable[[PyTree], PyTree]
    squared: bool = False

    def told(self, active: Array) -> dict[str, Any]:
        """What a method is told beside its evidence."""
        return {"losses": self.losses, "active": active, "key": self.key, **self.extra}

    def weighed(self, method: Method, state: MethodState, found: Ranged) -> tuple[Array, Outcome]:
        """Weights of a method that reads the Gramian, and an outcome that lacks the gradient alone."""
        active = self.active & found.finite
        gramian = jnp.where(active[:, None] & active[None, :], found.gramian, 0.0)
        weights, state = method.update(gramian, state, scale=found.scale, **self.told(active))
        return weights, Outcome((), state, active, gramian, found.scale)


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        shared: gradient like the shared parameters, reduced over devices.
        state: the method's new state; `state.weights [T]` holds the weights.
        active: bool `[T]`, the tasks whose rows are finite, of those that the problem has active.
        gramian: float32 `[T, T]`, of the rows times `scale`; None where none was built.
        scale: float32 `[]`, the power of two that keeps the Gramian in float32's range (see `mtljax.ranges`).
    """

    shared: PyTree
    state: MethodState
    active: Array
    gramian: Array | None = None
    scale: Array | None = None


class Engine(NamedTuple):
    """How much of the Jacobian is built, and how.

    Attributes:
        name: for messages and `engines.explain`.
        solve: `solve(problem, method, state) -> Outcome`, for methods that read "gramian" or "task_grads"; a method
            that reads losses needs one weighted backward pass and never reaches an engine.
    """

    name: str
    solve: Callable[[Problem, Method, MethodState], Outcome]


def check_engine(where: str, engine: Any) -> Any:
    """The engine, after checking that it is one, and not the function that makes it; None stays None.

    Example:
        >>> check_engine("value_and_grad", "full")
        Traceback (most recent call last):
        ...
        TypeError: value_and_grad: engine must be a mtljax.engines.Engine or None, found 'full'
    """
    expected = "a mtljax.engines.Engine or None"
    expect(engine is None or isinstance(engine, Engine), where, "engine", expected, engine, TypeError)
    return engine
