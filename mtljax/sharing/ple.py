"""Progressive layered extraction: levels of task experts and shared experts, ever more separate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mtljax.checks import check_callable, check_choice, check_count, expect
from mtljax.sharing.frames.experts import Run, assemble, linear, logits_of, mix, run_experts
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
    """The experts of one level, where they are not all made of one network.

    Attributes:
        shared: experts that all tasks share; may be empty.
        specific: experts of each task's own, by task name; a task may have none where there are shared ones.
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
    """Levels of experts, some of each task's own and some shared, mixed at every level by gates.

    With `E_kj(z)` task k's experts of level j at z and `E_sj` the shared ones, `x_k0 = x_s0 = x`:

        x_kj = sum_i g_kj(x_k,j-1)_i [E_kj(x_k,j-1), E_sj(x_s,j-1)]_i               own and shared experts
        x_sj = sum_i g_sj(x_s,j-1)_i [E_1j(x_1,j-1), ..., E_Tj(x_T,j-1), E_sj(x_s,j-1)]_i        all experts
        outputs_k = head_k(x_kL),   g(z) = softmax(W^T z)

    The last level has no shared gate, since nothing would read it. One level is `cgc`.

    `Params.shared` holds whatever a second task's loss reaches: the encoder (`"encoder"`), all shared experts
    (`"level0/shared/0"`), and below the last level also the shared gates (`"level0/gate"`) and the task experts
    (`"level0/task/depth/0"`), which other tasks read through the shared gate. A task's gates two levels below the last
    (`"level0/gate/depth"`) are read by such experts, hence shared too. `Params.tasks[k]` holds task k's experts of the
    last level (`"level1/expert/0"`), its gates of the last two (`"level1/gate"`) and its head (`"head"`). Where the
    last levels have no shared experts, all this counts from the last level that has. The state is
    `{"shared": ..., "tasks": {k: ...}}` of the same form.

    Asked for some tasks only, the model runs what `Params.shared` holds, all of which each task needs, but the last
    experts, last gates and heads of those tasks alone. `encode` gives what the tasks' own parts read. With `TaskInputs`
    the levels run once for each task, all experts on that task's inputs.

    Gates are computed in float32 at least and mixtures summed in it; the features keep the experts' dtype.

    Tang, Liu, Zhao and Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
    Recommendations", RecSys 2020, section 4. The paper does not say where gates start: the default ones start at
    truncated normal values of variance 1 / d.

    Args:
        levels: for each level, lowest first, the network that all its experts are made of, each from values of its own;
            or `Experts`, where they differ. Level j reads what level j - 1 returns, any pytree `[B, ...]`; the experts
            of one level return features of one form.
        heads: network from the last level's mixed features to outputs, by task name.
        num_shared: how many shared experts a level given as one network has, from 0.
        num_specific: how many experts of its own each task has there, from 0; or by task name.
        gate: `gate(n)` makes the network from what a gate reads to logits `[B, n]`, for the n experts it mixes, which
            differ from gate to gate. None: `W^T z`, for z `[B, d]`. An image is never flattened for it.
        encoder: network that the first level and its gates read in place of the inputs; None for the inputs themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    Raises:
        TypeError: a task name that is not a string, a level or an expert of another type, numbers that are not
            integers; from `init`, features that the default gate cannot read.
        ValueError: no heads, no levels, negative numbers, numbers or experts for other tasks, a task with no experts to
            read at a level; from `init`, features that are not `[B, d]` without a gate; logits of another shape;
            experts of one level whose features differ in form; from `apply`, an unknown task.

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
    """What `ple` does, and `cgc` with one level; `where` opens the messages."""
    names = check_heads(where, heads)
    experts = levels_of(where, levels, names, num_shared, num_specific)
    for index, level in enumerate(experts):
        for name in names:
            if not level.shared and not level.specific[name]:
                raise ValueError(f"{where}: at level {index} task {name!r} has no experts to read, own or shared")
    # The last level at which tasks meet: what stands there or above for one task is that task's own.
    meet = max((index for index, level in enumerate(experts) if level.shared), default=-1)

    def count(index: int, *tasks: str) -> int:
        return sum(len(experts[index].specific[name]) for name in tasks) + len(experts[index].shared)

    def fuse(run: Run, block: str, inputs: PyTree, stacks: list[PyTree], size: int) -> PyTree:
        logits = logits_of(where, run, block, gate_of(where, gate, size), inputs, size)
        return mix(where, jax.nn.softmax(logits), stacks)

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
    """The gate over that many experts, made by the caller's function or the default."""
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
    """Every level as `Experts`, with an entry for each task.

    Raises:
        TypeError: a level that is neither `Network` nor `Experts`, numbers that are not integers.
        ValueError: no levels, negative numbers, numbers or experts for other tasks than there are.

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
    """The networks, of which there may be none."""
    return () if is_sequence(networks) and not networks else check_networks(where, what, networks)
