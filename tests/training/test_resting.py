"""What a task owns rests while the task is absent, in every optimizer, but for what a penalty ties."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import methods, penalties, training
from mtljax.types import Params

START = Params({"w": jnp.array([1.0, 2.0])}, {"a": {"v": jnp.array(0.5)}, "b": {"v": jnp.array(-0.674)}})


def losses_fn(params, state, present, key, train):
    """Losses of which that of b, which is labelled where `present` says so, does not look at what is shared."""
    a = jnp.sum((params.shared["w"] - params.tasks["a"]["v"]) ** 2)
    examples = jnp.stack([1.0, present * 1.0])
    return {"a": a, "b": (params.tasks["b"]["v"] - 1.0) ** 2}, mtljax.Aux(state, weight_sum=examples)


def runner(optimizer, *, start=START, losses_fn=losses_fn, **rest):
    """The states of a run, from the first on, by whether b is labelled at each step."""
    init, step = training.make_train_step(losses_fn, methods.equal(), optimizer, **rest)
    first, step = init(start, key=jax.random.key(0)), jax.jit(step)

    def run(*when):
        return list(itertools.accumulate(when, lambda state, b: step(state, jnp.array(b))[0], initial=first))

    return run


def of(name, opt_state):
    """The leaves of an optimizer's state that are of a task, by path."""
    leaves = jax.tree_util.tree_flatten_with_path(opt_state)[0]
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in leaves
        if f".tasks['{name}']" in jax.tree_util.keystr(path)
    }


OPTIMIZERS = {
    "adamw": optax.adamw(0.1, weight_decay=0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "partition": optax.partition(
        {"shared": optax.adam(0.1), "tasks": optax.adamw(0.1)}, Params(shared="shared", tasks="tasks")
    ),
    "by_task": training.by_task(optax.adamw(0.1)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_the_head_of_an_absent_task_rests(optimizer):
    """AdamW used to take it from -.674 to -.447 in three steps without a label."""
    run = runner(optimizer)
    first, _, held, before, after = run(True, True, False, False)
    present = run(True, True, True, True)
    assert float(held.params.tasks["b"]["v"]) != pytest.approx(-0.674)
    for state in (before, after):
        assert float(state.params.tasks["b"]["v"]) == float(held.params.tasks["b"]["v"])
        assert state.nonfinite.tolist() == [0, 0]  # absent is not broken
        kept, expected = of("b", state.opt_state), of("b", held.opt_state)
        assert sorted(kept) == sorted(expected) and kept
        for path in kept:
            np.testing.assert_array_equal(kept[path], expected[path], err_msg=path)
    # The others go on as if all were there.
    for a, b in (
        (after.params.shared, present[-1].params.shared),
        (after.params.tasks["a"], present[-1].params.tasks["a"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(first) == jax.tree.structure(after)


def test_counts_go_on_unless_each_task_has_its_own():
    after = runner(optax.adam(0.1))(True, False, False)[-1]
    assert int(after.opt_state[0].count) == 3
    after = runner(training.by_task(optax.adam(0.1)))(True, False, False)[-1]
    assert int(after.opt_state.shared[0].count) == int(after.opt_state.tasks["a"][0].count) == 3
    assert int(after.opt_state.tasks["b"][0].count) == 1


def test_by_task_is_as_if_the_steps_without_the_task_had_not_been():
    optimizer = training.by_task(optax.adamw(optax.linear_schedule(0.1, 0.0, 10)))
    run = runner(optimizer)
    rested, alone = run(True, False, False, True, False, True)[-1], run(True, True, True)[-1]
    jax.tree.map(np.testing.assert_array_equal, rested.params.tasks["b"], alone.params.tasks["b"])
    jax.tree.map(np.testing.assert_array_equal, rested.opt_state.tasks["b"], alone.opt_state.tasks["b"])


def test_by_task_is_each_tasks_own_optimizer():
    """A global norm is that of a task's own gradients."""
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    grads = jax.tree.map(jnp.ones_like, START)
    updates, _ = training.by_task(optimizer).update(grads, training.by_task(optimizer).init(START), START)
    for part in (updates.shared, updates.tasks["a"], updates.tasks["b"]):
        np.testing.assert_allclose(optax.tree.norm(part), 1e-3, rtol=1e-6)


TIED = Params((), {name: {"trunk": jnp.array(x), "head": jnp.array(1.0)} for name, x in (("a", 0.0), ("b", 4.0))})


def soft_losses(params, state, present, key, train):
    losses = {name: own["trunk"] ** 2 + own["head"] ** 2 for name, own in params.tasks.items()}
    return losses, mtljax.Aux(state, weight_sum=jnp.stack([1.0, present * 1.0]))


def test_a_penalty_moves_the_copy_that_it_ties_and_not_the_head():
    penalty = lambda params: jnp.square(params.tasks["a"]["trunk"] - params.tasks["b"]["trunk"])  # noqa: E731
    for optimizer in (optax.sgd(0.1), training.by_task(optax.sgd(0.1))):
        after = runner(optimizer, start=TIED, losses_fn=soft_losses, penalty=penalty)(False)[-1].params.tasks
        assert float(after["b"]["trunk"]) == pytest.approx(4.0 - 0.1 * 2 * 4.0)
        assert float(after["b"]["head"]) == 1.0
    _, before, after = runner(optax.adamw(0.1), start=TIED, losses_fn=soft_losses, penalty=penalty)(True, False)
    assert float(after.params.tasks["b"]["head"]) == float(before.params.tasks["b"]["head"])
    assert float(after.params.tasks["b"]["trunk"]) != float(before.params.tasks["b"]["trunk"])
    moments = [of("b", state.opt_state) for state in (before, after)]
    moved = {path for path in moments[0] if moments[0][path] != moments[1][path]}
    assert moved == {path for path in moments[0] if "trunk" in path}


def test_a_prox_moves_the_copy_that_it_ties_and_not_the_head():
    prox = penalties.proximal(
        penalties.l2_to_mean(1e6), 0.1, where=lambda params: {name: own["trunk"] for name, own in params.tasks.items()}
    )
    optimizer = optax.chain(optax.adamw(0.1), prox)
    _, before, after = runner(optimizer, start=TIED, losses_fn=soft_losses)(True, False)
    trunks = [after.params.tasks[name]["trunk"] for name in "ab"]
    np.testing.assert_allclose(trunks[0], trunks[1], rtol=1e-4)
    assert float(after.params.tasks["b"]["head"]) == float(before.params.tasks["b"]["head"])


def test_what_is_gathered_over_several_steps_is_not_lost():
    """The step that spends a head's gradients may be one without its task."""
    for optimizer in (optax.MultiSteps(optax.sgd(0.1), 2), optax.chain(optax.sgd(0.05), optax.apply_every(2))):
        after = runner(optimizer)(True, False)[-1]
        assert float(after.params.tasks["b"]["v"]) == pytest.approx(-0.674 + 0.05 * 2 * 1.674, rel=1e-5)


def test_by_task_in_a_chain_behind_a_method():
    chain = optax.chain(mtljax.as_optax(methods.equal()), training.by_task(optax.adam(0.1)))
    rows = START._replace(shared={"w": jnp.eye(2)})
    state = chain.init(START)
    for step, present in enumerate([False, True, False]):  # the last has the momentum of the second behind it
        active = jnp.array([True, present])
        updates, state = chain.update(rows, state, START, losses=jnp.ones(2), active=active)
        assert (float(updates.tasks["b"]["v"]) != 0.0) == present and float(updates.tasks["a"]["v"]) != 0.0
        assert int(state[1].tasks["b"][0].count) == min(step, 1)


def test_a_penalty_that_is_not_finite_touches_nothing():
    state = runner(optax.sgd(0.1), penalty=lambda params: jnp.sqrt(params.tasks["b"]["v"]))(True)[-1]
    expected = runner(optax.sgd(0.1))(True)[-1]
    jax.tree.map(np.testing.assert_array_equal, state.params, expected.params)


def test_a_state_may_grow():
    """As that of `optax.monitor` does."""
    update = lambda updates, state, params=None: (updates, {"last": updates})  # noqa: E731
    growing = optax.chain(optax.GradientTransformation(lambda params: {}, update), optax.sgd(0.1))
    after = runner(growing)(True, False)[-1]
    assert float(after.opt_state[0]["last"].tasks["b"]["v"]) == pytest.approx(-2 * 1.674)
    assert float(after.params.tasks["b"]["v"]) == pytest.approx(-0.674 + 0.1 * 2 * 1.674)
