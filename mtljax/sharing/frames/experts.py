"""What the mixtures of experts have in common: lists of experts, gates, mixing, and the frame of their models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_count
from mtljax.sharing.frames.encoder import encoder_and_heads
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.network import Network, check_network, check_networks, is_sequence, key_for, selected
from mtljax.trees import accumulator
from mtljax.types import Array, Key, Model, Params, PyTree

# run(block, network, inputs) -> outputs: applies the network with the parameters and state kept under that name.
Run = Callable[[str, Network, PyTree], Any]
Initializer = Callable[[Key, tuple[int, ...], Any], Array]


def assemble(
    where: str,
    names: tuple[str, ...],
    trunk: Callable[[Run, PyTree], PyTree],
    branch: Callable[..., Any],
    *,
    encoder: Network | None = None,
) -> Model:
    """A model from what all tasks run and what each task runs alone, both written once, for `init` and `apply` alike.

        outputs_k = branch_k(trunk(encoder(inputs)))

    `params.shared[block]` are the parameters of each network that `encoder` and `trunk` run, by block name, and
    `params.tasks[k][block]` of each that task k's branch runs. The state is `{"shared": ..., "tasks": {k: ...}}` of the
    same form. Keys are made of block names, and of the task's name in a branch.

    Args:
        where: the public function asking, which opens the messages.
        names: task names, sorted.
        trunk: `trunk(run, encoded) -> features`, where `run(block, network, inputs) -> outputs`.
        branch: `branch(run, name, features, *, key, train) -> outputs`, a task's outputs from the features; `run` as
            above, with that task's parameters; `key` is the task's own, for what it draws itself, or None. It must run
            the same blocks whatever `train` is, since `init` calls it too.
        encoder: what all read in place of the inputs, block `"encoder"`; None for the inputs themselves.

    Returns:
        `Model` with `encode` and `decode`.
    """
    if encoder is not None:
        check_network(where, "encoder", encoder)

    def walk(run: Run, inputs: PyTree) -> PyTree:
        return trunk(run, inputs if encoder is None else run("encoder", encoder, inputs))

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        shared, shared_state = {}, {}
        features = walk(_starting(shared, shared_state, key), input_of(inputs, names[0]))
        params, states = {}, {}
        for name in names:
            params[name], states[name] = {}, {}
            run = _starting(params[name], states[name], key, f"/{name}")
            branch(run, name, features, key=None, train=False)
        return Params(shared=shared, tasks=params), {"shared": shared_state, "tasks": states}

    def encode(
        shared: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[PyTree, PyTree]:
        states = dict(state["shared"])
        features = walk(_running(shared, states, key, train), inputs)
        return features, {"shared": states, "tasks": state["tasks"]}

    def decode(
        tasks_params: PyTree,
        state: PyTree,
        features: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        outputs, states = {}, dict(state["tasks"])
        for name in selected(names, tasks):
            states[name] = dict(states[name])
            run = _running(tasks_params[name], states[name], key, train, f"/{name}")
            outputs[name] = branch(run, name, features, key=key_for(key, f"task/{name}"), train=train)
        return outputs, {"shared": state["shared"], "tasks": states}

    return encoder_and_heads(names, init, encode, decode)


def _starting(params: dict[str, PyTree], states: dict[str, PyTree], key: Key, suffix: str = "") -> Run:
    """A `run` that starts each network before it runs it, and keeps what it started in the two dicts."""

    def run(block: str, network: Network, inputs: PyTree) -> Any:
        params[block], states[block] = network.init(key_for(key, block + suffix), inputs)
        return network.apply(params[block], states[block], inputs)[0]

    return run


def _running(
    params: dict[str, PyTree], states: dict[str, PyTree], key: Key | None, train: bool, suffix: str = ""
) -> Run:
    """A `run` that applies each network with its parameters, and puts its new state in place of the old."""

    def run(block: str, network: Network, inputs: PyTree) -> Any:
        outputs, states[block] = network.apply(
            params[block], states[block], inputs, key=key_for(key, block + suffix), train=train
        )
        return outputs

    return run


def expert_list(where: str, expert: Network | Sequence[Network], number: int | None) -> tuple[Network, ...]:
    """The experts: `number` times one network, each with an init of its own, or several networks as they are.

    Raises:
        TypeError: something that is not a `Network`, a number that is not an integer.
        ValueError: no experts, or several networks and another number.

    Example:
        >>> double = Network(lambda key, x: ((), ()), lambda params, state, x, *, key=None, train=False: (2 * x, state))
        >>> len(expert_list("mmoe", double, 3)), len(expert_list("mmoe", [double, double], None))
        (3, 2)
    """
    if isinstance(expert, Network):
        return (expert,) * check_count(where, "num_experts", number)
    if not is_sequence(expert):
        check_network(where, "expert", expert, expected="a Network or a sequence of them")
    experts = check_networks(where, "expert", expert)
    if number is not None and check_count(where, "num_experts", number) != len(experts):
        raise ValueError(f"{where}: num_experts must be None or the {len(experts)} networks given, found {number}")
    return experts


def run_experts(where: str, run: Run, *groups: tuple[str, Sequence[Network], PyTree]) -> list[PyTree]:
    """Run experts, each group `(block, experts, inputs)` on its own inputs, as blocks `"block/0"` and on.

    All outputs in a row are one stacked pytree `[B, E, ...]`, returned in a list, which is empty where there are no
    experts. The experts run one after the other, in a plain loop: blocks vmapped over their weights are slow on CPU
    where they convolve.

    Raises:
        ValueError: experts whose outputs differ in structure, shape or dtype.
        TypeError: outputs that are not floating.
    """
    blocks = [(f"{block}/{i}", expert, inputs) for block, experts, inputs in groups for i, expert in enumerate(experts)]
    if not blocks:
        return []
    outputs = [run(*each) for each in blocks]
    kinds = [jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", each) for each in outputs]
    for (block, *_), kind in zip(blocks, kinds, strict=True):
        if kind != kinds[0]:
            raise ValueError(
                f"{where}: experts must return one form of output to be mixed, but {blocks[0][0]} returns {kinds[0]} "
                f"and {block} {kind}"
            )
    for leaf in jax.tree.leaves(outputs[0]):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating) or not jnp.ndim(leaf):
            raise TypeError(f"{where}: experts must return floating arrays [B, ...] to be mixed, found {kinds[0]}")
    return [jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *outputs)]


def mix(where: str, weights: Array, stacks: Sequence[PyTree]) -> PyTree:
    """Mix the experts of several stacks, in a row, example by example: `sum_e weights[b, e] f_e[b]`.

    Args:
        where: the public function asking, which opens the message.
        weights: `[B, E]`, E experts in all stacks together.
        stacks: pytrees `[B, E_s, ...]` of one structure; features may have any trailing shape.

    Returns:
        Pytree `[B, ...]`, in the experts' dtype; summed in float32 at least.

    Raises:
        ValueError: stacks that do not fit one another or the weights.

    Example:
        >>> weights, stack = jnp.array([[0.25, 0.75]]), jnp.array([[[4.0, 0.0], [0.0, 4.0]]])
        >>> mix("mmoe", weights, [stack]).tolist()
        [[1.0, 3.0]]
    """

    def leaf(*leaves: Array) -> Array:
        shapes = [list(each.shape) for each in leaves]
        if len({(each.dtype, each.shape[0], *each.shape[2:]) for each in leaves}) > 1:
            raise ValueError(f"{where}: experts that are mixed must return one form of output, found stacks {shapes}")
        if weights.shape != (leaves[0].shape[0], sum(each.shape[1] for each in leaves)):
            raise ValueError(f"{where}: gate weights {list(weights.shape)} do not fit experts stacked to {shapes}")
        dtype = accumulator(jnp.promote_types(leaves[0].dtype, weights.dtype))
        parts, first = [], 0
        for each in leaves:
            own = lax.slice_in_dim(weights, first, first + each.shape[1], axis=1).astype(dtype)
            # One product over the expert axis, the examples as its batch. HIGHEST, because the default on accelerators
            # rounds operands; the product waits for memory, so that costs nothing.
            parts.append(
                lax.dot_general(own, each.astype(dtype), (((1,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)
            )
            first += each.shape[1]
        return functools.reduce(jnp.add, parts).astype(leaves[0].dtype)

    structures = {jax.tree.structure(stack) for stack in stacks}
    if len(structures) != 1:
        raise ValueError(f"{where}: experts that are mixed must return one form of output, found {structures}")
    return jax.tree.map(leaf, *stacks)


def linear(where: str, size: int, *, init: Initializer | None = None) -> Network:
    """The default gate: logits `W^T x` `[B, size]` of inputs `[B, d]`, without a bias. Its parameter is W, `[d, size]`.

    W and the product are float32 at least; W starts at truncated normal values of variance 1 / d, or by `init`.

    Raises:
        ValueError: from `init`, inputs that are not `[B, d]`: which features of an image or a sequence a gate should
            read is the caller's to say.
        TypeError: from `init`, inputs that are not one floating array.

    Example:
        >>> w, state = jax.eval_shape(linear("mmoe", 4).init, jax.random.key(0), jnp.ones((2, 3)))
        >>> w.shape
        (3, 4)
    """

    def start(key: Key, inputs: PyTree) -> tuple[Array, tuple[()]]:
        advice = f"give a gate from those inputs to logits [B, {size}], or an encoder"
        kind = getattr(inputs, "dtype", None)
        if kind is None or not jnp.issubdtype(kind, jnp.floating):
            raise TypeError(f"{where}: the default gate reads a floating array, found {kind or type(inputs)}; {advice}")
        if len(inputs.shape) != 2:
            raise ValueError(f"{where}: the default gate reads inputs [B, d], found {list(inputs.shape)}; {advice}")
        make = jax.nn.initializers.lecun_normal() if init is None else init
        return make(key, (inputs.shape[1], size), accumulator(inputs.dtype)), ()

    def apply(
        w: Array, state: PyTree, inputs: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, PyTree]:
        dtype = accumulator(jnp.promote_types(w.dtype, inputs.dtype))
        return jnp.matmul(inputs.astype(dtype), w.astype(dtype), precision=lax.Precision.HIGHEST), state

    return Network(start, apply)


def gate_or_linear(where: str, gate: Network | None, size: int, *, init: Initializer | None = None) -> Network:
    """The caller's gate, after checking that it is a `Network`, or the default one of that size."""
    if gate is None:
        return linear(where, size, init=init)
    return check_network(where, "gate", gate)


def logits_of(where: str, run: Run, block: str, gate: Network, inputs: PyTree, size: int) -> Array:
    """A gate's logits `[B, size]`, float32 at least.

    Raises:
        ValueError: logits of another shape.
    """
    logits = jnp.asarray(run(block, gate, inputs))
    if logits.ndim != 2 or logits.shape[1] != size:
        raise ValueError(f"{where}: the gate must return logits [B, {size}], found {list(logits.shape)}")
    return logits.astype(accumulator(logits.dtype))
