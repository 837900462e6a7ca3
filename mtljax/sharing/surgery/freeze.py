"""Which parameters an optimiser moves: labels by path for `optax.partition`, freezing and thawing."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from mtljax.checks import check_optimizer, expect
from mtljax.types import PyTree

Where = str | tuple[str, ...] | Callable[[str], object]
"""A prefix of paths, "shared" or ("tasks", "depth"); or a function of a leaf's path, "tasks/depth/head/kernel"."""

TRAINED, HELD = "trained", "held"
"""The two groups of `freeze` and `thaw`, which are keys of `PartitionState.inner_states`."""


def part_labels(*rules: tuple[Where, str], default: str) -> Callable[[PyTree], PyTree]:
    """Labels for `optax.partition`: each parameter's is that of the first rule that its path fits, else the default.

    For fine-tuning with learning rates of their own for some parts:

        labels = part_labels(("shared", "slow"), default="fast")
        optimizer = optax.partition({"slow": optax.adamw(1e-5), "fast": optax.adamw(1e-3)}, labels)

    Each label's transformation sees its own parameters alone: a global norm is theirs, and they have a step count of
    their own.

    Args:
        *rules: pairs of what is meant and a label. What is meant is a prefix of paths, as "shared" or
            ("tasks", "depth"), or a function of a leaf's path, "tasks/depth/head/kernel" for
            `params.tasks["depth"]["head"]["kernel"]`, to what is true for leaves that are meant; the search of a
            regular expression is one.
        default: label of the leaves that no rule fits.

    Returns:
        Function of the parameters to a tree of labels like them.

    Raises:
        TypeError: a rule that is not such a pair.
        ValueError: from the function, no leaf of a tree with leaves comes under a rule.

    Example:
        >>> from mtljax.types import Params
        >>> depth, biases = (("tasks", "depth"), "own"), (lambda path: path.endswith("bias"), "free")
        >>> part_labels(depth, biases, default="all")(Params({"kernel": 0, "bias": 0}, {"depth": {"bias": 0}}))
        Params(shared={'bias': 'free', 'kernel': 'all'}, tasks={'depth': {'bias': 'own'}})
    """
    for rule in rules:
        pair = isinstance(rule, tuple) and len(rule) == 2 and isinstance(rule[1], str)
        expect(pair, "part_labels", "a rule", "a pair of what is meant and a label", rule, TypeError)
        _check_where("part_labels", "a rule", rule[0])
    expect(isinstance(default, str), "part_labels", "default", "a label, a string", default, TypeError)

    def labels(params: PyTree) -> PyTree:
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        paths = [path for path, _ in leaves]
        firsts = [next((k for k, (where, _) in enumerate(rules) if _fits(where, path)), None) for path in paths]
        for k, (where, label) in enumerate(rules):
            if leaves and k not in firsts:
                known = sorted({"/".join(_names(path)) for path in paths})
                raise ValueError(
                    f"part_labels: no leaf comes under {where!r}, labelled {label!r}; the paths are {known}"
                )
        return structure.unflatten([default if k is None else rules[k][1] for k in firsts])

    return labels


def freeze(optimizer: optax.GradientTransformation, where: Where) -> optax.GradientTransformationExtraArgs:
    """An optimiser that leaves the chosen parameters exactly as they are (but for the sign of a zero).

    Their updates are zero whatever their gradients are, NaN included; weight decay, momentum and clipping by a global
    norm see the other parameters alone, and no state is kept for the frozen. It is `optax.partition` of `optimizer` and
    `optax.set_to_zero`; `optax.selective_transform` does the same from a mask.

    What a network carries outside its parameters, such as batch statistics, is no parameter and goes on moving where it
    is applied with `train=True`.

    Args:
        optimizer: for the parameters that are trained.
        where: what is frozen, a prefix or a function of a leaf's path as in `part_labels`.

    Returns:
        Transformation whose state is `optax.PartitionState` with the groups "trained" and "held". From a state of
        `optimizer` alone one goes on by
        `carry_over(frozen.init(params), optax.PartitionState({"trained": optax.MaskedState(opt_state)}))`.

    Raises:
        TypeError: `where` is neither a prefix nor a function.
        ValueError: from `init` and `update`, no leaf of a tree with leaves is chosen.

    Example:
        >>> import jax.numpy as jnp
        >>> from mtljax.types import Params
        >>> params = Params(shared=jnp.ones(1), tasks={"depth": jnp.ones(1)})
        >>> optimizer = freeze(optax.sgd(0.5), "shared")
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> optax.apply_updates(params, updates)
        Params(shared=Array([1.], dtype=float32), tasks={'depth': Array([0.5], dtype=float32)})
    """
    check_optimizer("freeze", "optimizer", optimizer)
    _check_where("freeze", "where", where)
    return optax.partition({TRAINED: optimizer, HELD: optax.set_to_zero()}, part_labels((where, HELD), default=TRAINED))


def thaw(optimizer: optax.GradientTransformation, where: Where) -> optax.GradientTransformationExtraArgs:
    """An optimiser that trains again what `freeze(optimizer, where)` has held.

        thawed = thaw(optimizer, where)
        opt_state = carry_over(thawed.init(params), opt_state)

    What was trained all along goes on to the bit. What was frozen starts with moments and a step count of its own, so
    that Adam's correction for moments that start at zero holds for both, and a schedule begins anew for it. Clipping by
    a global norm measures each of the two groups by itself.

    It serves parameters that are new, too (`add_task`), with `where` the new task: from a state of `optimizer` alone,
    `carry_over(thawed.init(params), optax.PartitionState({"trained": optax.MaskedState(opt_state)}))`.

    Args:
        optimizer: for all parameters, in two groups; its state must be of the form of that given to `freeze`, but the
            learning rate may be another.
        where: what was frozen, as given to `freeze`.

    Returns:
        Transformation whose state is `optax.PartitionState` with the groups "trained" and "held".

    Raises:
        TypeError, ValueError: as `freeze`.

    Example:
        >>> import jax.numpy as jnp
        >>> from mtljax.sharing.surgery.edit import carry_over
        >>> from mtljax.types import Params
        >>> params = Params(shared=jnp.ones(1), tasks={"depth": jnp.ones(1)})
        >>> frozen, thawed = freeze(optax.adam(0.1), "shared"), thaw(optax.adam(0.1), "shared")
        >>> _, state = frozen.update(params, frozen.init(params), params)
        >>> state = carry_over(thawed.init(params), state)
        >>> [int(state.inner_states[group].inner_state[0].count) for group in ("trained", "held")]
        [1, 0]
    """
    check_optimizer("thaw", "optimizer", optimizer)
    _check_where("thaw", "where", where)
    return optax.partition({TRAINED: optimizer, HELD: optimizer}, part_labels((where, HELD), default=TRAINED))


def _check_where(name: str, what: str, where: Where) -> None:
    prefix = (where,) if isinstance(where, str) else where
    meant = callable(where) or (isinstance(prefix, tuple) and prefix and all(isinstance(part, str) for part in prefix))
    expected = "a prefix such as 'shared' or ('tasks', 'depth'), or a function of the path"
    expect(bool(meant), name, what, expected, where, TypeError)


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _fits(where: Where, path: tuple) -> bool:
    names = _names(path)
    if callable(where):
        return bool(where("/".join(names)))
    prefix = (where,) if isinstance(where, str) else where
    return names[: len(prefix)] == prefix
