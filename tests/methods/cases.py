"""The cases of all methods, in the order of `mtljax/methods/table.py`."""

from __future__ import annotations

from typing import Any

import optax

from mtljax.methods import (
    adatask,
    aligned_mtl,
    cagrad,
    clip,
    config,
    conicgrad,
    consmtl,
    cosmos,
    cov_weighting,
    db_mtl,
    dualproj,
    dwa,
    dynamic_task_priority,
    ema,
    epo,
    equal,
    every,
    excess_mtl,
    fairgrad,
    famo,
    fixed,
    geometric,
    go4align,
    graddrop,
    gradnorm,
    gradvac,
    igb,
    imtl_g,
    imtl_l,
    krum,
    ldc_mtl,
    log_losses,
    loss_normalization,
    m_config,
    mean_log,
    mgda,
    moco,
    modo,
    nash_mtl,
    normalize,
    ntkmtl,
    pbi,
    pcd,
    pcgrad,
    per_group,
    pivrg,
    pooled,
    preference,
    random,
    rescale,
    sam_gs,
    sdmgrad,
    stch,
    tchebycheff,
    trimmed_mean,
    uncertainty,
    uncertainty_softmax,
    upgrad,
    warmup,
)
from mtljax.methods.options import l2_norms, laplace, logarithmic, loss_values, norms_over_losses, simplex_softmax
from tests.methods.case import Case

# How long a fair direction is follows from alpha: for one task it is no fixed multiple of the gradient.
FAIR: dict[str, Any] = dict(alone=None, nonconflicting=True, strong=True)

CASES = [
    # Read losses. Weights that are read off losses do not depend on the gradients: the update is linear in those.
    Case("equal", lambda t: equal(), linear=True, identical="sum"),
    Case("pooled", lambda t: pooled(), linear=True),
    Case("fixed", lambda t: fixed([1.0] * t), linear=True, identical="sum"),
    Case("mean_log", lambda t: mean_log(), alone=None, linear=True, invariant=True, identical="other"),
    Case("geometric", lambda t: geometric(), linear=True, invariant=True),
    # The paper's weight at the first step is exp(-s) / 2 with s = 0, for one task as for many.
    Case("uncertainty", lambda t: uncertainty(), alone=0.5, linear=True, identical="other"),
    Case("uncertainty_laplace", lambda t: uncertainty(forms=[laplace] * t), linear=True, variant=True, identical="sum"),
    Case("uncertainty_softmax", lambda t: uncertainty_softmax(), linear=True),
    Case("imtl_l", lambda t: imtl_l(), linear=True, identical="sum"),
    Case("random", lambda t: random(), permutable=False, linear=True),
    Case("dwa", lambda t: dwa(), linear=True, identical="sum"),
    Case("famo", lambda t: famo(), linear=True, invariant=True),
    Case("stch", lambda t: stch(), linear=True, identical="other"),
    Case("tchebycheff", lambda t: tchebycheff(), linear=True, identical="other"),
    Case("pbi", lambda t: pbi(), linear=True, identical="other"),
    Case("cosmos", lambda t: cosmos(), linear=True),
    Case("igb", lambda t: igb(), alone=None, linear=True, invariant=True, identical="other"),
    # Neighbours in the order of names are compared.
    Case("ldc_mtl", lambda t: ldc_mtl(), permutable=False, linear=True, invariant=True),
    Case(
        "ldc_mtl_log",
        lambda t: ldc_mtl(scaling=logarithmic),
        invariant=True,
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
        "loss_normalization", lambda t: loss_normalization(), alone=None, linear=True, invariant=True, identical="other"
    ),
    # Read the Gramian.
    Case("mgda", lambda t: mgda(), nonconflicting=True, duplicable=True),
    # Gradients of length 1 have no scale, and one alone is itself over its length.
    Case(
        "mgda_l2",
        lambda t: mgda(normalization=l2_norms),
        alone=None,
        degree=0.0,
        nonconflicting=True,
        invariant=True,
        identical="other",
    ),
    Case(
        "mgda_loss",
        lambda t: mgda(normalization=loss_values),
        alone=None,
        nonconflicting=True,
        variant=True,
        invariant=True,
        identical="other",
    ),
    # Which task comes first in a task's random order decides.
    Case("pcgrad", lambda t: pcgrad(), permutable=False, identical="sum"),
    # Which task comes first in a task's random order decides.
    Case("gradvac", lambda t: gradvac(), permutable=False, identical="sum"),
    Case("cagrad", lambda t: cagrad(), identical="other"),
    Case("conicgrad", lambda t: conicgrad(0.8)),
    Case("upgrad", lambda t: upgrad(), nonconflicting=True, linear=True, strong=True),
    Case("dualproj", lambda t: dualproj(), nonconflicting=True, strong=True),
    Case("nash_mtl", lambda t: nash_mtl(), **FAIR, degree=0.0, invariant=True, identical="other"),
    Case("fairgrad", lambda t: fairgrad(), **FAIR, degree=0.0, invariant=True, variant=True, identical="other"),
    Case("fairgrad_2", lambda t: fairgrad(2.0), **FAIR, degree=-1 / 3, variant=True, identical="other"),
    Case("fairgrad_half", lambda t: fairgrad(0.5), **FAIR, degree=1 / 3, variant=True, identical="other"),
    Case("pivrg", lambda t: pivrg(), **FAIR, degree=-1 / 3, identical="other"),
    Case("consmtl", lambda t: consmtl(), **FAIR, degree=-1 / 3, variant=True, identical="other"),
    Case("imtl_g", lambda t: imtl_g(), duplicable=True, invariant=True),
    Case("aligned_mtl", lambda t: aligned_mtl(), identical="sum"),
    Case("config", lambda t: config(), linear=True, duplicable=True, invariant=True, identical="sum"),
    Case("ntkmtl", lambda t: ntkmtl(), invariant=True, identical="other"),
    # Ties go to the first task, and two tasks always tie.
    Case("krum", lambda t: krum(), permutable=False),
    Case("gradnorm", lambda t: gradnorm(), linear=True, identical="sum"),
    # The authors' step size is above what is stable: over 20 steps rounding grows to a hundredth of the weights.
    Case("sdmgrad", lambda t: sdmgrad(), permutable=False, degree=None),
    Case("sdmgrad_exact", lambda t: sdmgrad(steps=None), variant=True),
    # The paper's step size for the weights is in units of one over a squared gradient.
    Case("modo", lambda t: modo(gamma=1e-3), degree=None),
    Case("modo_normalized", lambda t: modo(normalize=True), variant=True),
    # One task has priority, by its place.
    Case("pcd", lambda t: pcd(tau=0.5), permutable=False, invariant=True),
    Case("epo", lambda t: epo()),
    # Read task gradients.
    Case("graddrop", lambda t: graddrop(), identical="sum"),
    Case("trimmed_mean", lambda t: trimmed_mean(1 if t > 2 else 0)),
    # The paper's step size for the weights is in units of one over a squared gradient.
    Case("moco", lambda t: moco(gamma=1e-3), alone=0.5, degree=None, identical="other"),
    Case(
        "moco_libmtl",
        lambda t: moco(normalization=norms_over_losses, projection=simplex_softmax),
        alone=None,
        degree=0.0,
        variant=True,
        identical="other",
    ),
    # The share of the past starts at 0, and gradients are those of the logarithms of losses.
    Case("db_mtl", lambda t: db_mtl(), alone=None, invariant=True, identical="other"),
    Case("excess_mtl", lambda t: excess_mtl(), linear=True),
    # With an optimiser that is linear in the gradient; Adam is not even along a single one.
    Case("adatask", lambda t: adatask(optax.trace(0.9)), linear=True, identical="sum"),
    # Below the threshold; above it the update is no combination of gradients, see test_sam_gs.
    Case("sam_gs", lambda t: sam_gs(threshold=2.0), invariant=True, identical="sum"),
    # Which task has its turn first decides.
    Case("m_config", lambda t: m_config(), permutable=False),
    # Wrappers. Wrapped here is, where the promise allows, a method that compiles fast.
    Case("ema", lambda t: ema(ntkmtl()), identical="other"),
    # A task's first weight is used as it is, so the first step is the wrapped method's.
    Case("ema_losses", lambda t: ema(uncertainty()), alone=0.5, linear=True, variant=True, identical="other"),
    Case("every", lambda t: every(ntkmtl(), 3), invariant=True, identical="other"),
    Case(
        "log_losses", lambda t: log_losses(mgda()), alone=None, nonconflicting=True, invariant=True, identical="other"
    ),
    Case(
        "log_losses_task_grads",
        lambda t: log_losses(graddrop()),
        alone=None,
        variant=True,
        invariant=True,
        identical="other",
    ),
    Case(
        "log_losses_losses",
        lambda t: log_losses(equal()),
        alone=None,
        linear=True,
        variant=True,
        invariant=True,
        identical="other",
    ),
    Case(
        "normalize",
        lambda t: normalize(upgrad()),
        alone=None,
        degree=0.0,
        nonconflicting=True,
        invariant=True,
        identical="other",
    ),
    Case(
        "normalize_task_grads",
        lambda t: normalize(graddrop()),
        alone=None,
        degree=0.0,
        variant=True,
        invariant=True,
        identical="other",
    ),
    Case("rescale", lambda t: rescale(ntkmtl()), invariant=True, identical="sum"),
    Case("rescale_task_grads", lambda t: rescale(graddrop()), alone=1.0, variant=True, identical="sum"),
    Case("clip", lambda t: clip(ntkmtl(), 1e-3), alone=None, degree=None, invariant=True, identical="other"),
    Case("preference", lambda t: preference(ntkmtl(), [2.0] * t), alone=2.0, invariant=True, identical="other"),
    Case("warmup", lambda t: warmup(ntkmtl(), 2), linear=True, identical="sum"),
    Case("warmup_over", lambda t: warmup(ntkmtl(), 0), variant=True, invariant=True, identical="other"),
    Case("warmup_task_grads", lambda t: warmup(graddrop(), 2), linear=True, variant=True, identical="sum"),
    # Within the group of one entry tasks agree or cancel, and where they cancel upgrad is a matter of rounding.
    Case("per_group", lambda t: per_group(ntkmtl(), lambda path: path[:1]), identical="other"),
]
