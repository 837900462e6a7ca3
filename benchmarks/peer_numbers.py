"""How far our updates are from the peers': on the same Jacobians, and after 200 training steps from the same start.

    python -m benchmarks.peer_numbers [--libmtl DIRECTORY]

Needs the extra `bench`. A directory with LibMTL's repository is measured as "LibMTL main"; otherwise its lines are kept
as they stand in the result. Writes benchmarks/results/peer_numbers.json, which docs/methods.md quotes.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from mtljax import methods

RESULT = Path(__file__).parent / "results" / "peer_numbers.json"
STEPS, RATE = 200, 0.05
EXAMPLE = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])


class Line(NamedTuple):
    """One method of a peer, and the call that stands for it here.

    Attributes:
        library: "TorchJD", "LibMTL" (as released) or "LibMTL main".
        theirs: the peer's call, or LibMTL's class and the arguments of its `backward`.
        ours: the call here.
        tasks: of the Jacobians and the network. Two where the peer goes through tasks in an order that it draws.
    """

    library: str
    theirs: str
    ours: str
    tasks: int = 3


LINES = [
    Line("TorchJD", "Sum()", "equal()"),
    Line("TorchJD", "Mean()", "fixed([1 / 3] * 3)"),
    Line("TorchJD", "MGDA()", "mgda()"),
    Line("TorchJD", "UPGrad()", "upgrad()"),
    Line("TorchJD", "DualProj()", "dualproj()"),
    Line("TorchJD", "CAGrad(c=0.5)", "cagrad(0.5)"),
    Line("TorchJD", "PCD()", "pcd()"),
    Line("TorchJD", "IMTLG()", "imtl_g()"),
    Line("TorchJD", "AlignedMTL()", "aligned_mtl(mean=True)"),
    Line("TorchJD", "ConFIG()", "config()"),
    Line("TorchJD", "FairGrad(alpha=1.0)", "fairgrad(1.0)"),
    Line("TorchJD", "NashMTL(n_tasks=3)", "nash_mtl(max_norm=1.0, weigh_tasks=False)"),
    Line("TorchJD", "PCGrad()", "pcgrad()", 2),
    Line("TorchJD", "GradVac()", "gradvac(beta=0.5)", 2),
    Line("TorchJD", "Krum(n_byzantine=0)", "krum(squared=False)"),
    Line("TorchJD", "TrimmedMean(trim_number=1)", "trimmed_mean(1)"),
    Line(
        "TorchJD",
        "ExcessMTL()",
        "excess_mtl(step_size=1.0, eps=1e-7, relative_from_first=False, weigh_tasks=False)",
    ),
    Line("TorchJD", "MoDoWeighting()", "modo(rho=0.1)"),
    Line("TorchJD", "SDMGradWeighting()", "sdmgrad()"),
    Line("TorchJD", "GeometricMean()", "geometric()"),
    Line("TorchJD", "UW(3)", "uncertainty(optimizer=optax.sgd(0.05))"),
    Line("TorchJD", "IMTLL(3)", "imtl_l(optimizer=optax.sgd(0.05))"),
    Line("TorchJD", "STCH(mu=0.5)", "stch(mu=0.5)"),
    Line("LibMTL", "EW", "equal()"),
    Line("LibMTL", 'MGDA, mgda_gn="none"', "mgda()"),
    Line("LibMTL", 'MGDA, mgda_gn="l2"', "mgda(normalization=l2_norms)"),
    Line("LibMTL", 'MGDA, mgda_gn="loss"', "mgda(normalization=loss_values)"),
    Line("LibMTL", "CAGrad, calpha=0.5, rescale=0", "cagrad(0.5)"),
    Line("LibMTL", "CAGrad, calpha=0.5, rescale=1", "cagrad(0.5, rescale=True)"),
    Line("LibMTL", "PCGrad", "pcgrad()", 2),
    Line("LibMTL", "GradVac, beta=0.5", "gradvac(beta=0.5, follow_all=False)", 2),
    Line("LibMTL", "GLS", "geometric()"),
    Line("LibMTL", "UW", "uncertainty(log_variance=-0.5, optimizer=optax.sgd(0.05))"),
    Line("LibMTL main", "GradVac, GradVac_beta=0.5, GradVac_group_type=0", "gradvac(beta=0.5)", 2),
    Line("LibMTL main", "Nash_MTL, update_weights_every=1, optim_niter=20, max_norm=1.0", "nash_mtl(max_norm=1.0)"),
    Line("LibMTL main", "FairGrad, FairGrad_alpha=1.0", "fairgrad(1.0, weigh_tasks=True)"),
    Line("LibMTL main", "UPGrad, UPGrad_norm_eps=1e-4, UPGrad_reg_eps=1e-4", "upgrad()"),
    Line(
        "LibMTL main",
        "MoCo, MoCo_beta=0.5, MoCo_beta_sigma=0.5, MoCo_gamma=0.1, MoCo_gamma_sigma=0.5, MoCo_rho=0.0",
        "moco(normalization=norms_over_losses, projection=simplex_softmax)",
    ),
    Line("LibMTL main", "DB_MTL, DB_beta=0.9, DB_beta_sigma=0.0", "db_mtl()"),
    Line("LibMTL main", "ExcessMTL, robust_step_size=0.01", "excess_mtl(eps=1e-7, mean=False)"),
    Line("LibMTL main", "MoDo, MoDo_gamma=1e-3, MoDo_rho=0.1", "modo(gamma=1e-3, rho=0.1)"),
    Line("LibMTL main", "SDMGrad, SDMGrad_lamda=0.3, SDMGrad_niter=20", "sdmgrad(rate=5.0)"),
]


class Problem(NamedTuple):
    """A small network with a tanh layer, tasks that want different things of it, and all of the data at every step."""

    shared: np.ndarray
    heads: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray


class Trained(NamedTuple):
    """A run: the shared matrix and the heads, at the start, after one step and after all."""

    shared: list[np.ndarray]
    heads: list[np.ndarray]


def problem(tasks: int) -> Problem:
    draw = np.random.default_rng(tasks)
    inputs = draw.normal(size=(32, 5))
    # With noise, so that no loss gets near 0, where methods that divide by losses are chaotic.
    targets = np.tanh(inputs @ draw.normal(size=(5, tasks))) + draw.normal(size=(32, tasks))
    targets = targets.T * np.array([3.0, 1.0, 0.5])[:tasks, None]
    return Problem(0.5 * draw.normal(size=(5, 6)), 0.5 * draw.normal(size=(tasks, 6)), inputs, targets)


def jacobians(tasks: int) -> list[np.ndarray]:
    """Twenty of each kind: as many parameters as tasks, and more; rows of one length or far apart."""
    draw = np.random.default_rng(10 + tasks)
    return [
        draw.normal(size=(tasks, tasks + 5 * (number % 2))) * np.exp((number % 4 > 1) * draw.normal(size=(tasks, 1)))
        for number in range(20)
    ]


def our_method(line: Line) -> mtljax.Method:
    return eval(line.ours, {"optax": optax, **vars(methods.options), **vars(methods)})


def our_updates(line: Line, rows: list[np.ndarray]) -> list[np.ndarray]:
    method = our_method(line)
    losses, key = jnp.ones(line.tasks), jax.random.key(0)
    update = jax.jit(lambda jacobian: mtljax.aggregate(method, jacobian, losses=losses, key=key))
    return [np.asarray(update(jnp.float32(jacobian)), np.float64) for jacobian in rows]


def our_run(line: Line) -> Trained:
    start = problem(line.tasks)
    inputs, targets = jnp.float32(start.inputs), jnp.float32(start.targets)

    def losses_fn(params, state, batch, key, train):
        hidden = jnp.tanh(inputs @ params.shared)
        return {k: jnp.mean((hidden @ params.tasks[k] - targets[int(k)]) ** 2) for k in params.tasks}, ({}, state)

    init, step = mtljax.training.make_train_step(losses_fn, our_method(line), optax.sgd(RATE))
    params = mtljax.Params(jnp.float32(start.shared), {str(k): jnp.float32(h) for k, h in enumerate(start.heads)})

    @jax.jit
    def run(state):
        def body(state, _):
            state, _ = step(state, None)
            return state, state.params

        return jax.lax.scan(body, state, None, length=STEPS)[1]

    path = run(init(params, key=jax.random.key(0)))
    at = (0, STEPS - 1)
    return Trained(
        [start.shared, *(np.asarray(path.shared[k], np.float64) for k in at)],
        [start.heads, *(np.stack([np.asarray(path.tasks[name][k], np.float64) for name in path.tasks]) for k in at)],
    )


def torchjd_update(line: Line) -> Callable[..., Any]:
    """A fresh aggregator or scalarizer: `backward(losses, shared)`, which leaves gradients behind."""
    import torch
    from torchjd import aggregation, scalarization

    name = line.theirs.split("(")[0]
    scope = {**vars(aggregation), **vars(scalarization)}
    maker = eval(line.theirs, scope)
    extra = list(maker.parameters())

    def rows_of(losses, shared):
        return torch.stack([torch.autograd.grad(loss, shared, retain_graph=True)[0].flatten() for loss in losses])

    def backward(losses, shared, heads):
        if name in scalarization.__all__:
            for parameter in extra:
                parameter.grad = None
            maker(losses).backward()
            with torch.no_grad():
                for parameter in extra:
                    parameter -= RATE * parameter.grad
            return
        rows = rows_of(losses, shared)
        update = maker(rows @ rows.T) @ rows if name.endswith("Weighting") else maker(rows)
        if heads:
            losses.sum().backward()
        shared.grad = update.detach().reshape(shared.shape).clone()

    return backward


def libmtl_update(line: Line, weighting: Any) -> Callable[..., Any]:
    """A fresh weighting of LibMTL on a network of ours: `backward(losses, shared, heads)`."""
    import torch

    name, _, arguments = line.theirs.partition(", ")
    settings = eval(f"dict({arguments})")

    class Shared(torch.nn.Module):
        def zero_grad(self, set_to_none: bool = False) -> None:
            # LibMTL writes into the gradients afterwards; since torch 2.0 they would be None.
            super().zero_grad(set_to_none=False)

    class Network(getattr(weighting, name)):
        def get_share_params(self):
            return self.encoder.parameters()

        def zero_grad_share_params(self):
            self.encoder.zero_grad()

    network = Network()
    network.task_num, network.device, network.rep_grad, network.epoch = line.tasks, torch.device("cpu"), False, 0
    samples = 3 if name in ("MoDo", "SDMGrad") else 1

    def backward(losses, shared, heads):
        if not hasattr(network, "encoder"):
            network.encoder = Shared()
            network.encoder.weight = shared
            network.decoders = torch.nn.ModuleDict()
            for k, head in enumerate(heads):
                network.decoders[str(k)] = torch.nn.Module()
                network.decoders[str(k)].weight = head
            network.init_param()
        shared.grad = torch.zeros_like(shared)
        scales = getattr(network, "loss_scale", None)
        if scales is not None:
            scales.grad = None
        network.backward(torch.stack([losses] * samples) if samples > 1 else losses, **settings)
        if scales is not None and scales.grad is not None:
            with torch.no_grad():
                scales -= RATE * scales.grad

    return backward


def their_updates(line: Line, rows: list[np.ndarray], fresh: Callable[[], Callable[..., Any]]) -> list[np.ndarray]:
    """First updates at losses of 1, each of a fresh method."""
    import torch

    updates = []
    for jacobian in rows:
        shared = torch.nn.Parameter(torch.zeros(jacobian.shape[1]))
        losses = torch.tensor(jacobian, dtype=torch.float32) @ shared + 1.0
        fresh()(losses, shared, [])
        assert shared.grad is not None
        updates.append(shared.grad.numpy().astype(np.float64).copy())
    return updates


def their_run(line: Line, fresh: Callable[[], Callable[..., Any]]) -> Trained:
    import torch

    start = problem(line.tasks)
    inputs, targets = (torch.tensor(array, dtype=torch.float32) for array in (start.inputs, start.targets))
    shared = torch.nn.Parameter(torch.tensor(start.shared, dtype=torch.float32))
    heads = [torch.nn.Parameter(torch.tensor(head, dtype=torch.float32)) for head in start.heads]
    backward, saved = fresh(), ([start.shared], [start.heads])
    for number in range(STEPS):
        for parameter in (shared, *heads):
            parameter.grad = None
        hidden = torch.tanh(inputs @ shared)
        losses = torch.stack([((hidden @ head - targets[k]) ** 2).mean() for k, head in enumerate(heads)])
        backward(losses, shared, heads)
        with torch.no_grad():
            for parameter in (shared, *heads):
                parameter -= RATE * parameter.grad
        if number in (0, STEPS - 1):
            saved[0].append(shared.detach().numpy().astype(np.float64).copy())
            saved[1].append(np.stack([head.detach().numpy().astype(np.float64) for head in heads]))
    return Trained(*saved)


def distance(found: np.ndarray, expected: np.ndarray, start: Any = 0.0) -> float:
    """Of what the peer moved."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected - start))


def measure(line: Line, weighting: Any = None) -> dict[str, Any]:
    """A line's differences. Numbers are shares of the length of the peer's own update or move."""

    def fresh() -> Callable[..., Any]:
        return torchjd_update(line) if line.library == "TorchJD" else libmtl_update(line, weighting)

    rows = jacobians(line.tasks)
    apart = [distance(*pair) for pair in zip(our_updates(line, rows), their_updates(line, rows, fresh), strict=True)]
    ours, theirs = our_run(line), their_run(line, fresh)
    return {
        "library": line.library,
        "theirs": line.theirs,
        "ours": line.ours,
        "median": float(np.median(apart)),
        "worst": max(apart),
        "heads": distance(ours.heads[1], theirs.heads[1], ours.heads[0]),
        "trained": distance(ours.shared[2], theirs.shared[2], ours.shared[0]),
        "trained_heads": distance(ours.heads[2], theirs.heads[2], ours.heads[0]),
    }


def as_markdown(lines: list[dict[str, Any]]) -> str:
    """The table that docs/methods.md shows.

    Example:
        >>> line = {"library": "TorchJD", "theirs": "Sum()", "ours": "equal()", "median": 0.0, "worst": 1e-7}
        >>> print(as_markdown([{**line, "heads": 0.0, "trained": 2.5e-4, "trained_heads": 0.15}]).splitlines()[-1])
        | TorchJD | Sum() | `equal()` | 0 | 0 | 0 | .025 % | 15 % |
    """

    def share(number: float) -> str:
        if number < 5e-6:
            return "0"
        percent = (
            f"{100 * number:.{max(0, 1 - int(np.floor(np.log10(100 * number))))}f}"
            if number < 0.1
            else f"{100 * number:.0f}"
        )
        percent = percent.rstrip("0").rstrip(".") if "." in percent else percent
        return f"{percent.removeprefix('0') if percent.startswith('0.') else percent} %"

    names = ("median", "worst", "heads", "trained", "trained_heads")
    header = ("library", "its method", "here", "draws, median", "draws, worst", "heads, step 1")
    header = (*header, "shared, 200 steps", "heads, 200 steps")
    table = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for line in lines:
        cells = (line["library"], line["theirs"], f"`{line['ours']}`", *(share(line[name]) for name in names))
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table)


def import_libmtl_from(directory: Path) -> Any:
    """The weightings of LibMTL's repository, without the top of the package. They need `qpsolvers` and `cvxpy`."""
    import types

    package = types.ModuleType("LibMTL")
    package.__path__ = [str(directory / "LibMTL")]
    for name in [name for name in sys.modules if name.split(".")[0] == "LibMTL"]:
        del sys.modules[name]
    sys.modules["LibMTL"] = package
    return importlib.import_module("LibMTL.weighting")


def main() -> None:
    from benchmarks.peers import import_libmtl

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libmtl", type=Path, help="LibMTL's repository, for the lines of LibMTL main")
    libmtl_main = parser.parse_args().libmtl
    old = json.loads(RESULT.read_text()) if RESULT.exists() else {"versions": {}, "lines": []}
    versions = {name: importlib.metadata.version(name) for name in ("torchjd", "LibMTL", "torch", "jax")}
    versions["LibMTL main"] = old["versions"].get("LibMTL main", "")
    if libmtl_main is not None:
        commit = ["git", "-C", str(libmtl_main), "rev-parse", "--short", "HEAD"]
        versions["LibMTL main"] = subprocess.run(commit, check=True, capture_output=True, text=True).stdout.strip()
    lines, weighting = [], import_libmtl()[1]
    for line in LINES:
        if line.library == "LibMTL main":
            if libmtl_main is None:
                lines += [kept for kept in old["lines"] if kept["theirs"] == line.theirs]
                continue
            if weighting.__file__ != str(libmtl_main / "LibMTL" / "weighting" / "__init__.py"):
                weighting = import_libmtl_from(libmtl_main)
        lines.append(measure(line, weighting))
        print(as_markdown(lines[-1:]).splitlines()[-1], flush=True)
        RESULT.write_text(json.dumps({"versions": versions, "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
