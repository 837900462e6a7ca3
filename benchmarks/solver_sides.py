"""The solvers that are timed: ours, TorchJD's, LibMTL's, and a float64 oracle for each."""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import ours
from mtljax import methods
from mtljax.types import Method
from tests.solvers.solver_problems import exact_min_norm, exact_projection
from tests.solvers.test_bargaining import exact as exact_bargain
from tests.solvers.test_conflict_averse import exact_direction as exact_conflict_averse

Solve = Callable[[], Any]
"""Solves one fixed problem and returns the weights `[T]`."""


class Lacking(Exception):
    """A peer has no such solver; the message says so."""


class Solver(NamedTuple):
    """One problem, and who solves it.

    Attributes:
        method: ours.
        oracle: from task gradients `[T, P]` in float64 to the exact direction `[P]`, or to None where it finds none;
            None where the answer is drawn at random.
        torchjd: name of the weighting class in `torchjd.aggregation`, and its arguments; None where there is none.
        libmtl: name of the class in `LibMTL.weighting`, and the arguments of its `backward`.
    """

    method: Callable[[], Method]
    oracle: Callable[[np.ndarray], np.ndarray | None] | None
    torchjd: tuple[str, dict[str, Any]] | None
    libmtl: tuple[str, dict[str, Any]] | None


def _upgrad(rows: np.ndarray) -> np.ndarray:
    return np.mean([exact_projection(rows, row) for row in np.eye(len(rows))], axis=0)


def _imtl_g(rows: np.ndarray) -> np.ndarray | None:
    norms = np.linalg.norm(rows, axis=1)
    if not norms.all():
        return None  # equal projections on a task gradient of length zero: there are none
    unit = rows / norms[:, None]
    weights = np.linalg.lstsq(unit @ unit.T, np.ones(len(rows)), rcond=1e-10)[0] / norms
    return weights @ rows / weights.sum()


def _bargain(alpha: float) -> Callable[[np.ndarray], np.ndarray | None]:
    def oracle(rows: np.ndarray) -> np.ndarray | None:
        weights = exact_bargain(rows, np.ones(len(rows)), alpha)
        return None if weights is None else weights @ rows

    return oracle


def _aligned(rows: np.ndarray) -> np.ndarray:
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    # The rank that the method's docstring defines.
    kept = values**2 > len(rows) * 2.0**-23 * values[0] ** 2
    return values[kept].min() * (left[:, kept] @ right[kept]).sum(axis=0)


SOLVERS: dict[str, Solver] = {
    "mgda": Solver(methods.mgda, exact_min_norm, ("MGDAWeighting", {}), ("MGDA", {"mgda_gn": "none"})),
    "upgrad": Solver(methods.upgrad, _upgrad, ("UPGradWeighting", {}), None),
    "dualproj": Solver(
        methods.dualproj,
        lambda rows: exact_projection(rows, np.full(len(rows), 1 / len(rows))),
        ("DualProjWeighting", {}),
        None,
    ),
    "cagrad": Solver(
        lambda: methods.cagrad(ours.CAGRAD_C),
        lambda rows: np.asarray(exact_conflict_averse(rows, ours.CAGRAD_C)),
        ("CAGradWeighting", {"c": ours.CAGRAD_C}),
        ("CAGrad", {"calpha": ours.CAGRAD_C, "rescale": 0}),
    ),
    "nash_mtl": Solver(
        methods.nash_mtl,
        _bargain(1.0),
        ("NashMTL", {"max_norm": 0.0}),
        None,
    ),
    "fairgrad": Solver(lambda: methods.fairgrad(2.0), _bargain(2.0), ("FairGradWeighting", {"alpha": 2.0}), None),
    "imtl_g": Solver(methods.imtl_g, _imtl_g, ("IMTLGWeighting", {}), ("IMTL", {})),
    "aligned_mtl": Solver(methods.aligned_mtl, _aligned, ("AlignedMTLWeighting", {}), None),
    "pcgrad": Solver(methods.pcgrad, None, ("PCGradWeighting", {}), ("PCGrad", {})),
    "gradvac": Solver(methods.gradvac, None, ("GradVacWeighting", {}), ("GradVac", {"beta": 0.5})),
}


@functools.cache
def compiled(name: str, num_tasks: int, together: bool) -> Callable[[jax.Array], jax.Array]:
    """Our solver, compiled once for each T."""
    method, key = SOLVERS[name].method(), jax.random.key(0)

    def weights(gramian: jax.Array) -> jax.Array:
        return method.update(gramian, method.init(num_tasks), key=key)[0]

    return jax.jit(jax.vmap(weights) if together else weights)


def mtljax_side(name: str, gramians: np.ndarray) -> Solve:
    """Our solve of `[T, T]`, or of `[K, T, T]` at once."""
    solve = compiled(name, gramians.shape[-1], gramians.ndim == 3)
    given = jax.device_put(gramians.astype(np.float32))
    return lambda: solve(given)


def torchjd_side(solver: Solver, rows: np.ndarray) -> Solve:
    """TorchJD's weighting on the same Gramian; its Nash reads rows."""
    if solver.torchjd is None or importlib.util.find_spec("torchjd") is None:
        raise Lacking("no such solver")
    import torch
    from torchjd import aggregation

    name, arguments = solver.torchjd
    if name == "NashMTL":
        aggregator = aggregation.NashMTL(n_tasks=len(rows), **arguments)
        given = torch.tensor(rows, dtype=torch.float32)

        def nash() -> Any:
            aggregator.reset()
            return aggregator.weighting(given)

        return nash
    weighting = getattr(aggregation, name)(**arguments)
    gramian = torch.tensor(rows @ rows.T, dtype=torch.float32)

    def solve() -> Any:
        if hasattr(weighting, "reset"):
            weighting.reset()
        return weighting(gramian)

    return solve


def libmtl_side(solver: Solver, rows: np.ndarray) -> Solve:
    """LibMTL's weighting on given rows: what it reads and where it writes are taken from it, the rest is its own."""
    if solver.libmtl is None:
        raise Lacking("no such solver")
    import torch

    from benchmarks.peers import import_libmtl

    name, arguments = solver.libmtl
    weighting = getattr(import_libmtl()[1], name)
    given = torch.tensor(rows, dtype=torch.float32)
    last: list[Any] = [None]

    class Driven(weighting):
        def __init__(self) -> None:
            super().__init__()
            self.task_num, self.device, self.rep_grad = len(rows), torch.device("cpu"), False
            self.epoch = 1
            self.init_param()

        def _compute_grad_dim(self) -> None:
            self.grad_dim = given.shape[1]

        def _compute_grad(self, losses: Any, mode: str, rep_grad: bool = False) -> Any:
            return given.clone()

        def _reset_grad(self, new_grads: Any) -> None:
            last[0] = new_grads

    driven, losses = Driven(), torch.ones(len(rows), requires_grad=True)

    def solve() -> Any:
        driven.backward(losses, **arguments)
        return last[0]

    return solve
