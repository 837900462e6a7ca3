"""Multi-task attention network: each task multiplies the features of one shared trunk by its own masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mtljax import trees
from mtljax.checks import expect
from mtljax.sharing.frames.channels import channels_last, concatenated
from mtljax.sharing.frames.encoder import encoder_and_heads
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.network import (
    Network,
    check_heads,
    check_network,
    check_networks,
    is_sequence,
    key_for,
    selected,
)
from mtljax.types import Array, Key, Model, Params, PyTree

Stage = Network | tuple[Network, Network]


def mtan(
    stages: Sequence[Stage],
    heads: Mapping[str, Network],
    masks: Sequence[Network],
    forward: Sequence[Network],
) -> Model:
    r"""One shared trunk; at each stage, each task multiplies the shared features by a mask that it computes.

        u^j, p^j    = stage_j(p^{j-1})                                     the trunk, the same for all tasks
        m_k^1       = mask_k^1(u^1),    m_k^j = mask_k^j([u^j; f^j(a_k^{j-1})])   for j >= 2
        a_k^j       = sigmoid(m_k^j) * p^j                                 element by element
        outputs_k   = head_k(a_k^J)

    The brackets concatenate along the last axis (channels last). If a stage is one network, `u^j = p^j` is its output.
    If it is a pair of networks, `u^j` is the output of the first and `p^j` that of the second. The pair is the paper's
    case, where a mask is computed from features halfway through its stage.

    `Params.shared` is `{"stages": [[...], ...], "forward": [...]}`, where the entry of a stage is a list with one item
    per network. `Params.tasks[k]` is `{"masks": [...], "head": ...}`. The networks `f^j` are shared, as in the paper,
    so every task's loss reaches them. They run once per task, and their state passes from task to task in sorted order
    of names. `encode` returns the trunk's features at all stages, and the parameters of `f`, which `decode` needs:
    `{"stages": [[u^1, p^1], ...], "forward": [...]}`.

    Args:
        stages: J networks, or pairs of networks, in order; each maps features to features, `[B, ..., C_j]`.
        heads: network from the last masked features, shaped like `p^J`, to outputs, by task name.
        masks: J networks, of which each task gets its own copy, from the concatenation in the brackets to logits of
            exactly the shape of `p^j`.
        forward: J - 1 networks `f^2` to `f^J`; `f^j` maps features shaped like `p^{j-1}` to features whose axes but the
            last equal those of `u^j`.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None. Sigmoids are computed in float32 at least; masked
        features have the features' dtype.

    References:
        Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019. In the paper `mask_k^j` is
        two 1x1 convolutions (`g` and `h`) and `f^j` a 3x3 convolution with pooling, all with batch normalisation.
        Departures: here `mtan` applies the sigmoid to the outputs of the mask network, and the layers after the last
        masked features are part of the head. In the decoder of the authors' code (lorenmt/mtan) `u^j` is the upsampled
        input of a stage, before its convolutions, and `f^j` upsamples instead of pooling.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> heads = {"depth": dense(1), "label": dense(10)}
        >>> model = mtan([dense(8), (dense(6), dense(4))], heads, masks=[dense(8), dense(4)], forward=[dense(6)])
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> jax.tree.map(jnp.shape, params.tasks["depth"])
        {'head': (4, 1), 'masks': [(8, 8), (12, 4)]}
    """
    names = check_heads("mtan", heads)
    expect(is_sequence(stages), "mtan", "stages", "a sequence of Network or of pairs", stages, TypeError)
    blocks = [_block(j, stage) for j, stage in enumerate(stages)]
    if not blocks:
        raise ValueError("mtan: stages must hold at least one stage, found none")
    masks = check_networks("mtan", "masks", masks, count=len(blocks))
    forward = check_networks("mtan", "forward", forward, count=len(blocks) - 1)

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        x = input_of(inputs, names[0])
        trunk, trunk_state, features = [], [], []
        for j, block in enumerate(blocks):
            found = []
            trunk.append([])
            trunk_state.append([])
            for i, network in enumerate(block):
                params, state = network.init(key_for(key, f"stage/{j}/{i}"), x)
                x, _ = network.apply(params, state, x)
                trunk[j].append(params)
                trunk_state[j].append(state)
                found.append(x)
            features.append(found)

        passed, passed_state, seen = [], [], [features[0][0]]
        for j, network in enumerate(forward, start=1):
            params, state = network.init(key_for(key, f"forward/{j}"), features[j - 1][-1])
            found, _ = network.apply(params, state, features[j - 1][-1])
            passed.append(params)
            passed_state.append(state)
            seen.append(_joined(j, features[j][0], found))

        tasks, states = {}, {}
        for name in names:
            own = [mask.init(key_for(key, f"task/{name}/mask/{j}"), seen[j]) for j, mask in enumerate(masks)]
            # Masked features have the shape and dtype of the last stage's features, so the head starts from those.
            head, head_state = heads[name].init(key_for(key, f"task/{name}"), features[-1][-1])
            tasks[name] = {"masks": [params for params, _ in own], "head": head}
            states[name] = {"masks": [state for _, state in own], "head": head_state}
        state = {"stages": trunk_state, "forward": passed_state, "tasks": states}
        return Params(shared={"stages": trunk, "forward": passed}, tasks=tasks), state

    def encode(
        shared: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[PyTree, PyTree]:
        x, features, after = inputs, [], []
        for j, block in enumerate(blocks):
            found, states = [], []
            for i, network in enumerate(block):
                own = key_for(key, f"stage/{j}/{i}")
                x, moved = network.apply(shared["stages"][j][i], state["stages"][j][i], x, key=own, train=train)
                found.append(x)
                states.append(moved)
            features.append(found)
            after.append(states)
        return {"stages": features, "forward": shared["forward"]}, state | {"stages": after}

    def decode(
        tasks_params: PyTree,
        state: PyTree,
        features: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        outputs, states, passed_state = {}, dict(state["tasks"]), list(state["forward"])
        for name in selected(names, tasks):
            own, before = tasks_params[name], states[name]
            attended: Array | None = None
            after = []
            for j, (mask, found) in enumerate(zip(masks, features["stages"], strict=True)):
                passed = None
                if j:
                    passed, passed_state[j - 1] = forward[j - 1].apply(
                        features["forward"][j - 1],
                        passed_state[j - 1],
                        attended,
                        key=key_for(key, f"task/{name}/forward/{j}"),
                        train=train,
                    )
                logits, moved = mask.apply(
                    own["masks"][j],
                    before["masks"][j],
                    _joined(j, found[0], passed),
                    key=key_for(key, f"task/{name}/mask/{j}"),
                    train=train,
                )
                attended = _masked(j, logits, found[-1])
                after.append(moved)
            outputs[name], head_state = heads[name].apply(
                own["head"], before["head"], attended, key=key_for(key, f"task/{name}"), train=train
            )
            states[name] = {"masks": after, "head": head_state}
        return outputs, state | {"forward": passed_state, "tasks": states}

    return encoder_and_heads(names, init, encode, decode)


def _block(j: int, stage: Any) -> tuple[Network, ...]:
    pair = check_networks("mtan", f"stages[{j}]", stage, count=2) if is_sequence(stage) else ()
    return pair or (check_network("mtan", f"stages[{j}]", stage, expected="a Network or a pair of them"),)


def _joined(j: int, u: Any, passed: Any) -> Array:
    """The input of the mask of stage j."""
    parts = {f"the features of stage {j}": u}
    return concatenated("mtan", parts if passed is None else parts | {f"the output of forward[{j - 1}]": passed})


def _masked(j: int, logits: Any, p: Any) -> Array:
    """`sigmoid(logits) * p`, of the dtype of p."""
    p = channels_last("mtan", f"the features of stage {j}", p)
    logits = channels_last("mtan", f"the logits of masks[{j}]", logits)
    if logits.shape != p.shape:
        raise ValueError(
            f"mtan: masks[{j}] must return logits of the features' shape {p.shape}, found shape {logits.shape}"
        )
    wide = trees.accumulator(p.dtype)
    return (jax.nn.sigmoid(logits.astype(wide)) * p.astype(wide)).astype(p.dtype)
