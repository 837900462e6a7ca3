"""Everything that one differentiation yields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mtljax.banks import Entries
from mtljax.types import Array, MethodState, Params


class Gradients(NamedTuple):
    """Everything one differentiation yields.

    Attributes:
        losses: float32 `[T]`, averaged over devices; non-finite where they were.
        aux: what the loss function returned beside them (this device's own).
        grads: `Params`, reduced over devices.
        method_state: the method's new state.
        active: bool `[T]`, the tasks that took part.
        nonfinite: bool `[T]`, the tasks left out because their loss or their gradient was NaN or infinite.
        share: `[T]`, this device's share of each task's sum of weights (1 on one device).
        gramian: `[T, T]` where one was built, of gradients times `scale`; else None.
        scale: float32 `[]`, a power of two, 1 for gradients of ordinary size; None where no Gramian was built.
        entries: of the tasks.
        restore: puts losses `[T]` into the form in which `losses_fn` returns losses.
    """

    losses: Array
    aux: Any
    grads: Params
    method_state: MethodState
    active: Array
    nonfinite: Array
    share: Array
    gramian: Array | None
    scale: Array | None
    entries: Entries
    restore: Callable[[Array], Any]
