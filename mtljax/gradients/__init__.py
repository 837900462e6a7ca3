"""From losses and a method to gradients: the functions of a step from the second to the fifth, in a row."""

from mtljax.gradients.result import Gradients
from mtljax.gradients.step import differentiate
from mtljax.gradients.transforms import value_and_grad, value_and_task_grads

__all__ = ["Gradients", "differentiate", "value_and_grad", "value_and_task_grads"]
