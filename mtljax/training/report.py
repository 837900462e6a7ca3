"""The metrics of a training step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.banks import ByTask, Names
from mtljax.gradients.result import Gradients
from mtljax.training.merging import over_devices, share_over_devices
from mtljax.training.penalized import Penalized
from mtljax.types import Array, Aux, TrainState


def report(
    names: Names,
    found: Gradients,
    state: TrainState,
    aux: Aux,
    penalty: Penalized | None,
    axis_name: Any,
    least_loss: Any,
) -> dict[str, Any]:
    """The metrics, as `make_train_step` lists them; arrays by task get their names."""

    def by_name(array: Array) -> ByTask:
        return ByTask(array, names)

    told: dict[str, Any] = {
        "losses": by_name(found.losses),
        "weights": by_name(found.method_state.weights),
        "active": by_name(found.active),
        "nonfinite": by_name(state.nonfinite),
        "residual": found.method_state.residual,
    }
    if least_loss is not None:
        told["below"] = by_name(found.nonfinite & (found.losses < jnp.asarray(least_loss)))
    if penalty is not None:
        told["penalty"] = penalty.value
        told["penalty_nonfinite"] = ~penalty.sound
    if found.gramian is not None and found.scale is not None:
        told["cosines"] = trees.cosines(found.gramian)
        told["grad_norms"] = by_name(trees.norms(found.gramian) / found.scale)
    if aux.metrics:
        shares = zip(names, found.entries.parts(found.share), strict=True)
        told["tasks"] = {entry: _merged(aux, entry, bank, share, axis_name) for (entry, bank), share in shares}
    return told


def _merged(aux: Aux, name: str, bank: tuple[str, ...] | None, share: Array, axis_name: Any) -> Any:
    """An entry's metrics over devices: each by its own sum of weights, or by the loss's where it has none."""
    found = _over_devices(aux, name, share, axis_name)
    return found if bank is None else jax.tree.map(lambda value: ByTask(value, ((name, bank),)), found)


def _over_devices(aux: Aux, name: str, share: Array, axis_name: Any) -> Any:
    own = aux.metric_weight_sum.get(name, {})
    if not own:
        return jax.tree.map(lambda value: over_devices(value, share, axis_name), aux.metrics[name])
    shares = {metric: share_over_devices(weight_sum, axis_name) for metric, weight_sum in own.items()}
    return {
        metric: over_devices(value, shares.get(metric, share), axis_name) for metric, value in aux.metrics[name].items()
    }
