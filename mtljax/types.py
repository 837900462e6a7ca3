"""The central types: parameters, methods, models, tasks and batches.

Everything in mtljax is a pure function on these. Shapes are written beside every field: T tasks, B examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import chex
import jax

# Not `chex.Array`, which includes NumPy arrays; not `chex.ArrayTree`, whose containers need a cast before indexing.
Array = jax.Array
Key = chex.PRNGKey
Numeric = chex.Numeric  # a number or array of numbers, of Python, NumPy or JAX; may be traced
PyTree = Any

Reads = Literal["losses", "gramian", "task_grads", "batches"]


class Params(NamedTuple):
    """Parameters as two pytrees: what tasks share, and what each task owns.

    Attributes:
        shared: pytree of arrays `[*p]` that more than one task's loss reaches.
        tasks: dict by task name; entry k is a pytree that task k's loss alone reaches. Task order is everywhere
            the sorted order of these names, which is JAX's own order of dict keys.

    Example:
        >>> import jax.numpy as jnp
        >>> params = Params(shared={"w": jnp.zeros(3)}, tasks={"b": jnp.zeros(1), "a": jnp.zeros(2)})
        >>> sorted(params.tasks)
        ['a', 'b']
    """

    shared: PyTree
    tasks: PyTree


class MethodState(NamedTuple):
    """What a method carries from step to step; arrays only, so it can be checkpointed, donated and vmapped.

    Attributes:
        weights: float32 `[T]`, the last weights, for logs.
        residual: float32 `[]`, relative error of the inner solve; 0 where it is exact or there is none. Above
            `mtljax.solvers.TRUSTED` the method takes the safe direction that its solver's docstring defines.
        inner: pytree of arrays, the method's own state; `()` for a stateless rule.
    """

    weights: Array
    residual: Array
    inner: PyTree = ()


class Unobserved(NamedTuple):
    """The state of a method with `observe` that has not been told the losses after its last step.

    `mtljax.value_and_grad` and `mtljax.as_optax` return it, and refuse it: `mtljax.observe` makes a `MethodState` of
    it.

    Attributes:
        weights: as in `MethodState`.
        residual: as in `MethodState`.
        inner: as in `MethodState`.
    """

    weights: Array
    residual: Array
    inner: PyTree = ()


class Method(NamedTuple):
    """A balancing method as a pair of pure functions.

    Attributes:
        reads: the cheapest evidence that suffices: `"losses"` (the T task losses), `"gramian"` (`G = J J^T`,
            `[T, T]` float32), `"task_grads"` (the stacked task gradients, leaves `[T, *p]`) or `"batches"` (`Batches`,
            the losses themselves, as functions of the parameters).
        init: `init(num_tasks, shared=None) -> MethodState`; `shared` may hold `jax.ShapeDtypeStruct` leaves.
        update: `update(evidence, state, *, losses=None, active=None, key=None, **extra)` returning
            `(weights [T], state)` where `reads` is "losses" or "gramian", `(update like shared, state)` where it is
            "task_grads", and `(Update, state)` where it is "batches".
            `active` is bool `[T]`: a task that is not active leaves every other number exactly
            as if it were not there, and gets weight 0. Unknown `extra` are ignored; among them is always
            `weight_sum`, `[T]`, the sum of weights that each loss is a mean over. A Gramian comes as
            that of the gradients times `scale`, float32 `[]`, a power of two that is 1 unless they are very large or
            small (`mtljax.ranges`): a rule whose weights change with the gradients' scale reads it; the true Gramian is
            `gramian / scale**2`, the true norms `norms / scale`.
        observe: `observe(losses_after, state) -> state`, called with the losses of the same batch after the
            parameters moved, `[T]` or a dict by task, for methods that learn from the decrease; None for the others. A
            training step calls it; who makes steps by hand calls it, or `mtljax.observe`, which takes any method.
        weigh_tasks: whether task-specific gradients are multiplied by the weights too, as they are when the
            rule is the gradient of a scalarisation; False leaves every head its own gradient.
        name: the method's public name, for messages and logs.
        due: `due(state) -> bool []`, for methods that can do without evidence at some steps: whether this one needs
            it. None: always.
        reuse: `reuse(state, *, active=None) -> (weights [T], state)`, the step without evidence; set where `due` is.
        pick: `pick(state, *, active=None) -> int32 []`, for methods that read the gradient of one task a step (`reads`
            is "task_grads"): which one. `update` then gets that gradient, like shared, in place of the stacked ones,
            so a step costs one backward pass. None: all rows.
        least_loss: a number or `[T]`, the least loss that the method can make sense of, where it takes logarithms or
            ratios of losses. A task whose loss is below sits the step out, as one does whose loss is NaN; where losses
            are concrete, `update` raises. None: losses may be negative.
        refines: whether `update` makes use of a Gramian in float64, as `engines.full(refine=True)` has it; weights and
            state are float32 all the same.
        num_batches: how many batches a step takes, where `reads` is "batches": with more than one, a tuple of batches
            stands where a step takes one.

    Every method of the library raises at trace time, with a message that names the argument, what was expected and what
    was found. Docstrings of methods list further errors only.

    Raises:
        TypeError: an argument is of another type; from `update`, evidence or losses are not floating, `active` is not
            boolean, or `key` or `state` is of another type.
        ValueError: an argument is out of its range; from `init`, an argument per task does not have T entries; from
            `update` and `observe`, evidence, losses, `active` or `state` do not match the T of `init`.
    """

    reads: Reads
    init: Callable[..., MethodState]
    update: Callable[..., tuple[Any, MethodState]]
    observe: Callable[[Array, MethodState], MethodState] | None = None
    weigh_tasks: bool = False
    name: str = "method"
    due: Callable[[MethodState], Array] | None = None
    reuse: Callable[..., tuple[Array, MethodState]] | None = None
    pick: Callable[..., Array] | None = None
    least_loss: Any = None
    refines: bool = False
    num_batches: int = 1


class Batches(NamedTuple):
    """The evidence of a method that reads "batches": the losses on one or more batches, to be differentiated.

    Attributes:
        losses_fn: `losses_fn(params, i) -> dict of scalars by task`, the losses on batch i, times their prior.
        params: where the step begins.
        active: bool `[n, T]`, the tasks that are asked for and have labels in batch i; in the first batch those of them
            whose loss is finite.
    """

    losses_fn: Callable[[Params, int], dict[str, Array]]
    params: Params
    active: Array


class Update(NamedTuple):
    """What a method that reads "batches" answers.

    Attributes:
        grads: like the parameters; own gradients are weighted already, where the method weights them.
        active: bool `[T]`, the tasks that took part.
    """

    grads: Params
    active: Array


class Model(NamedTuple):
    """A multi-task network as pure functions.

    Attributes:
        init: `init(key, inputs) -> (Params, state)`.
        apply: `apply(params, state, inputs, *, tasks=None, key=None, train=False) -> (outputs, state)` with
            `outputs` a dict by task name; `tasks=("depth",)` runs that head alone, None runs all. A task of a bank is
            asked for by its own name, where `train` is False; its outputs are `[B, ...]`. `inputs` may be `TaskInputs`.
            With `train=True` an output may be `Regularized`. A model with banks takes `task`, as `Batch.task` is, too,
            where its examples may be of one task each.
        encode: `encode(shared, state, inputs, *, key=None, train=False) -> (features, state)`, the part before the
            heads, where the model has one (for `engines.features`).
        decode: `decode(tasks_params, state, features, *, tasks=None, key=None, train=False) -> (outputs, state)`,
            the heads. Where both are present, `apply` equals decode after encode, with the same use of `key`.
        penalty: `penalty(params) -> []`, what the sharing scheme adds to the objective (soft sharing), or None.
            `training.make_train_step` adds it by itself.
        banks: by entry that is a bank of many tasks of one form, the names of its tasks in their order. The entry's
            parameters are `[n, *p]`, its outputs `[B, n, ...]`.

    Every architecture of the library raises at trace time, with a message that names the argument, what was expected
    and what was found. Docstrings of architectures list further errors only.

    Raises:
        TypeError: an argument is of another type; task names are not strings; features or logits that the architecture
            reads are not floating arrays; `tasks` of `apply` is one string.
        ValueError: an argument is out of its range or has entries for other tasks; there are no heads or no stages;
            features that the architecture combines differ in structure, shape or dtype, or have too few axes; `apply`
            or `decode` gets a task that the model does not have, or `TaskInputs` without one of the tasks.
    """

    init: Callable[..., tuple[Params, PyTree]]
    apply: Callable[..., tuple[dict[str, Any], PyTree]]
    encode: Callable[..., tuple[PyTree, PyTree]] | None = None
    decode: Callable[..., tuple[dict[str, Any], PyTree]] | None = None
    penalty: Callable[[Params], Array] | None = None
    banks: Mapping[str, tuple[str, ...]] = {}


class Task(NamedTuple):
    """How one task is judged.

    Attributes:
        loss: `(outputs [B, ...], targets [B, ...]) -> elements [B, ...]`: one value for each example, pixel, token or
            label. The task's loss is `sum_e w_e l_e / sum_e w_e` over all elements of the batch, with w the task's
            `Batch.mask`. A loss that sees in its targets which elements count (padding, holes) returns
            `(elements, weights)`: bool, or floating and at least 0, of the shape of the first axes of the elements.
            These weights multiply the mask. Where its own weight is 0 the loss must have no NaN on the way from its
            outputs, so it replaces targets and outputs there; where the mask is 0, `losses.masked_loss` does so.
        metrics: dict of functions of the same form; each is a mean over its own elements and weights.
        prior: static preference, a positive number that multiplies whatever weight the method decides.
    """

    loss: Callable[[Any, Any], Array | tuple[Array, Array]]
    metrics: dict[str, Callable[[Any, Any], Array | tuple[Array, Array]]] = {}
    prior: float = 1.0


class Batch(NamedTuple):
    """One batch. A multi-input batch is a dict of `Batch` by task name: each task brings its own inputs.

    Attributes:
        inputs: pytree of arrays `[B, ...]`.
        targets: dict by task name, pytrees of arrays `[B, ...]`. Where a label is missing the value is never read,
            but must be of the right shape and type.
        mask: dict by task name, bool, True where the label is present, or floating weights, finite and at least 0. The
            shape is that of the first axes of the elements of the task's loss: `[B]`, or `[B, H, W]` for a map with
            holes, or `[B, L]` for rows of labels. What has weight 0 reaches neither loss nor gradient, even if it is
            NaN. An absent name means that all weights are 1.
        task: dict by name of a bank, int `[B]`: each example is of one task of that bank, the one at this index, and
            has one target of it. The bank's targets and mask are then `[B, ...]`, as those of a single task; its losses
            are means over each task's own examples. An index below 0 is of no task, as in padding. An absent name means
            that each example has targets `[B, n, ...]` of all tasks.
    """

    inputs: PyTree
    targets: dict[str, Any]
    mask: dict[str, Array] = {}
    task: dict[str, Array] = {}


class TaskInputs(NamedTuple):
    """Inputs that differ by task though the examples are the same: one modality or one view each.

    Stands wherever a model takes inputs, and so in `Batch.inputs`. Task k then runs on `by_task[k]` alone. For tasks
    whose examples differ too, give a dict of `Batch` by task name.

    Attributes:
        by_task: dict by task name of pytrees of arrays `[B, ...]`.
    """

    by_task: dict[str, PyTree]


class Regularized(NamedTuple):
    """A task's outputs with a term that the architecture adds to that task's loss while it trains.

    Models return it, in place of the bare outputs, where `train=True` alone: the entropy of a gate, the balance of a
    router's load. `mtljax.make_losses_fn` adds the term to the task's loss.

    Attributes:
        outputs: the task's outputs, pytree of arrays `[B, ...]`.
        term: float32 `[]`, already multiplied by its strength.
    """

    outputs: PyTree
    term: Array


class Aux(NamedTuple):
    """What a loss function returns beside its losses: `(losses, Aux)`.

    Attributes:
        state: the network's new state.
        weight_sum: `[T]`, the sum of weights that each loss is a mean over; a task with 0 is inactive. The mean over
            several devices is that of all elements together. None: all alike.
        prior: `[T]`, static preferences; they multiply the weights that a method returns, and the rows that a method
            without weights reads. None: all 1.
        extra: arrays `[T]` by name, which the method gets as keyword arguments (such as `kpi` of
            `methods.dynamic_task_priority`); averaged over devices as losses are.
        metrics: by task, pytrees of scalars that a step reports; averaged over devices as losses are.
        penalty: float32 `[]`, the value of the model's penalty, which the losses do not contain; None without one.
        metric_weight_sum: by task, dicts by metric of the sum of weights that the metric is a mean over, where it is
            not the loss's.
    """

    state: PyTree = ()
    weight_sum: Array | None = None
    prior: Array | None = None
    extra: Mapping[str, Array] = {}
    metrics: Mapping[str, Any] = {}
    penalty: Array | None = None
    metric_weight_sum: Mapping[str, Mapping[str, Array]] = {}


class TrainState(NamedTuple):
    """Everything a training run is made of: one pytree of arrays, which restores to the bit.

    Attributes:
        step: int32 `[]`, number of completed steps.
        params: `Params`.
        model_state: pytree, what the network carries outside its parameters (batch statistics).
        opt_state: optax state.
        method_state: `MethodState`.
        key: typed PRNG key `[]`; step s draws from `fold_in(key, s)` and the key itself never changes.
        nonfinite: int32 `[T]`, at how many steps each task sat out for its loss or its gradient. Counted here
            and not in the step's metrics alone, so that a loop which logs now and then loses none.
    """

    step: Array
    params: Params
    model_state: PyTree
    opt_state: PyTree
    method_state: MethodState
    key: Key
    nonfinite: PyTree = ()
