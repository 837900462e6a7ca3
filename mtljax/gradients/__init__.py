"""From losses and a method to gradients: differentiate, read, reconcile and pull."""

from mtljax.gradients.transforms import value_and_grad, value_and_task_grads

__all__ = ["value_and_grad", "value_and_task_grads"]
