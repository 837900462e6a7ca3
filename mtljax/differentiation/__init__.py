"""The third and fourth function of a step: from losses and a method to gradients."""

from mtljax.differentiation.gradients import Gradients
from mtljax.differentiation.step import differentiate, varying

__all__ = ["Gradients", "differentiate", "varying"]
