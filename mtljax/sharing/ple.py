"""Progressive layered extraction: levels of task-specific and shared experts, mixed by gates at each level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mtljax.checks import check_callable, check_choice, check_count, expect
from mtljax.sharing.frames.experts import Run, assemble, linear, logits_of, mix_experts, run_experts
from mtljax.sharing.frames.network import (
    Network,
    check_entries,
    check_heads,
    check_network,
    check_networks,
    is_sequence,
)
from mtljax.types import Key, Model, PyTree


class Experts(NamedTuple):
    """The experts of one level, if they are not all copies of one network.

    Attributes:
        shared: experts that all tasks share; may be empty.
        specific: the tasks' own experts, by task name; a task may have none if there are shared experts.
    """

    shared: Sequence[Network] = ()
    specific: Mapping[str, Sequence[Network]] = {}


def ple(
    levels: Sequence[Network | Experts],
    heads: Mapping[str, Network],
    *,
    num_shared: int = 1,
    num_specific: int | Mapping[str, int] = 1,
    gate: Callable[[int], Network] | None = None,
    encoder: Network | None = None,
) -> Model:
    """Levels of experts, some per task and some shared; gates mix them at each level.

    `E_kj(z)` are task k's experts of level j at z, `E_sj` are the shared ones, and `x_k0 = x_s0 = x`:

        x_kj = sum_i g_kj(x_k,j-1)_i [E_kj(x_k,j-1), E_sj(x_s,j-1)]_i               own and shared experts
        x_sj = sum_i g_sj(x_s,j-1)_i [E_1j(x_1,j-1), ..., E_Tj(x_T,j-1), E_sj(x_s,j-1)]_i        all experts
        outputs_k = head_k(x_kL),   g(z) = softmax(W^T z)

    The last level has no shared gate, since nothing would read it. One level is `cgc`.

    `Params.shared` holds what the losses of several tasks reach:

    * the encoder (`"encoder"`) and all shared experts (`"level0/shared/0"`);
    * below the last level, the shared gates (`"level0/gate"`), and the task experts (`"level0/task/depth/0"`), which
      other tasks read through the shared gate;
    * two or more levels below the last, also the tasks' gates (`"level0/gate/depth"`), which those task experts read.

    `Params.tasks[k]` holds task k's experts of the last level (`"level1/expert/0"`), its gates of the last two levels
    (`"level1/gate"`) and its head (`"head"`). If the last levels have no shared experts, the last level that has shared
    experts counts as the last here, and the levels above it are in `Params.tasks[k]`. The state is
    `{"shared": ..., "tasks": {k: ...}}` of the same form.

    For a subset of the tasks, the model runs everything in `Params.shared`, which each task needs, but only these
    tasks' own experts, gates and heads. `encode` returns what the tasks' own parts read. With `TaskInputs` the levels
    run once per task, all experts on that task's inputs.

    Gates and mixtures are computed in float32 at least; features keep the experts' dtype.

    Args:
        levels: one entry per level, lowest first: a network, of which all experts of the level are copies with their
            own initial values; or `Experts`, if the experts differ. Level j reads the output of level j - 1, any pytree
            `[B, ...]`. The experts of one level return features of the same structure, shape and dtype.
        heads: network from the last level's mixed features to outputs, by task name.
        num_shared: number of shared experts at each level given as one network, from 0.
        num_specific: number of experts per task at such a level, from 0; one number, or a dict by task name.
        gate: `gate(n)` makes the network from a gate's inputs to logits `[B, n]` for the n experts that the gate mixes;
            n differs between gates. None: `W^T z`, for z `[B, d]`. The default gate never flattens an image.
        encoder: network whose output the first level and its gates read in place of the inputs; None for the inputs
            themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    Raises:
        ValueError: a task has no experts to read at some level.

    References:
        Tang, Liu, Zhao and Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for
        Personalized Recommendations", RecSys 2020, section 4. The paper does not give initial values of gates; the
        default gates start from a truncated normal distribution of variance 1 / d.

    Example:
        >>> import jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = ple([dense(8), dense(4)], {"depth": dense(1), "label": dense(10)}, num_shared=2)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 3)))
        >>> params.shared["level0/gate"].shape, params.tasks["label"]["level1/gate"].shape
        ((3, 4), (8, 3))
        >>> sorted(params.tasks["label"])
        ['head', 'level0/gate', 'level1/expert/0', 'level1/gate']
    """
    return extraction("ple", levels, heads, num_shared, num_specific, gate, encoder)


def extraction(
    where: str,
    levels: Sequence[Network | Experts],
    heads: Mapping[str, Network],
    num_shared: int,
    num_specific: int | Mapping[str, int],
    gate: Callable[[int], Network] | None,
    encoder: Network | None,
) -> Model:
    """The model of `ple`, and of `cgc` with one level; messages start with `where`."""
    names = check_heads(where, heads)
    experts = levels_of(where, levels, names, num_shared, num_specific)
    for index, level in enumerate(experts):
        for name in names:
            if not level.shared and not level.specific[name]:
                raise ValueError(f"{where}: level {index} must have experts for task {name!r}, found none")
    # The last level with shared experts: a task's experts at this level or above are reached by its loss alone.
    meet = max((index for index, level in enumerate(experts) if level.shared), default=-1)

    def count(index: int, *tasks: str) -> int:
        return sum(len(experts[index].specific[name]) for name in tasks) + len(experts[index].shared)

    def fuse(run: Run, block: str, inputs: PyTree, stacks: list[PyTree], size: int) -> PyTree:
        logits = logits_of(where, run, block, gate_of(where, gate, size), inputs, size)
        return mix_experts(where, jax.nn.softmax(logits), stacks)

    def trunk(run: Run, inputs: PyTree) -> PyTree:
        own, common, below = dict.fromkeys(names, inputs), inputs, {}
        for index in range(meet):
            level = experts[index]
            shared = run_experts(where, run, (f"level{index}/shared", level.shared, common))
            specific = {
                name: run_experts(where, run, (f"level{index}/task/{name}", level.specific[name], own[name]))
                for name in names
            }
            everything = [stack for name in names for stack in specific[name]] + shared
            common = fuse(run, f"level{index}/gate", common, everything, count(index, *names))
            below = {name: specific[name] + shared for name in names}
            if index < meet - 1:
                own = {
                    name: fuse(run, f"level{index}/gate/{name}", own[name], below[name], count(index, name))
                    for name in names
                }
        last = run_experts(where, run, (f"level{meet}/shared", experts[meet].shared, common)) if meet >= 0 else []
        return {"inputs": own, "below": below, "shared": last}

    def branch(run: Run, name: str, features: PyTree, *, key: Key | None, train: bool) -> Any:
        own = features["inputs"][name]
        if meet > 0:
            own = fuse(run, f"level{meet - 1}/gate", own, features["below"][name], count(meet - 1, name))
        for index in range(max(meet, 0), len(experts)):
            stacks = run_experts(where, run, (f"level{index}/expert", experts[index].specific[name], own))
            if index == meet:
                stacks = stacks + features["shared"]
            own = fuse(run, f"level{index}/gate", own, stacks, count(index, name))
        return run("head", heads[name], own)

    return assemble(where, names, trunk, branch, encoder=encoder)


def gate_of(where: str, gate: Callable[[int], Network] | None, size: int) -> Network:
    """The gate over `size` experts, from the given function or else the default gate."""
    if gate is None:
        return linear(where, size)
    expected = "a function from the number of experts to a Network"
    return check_network(where, "what gate returns", check_callable(where, "gate", gate, expected=expected)(size))


def levels_of(
    where: str,
    levels: Sequence[Network | Experts],
    names: tuple[str, ...],
    num_shared: int,
    num_specific: int | Mapping[str, int],
) -> list[Experts]:
    """Every level as `Experts`, with one entry per task.

    Example:
        >>> double = Network(lambda key, x: ((), ()), lambda params, state, x, *, key=None, train=False: (2 * x, state))
        >>> level, = levels_of("ple", [double], ("a", "b"), 2, {"a": 1, "b": 3})
        >>> len(level.shared), len(level.specific["a"]), len(level.specific["b"])
        (2, 1, 3)
    """
    expect(is_sequence(levels), where, "levels", "a sequence of Network or Experts", levels, TypeError)
    expect(len(levels) > 0, where, "levels", "at least one", levels, ValueError)
    check_count(where, "num_shared", num_shared, least=0)
    numbers = dict(num_specific) if isinstance(num_specific, Mapping) else dict.fromkeys(names, num_specific)
    check_entries(where, "num_specific", numbers, names)
    for name in names:
        check_count(
            where,
            f"num_specific[{name!r}]" if isinstance(num_specific, Mapping) else "num_specific",
            numbers[name],
            least=0,
        )
    found = []
    for index, level in enumerate(levels):
        if not isinstance(level, Experts):
            check_network(where, f"levels[{index}]", level, expected="a Network or Experts")
            found.append(Experts((level,) * num_shared, {name: (level,) * numbers[name] for name in names}))
            continue
        what = f"levels[{index}].specific"
        expect(isinstance(level.specific, Mapping), where, what, "a dict by task", level.specific, TypeError)
        for name in level.specific:
            check_choice(where, f"a task of {what}", name, names)
        specific = {name: _experts(where, f"{what}[{name!r}]", level.specific.get(name, ())) for name in names}
        found.append(Experts(_experts(where, f"levels[{index}].shared", level.shared), specific))
    return found


def _experts(where: str, what: str, networks: Sequence[Network]) -> tuple[Network, ...]:
    """The networks as a tuple, which may be empty."""
    return () if is_sequence(networks) and not networks else check_networks(where, what, networks)
