"""Lines of the table of all methods: jacobian."""

from __future__ import annotations

import optax

from mtljax.methods.from_jacobian import adatask, db_mtl, excess_mtl, m_config, moco, sam_gs, trimmed_mean
from mtljax.methods.from_jacobian.moco import norms_over_losses, simplex_softmax
from tests.methods.case import Case

CASES: list[Case] = [
    Case("trimmed_mean", lambda t: trimmed_mean(1 if t > 2 else 0)),
    # The share of the past starts at 0, and gradients are those of the logarithms of losses.
    Case("db_mtl", lambda t: db_mtl(), alone=None, invariant=True, identical="other"),
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
    Case("excess_mtl", lambda t: excess_mtl(), linear=True),
    # Below the threshold; above it the update is no combination of gradients, see test_from_jacobian.
    Case("sam_gs", lambda t: sam_gs(threshold=2.0), invariant=True, identical="sum"),
    # With an optimiser that is linear in the gradient; Adam is not even along a single one.
    Case("adatask", lambda t: adatask(optax.trace(0.9)), linear=True, identical="sum"),
    # Which task has its turn first decides.
    Case("m_config", lambda t: m_config(), permutable=False),
]
