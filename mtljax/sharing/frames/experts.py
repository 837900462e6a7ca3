"""The common parts of the mixtures of experts: lists of experts, gates, mixing, and the model around them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_count
from mtljax.sharing.frames.bank import Keyed, run_entries, start_entries
from mtljax.sharing.frames.encoder import encoder_and_heads
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.network import Network, check_network, check_networks, is_sequence, key_for, selected
from mtljax.trees import accumulator
from mtljax.types import Array, Key, Model, Params, PyTree

# run(block, network, inputs) -> outputs: applies the network with the parameters and state stored under `block`.
Run = Callable[[str, Network, PyTree], Any]
Initializer = Callable[[Key, tuple[int, ...], Any], Array]


def assemble(
    where: str,
    names: tuple[str, ...],
    trunk: Callable[[Run, PyTree], PyTree],
    branch: Callable[..., Any],
    *,
    encoder: Network | None = None,
    banks: Mapping[str, tuple[str, ...]] = {},
) -> Model:
    """A model from two functions, the trunk of all tasks and the branch of one task; each serves `init` and `apply`.

        outputs_k = branch_k(trunk(encoder(inputs)))

    `params.shared[block]` are the parameters of a network that `encoder` or `trunk` runs, by block name.
    `params.tasks[k][block]` are those of a network that task k's branch runs. The state is
    `{"shared": ..., "tasks": {k: ...}}` of the same form. Keys come from block names, in a branch also from the task's
    name. Parameters and state of a bank of n tasks have a leading axis `[n, ...]`.

    Args:
        where: the public function that calls this one; messages start with its name.
        names: task names, sorted.
        trunk: `trunk(run, encoded) -> features`, where `run(block, network, inputs) -> outputs`.
        branch: `branch(run, name, features, *, key, train) -> outputs`, a task's outputs from the features. `run` is as
            above, with that task's parameters; `key` is the task's key for the branch's own random draws, or None. The
            branch must run the same blocks whatever `train` is, since `init` calls it too.
        encoder: network whose output the trunk reads in place of the inputs, block `"encoder"`; None for the inputs
            themselves.
        banks: the tasks of each entry that is a bank; the branch runs for one of them, and is mapped.

    Returns:
        `Model` with `encode` and `decode`.
    """
    if encoder is not None:
        check_network(where, "encoder", encoder)

    def walk(run: Run, inputs: PyTree) -> PyTree:
        return trunk(run, inputs if encoder is None else run("encoder", encoder, inputs))

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        shared, shared_state = {}, {}
        features = walk(_starting(shared, shared_state, lambda block: key_for(key, block)), input_of(inputs, names[0]))

        def start(name: str, keyed: Keyed, features: PyTree) -> tuple[PyTree, PyTree]:
            params, state = {}, {}
            branch(_starting(params, state, keyed), name, features, key=None, train=False)
            return params, state

        params, states = start_entries(start, key, names, banks, features)
        return Params(shared=shared, tasks=params), {"shared": shared_state, "tasks": states}

    def encode(
        shared: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[PyTree, PyTree]:
        states = dict(state["shared"])
        features = walk(_running(shared, states, lambda block: key_for(key, block), train), inputs)
        return features, {"shared": states, "tasks": state["tasks"]}

    def decode(
        tasks_params: PyTree,
        state: PyTree,
        features: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
        task: Mapping[str, Array] = {},
    ) -> tuple[dict[str, Any], PyTree]:
        def one(name: str, own: PyTree, state: PyTree, keyed: Keyed, features: PyTree) -> tuple[Any, PyTree]:
            state = dict(state)
            run = _running(own, state, keyed, train)
            return branch(run, name, features, key=keyed("task"), train=train), state

        outputs, states = run_entries(
            one, selected(names, tasks), tasks_params, state["tasks"], key, banks, lambda _: features, task
        )
        return outputs, {"shared": state["shared"], "tasks": states}

    return encoder_and_heads(names, init, encode, decode, banks=banks)


def _starting(params: dict[str, PyTree], states: dict[str, PyTree], keyed: Callable[[str], Any]) -> Run:
    """A `run` for `init`: initializes each network, stores parameters and state in the two dicts, and applies it."""

    def run(block: str, network: Network, inputs: PyTree) -> Any:
        params[block], states[block] = network.init(keyed(block), inputs)
        return network.apply(params[block], states[block], inputs)[0]

    return run


def _running(params: dict[str, PyTree], states: dict[str, PyTree], keyed: Callable[[str], Any], train: bool) -> Run:
    """A `run` for `apply`: applies each network with its parameters, and replaces its state by the new one."""

    def run(block: str, network: Network, inputs: PyTree) -> Any:
        outputs, states[block] = network.apply(params[block], states[block], inputs, key=keyed(block), train=train)
        return outputs

    return run


def expert_list(where: str, expert: Network | Sequence[Network], number: int | None) -> tuple[Network, ...]:
    """The experts: `number` copies of one network, each with its own initial values, or several networks as given.

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
    """Run groups of experts `(block, experts, inputs)`, each group on its own inputs, and stack the outputs.

    The experts of a group are the blocks `"block/0"`, `"block/1"` and so on. The result is a list with one pytree
    `[B, E, ...]`, the outputs of all experts in order; the list is empty if there are no experts. The experts run one
    after the other in a loop, because on CPU convolutions vmapped over their weights are slow.
    """
    blocks = [(f"{block}/{i}", expert, inputs) for block, experts, inputs in groups for i, expert in enumerate(experts)]
    if not blocks:
        return []
    outputs = [run(*each) for each in blocks]
    kinds = [jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", each) for each in outputs]
    for (block, *_), kind in zip(blocks, kinds, strict=True):
        if kind != kinds[0]:
            raise ValueError(
                f"{where}: experts that are mixed must return outputs of one structure, shape and dtype, found "
                f"{kinds[0]} from {blocks[0][0]} and {kind} from {block}"
            )
    for leaf in jax.tree.leaves(outputs[0]):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating) or not jnp.ndim(leaf):
            raise TypeError(f"{where}: experts must return floating arrays [B, ...] to be mixed, found {kinds[0]}")
    return [jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *outputs)]


def mix_experts(where: str, weights: Array, stacks: Sequence[PyTree]) -> PyTree:
    """Mix the experts of all stacks, example by example: `sum_e weights[b, e] f_e[b]`.

    Args:
        where: the public function that calls this one; the message starts with its name.
        weights: `[B, E]` for the E experts of all stacks, in order.
        stacks: pytrees `[B, E_s, ...]` of one structure; features may have any trailing shape.

    Returns:
        Pytree `[B, ...]`, in the experts' dtype; summed in float32 at least.

    Example:
        >>> weights, stack = jnp.array([[0.25, 0.75]]), jnp.array([[[4.0, 0.0], [0.0, 4.0]]])
        >>> mix_experts("mmoe", weights, [stack]).tolist()
        [[1.0, 3.0]]
    """

    def leaf(*leaves: Array) -> Array:
        shapes = [list(each.shape) for each in leaves]
        if len({(each.dtype, each.shape[0], *each.shape[2:]) for each in leaves}) > 1:
            raise ValueError(
                f"{where}: experts that are mixed must return outputs of one shape and dtype, found stacks {shapes}"
            )
        expected = (leaves[0].shape[0], sum(each.shape[1] for each in leaves))
        if weights.shape != expected:
            raise ValueError(f"{where}: gate weights must be of shape {expected}, found shape {weights.shape}")
        dtype = accumulator(jnp.promote_types(leaves[0].dtype, weights.dtype))
        parts, first = [], 0
        for each in leaves:
            own = lax.slice_in_dim(weights, first, first + each.shape[1], axis=1).astype(dtype)
            # One product over the expert axis, batched over examples. HIGHEST, because the default on accelerators
            # rounds operands. It costs nothing, since memory traffic bounds this product.
            parts.append(
                lax.dot_general(own, each.astype(dtype), (((1,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)
            )
            first += each.shape[1]
        return functools.reduce(jnp.add, parts).astype(leaves[0].dtype)

    structures = {jax.tree.structure(stack) for stack in stacks}
    if len(structures) != 1:
        raise ValueError(f"{where}: experts that are mixed must return outputs of one structure, found {structures}")
    return jax.tree.map(leaf, *stacks)


def linear(where: str, size: int, *, init: Initializer | None = None) -> Network:
    """The default gate: logits `W^T x` `[B, size]` of inputs `[B, d]`, without a bias. Its parameter is W, `[d, size]`.

    W and the product are float32 at least. W starts from a truncated normal distribution of variance 1 / d, or from
    `init`.

    Raises:
        ValueError: from `init`, inputs are not `[B, d]`: the caller must say which features of an image or a sequence a
            gate reads.
        TypeError: from `init`, inputs are not one floating array.

    Example:
        >>> w, state = jax.eval_shape(linear("mmoe", 4).init, jax.random.key(0), jnp.ones((2, 3)))
        >>> w.shape
        (3, 4)
    """

    def start(key: Key, inputs: PyTree) -> tuple[Array, tuple[()]]:
        advice = f"give a gate from those inputs to logits [B, {size}], or an encoder"
        kind = getattr(inputs, "dtype", None)
        if kind is None or not jnp.issubdtype(kind, jnp.floating):
            raise TypeError(
                f"{where}: a default gate's inputs must be floating, found {kind or type(inputs)}; {advice}"
            )
        if len(inputs.shape) != 2:
            raise ValueError(f"{where}: a default gate's inputs must be [B, d], found {list(inputs.shape)}; {advice}")
        make = jax.nn.initializers.lecun_normal() if init is None else init
        return make(key, (inputs.shape[1], size), accumulator(inputs.dtype)), ()

    def apply(
        w: Array, state: PyTree, inputs: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, PyTree]:
        dtype = accumulator(jnp.promote_types(w.dtype, inputs.dtype))
        return jnp.matmul(inputs.astype(dtype), w.astype(dtype), precision=lax.Precision.HIGHEST), state

    return Network(start, apply)


def gate_or_linear(where: str, gate: Network | None, size: int, *, init: Initializer | None = None) -> Network:
    """The given gate, after checking that it is a `Network`, or else the default gate of that size."""
    if gate is None:
        return linear(where, size, init=init)
    return check_network(where, "gate", gate)


def logits_of(where: str, run: Run, block: str, gate: Network, inputs: PyTree, size: int) -> Array:
    """A gate's logits `[B, size]`, float32 at least."""
    logits = jnp.asarray(run(block, gate, inputs))
    if logits.ndim != 2 or logits.shape[1] != size:
        raise ValueError(f"{where}: the gate must return logits [B, {size}], found {list(logits.shape)}")
    return logits.astype(accumulator(logits.dtype))
