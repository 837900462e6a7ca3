"""mtljax: multi-task learning as pure functions in JAX."""

from mtljax import (
    convex,
    data,
    engines,
    gaussian_process,
    losses,
    methods,
    metrics,
    penalties,
    sharing,
    solvers,
    training,
    trees,
)
from mtljax.adapters import as_optax, carry
from mtljax.banks import ByTask
from mtljax.gradients import value_and_grad, value_and_task_grads
from mtljax.losses.objective import make_losses_fn
from mtljax.methods import aggregate
from mtljax.methods.observing import observe
from mtljax.types import (
    Aux,
    Batch,
    Batches,
    Method,
    MethodState,
    Model,
    Params,
    Regularized,
    Task,
    TaskInputs,
    TrainState,
    Unobserved,
    Update,
)

__version__ = "0.1.0"

__all__ = [
    "Aux",
    "Batch",
    "Batches",
    "ByTask",
    "Method",
    "MethodState",
    "Model",
    "Params",
    "Regularized",
    "Task",
    "TaskInputs",
    "TrainState",
    "Unobserved",
    "Update",
    "aggregate",
    "as_optax",
    "carry",
    "convex",
    "data",
    "engines",
    "gaussian_process",
    "losses",
    "make_losses_fn",
    "methods",
    "metrics",
    "observe",
    "penalties",
    "sharing",
    "solvers",
    "training",
    "trees",
    "value_and_grad",
    "value_and_task_grads",
]
