"""Functions that methods take as arguments, in one place; each is documented where it is defined.

| argument | functions |
|---|---|
| `uncertainty(forms=)` | `gaussian`, `laplace`, `softmax` |
| `ldc_mtl(scaling=)` | `unscaled`, `rescaled`, `logarithmic` |
| `dynamic_task_priority(kpi=)` | `likelihood` |
| `mgda(normalization=)` | `l2_norms`, `loss_values`, `loss_times_l2` |
| `aligned_mtl(level=)` | `smallest`, `median`, `mean` |
| `config(length=)` | `projection`, `track_min`, `track_max`, `track_task(k)` |
| | `track_harmonic`, `track_arithmetic`, `track_geometric` |
| `moco(normalization=)` | `norms_over_losses` |
| `moco(projection=)` | `simplex_softmax` |
| `rescale(to=)` | `sum_norm`, `mean_norm` |
| `per_group(..., groups)` | `by_layer`, `by_leaf` |

Example:
    >>> import mtljax
    >>> method = mtljax.methods.per_group(mtljax.methods.pcgrad(), mtljax.methods.options.by_leaf)
    >>> method.name
    'per_group(pcgrad)'
"""

from mtljax.methods.from_gramian.config_lengths import (
    projection,
    track_arithmetic,
    track_geometric,
    track_harmonic,
    track_max,
    track_min,
    track_task,
)
from mtljax.methods.from_gramian.mgda import l2_norms, loss_times_l2, loss_values
from mtljax.methods.from_jacobian.moco import norms_over_losses, simplex_softmax
from mtljax.methods.from_losses.dynamic_task_priority import likelihood
from mtljax.methods.from_losses.ldc_mtl import logarithmic, rescaled, unscaled
from mtljax.methods.from_losses.uncertainty import gaussian, laplace, softmax
from mtljax.methods.wrappers import by_layer, by_leaf, mean_norm, sum_norm
from mtljax.solvers.spectral import mean, median, smallest

__all__ = [
    "by_layer",
    "by_leaf",
    "gaussian",
    "l2_norms",
    "laplace",
    "likelihood",
    "logarithmic",
    "loss_times_l2",
    "loss_values",
    "mean",
    "mean_norm",
    "median",
    "norms_over_losses",
    "projection",
    "rescaled",
    "simplex_softmax",
    "smallest",
    "softmax",
    "sum_norm",
    "track_arithmetic",
    "track_geometric",
    "track_harmonic",
    "track_max",
    "track_min",
    "track_task",
    "unscaled",
]
