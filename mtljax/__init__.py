"""mtljax: multi-task learning as pure functions in JAX."""

from mtljax import (
    contrastive,
    convex,
    data,
    engines,
    gaussian_process,
    imbalance,
    losses,
    methods,
    metrics,
    penalties,
    sharing,
    solvers,
    token_losses,
    training,
    trees,
)
from mtljax.adapters import as_optax
from mtljax.gradients import value_and_grad, value_and_task_grads
from mtljax.methods import aggregate
from mtljax.methods.apply import observe
from mtljax.objective import losses_fn
from mtljax.sampled import value_and_grad_of_samples
from mtljax.types import (
    Batch,
    Method,
    MethodState,
    Model,
    Params,
    Regularized,
    Task,
    TaskInputs,
    TrainState,
    Unobserved,
)

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Method",
    "MethodState",
    "Model",
    "Params",
    "Regularized",
    "Task",
    "TaskInputs",
    "TrainState",
    "Unobserved",
    "aggregate",
    "as_optax",
    "contrastive",
    "convex",
    "data",
    "engines",
    "gaussian_process",
    "imbalance",
    "losses",
    "losses_fn",
    "methods",
    "metrics",
    "observe",
    "penalties",
    "sharing",
    "solvers",
    "token_losses",
    "training",
    "trees",
    "value_and_grad",
    "value_and_grad_of_samples",
    "value_and_task_grads",
]
