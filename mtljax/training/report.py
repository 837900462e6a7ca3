"""The metrics of a training step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.gradients.result import Gradients
from mtljax.training.merging import over_devices, share_over_devices
from mtljax.training.penalized import Penalized
from mtljax.types import Array, Aux, TrainState


def report(
    names: list[str],
    found: Gradients,
    state: TrainState,
    aux: Aux,
    penalty: Penalized | None,
    axis_name: Any,
    least_loss: Any,
) -> dict[str, Any]:
    """The metrics, as `make_train_step` lists them; arrays by task become dicts by name."""

    def by_name(array: Array) -> dict[str, Array]:
        return {name: array[k] for k, name in enumerate(names)}

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
        told["tasks"] = {name: _merged(aux, name, found.share[k], axis_name) for k, name in enumerate(names)}
    return told


def _merged(aux: Aux, name: str, share: Array, axis_name: Any) -> Any:
    """One task's metrics over devices: each by its own sum of weights, or by the loss's where it has none."""
    own = aux.metric_weight_sum.get(name, {})
    if not own:
        return jax.tree.map(lambda value: over_devices(value, share, axis_name), aux.metrics[name])
    shares = {metric: share_over_devices(weight_sum, axis_name) for metric, weight_sum in own.items()}
    return {
        metric: over_devices(value, shares.get(metric, share), axis_name) for metric, value in aux.metrics[name].items()
    }
