"""Synthetic data sets of the literature, in which a number sets how related the tasks are."""

from mtljax.data.synthetic.clustered_linear import ClusteredLinear, clustered_linear
from mtljax.data.synthetic.gradnorm_toy import gradnorm_toy
from mtljax.data.synthetic.mmoe_toy import mmoe_toy
from mtljax.data.synthetic.noise_task import noise_task
from mtljax.data.synthetic.same_function import same_function

__all__ = [
    "ClusteredLinear",
    "clustered_linear",
    "gradnorm_toy",
    "mmoe_toy",
    "noise_task",
    "same_function",
]
