"""TorchJD's and LibMTL's methods on given losses, driven as their own training loops drive them. Needs torch."""

# pyright: reportMissingImports=false
from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torchjd import aggregation, scalarization

from benchmarks.peer_lines import Line

RATE = 0.05


class Side(NamedTuple):
    """A fresh method of a peer.

    Attributes:
        backward: `backward(losses, shared, heads)`, which leaves gradients behind.
        after: `after(number, losses, moved)`, after step `number`, with the losses before and after it.
    """

    backward: Callable[..., Any]
    after: Callable[[int, torch.Tensor, torch.Tensor], Any]


def torchjd_side(line: Line) -> Side:
    """An aggregator, a weighting or a scalarizer; what it learns itself goes through gradient descent."""
    name = line.theirs.split("(")[0]
    maker = eval(line.theirs, {"torch": torch, **vars(aggregation), **vars(scalarization)})
    extra = list(maker.parameters())

    def backward(losses: torch.Tensor, shared: Any, heads: list[Any]) -> None:
        if isinstance(maker, scalarization.Scalarizer):
            for parameter in extra:
                parameter.grad = None
            maker(losses).backward()
            with torch.no_grad():
                for parameter in extra:
                    if parameter.grad is not None:
                        parameter -= RATE * parameter.grad
            return
        rows = torch.stack([torch.autograd.grad(loss, shared, retain_graph=True)[0].flatten() for loss in losses])
        update = maker(rows @ rows.T) @ rows if name.endswith("Weighting") else maker(rows)
        if heads:
            losses.sum().backward()
        shared.grad = update.detach().reshape(shared.shape).clone()

    def after(number: int, losses: torch.Tensor, moved: torch.Tensor) -> None:
        if line.epoch and (number + 1) % line.epoch == 0:
            maker.step()
        if hasattr(maker, "update"):
            maker.update(moved)

    return Side(backward, after)


def libmtl_side(line: Line, weighting: Any) -> Side:
    """A weighting of LibMTL on a network of ours; what it learns itself goes through gradient descent."""
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

    network: Any = Network()
    network.task_num, network.device, network.rep_grad, network.epoch = line.tasks, torch.device("cpu"), False, 0
    samples = 3 if name in ("MoDo", "SDMGrad") else 1
    means = np.zeros((line.tasks, 1000))

    def backward(losses: torch.Tensor, shared: Any, heads: list[Any]) -> None:
        if not hasattr(network, "encoder"):
            network.encoder = Shared()
            network.encoder.weight = shared
            network.decoders = torch.nn.ModuleDict()
            for k, head in enumerate(heads):
                network.decoders[str(k)] = torch.nn.Module()
                network.decoders[str(k)].weight = head
            network.train_loss_buffer = means
            network.init_param()
            for attribute, value in eval(f"dict({line.before})", {"torch": torch}).items():
                setattr(network, attribute, value)
        shared.grad = torch.zeros_like(shared)
        scales = getattr(network, "loss_scale", None)
        if scales is not None:
            scales.grad = None
        network.backward(torch.stack([losses] * samples) if samples > 1 else losses, **settings)
        if scales is not None and scales.grad is not None:
            with torch.no_grad():
                scales -= RATE * scales.grad

    def after(number: int, losses: torch.Tensor, moved: torch.Tensor) -> None:
        if line.epoch:
            means[:, network.epoch] += losses.numpy() / line.epoch
            network.epoch += (number + 1) % line.epoch == 0
        if hasattr(network, "update_w"):
            network.update_w(moved)

    return Side(backward, after)


@contextlib.contextmanager
def drawing(numbers: np.ndarray) -> Iterator[None]:
    """Where torch draws numbers, these."""

    def given(*arguments: Any, **options: Any) -> torch.Tensor:
        return torch.tensor(numbers.flatten(), dtype=torch.float32)

    with mock.patch.multiple(torch, rand=given, randn=given, normal=given):
        yield


def import_libmtl_from(directory: Path) -> Any:
    """The weightings of LibMTL's repository, without the top of the package. They need `qpsolvers` and `cvxpy`."""
    package = types.ModuleType("LibMTL")
    package.__path__ = [str(directory / "LibMTL")]
    for name in [name for name in sys.modules if name.split(".")[0] == "LibMTL"]:
        del sys.modules[name]
    sys.modules["LibMTL"] = package
    # Aligned_MTL calls what torch dropped in 2.0.
    torch.symeig = lambda matrix, eigenvectors: torch.linalg.eigh(matrix)  # pyright: ignore[reportAttributeAccessIssue]
    return importlib.import_module("LibMTL.weighting")
