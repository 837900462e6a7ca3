"""An existing loop takes on a method: how many lines change, and that it is what `Params` by hand give.

`tests/adapters/loops/` holds three programs that add their losses. `CHANGES` holds the lines that are put in the place
of others, or beside them; nothing else changes.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mtljax
from mtljax.types import Params

LOOPS = Path(__file__).parent / "loops"
STEPS = 3
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
BATCH = X, jnp.sin(X[:, :1]), 3.0 * X[:, 1:2] - 1.0

RETURN = {"    return depth_loss + edges_loss": '    return {"depth": depth_loss, "edges": edges_loss}'}
FAMO = {**RETURN, "TX = optax.adam(1e-2)": "TX = optax.chain(carry(methods.famo(), 2), optax.adam(1e-2))"}
CHANGES = {
    ("plain", "pcgrad"): {
        **RETURN,
        "import jax": "import jax\nfrom mtljax import methods, value_and_grad",
        "    loss, grads = jax.value_and_grad(loss_fn)(params, *data)": (
            "    loss, grads, _ = value_and_grad(loss_fn, methods.pcgrad())(params, methods.pcgrad().init(2), *data)"
        ),
    },
    ("plain", "famo"): {
        **FAMO,
        "import jax": "import jax\nfrom mtljax import carry, methods, observe, value_and_grad",
        "    loss, grads = jax.value_and_grad(loss_fn)(params, *data)": (
            "    loss, grads, opt_state = value_and_grad(loss_fn, methods.famo())(params, opt_state, *data)"
        ),
        "    return params, opt_state, loss": (
            "    return params, observe(methods.famo(), loss_fn(params, *data), opt_state), loss"
        ),
    },
    ("linen", "pcgrad"): {
        **RETURN,
        "import jax": "import jax\nfrom mtljax import methods, value_and_grad",
        "    loss, grads = jax.value_and_grad(loss_fn)(state.params, *data)": (
            "    loss, grads, _ = value_and_grad("
            "loss_fn, methods.pcgrad())(state.params, methods.pcgrad().init(2), *data)"
        ),
    },
    ("linen", "famo"): {
        **FAMO,
        "import jax": "import jax\nfrom mtljax import carry, methods, observe, value_and_grad",
        "    loss, grads = jax.value_and_grad(loss_fn)(state.params, *data)": (
            "    loss, grads, state = value_and_grad(loss_fn, methods.famo())(state.params, state, *data)"
        ),
        "    return state, loss": "    return observe(methods.famo(), loss_fn(state.params, *data), state), loss",
    },
    ("nnx", "pcgrad"): {
        **RETURN,
        "import jax": "import jax\nfrom mtljax import adapters, methods",
        "    loss, grads = nnx.value_and_grad(loss_fn)(net, *data)": (
            "    loss, grads, _ = adapters.flax_nnx.value_and_grad("
            "loss_fn, methods.pcgrad())(net, methods.pcgrad().init(2), *data)"
        ),
    },
    ("nnx", "famo"): {
        **FAMO,
        "import jax": "import jax\nfrom mtljax import adapters, carry, methods",
        "    loss, grads = nnx.value_and_grad(loss_fn)(net, *data)": (
            "    loss, grads, _ = adapters.flax_nnx.value_and_grad(loss_fn, methods.famo())(net, optimizer, *data)"
        ),
        "    optimizer.update(net, grads)": (
            "    optimizer.update(net, grads)\n"
            "    adapters.flax_nnx.observe(methods.famo(), loss_fn(net, *data), optimizer)"
        ),
    },
}
LINES = {"pcgrad": 3, "famo": 5}
"""Changed and added lines, the import among them."""


def programs(loop: str, method: str) -> tuple[list[str], list[str]]:
    """The program before and after, by line."""
    before = (LOOPS / f"{loop}.py").read_text().splitlines()
    changes = CHANGES[loop, method]
    assert set(changes) <= set(before)
    return before, [line for each in before for line in changes.get(each, each).split("\n")]


def run(lines: list[str]) -> dict:
    """What the program defines."""
    space = {"__name__": "loop"}
    exec(compile("\n".join(lines), "loop", "exec"), space)
    return space


@pytest.mark.parametrize(("loop", "method"), CHANGES)
def test_few_lines_change(loop, method):
    before, after = programs(loop, method)
    assert max(map(len, after)) <= 120
    changed = 0
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        changed += 0 if kind == "equal" else max(b - a, d - c)
    assert changed == LINES[method]


def by_hand(losses_fn, tree, method, optimizer):
    """The same training with `Params` that are split and merged by hand."""

    def of_params(params):
        return losses_fn({**params.shared, **params.tasks})

    @jax.jit
    def step(params, opt_state, state):
        losses, grads, state = mtljax.value_and_grad(of_params, method)(params, state)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return params, opt_state, mtljax.observe(method, of_params(params), state), losses

    heads = {name: tree[name] for name in ("depth", "edges")}
    params = Params({name: tree[name] for name in tree if name not in heads}, heads)
    opt_state, state = optimizer.init(params), method.init(2)
    for _ in range(STEPS):
        params, opt_state, state, losses = step(params, opt_state, state)
    return {**params.shared, **params.tasks}, losses


@pytest.mark.parametrize(("loop", "method"), CHANGES)
def test_a_changed_loop_is_what_params_by_hand_give(loop, method):
    space = run(programs(loop, method)[1])
    found, losses = space["train"](STEPS, *BATCH)
    if loop == "plain":
        shapes = {"trunk": (4, 8), "depth": (8, 1), "edges": (8, 1)}
        tree = {name: jax.random.normal(jax.random.key(n), shapes[name]) for n, name in enumerate(shapes)}
        losses_fn = lambda tree: space["loss_fn"](tree, *BATCH)  # noqa: E731
    elif loop == "linen":
        tree = space["Network"]().init(jax.random.key(0), X)["params"]
        losses_fn = lambda tree: space["loss_fn"](tree, *BATCH)  # noqa: E731
    else:
        graph, params, rest = nnx.split(space["Network"](nnx.Rngs(0)), nnx.Param, ...)
        tree = nnx.to_pure_dict(params)

        def losses_fn(tree):
            filled = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(tree))
            return space["loss_fn"](nnx.merge(graph, filled, rest, copy=True), *BATCH)

        # Normalised by the batch's own statistics: running ones are of no use to the losses.
        assert float(jnp.abs(found.norm.mean[...]).max()) > 0
        found = nnx.to_pure_dict(nnx.state(found, nnx.Param))
    expected, last = by_hand(losses_fn, tree, getattr(mtljax.methods, method)(), optax.adam(1e-2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)
    np.testing.assert_allclose([losses["depth"], losses["edges"]], [last["depth"], last["edges"]], rtol=1e-5)
