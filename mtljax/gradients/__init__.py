"""From losses and a method to gradients: the functions of a step from the second to the fifth, in a row."""

from mtljax.gradients.transforms import value_and_grad, value_and_task_grads

__all__ = ["value_and_grad", "value_and_task_grads"]
