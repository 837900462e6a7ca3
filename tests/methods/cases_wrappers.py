"""Lines of the table of all methods: wrappers."""

from __future__ import annotations

from mtljax.methods.from_gramian import mgda, ntkmtl, upgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.from_losses import equal, uncertainty
from mtljax.methods.wrappers import clip, ema, log_losses, normalize, per_group, rescale, warmup
from tests.methods.case import Case

CASES: list[Case] = [
    # Wrapped here is, where the promise allows, a method that compiles fast.
    Case("ema", lambda t: ema(ntkmtl()), identical="other"),
    # A task's first weight is used as it is, so the first step is the wrapped method's.
    Case("ema_losses", lambda t: ema(uncertainty()), alone=0.5, linear=True, variant=True, identical="other"),
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
    Case("warmup", lambda t: warmup(ntkmtl(), 2), linear=True, identical="sum"),
    Case("warmup_over", lambda t: warmup(ntkmtl(), 0), variant=True, invariant=True, identical="other"),
    Case("warmup_task_grads", lambda t: warmup(graddrop(), 2), linear=True, variant=True, identical="sum"),
    # Within the group of one entry tasks agree or cancel, and where they cancel upgrad is a matter of rounding.
    Case("per_group", lambda t: per_group(ntkmtl(), lambda path: path[:1]), identical="other"),
]
