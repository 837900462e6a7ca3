"""Lines of the table of all methods: losses."""

from __future__ import annotations

from mtljax.methods.from_losses import (
    cosmos,
    cov_weighting,
    dwa,
    dynamic_task_priority,
    famo,
    geometric,
    go4align,
    igb,
    imtl_l,
    ldc_mtl,
    loss_normalisation,
    mean_log,
    pbi,
    random,
    stch,
    tchebycheff,
    uncertainty,
    uncertainty_softmax,
)
from mtljax.methods.from_losses.ldc_mtl import logarithmic
from mtljax.methods.from_losses.uncertainty import laplace
from tests.methods.case import Case

# Weights that are read off losses do not depend on the gradients, so the update is linear in those.
CASES: list[Case] = [
    Case("mean_log", lambda t: mean_log(), alone=None, linear=True, invariant=True, identical="other"),
    Case("geometric", lambda t: geometric(), linear=True, invariant=True),
    Case("imtl_l", lambda t: imtl_l(), linear=True, identical="sum"),
    Case("uncertainty_laplace", lambda t: uncertainty(forms=[laplace] * t), linear=True, variant=True, identical="sum"),
    Case("uncertainty_softmax", lambda t: uncertainty_softmax(), linear=True),
    Case("random", lambda t: random(), permutable=False, linear=True),
    Case("dwa", lambda t: dwa(), linear=True, identical="sum"),
    Case("stch", lambda t: stch(), linear=True, identical="other"),
    Case("tchebycheff", lambda t: tchebycheff(), linear=True, identical="other"),
    Case("pbi", lambda t: pbi(), linear=True, identical="other"),
    Case("cosmos", lambda t: cosmos(), linear=True),
    Case("famo", lambda t: famo(), linear=True, invariant=True),
    Case("igb", lambda t: igb(), alone=None, linear=True, invariant=True, identical="other"),
    # Neighbours in the order of names are compared.
    Case("ldc_mtl", lambda t: ldc_mtl(), permutable=False, linear=True),
    Case(
        "ldc_mtl_log",
        lambda t: ldc_mtl(scaling=logarithmic),
        alone=None,
        permutable=False,
        linear=True,
        variant=True,
        identical="other",
    ),
    Case("go4align", lambda t: go4align(), linear=True, identical="sum"),
    Case("cov_weighting", lambda t: cov_weighting(), linear=True),
    Case("dynamic_task_priority", lambda t: dynamic_task_priority(), alone=None, linear=True, identical="other"),
    Case(
        "loss_normalisation", lambda t: loss_normalisation(), alone=None, linear=True, invariant=True, identical="other"
    ),
]
