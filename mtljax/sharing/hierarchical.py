"""Tasks at different depths of one trunk: simple tasks read low layers; higher layers may read their predictions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_callable, check_choice, check_count, check_flag, check_nonnegative, expect
from mtljax.sharing.frames.channels import channels_last, concatenated
from mtljax.sharing.frames.inputs import input_of, one_task_at_a_time
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import (
    Network,
    check_entries,
    check_heads,
    check_network,
    check_networks,
    key_for,
    selected,
    task_names,
)
from mtljax.sharing.frames.parts import file_parts
from mtljax.types import Array, Key, Model, Params, PyTree


def hierarchical(
    stages: Sequence[Network],
    heads: Mapping[str, Network],
    layers: Mapping[str, int],
    *,
    embed: Network | None = None,
    shortcut: bool = False,
    predictions: Sequence[str] = (),
    label_size: int | None = None,
    stop_predictions: bool = False,
) -> Model:
    r"""One trunk; each task reads the features of one stage, and higher stages may also read inputs and predictions.

        x = embed(inputs),   h^0 = stage_0(x),   h^l = stage_l([h^{l-1}; x; sum_k y_k])   for l >= 1
        outputs_k = head_k(h^{layers[k]}),   y_k = sum_j p(j) e_k(j),   p = softmax(outputs_k),   e_k [C_k, label_size]

    The brackets concatenate along the last axis (channels last). x is in the brackets only with `shortcut=True`. The
    sum is over the tasks k of `predictions` with `layers[k] < l`, and is left out if there are none. Without both, this
    is a row of stages with heads at several depths (Søgaard and Goldberg). With both, it is the joint many-task model
    of Hashimoto et al., whose penalty is `successive_regularization`.

    Parameters are dicts by part: `"embed"`, `"stage/<l>"`, `"head/<k>"` and `"label/<k>"`, which is `e_k` and starts
    from a normal distribution of variance `1 / label_size`. A part is in `Params.tasks[k]` if task k's loss alone
    reaches it (its head, and the stages above all other tasks), and in `Params.shared` otherwise. As in the paper,
    losses reach through predictions: the tasks above a task in `predictions` also train its head, which is then shared.
    With `stop_predictions=True` they do not, and the head is in `Params.tasks[k]`, although tasks above read its
    predictions. The state is a dict by part.

    For a subset of the tasks, the model runs the stages up to the highest of these tasks, and the heads below whose
    predictions those stages read.

    Args:
        stages: L networks, lowest first, each from the concatenation in the brackets to features `[B, ..., H_l]`.
        heads: network from features to outputs, by task name.
        layers: by task name, the stage whose features the head reads, 0 to L - 1; at least one task reads the last
            stage.
        embed: network from the inputs to the representation x, for example word embeddings; None (default) for the
            inputs themselves.
        shortcut: whether every stage reads x. Default False.
        predictions: tasks whose predictions the stages above them read; their outputs are logits `[B, ..., C_k]`, whose
            axes but the last equal those of the features. Default none.
        label_size: length of the label embeddings, positive; needed if there are `predictions`.
        stop_predictions: whether gradients stop at the predictions that are read. Default False.

    Returns:
        `Model`; `encode` and `decode` are None, since tasks read different features, and `penalty` is None. Softmaxes
        are computed in float32 at least; what is joined to the features has the features' dtype.

    Raises:
        ValueError: no task reads the last stage; `predictions` names a task of the last stage; `label_size` is given
            without `predictions`.

    References:
        Søgaard and Goldberg, "Deep Multi-Task Learning with Low Level Tasks Supervised at Lower Layers", ACL 2016.
        Hashimoto, Xiong, Tsuruoka and Socher, "A Joint Many-Task Model: Growing a Neural Network for Multiple NLP
        Tasks", EMNLP 2017. Departures: in the paper, the entailment classifier itself reads the label embedding of
        relatedness, which is not a separate layer here, and label embeddings start uniform in
        `+-sqrt(6 / (label_size + C_k))`. Pooling over the words is left to the sentence-level heads.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> heads = {"tags": dense(5), "parse": dense(3)}
        >>> layers = {"tags": 0, "parse": 1}
        >>> model = hierarchical(
        ...     [dense(8), dense(8)], heads, layers, shortcut=True, predictions=("tags",), label_size=4
        ... )
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 7, 6)))
        >>> {part: leaf.shape for part, leaf in params.tasks["parse"].items()}
        {'head/parse': (8, 3), 'label/tags': (5, 4), 'stage/1': (18, 8)}
        >>> sorted(params.shared)
        ['head/tags', 'stage/0']
    """
    names = check_heads("hierarchical", heads)
    stages = check_networks("hierarchical", "stages", stages)
    if embed is not None:
        check_network("hierarchical", "embed", embed)
    for what, flag in (("shortcut", shortcut), ("stop_predictions", stop_predictions)):
        check_flag("hierarchical", what, flag)
    depth = _checked_layers(names, len(stages), layers)
    read = _checked_predictions(names, depth, predictions, label_size)
    above = {name: [other for other in names if depth[other] > depth[name]] for name in names}
    reached_by = {f"stage/{level}": [name for name in names if depth[name] >= level] for level in range(len(stages))}
    reached_by |= {f"label/{name}": above[name] for name in read}
    for name in names:
        reached_by[f"head/{name}"] = [name, *(above[name] if name in read and not stop_predictions else [])]
    filing = file_parts(names, reached_by | ({} if embed is None else {"embed": names}))

    def run(visit: Any, inputs: PyTree, chosen: tuple[str, ...]) -> dict[str, Any]:
        """The forward pass of the chosen tasks; `visit(part, network, inputs)` runs or initializes one part."""
        x = inputs if embed is None else visit("embed", embed, inputs)
        top = max((depth[name] for name in chosen), default=-1)
        features, labels, outputs = x, [], {}
        for level in range(top + 1):
            if level:
                parts = {f"the output of stage {level - 1}": features}
                parts |= {"x, which stages read with shortcut=True,": x} if shortcut else {}
                parts |= {"the label embedding": _total(labels)} if labels else {}
                features = concatenated("hierarchical", parts) if len(parts) > 1 else features
            features = visit(f"stage/{level}", stages[level], features)
            for name in names:
                is_read = name in read and depth[name] < top
                if depth[name] == level and (name in chosen or is_read):
                    outputs[name] = visit(f"head/{name}", heads[name], features)
                    if is_read:
                        logits = _checked_logits(name, outputs[name], level, features)
                        logits = lax.stop_gradient(logits) if stop_predictions else logits
                        labels.append(visit(f"label/{name}", _labels(label_size, features.dtype), logits))
        return {name: outputs[name] for name in chosen}

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        parts, states = {}, {}

        def visit(part: str, network: Network, x: PyTree) -> Any:
            parts[part], states[part] = network.init(key_for(key, part), x)
            return network.apply(parts[part], states[part], x)[0]

        run(visit, input_of(inputs, names[0]), names)
        return filing.params(parts), states

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        after = dict(state)

        def visit(part: str, network: Network, x: PyTree) -> Any:
            own = key_for(key, part)
            outputs, after[part] = network.apply(filing.find(params, part), state[part], x, key=own, train=train)
            return outputs

        return run(visit, inputs, selected(names, tasks)), after

    return checked_model(names, init, one_task_at_a_time(names, apply))


def successive_regularization(
    anchor: Params, strength: Array | float, *, select: Callable[[Params], PyTree] | None = None
) -> Callable[[Params], Array]:
    r"""A penalty that keeps parameters near their values of an earlier point of training, the anchor.

        penalty(params) = strength * |select(params) - select(anchor)|^2

    The square is summed over all entries, without a factor 1/2. The result is a `penalty` for
    `training.make_train_step`. The paper trains one task at a time, lowest first. While it trains task k, the anchor
    holds the parameters after the training of the task before; for the lowest task, those after the last epoch. No
    gradient reaches the anchor. To change the anchor without compiling again, make the step inside the compiled
    function, with the anchor as an argument:

        @jax.jit
        def step(state, anchor, batch):
            penalty = successive_regularization(anchor, 0.01)
            return make_train_step(losses_fn, method, optimizer, penalty=penalty)[1](state, batch)

    Args:
        anchor: `Params` of the network, of any floating dtype. Copy the parameters to make it: a step that donates its
            state must not get their buffers twice.
        strength: non-negative scalar; may be traced. The paper has 0.01 for classifiers and 0.001 for all other
            parameters, which is the sum of two such penalties.
        select: function from `Params` to the parameters that the penalty holds; None (default) for `params.shared`. In
            the paper they are all parameters of the task below, with the embeddings:
            `lambda params: [params.shared[part] for part in parts]` with `parts = ("embed", "stage/0", "head/tags")`.
            For the lowest task they are the embeddings alone.

    Returns:
        `penalty(params) -> []`, float32, or float64 if a leaf is; its gradient has each leaf's dtype.

    Raises:
        ValueError: from the penalty, the parameters' leaves have other paths or shapes than the anchor's.

    References:
        Hashimoto, Xiong, Tsuruoka and Socher, "A Joint Many-Task Model: Growing a Neural Network for Multiple NLP
        Tasks", EMNLP 2017.

    Example:
        >>> anchor = Params(shared={"w": jnp.zeros(2)}, tasks={"a": ()})
        >>> penalty = successive_regularization(anchor, 0.5)
        >>> float(penalty(anchor._replace(shared={"w": jnp.array([1.0, 2.0])})))
        2.5
    """
    expect(isinstance(anchor, Params), "successive_regularization", "anchor", "mtljax.Params", anchor, TypeError)
    check_nonnegative("successive_regularization", "strength", strength)
    if select is not None:
        check_callable("successive_regularization", "select", select)
    held = lax.stop_gradient(anchor.shared if select is None else select(anchor))
    fixed = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(held)[0]}

    def penalty(params: Params) -> Array:
        expect(isinstance(params, Params), "successive_regularization", "params", "mtljax.Params", params, TypeError)
        moving = params.shared if select is None else select(params)
        leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(moving)[0]}
        total = jnp.zeros((), jnp.float32)
        for path in [*leaves, *fixed]:
            shapes = [tree[path].shape if path in tree else "no such leaf" for tree in (leaves, fixed)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"successive_regularization: leaf {path or 'itself'} of the parameters must be {shapes[1]}, as in "
                    f"the anchor, found {shapes[0]}"
                )
        for path, leaf in leaves.items():
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(
                    f"successive_regularization: leaf {path or 'itself'} must be of a floating-point type, "
                    f"found {leaf.dtype.name}"
                )
            wide = trees.accumulator(leaf.dtype)
            total = total + jnp.sum(jnp.square(leaf.astype(wide) - fixed[path].astype(wide)))
        return strength * total

    return penalty


def _labels(size: int | None, dtype: Any) -> Network:
    """Network from logits `[B, ..., C]` to the expected label embedding, `[B, ..., size]` of the given dtype."""

    def init(key: Key, logits: Array) -> tuple[PyTree, PyTree]:
        assert size is not None
        return jax.random.normal(key, (logits.shape[-1], size), dtype) / size**0.5, ()

    def apply(
        params: Array, state: PyTree, logits: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, PyTree]:
        wide = trees.accumulator(logits.dtype)
        return (jax.nn.softmax(logits.astype(wide), axis=-1) @ params.astype(wide)).astype(dtype), state

    return Network(init, apply)


def _total(labels: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, labels)


def _checked_logits(name: str, logits: Any, level: int, features: Any) -> Array:
    features = channels_last("hierarchical", f"the output of stage {level}", features)
    logits = channels_last("hierarchical", f"the output of task {name!r}, which a higher stage reads,", logits)
    if logits.shape[:-1] != features.shape[:-1]:
        raise ValueError(
            f"hierarchical: the output of task {name!r}, which a higher stage reads, must have all axes of the "
            f"features {features.shape} but the last, found shape {logits.shape}"
        )
    return logits


def _checked_layers(names: tuple[str, ...], num_stages: int, layers: Mapping[str, int]) -> dict[str, int]:
    check_entries("hierarchical", "layers", layers, names)
    for name in names:
        check_count("hierarchical", f"layers[{name!r}]", layers[name], least=0, most=num_stages - 1)
    top = max(layers.values())
    if top < num_stages - 1:
        raise ValueError(
            f"hierarchical: layers must name the last stage, {num_stages - 1}, for a task, found {top} at most"
        )
    return {name: int(layers[name]) for name in names}


def _checked_predictions(
    names: tuple[str, ...], depth: Mapping[str, int], predictions: Sequence[str], size: int | None
) -> tuple[str, ...]:
    empty = isinstance(predictions, Sequence) and not predictions
    read = () if empty else task_names("hierarchical", predictions, what="predictions")
    for name in read:
        check_choice("hierarchical", "a task of predictions", name, names)
        if depth[name] == max(depth.values()):
            raise ValueError(f"hierarchical: predictions must be of tasks below the last stage, found {name!r}")
    if not read:
        expect(size is None, "hierarchical", "label_size", "None where there are no predictions", size, ValueError)
    else:
        check_count("hierarchical", "label_size", size)
    return read
