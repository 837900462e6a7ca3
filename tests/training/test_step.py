"""The training step: one trace, nothing on the host, tasks that sit out, penalties, priors, observers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import engines, methods, training
from mtljax.methods.common import initial_state
from mtljax.types import Batch, Task
from tests.engines import nets
from tests.methods.table import CASES, few, over


def make(method, *, model=None, tasks=None, optimizer=None, **rest):
    model = nets.mlp() if model is None else model
    params, model_state = model.init(jax.random.key(1), nets.batch().inputs)
    losses_fn = mtljax.make_losses_fn(model, nets.tasks() if tasks is None else tasks)
    init, step = training.make_train_step(losses_fn, method, optimizer or optax.sgd(0.05), **rest)
    return init(params, model_state, key=jax.random.key(3)), step


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def all_finite(tree):
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


@over(CASES)
def test_steps_keep_the_form_of_the_state_and_never_call_the_host(case):
    """A state that comes out as it went in, weak types included, is what keeps a step from being traced again."""
    state, step = make(case.make(3))
    jaxpr, (after, _) = jax.make_jaxpr(step, return_shape=True)(state, nets.batch())
    assert "callback" not in str(jaxpr)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, jax.typeof(old).weak_type) == (new.shape, new.dtype, new.weak_type)


@over(CASES, at_once=lambda case: case.name in {"famo", "graddrop", "every"})
def test_steps_trace_once(case):
    state, step = make(case.make(3))
    traces = []

    @jax.jit
    def counted(state, batch):
        traces.append(None)
        return step(state, batch)

    for seed in range(3):
        missing = {name: [seed] for name in nets.NAMES}
        state, metrics = counted(state, nets.batch(seed=seed, missing=missing))
    assert int(state.step) == 3
    assert len(traces) == 1
    assert all_finite(metrics)


@few()
def test_a_fresh_state_can_be_donated(case):
    """No two leaves of a first state may be one buffer."""
    state, _ = make(case.make(3))
    leaves = [leaf for leaf in jax.tree.leaves(state._replace(key=())) if leaf.size]
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.contrib.schedule_free_sgd(0.1)])
def test_a_donated_state_leaves_the_callers_arrays_alone(optimizer):
    params, model_state, key = mtljax.Params(jnp.ones(2), {"a": jnp.ones(2)}), {"mean": jnp.ones(2)}, jax.random.key(0)

    def losses_fn(params, state, batch, key, train):
        return {"a": jnp.sum(params.shared * params.tasks["a"])}, mtljax.Aux({"mean": state["mean"] + 1.0})

    init, step = training.make_train_step(losses_fn, methods.equal(), optimizer)
    step = training.jit(step)
    for _ in range(2):
        state, _ = step(init(params, model_state, key=key), None)
        assert_equal((params, model_state), (mtljax.Params(jnp.ones(2), {"a": jnp.ones(2)}), {"mean": jnp.ones(2)}))
        assert_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(0)))
        assert all_finite(state.params)


def test_the_step_vmaps_over_seeds():
    model = nets.mlp()
    init, step = training.make_train_step(mtljax.make_losses_fn(model, nets.tasks()), methods.pcgrad(), optax.sgd(0.05))
    keys = jax.random.split(jax.random.key(0), 3)

    def start(key):
        params, model_state = model.init(key, nets.batch().inputs)
        return init(params, model_state, key=key)

    together, _ = jax.jit(jax.vmap(step, in_axes=(0, None)))(jax.vmap(start)(keys), nets.batch())
    alone, _ = jax.jit(step)(start(keys[1]), nets.batch())
    for a, b in zip(jax.tree.leaves(together.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6)


def test_one_sgd_step_by_hand():
    params = mtljax.Params(jnp.array([1.0, 0.0]), {"a": jnp.array([2.0]), "b": jnp.array([-1.0])})

    def losses_fn(params, state, batch, key, train):
        a, b = params.tasks["a"][0], params.tasks["b"][0]
        return {"a": a * params.shared[0], "b": b * params.shared[1]}, mtljax.Aux(state)

    init, step = training.make_train_step(losses_fn, methods.fixed([1.0, 3.0]), optax.sgd(0.1))
    state, metrics = step(init(params, key=jax.random.key(0)), None)
    np.testing.assert_allclose(state.params.shared, [1.0 - 0.1 * 2.0, 0.1 * 3.0])
    np.testing.assert_allclose(state.params.tasks["a"], [2.0 - 0.1 * 1.0])
    np.testing.assert_allclose(state.params.tasks["b"], [-1.0])
    assert float(metrics["losses"]["a"]) == 2.0
    assert {name: float(w) for name, w in metrics["weights"].items()} == {"a": 1.0, "b": 3.0}


def poisoned_tasks():
    """Task b's loss is NaN, and so is its derivative, in every batch whose first target of b is negative."""

    def loss(outputs, targets):
        return jnp.mean(jnp.square(outputs - targets), axis=-1) + jnp.sqrt(targets[0, 0] + 0.0 * outputs[:, 0])

    return {**nets.tasks(), "b": Task(loss)}


def with_poison(batch, sign):
    return batch._replace(targets={**batch.targets, "b": batch.targets["b"].at[0, 0].set(sign)})


@over(CASES, at_once=lambda case: case.name in {"famo", "nash_mtl", "graddrop"})
def test_a_loss_that_is_not_finite_sits_out_and_touches_nobody(case):
    tasks = poisoned_tasks()
    bad = with_poison(nets.batch(), -1.0)
    state, step = make(case.make(3), tasks=tasks)
    after, metrics = jax.jit(step)(state, bad)
    assert all_finite(after._replace(key=()))
    assert int(metrics["nonfinite"]["b"]) == 1
    assert np.isnan(metrics["losses"]["b"])
    assert {name: bool(a) for name, a in metrics["active"].items()} == {"a": True, "b": False, "c": True}
    assert_equal(after.params.tasks["b"], state.params.tasks["b"])

    # The same step with b's labels missing instead.
    masked = with_poison(nets.batch(), 1.0)._replace(mask={"b": jnp.zeros(nets.SIZE, bool)})
    absent, absent_metrics = jax.jit(step)(state, masked)
    assert int(absent_metrics["nonfinite"]["b"]) == 0
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(absent.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "engine",
    [
        engines.gramian(),
        *(pytest.param(engine, marks=pytest.mark.slow) for engine in (engines.features(), engines.chunked(2))),
    ],
    ids=lambda e: e.name,
)
def test_a_loss_that_is_not_finite_in_every_engine(engine):
    state, step = make(methods.pcgrad(mean=True), tasks=poisoned_tasks(), engine=engine)
    after, _ = jax.jit(step)(state, with_poison(nets.batch(), -1.0))
    masked = with_poison(nets.batch(), 1.0)._replace(mask={"b": jnp.zeros(nets.SIZE, bool)})
    absent, _ = jax.jit(step)(state, masked)
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(absent.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "method",
    [
        methods.uncertainty(),
        methods.graddrop(),
        *(pytest.param(method, marks=pytest.mark.slow) for method in (methods.equal(), methods.upgrad())),
    ],
    ids=lambda method: method.name,
)
def test_inputs_that_are_not_finite_leave_everything_where_it_was(method):
    """Every loss is NaN, and so is the network's own state; batch statistics must survive too."""
    state, step = make(method, model=nets.conv(), optimizer=optax.sgd(0.1))
    batch = nets.batch()
    after, metrics = jax.jit(step)(state, batch._replace(inputs=batch.inputs.at[0, 0, 0, 0].set(jnp.nan)))
    assert_equal(after.params, state.params)
    assert_equal(after.model_state, state.model_state)
    assert_equal(after.method_state, state.method_state)
    assert {int(n) for n in metrics["nonfinite"].values()} == {1}
    again, metrics = jax.jit(step)(after, batch)
    assert all_finite(again.params)
    assert {int(n) for n in metrics["nonfinite"].values()} == {1}


def test_losses_that_cannot_be_told_apart_void_the_step_together():
    def losses_fn(params, state, batch, key, train):
        table = jnp.stack([params.tasks[name] for name in sorted(params.tasks)])
        return jnp.sqrt(table @ params.shared + batch), mtljax.Aux(state)

    params = mtljax.Params(jnp.ones(2), {"a": jnp.ones(2), "b": jnp.ones(2)})
    for method in (methods.equal(), methods.upgrad()):
        init, step = training.make_train_step(losses_fn, method, optax.sgd(0.1))
        state = init(params, key=jax.random.key(0))
        after, metrics = jax.jit(step)(state, jnp.array([1.0, -5.0]))
        assert_equal(after.params, params)
        assert int(metrics["nonfinite"]["b"]) == 1


def test_priors_multiply_what_the_method_decides():
    weights = {}
    for prior in (1.0, 2.5):
        tasks = {**nets.tasks(), "b": nets.tasks()["b"]._replace(prior=prior)}
        for method in (methods.equal(), methods.ntkmtl()):
            state, step = make(method, tasks=tasks)
            _, metrics = jax.jit(step)(state, nets.batch())
            weights[method.name, prior] = np.array([float(w) for w in metrics["weights"].values()])
    for name in ("equal", "ntkmtl"):
        np.testing.assert_allclose(weights[name, 2.5], weights[name, 1.0] * [1.0, 2.5, 1.0], rtol=1e-6)


def test_a_penalty_is_added_after_the_tasks_are_reconciled():
    penalty = lambda params: 0.5 * optax.tree.norm(params, squared=True)  # noqa: E731
    plain, step = make(methods.ntkmtl())
    _, tied = make(methods.ntkmtl(), penalty=penalty)
    without, _ = jax.jit(step)(plain, nets.batch())
    found, metrics = jax.jit(tied)(plain, nets.batch())
    expected = jax.tree.map(lambda new, old: new - 0.05 * old, without.params, plain.params)
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["penalty"], penalty(plain.params), rtol=1e-6)


def test_an_observer_sees_the_losses_of_the_same_batch_after_the_step():
    watching = mtljax.Method(
        "losses",
        init=lambda num_tasks, shared=None: initial_state(num_tasks, jnp.zeros(num_tasks)),
        update=lambda evidence, state, **rest: (jnp.ones_like(evidence), state),
        observe=lambda losses_after, state: state._replace(inner=losses_after),
    )
    state, step = make(watching)
    after, _ = jax.jit(step)(state, nets.batch())
    losses_fn = mtljax.make_losses_fn(nets.mlp(), nets.tasks())
    expected = losses_fn(after.params, after.model_state, nets.batch())[0]
    np.testing.assert_allclose(after.method_state.inner, [expected[name] for name in nets.NAMES], rtol=1e-5)


def test_every_skips_the_jacobian_in_between():
    state, step = make(methods.every(methods.upgrad(), 3))
    step = jax.jit(step)
    seen = []
    for seed in range(6):
        state, metrics = step(state, nets.batch(seed=seed))
        seen.append([float(w) for w in metrics["weights"].values()])
    assert seen[0] == seen[1] == seen[2] != seen[3]
    assert seen[3] == seen[4] == seen[5]


def test_partition_gives_shared_and_task_parameters_their_own_optimizer():
    optimizer = optax.partition(
        {"shared": optax.sgd(0.1), "tasks": optax.set_to_zero()}, mtljax.Params(shared="shared", tasks="tasks")
    )
    state, step = make(methods.upgrad(), optimizer=optimizer)
    after, _ = jax.jit(step)(state, nets.batch())
    assert_equal(after.params.tasks, state.params.tasks)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params.shared, state.params.shared)
    assert any(jax.tree.leaves(moved))


def test_inputs_of_their_own_and_a_task_absent_from_the_batch():
    model, method = nets.mlp(), methods.mgda()
    state, step = make(method, model=model)
    batches = {}
    for k, name in enumerate(nets.NAMES):
        own = nets.batch(size=8, seed=k)
        mask = {name: jnp.zeros(8, bool)} if name == "b" else {}
        batches[name] = Batch(own.inputs, {name: own.targets[name]}, mask)
    after, metrics = jax.jit(step)(state, batches)
    assert not metrics["active"]["b"]
    assert float(metrics["weights"]["b"]) == 0.0
    assert_equal(after.params.tasks["b"], state.params.tasks["b"])
    # The same two tasks without b.
    fewer = mtljax.sharing.hard(nets.from_linen(nets.Mlp()), {k: v for k, v in nets.heads().items() if k != "b"})
    tasks = {k: v for k, v in nets.tasks().items() if k != "b"}
    init, small = training.make_train_step(mtljax.make_losses_fn(fewer, tasks), method, optax.sgd(0.05))
    params = mtljax.Params(state.params.shared, {k: v for k, v in state.params.tasks.items() if k != "b"})
    model_state = fewer.init(jax.random.key(1), nets.batch().inputs)[1]
    small_state = init(params, model_state, key=jax.random.key(3))
    expected, _ = jax.jit(small)(small_state, {k: v for k, v in batches.items() if k != "b"})
    for a, b in zip(jax.tree.leaves(after.params.shared), jax.tree.leaves(expected.params.shared), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_metrics_are_means_over_labeled_examples():
    tasks = {name: task._replace(metrics={"mae": mtljax.metrics.absolute_error}) for name, task in nets.tasks().items()}
    state, step = make(methods.equal(), tasks=tasks)
    batch = nets.batch(missing={"b": [0, 1]})
    _, metrics = jax.jit(step)(state, batch)
    outputs, _ = nets.mlp().apply(state.params, state.model_state, batch.inputs, train=True)
    expected = jnp.abs(outputs["b"] - batch.targets["b"])[2:].mean()
    np.testing.assert_allclose(metrics["tasks"]["b"]["mae"], expected, rtol=1e-5)


def test_evaluation_weighs_batches_by_their_labels():
    state, _ = make(methods.equal())
    batch = nets.batch(missing={"b": [0, 1, 2], "c": list(range(nets.SIZE))})
    cut = lambda tree, rows: jax.tree.map(lambda leaf: leaf[rows], tree)  # noqa: E731
    whole = training.make_evaluate(nets.mlp(), nets.tasks())(state, [batch])
    parts = [cut(batch, slice(0, 4)), cut(batch, slice(4, 16))]
    found = training.make_evaluate(nets.mlp(), nets.tasks())(state, parts)
    np.testing.assert_allclose(found["b"]["loss"], whole["b"]["loss"], rtol=1e-6)
    assert np.isnan(whole["c"]["loss"])
    with pytest.raises(ValueError, match="at least one batch, found none"):
        training.make_evaluate(nets.mlp(), nets.tasks())(state, [])


def test_a_first_state_from_a_key_and_inputs():
    init, step = training.make_train_step(
        mtljax.make_losses_fn(nets.mlp(), nets.tasks()), methods.equal(), optax.sgd(0.1)
    )
    key = jax.random.key(7)
    state = init(key, nets.batch().inputs)
    state_key, model_key = jax.random.split(key)
    params, model_state = nets.mlp().init(model_key, nets.batch().inputs)
    assert_equal((state.params, state.model_state), (params, model_state))
    assert_equal(jax.random.key_data(state.key), jax.random.key_data(state_key))
    assert int(step(state, nets.batch())[0].step) == 1
    init, _ = training.make_train_step(lambda *_: None, methods.equal(), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"init: losses_fn must be of a model, as mtljax.make_losses_fn makes it"):
        init(key, nets.batch().inputs)
