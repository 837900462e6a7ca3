"""Methods that read the losses alone: one backward pass."""

from mtljax.methods.from_losses.cosmos import cosmos
from mtljax.methods.from_losses.cov_weighting import cov_weighting
from mtljax.methods.from_losses.dwa import dwa
from mtljax.methods.from_losses.dynamic_task_priority import dynamic_task_priority
from mtljax.methods.from_losses.equal import equal
from mtljax.methods.from_losses.famo import famo
from mtljax.methods.from_losses.fixed import fixed
from mtljax.methods.from_losses.geometric import geometric
from mtljax.methods.from_losses.go4align import go4align
from mtljax.methods.from_losses.igb import igb
from mtljax.methods.from_losses.imtl_l import imtl_l
from mtljax.methods.from_losses.ldc_mtl import ldc_mtl
from mtljax.methods.from_losses.loss_normalization import loss_normalization
from mtljax.methods.from_losses.mean_log import mean_log
from mtljax.methods.from_losses.pbi import pbi
from mtljax.methods.from_losses.pooled import pooled
from mtljax.methods.from_losses.random import random
from mtljax.methods.from_losses.stch import stch
from mtljax.methods.from_losses.tchebycheff import tchebycheff
from mtljax.methods.from_losses.uncertainty import uncertainty
from mtljax.methods.from_losses.uncertainty_softmax import uncertainty_softmax

__all__ = [
    "cosmos",
    "cov_weighting",
    "dwa",
    "dynamic_task_priority",
    "equal",
    "famo",
    "fixed",
    "geometric",
    "go4align",
    "igb",
    "imtl_l",
    "ldc_mtl",
    "loss_normalization",
    "mean_log",
    "pbi",
    "pooled",
    "random",
    "stch",
    "tchebycheff",
    "uncertainty",
    "uncertainty_softmax",
]
