"""Tasks with different kinds of inputs: one encoder per kind of input, and one body for all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtljax.checks import check_choice
from mtljax.sharing.frames.inputs import input_of, one_task_at_a_time
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import Network, check_entries, check_heads, check_network, key_for, selected
from mtljax.types import Key, Model, Params, PyTree


def encoders(
    encoders: Mapping[str, Network],
    body: Network,
    heads: Mapping[str, Network],
    *,
    kinds: Mapping[str, str] | None = None,
) -> Model:
    """One encoder per kind of input, one body that all tasks share, and one head per task.

        outputs_k = head_k(body(encoder_kind(k)(inputs_k)))

    The tasks may have different inputs, for example images, text and vectors. All encoders must return what the body
    takes. Give each task's inputs as a dict of `Batch` by task, or as `TaskInputs`. If inputs are not `TaskInputs`, all
    requested tasks read them: each kind's encoder runs once, and the body runs once per kind.

    `Params.shared` is `{"body": ..., "encoders": {kind: ...}}`, with the encoders that several tasks use.
    `Params.tasks[k]` is `{"head": ...}`, and also holds `"encoder"` if no other task uses task k's encoder. The state
    is `{"body": ..., "encoders": {kind: ...}, "tasks": {k: ...}}`. Initial values and dropout of a network do not
    depend on which other tasks there are.

    Args:
        encoders: network from the inputs to the body's inputs, by kind.
        body: network from the encoders' outputs to features.
        heads: network from features to outputs, by task name.
        kinds: kind of each task's inputs, by task name; None (default) if `encoders` has one encoder per task name.

    Returns:
        `Model` without `encode` and `decode`, since tasks share no features before the body; its `penalty` is None.

    Raises:
        ValueError: a kind has no encoder, or an encoder is of no task's kind.

    References:
        Caruana, "Multitask Learning", Machine Learning 28, 1997.
        Kaiser et al., "One Model To Learn Them All", arXiv:1706.05137, 2017, for encoders by modality around one body.
        Departures: the body of that paper is a specific network; here it is any network.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = encoders({"photo": dense(4), "sound": dense(4)}, dense(8), {"photo": dense(10), "sound": dense(2)})
        >>> from mtljax.types import TaskInputs
        >>> inputs = TaskInputs({"photo": jnp.ones((2, 64)), "sound": jnp.ones((3, 16))})
        >>> params, state = model.init(jax.random.key(0), inputs)
        >>> jax.tree.map(jnp.shape, model.apply(params, state, inputs)[0])
        {'photo': (2, 10), 'sound': (3, 2)}
    """
    names, known = check_heads("encoders", heads), check_heads("encoders", encoders, what="encoders")
    check_network("encoders", "body", body)
    kinds = {name: name for name in names} if kinds is None else kinds
    check_entries("encoders", "kinds", kinds, names)
    for name in names:
        check_choice("encoders", f"kinds[{name!r}]", kinds[name], known)
    used = sorted(set(kinds.values()))
    if used != list(known):
        raise ValueError(f"encoders: encoders must be for the tasks' kinds {used}, found {list(known)}")
    users = {kind: [name for name in names if kinds[name] == kind] for kind in sorted(encoders)}

    def encoder_of(params: Params, kind: str) -> PyTree:
        first, *others = users[kind]
        return params.shared["encoders"][kind] if others else params.tasks[first]["encoder"]

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        body_params: Any = None
        shared: dict[str, PyTree] = {}
        params: dict[str, dict[str, PyTree]] = {name: {} for name in names}
        states: dict[str, Any] = {"encoders": {}, "tasks": {}}
        for kind, using in users.items():
            own = input_of(inputs, using[0])
            found, states["encoders"][kind] = encoders[kind].init(key_for(key, f"encoder/{kind}"), own)
            if len(using) == 1:
                params[using[0]]["encoder"] = found
            else:
                shared[kind] = found
            encoded, _ = encoders[kind].apply(found, states["encoders"][kind], own)
            if body_params is None:
                body_params, states["body"] = body.init(key_for(key, "body"), encoded)
            features, _ = body.apply(body_params, states["body"], encoded)
            for name in using:
                params[name]["head"], states["tasks"][name] = heads[name].init(key_for(key, f"task/{name}"), features)
        return Params({"body": body_params, "encoders": shared}, params), states

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        chosen = selected(names, tasks)
        body_state, of_encoders, of_tasks = state["body"], dict(state["encoders"]), dict(state["tasks"])
        features, outputs = {}, {}
        for kind in sorted({kinds[name] for name in chosen}):
            encoded, of_encoders[kind] = encoders[kind].apply(
                encoder_of(params, kind), of_encoders[kind], inputs, key=key_for(key, f"encoder/{kind}"), train=train
            )
            features[kind], body_state = body.apply(
                params.shared["body"], body_state, encoded, key=key_for(key, f"body/{kind}"), train=train
            )
        for name in chosen:
            outputs[name], of_tasks[name] = heads[name].apply(
                params.tasks[name]["head"],
                of_tasks[name],
                features[kinds[name]],
                key=key_for(key, f"task/{name}"),
                train=train,
            )
        return outputs, {"body": body_state, "encoders": of_encoders, "tasks": of_tasks}

    return checked_model(names, init, one_task_at_a_time(names, apply))
