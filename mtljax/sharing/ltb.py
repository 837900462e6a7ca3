"""Learning to branch: during training, each node of a stage learns which node of the stage before it reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from mtljax import trees
from mtljax.checks import check_count, check_number, expect
from mtljax.sharing.frames.encoder import encoder_and_heads
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.network import Network, check_heads, check_networks, is_sequence, key_for, selected
from mtljax.sharing.tree import file_nodes, node_part, tree
from mtljax.types import Array, Key, Model, Params, PyTree


def ltb(
    stages: Sequence[Network],
    heads: Mapping[str, Network],
    *,
    widths: int | Sequence[int] | None = None,
    temperature: Array | float | Callable[[Array], Array] = 1.0,
    warmup: Array | int = 0,
) -> Model:
    r"""Each stage has several copies of its block, the nodes; nodes and heads learn which node before them to read.

        y_i^j = node_{j,i}(x_i^j),   x_c^{j+1} = sum_i d_ci^j y_i^j,   d_c^j = one_hot(argmax_i (theta_ci^j + e_i))

    A child c is a node of the next stage or a head, and `e` is standard Gumbel noise, drawn once per call and child. In
    the forward pass a child reads one parent, drawn with the probabilities `softmax(theta_c)`. In the backward pass,
    `d_c` has the derivative of `softmax((theta_c + e) / temperature)` (straight-through), and a node that no child has
    drawn gets no gradient in that call. Nodes of the first stage read the inputs. Logits `theta` start at zero, so that
    all parents are equally likely. Without a key, or with `train=False`, nothing is drawn: each child reads its
    likeliest parent, the first one of equals, and no gradient reaches the logits. `prune` makes the tree of likeliest
    parents a model of its own.

    **Annealing.** The state counts the training calls, and `temperature` may be a function of that count. It is traced
    with the rest of the step, so that nothing compiles again. It may be any optax schedule, or for instance
    `lambda calls: 5.0 / jnp.sqrt(1.0 + calls / steps_per_epoch)`. During the first `warmup` calls every choice is drawn
    with equal probabilities, and the logits get no gradient. With separate inputs per task, a step makes one call per
    task.

    `Params.shared` is `{"nodes": [[...], ...], "routes": [theta^1 [N_2, N_1], ...]}` and `Params.tasks[k]` is
    `{"route": [N_J], "head": ...}`; the state is `{"calls": int32 [], "nodes": [[...], ...], "tasks": {k: ...}}`. Until
    the model is pruned, each task may reach each node. So for a subset of the tasks, the model runs all nodes and only
    these tasks' heads. `encode` returns the outputs of the last nodes, stacked: leaves `[N_J, B, ...]`.

    Args:
        stages: J networks in order, each from features to features; the nodes of a stage are copies of its network,
            each initialized with its own key.
        heads: network from the last features to outputs, by task name.
        widths: number of nodes per stage, one number or one per stage; None (default) for the number of tasks, the
            largest that a tree needs.
        temperature: temperature of the softmax in the backward pass, positive; or a function
            `(training calls int32 []) -> []`. Default 1. May be traced.
        warmup: number of training calls with equal probabilities. Default 0. May be traced.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None. Logits are float32; what a child reads has the
        features' dtype.

    References:
        Guo, Lee and Ulbricht, "Learning to Branch for Multi-Task Learning", ICML 2020. As here, each child reads one
        discrete parent in the forward pass. Here the candidate parents are all nodes of the stage before.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> stages, heads = [dense(8), dense(4)], {"depth": dense(1), "label": dense(10)}
        >>> model = ltb(stages, heads, temperature=lambda calls: 5.0 / jnp.sqrt(1.0 + calls / 100), warmup=200)
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> params.shared["routes"][0].shape, params.tasks["depth"]["route"].shape
        ((2, 2), (2,))
    """
    names = check_heads("ltb", heads)
    stages = check_networks("ltb", "stages", stages)
    sizes = _checked_widths(widths, len(stages), len(names))
    if not callable(temperature):
        check_number("ltb", "temperature", temperature, above=0)
    check_count("ltb", "warmup", warmup, least=0, traced=True)

    def choose(logits: Array, stacked: PyTree, calls: Array, key: Key | None, train: bool) -> PyTree:
        """Inputs of C children, leaves `[C, ...]`, from their logits `[C, N]` and the parents' outputs `[N, ...]`."""
        if key is None or not train:
            # Indexed rather than multiplied: exact in any dtype, and NaN of a parent that is not chosen has no effect.
            picked = jnp.argmax(logits, axis=-1)
            return jax.tree.map(lambda leaf: leaf.at[picked].get(mode="promise_in_bounds"), stacked)
        theta = jnp.where(calls < warmup, 0.0, logits.astype(trees.accumulator(logits.dtype)))
        heat = check_number("ltb", "temperature(calls)", temperature(calls)) if callable(temperature) else temperature
        heat = jnp.asarray(heat, theta.dtype)
        noisy = theta + jax.random.gumbel(key, theta.shape, theta.dtype)
        soft = jax.nn.softmax(noisy / heat, axis=-1)
        hard = jax.nn.one_hot(jnp.argmax(noisy, axis=-1), noisy.shape[-1], dtype=noisy.dtype)
        weights = hard + (soft - lax.stop_gradient(soft))  # exactly hard; the derivative is that of soft
        return jax.tree.map(lambda leaf: _mixed(weights, leaf), stacked)

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        x = input_of(inputs, names[0])
        nodes, states = [], []
        for j, (stage, size) in enumerate(zip(stages, sizes, strict=True)):
            made = [stage.init(key_for(key, node_part(j, i)), x) for i in range(size)]
            x, _ = stage.apply(*made[0], x)
            nodes.append([params for params, _ in made])
            states.append([state for _, state in made])
        routes = [jnp.zeros((after, before), jnp.float32) for before, after in itertools.pairwise(sizes)]
        tasks, task_states = {}, {}
        for name in names:
            head, task_states[name] = heads[name].init(key_for(key, f"task/{name}"), x)
            tasks[name] = {"route": jnp.zeros(sizes[-1], jnp.float32), "head": head}
        state = {"calls": jnp.zeros((), jnp.int32), "nodes": states, "tasks": task_states}
        return Params(shared={"nodes": nodes, "routes": routes}, tasks=tasks), state

    def encode(
        shared: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[PyTree, PyTree]:
        stacked, states, read = None, [], [inputs] * sizes[0]
        for j, stage in enumerate(stages):
            if j:
                logits = shared["routes"][j - 1]
                chosen = choose(logits, stacked, state["calls"], key_for(key, f"route/{j}"), train)
                read = [_row(chosen, i) for i in range(sizes[j])]
            found = []
            for i, x in enumerate(read):
                own = key_for(key, node_part(j, i))
                found.append(stage.apply(shared["nodes"][j][i], state["nodes"][j][i], x, key=own, train=train))
            stacked = trees.stack([features for features, _ in found])
            states.append([moved for _, moved in found])
        return stacked, state | {"nodes": states}

    def decode(
        tasks_params: PyTree,
        state: PyTree,
        features: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        outputs, states, calls = {}, dict(state["tasks"]), state["calls"]
        for name in selected(names, tasks):
            own = tasks_params[name]
            read = choose(own["route"][None, :], features, calls, key_for(key, f"task/{name}/route"), train)
            outputs[name], states[name] = heads[name].apply(
                own["head"],
                states[name],
                _row(read, 0),
                key=key_for(key, f"task/{name}"),
                train=train,
            )
        return outputs, state | {"tasks": states, "calls": calls + 1 if train else calls}

    return encoder_and_heads(names, init, encode, decode)


def prune(
    stages: Sequence[Network], heads: Mapping[str, Network], params: Params, state: PyTree
) -> tuple[Model, Params, PyTree]:
    """The tree that `ltb` has learned: each head with its likeliest parent, that node's likeliest parent, and so on.

    The tree's outputs equal those of the `ltb` model with `train=False`, but only the chosen nodes run. A node that
    several tasks pass stays shared; one that a single task passes moves to `Params.tasks`. Training may go on from the
    returned parameters, or start again from the tree's own `init`.

    Args:
        stages: as given to `ltb`.
        heads: as given to `ltb`.
        params: parameters of the `ltb` model; not traced, since they decide which nodes the tree has.
        state: state of the `ltb` model.

    Returns:
        `(model, params, state)` of the `tree`.

    Raises:
        TypeError: the parameters are traced.
        ValueError: the parameters have another number of stages, or other tasks.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> stages, heads = [dense(8), dense(4)], {"depth": dense(1), "label": dense(10)}
        >>> params, state = ltb(stages, heads).init(jax.random.key(0), jnp.ones((2, 3)))
        >>> params.tasks["label"]["route"] = jnp.array([0.0, 1.0])
        >>> model, params, state = prune(stages, heads, params, state)
        >>> sorted(params.shared), {name: sorted(own) for name, own in params.tasks.items()}
        (['node/0/0'], {'depth': ['head', 'node/1/0'], 'label': ['head', 'node/1/1']})
    """
    names = check_heads("prune", heads)
    stages = check_networks("prune", "stages", stages)
    expect(isinstance(params, Params), "prune", "params", "mtljax.Params", params, TypeError)
    learned = isinstance(params.shared, Mapping) and {"nodes", "routes"} <= set(params.shared)
    expect(learned, "prune", "params", "parameters of ltb", params, ValueError)
    nodes, routes = params.shared["nodes"], params.shared["routes"]
    if len(nodes) != len(stages):
        raise ValueError(f"prune: stages must be the {len(nodes)} stages of params, found {len(stages)}")
    if set(params.tasks) != set(names):
        raise ValueError(f"prune: heads must be for the tasks of params, {sorted(params.tasks)}, found {list(names)}")
    ends = {name: params.tasks[name]["route"] for name in names}
    if any(isinstance(leaf, Tracer) for leaf in [*routes, *ends.values()]):
        raise TypeError("prune: params must be concrete, found traced arrays; call prune outside of jit")
    likeliest = [np.argmax(np.asarray(route, np.float64), axis=-1) for route in routes]
    paths = {}
    for name in names:
        path = [int(np.argmax(np.asarray(ends[name], np.float64)))]
        for parents in reversed(likeliest):
            path.append(int(parents[path[-1]]))
        paths[name] = tuple(reversed(path))
    passed = sorted({(j, node) for path in paths.values() for j, node in enumerate(path)})
    kept = file_nodes(names, paths).params({node_part(j, node): nodes[j][node] for j, node in passed})
    for name in names:
        kept.tasks[name]["head"] = params.tasks[name]["head"]
    states = {node_part(j, node): state["nodes"][j][node] for j, node in passed}
    return tree(stages, heads, paths), kept, {"nodes": states, "tasks": state["tasks"]}


def _row(stacked: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def _mixed(weights: Array, leaf: Array) -> Array:
    """`[C, N]`, `[N, ...]` -> `[C, ...]`: weighted sums along the first axis."""
    wide = trees.accumulator(leaf.dtype)
    mixed = lax.dot_general(
        weights.astype(wide), leaf.astype(wide), (((1,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
    )
    return mixed.astype(leaf.dtype)


def _checked_widths(widths: int | Sequence[int] | None, num_stages: int, num_tasks: int) -> tuple[int, ...]:
    if widths is None:
        widths = num_tasks
    if is_sequence(widths):
        sizes = tuple(check_count("ltb", f"widths[{j}]", size) for j, size in enumerate(widths))
    else:
        sizes = (check_count("ltb", "widths", widths),) * num_stages
    if len(sizes) != num_stages:
        raise ValueError(f"ltb: widths must hold one number per stage, {num_stages} numbers, found {sizes}")
    return sizes
