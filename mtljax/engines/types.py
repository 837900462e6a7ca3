"""What an engine is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mtljax.checks import expect
from mtljax.engines.linear import Cotangents, Linearised
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

    def told(self) -> dict[str, Any]:
        """What a method is told beside its evidence."""
        return {"losses": self.losses, "active": self.active, "key": self.key, **self.extra}


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        shared: gradient like the shared parameters, reduced over devices.
        state: the method's new state; `state.weights [T]` holds the weights.
        gramian: float32 `[T, T]`, or None where none was built.
    """

    shared: PyTree
    state: MethodState
    gramian: Array | None


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
