"""The same program by torch's libraries and by scikit-learn, each imported when asked for."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.many_tasks.program import LEARNING_RATE, WIDTH, Problem, Side


def scikit_learn(problem: Problem, method: str) -> Side:
    """`MLPRegressor.partial_fit` on one batch: one step of Adam on complete labels, since it takes no missing ones."""
    from sklearn.neural_network import MLPRegressor

    if method != "equal":
        raise LookupError("no such method")
    sizes: dict[str, Any] = {"hidden_layer_sizes": (WIDTH,), "batch_size": len(problem.inputs)}
    model = MLPRegressor(**sizes, alpha=0.0, learning_rate_init=LEARNING_RATE)
    return Side(lambda: model.partial_fit(problem.inputs, problem.targets) and None, None, {})


def libmtl(problem: Problem, method: str) -> Side:
    """A LibMTL weighting on its hard parameter sharing, driven as its Trainer drives them."""
    import torch

    from benchmarks import peers

    names = {"equal": "EW", "uncertainty": "UW", "mgda": "MGDA", "pcgrad": "PCGrad", "nash_mtl": "Nash_MTL"}
    architecture, weighting = peers.import_libmtl()
    if method not in names or not hasattr(weighting, names[method]):
        raise LookupError("no such method")
    layers, decoders, batch = _torch(problem)

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, inputs: Any) -> Any:
            return self.layers(inputs)

        def zero_grad(self, set_to_none: bool = False) -> None:
            # LibMTL 1.1.5 writes into the gradients afterwards; since torch 2.0 they would be None.
            super().zero_grad(set_to_none=False)

    class Network(architecture.HPS, getattr(weighting, names[method])):
        pass

    network: Any = Network(sorted(decoders), Encoder, decoders, False, False, torch.device("cpu"))
    network.init_param()
    if method == "uncertainty":
        torch.nn.init.zeros_(network.loss_scale)  # where the other sides start; LibMTL starts at -0.5
    arguments = {
        "mgda": {"mgda_gn": "none"},
        "nash_mtl": {"update_weights_every": 1, "optim_niter": 20, "max_norm": 1.0},
    }
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    last: list[Any] = [None]

    def step() -> None:
        last[0] = torch.stack(_losses(network(batch[0]), batch))
        optimizer.zero_grad()
        network.backward(last[0], **arguments.get(method, {}))
        optimizer.step()

    return Side(step, lambda: last[0].detach().numpy(), {})


def torchjd(problem: Problem, method: str) -> Side:
    """TorchJD: a scalarizer and one layer of T outputs where the method needs losses alone.

    For the others `mtl_backward`, which takes a head per task, and an aggregator.
    """
    import torch
    from torchjd import aggregation, scalarization
    from torchjd.autojac import jac_to_grad, mtl_backward

    encoder, decoders, batch = _torch(problem)
    if method in ("equal", "uncertainty"):
        heads = _linear(problem.heads["w"][:, :, 0].T, problem.heads["b"][:, 0])
        scalarizer: Any = scalarization.Sum() if method == "equal" else scalarization.UW(problem.tasks)
        own = [*heads.parameters(), *scalarizer.parameters()]

        def losses_of(features: Any) -> Any:
            return ((heads(features) - batch[1]) ** 2 * batch[2]).sum(0) / batch[3]

        def backward(features: Any, losses: Any) -> None:
            scalarizer(losses).backward()
    else:
        own = [*decoders.parameters()]
        aggregators = {"upgrad": "UPGrad", "mgda": "MGDA", "pcgrad": "PCGrad"}
        if method == "nash_mtl":
            aggregator: Any = aggregation.NashMTL(n_tasks=problem.tasks)
        else:
            aggregator = getattr(aggregation, aggregators[method])()

        def losses_of(features: Any) -> Any:
            return _losses({name: decoder(features) for name, decoder in decoders.items()}, batch)

        def backward(features: Any, losses: Any) -> None:
            mtl_backward(losses, features=features)
            jac_to_grad(encoder.parameters(), aggregator)

    optimizer = torch.optim.Adam([*encoder.parameters(), *own], lr=LEARNING_RATE)
    last: list[Any] = [None]

    def step() -> None:
        features = encoder(batch[0])
        last[0] = losses_of(features)
        optimizer.zero_grad()
        backward(features, last[0])
        optimizer.step()

    return Side(step, lambda: np.array([float(loss.detach()) for loss in last[0]]), {})


def _losses(outputs: Any, batch: Any) -> list[Any]:
    """Each task's own mean over its labels."""
    _, targets, present, counts = batch
    found = []
    for k, name in enumerate(sorted(outputs)):
        errors = (outputs[name][:, 0] - targets[:, k]) ** 2
        found.append((errors * present[:, k]).sum() / counts[k])
    return found


def _linear(w: np.ndarray, b: np.ndarray) -> Any:
    """A layer with weights `[in, out]` and biases `[out]`."""
    import torch

    made = torch.nn.Linear(*w.shape)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(np.ascontiguousarray(w.T)))
        made.bias.copy_(torch.tensor(b))
    return made


def _torch(problem: Problem) -> Any:
    """Encoder, heads by task, and the batch."""
    import torch

    encoder = torch.nn.Sequential(_linear(problem.shared["w"], problem.shared["b"]), torch.nn.ReLU())
    heads = zip(problem.heads["w"], problem.heads["b"], strict=True)
    decoders = torch.nn.ModuleDict({f"task{k:03d}": _linear(w, b) for k, (w, b) in enumerate(heads)})
    present = torch.tensor(problem.present, dtype=torch.float32)
    return encoder, decoders, (torch.tensor(problem.inputs), torch.tensor(problem.targets), present, present.sum(0))


PEERS = {"TorchJD": torchjd, "LibMTL": libmtl, "scikit-learn": scikit_learn}
