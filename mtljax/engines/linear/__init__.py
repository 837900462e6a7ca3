"""The losses as one linear map, cut between the trunk and the heads."""

from mtljax.engines.linear.derivative import linearize
from mtljax.engines.linear.types import Cotangents, Linearized

__all__ = ["Cotangents", "Linearized", "linearize"]
