"""Recipes: which parameters move in which stage, and which tasks are active at which step."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.data import views
from mtljax.training.recipes import add_task_later, alternate, begin_at, pretrain_then_finetune, scheduled
from mtljax.training.stages import run_stages, stage_functions
from tests.training.problem import assert_same_bits
from tests.training.test_stages import OPTIONS, TARGETS, X, make_stage

SGD = optax.sgd(0.01)
KEPT = make_stage("a", "a", 1, keep_optimizer=True)
BATCH = mtljax.Batch(X[:8], {name: TARGETS[name][:8] for name in "ab"})


def moved(old, new):
    return bool((old != new).any())


@pytest.mark.slow
def test_fine_tuning_starts_from_the_pretrained_trunk_with_new_heads_first_alone():
    first, second = make_stage("pretrain", "a", 3), make_stage("finetune", "bc", 3)
    assert pretrain_then_finetune(first, second) == (first, second)
    stages = pretrain_then_finetune(first, second, probe_steps=2)
    assert [(stage.name, stage.num_steps) for stage in stages] == [("pretrain", 3), ("probe", 2), ("finetune", 3)]
    results = run_stages(stages, X, **OPTIONS)
    pretrained, probed, tuned = (results[stage.name].state.params for stage in stages)
    assert_same_bits(probed.shared, pretrained.shared)
    assert moved(probed.shared, tuned.shared)
    fresh = stage_functions(stages[1], X)[0](jax.random.fold_in(OPTIONS["key"], 1)).params
    assert sorted(probed.tasks) == sorted(tuned.tasks) == ["b", "c"]
    for task in "bc":
        assert moved(fresh.tasks[task], probed.tasks[task])
        assert moved(probed.tasks[task], tuned.tasks[task])


def test_between_the_stages_one_part_alone_moves():
    params = mtljax.Params(jnp.ones(2), {"b": jnp.ones(1), "c": jnp.ones(1)})
    stage = make_stage("after", "bc", 3, optimizer=SGD)
    _, probe, _ = pretrain_then_finetune(stage, stage, probe_steps=2)
    _, alone, _ = add_task_later(stage, stage, task="c", alone_steps=2)
    for middle, still in ((probe, ("shared",)), (alone, ("shared", "b"))):
        updates, _ = middle.optimizer.update(params, middle.optimizer.init(params), params)
        parts = {"shared": updates.shared, **updates.tasks}
        assert {name for name, update in parts.items() if (update == 0).all()} == set(still)
        assert (middle.num_steps, middle.model) == (2, stage.model)


@pytest.mark.slow
def test_a_task_that_comes_later_is_trained_alone_before_the_others_move_again():
    before, after = make_stage("before", "ab", 3), make_stage("after", "abc", 3)
    assert add_task_later(before, after, task="c") == (before, after)
    results = run_stages(add_task_later(before, after, task="c", alone_steps=2), X, **OPTIONS)
    old, alone, new = (results[name].state.params for name in ("before", "alone", "after"))
    assert_same_bits(alone.shared, old.shared)
    for task in "ab":
        assert_same_bits(alone.tasks[task], old.tasks[task])
        assert moved(alone.tasks[task], new.tasks[task])
    assert moved(alone.tasks["c"], new.tasks["c"])
    assert moved(alone.shared, new.shared)
    # What is no parameter goes on: a call of the trunk at every step.
    assert [int(results[name].state.model_state["trunk"]) for name in ("before", "alone", "after")] == [3, 5, 8]
    with pytest.raises(ValueError, match=r"the rule \(\('tasks', 'd'\), 'trained'\) must match a path"):
        run_stages(add_task_later(before, after, task="d", alone_steps=2), X, **OPTIONS)


def test_phases_take_turns():
    schedule = alternate((("a", "b"), 2), (("b",), 1), (("c",), 3))
    found = jax.vmap(schedule)(jnp.arange(12))
    expected = {"a": "##....", "b": "###...", "c": "...###"}
    assert {name: "".join(".#"[int(on)] for on in row) for name, row in found.items()} == {
        name: 2 * row for name, row in expected.items()
    }


@pytest.mark.slow
def test_one_trace_serves_and_a_task_that_sits_out_is_as_if_it_were_not_there():
    stage = make_stage("both", "ab", 1, optimizer=SGD)
    start, step = stage_functions(stage, X)
    counted = chex.assert_max_traces(step, 1)
    run = jax.jit(scheduled(scheduled(counted, alternate((("a",), 2), (("b",), 1))), begin_at({"b": 3})))
    by_hand = jax.jit(step)
    state = other = start(jax.random.key(0))
    for number in range(6):
        on = {"a": number % 3 < 2, "b": number % 3 == 2 and number >= 3}
        previous = state
        state, metrics = run(state, BATCH)
        assert {name: bool(active) for name, active in metrics["active"].items()} == on
        other, _ = by_hand(other, BATCH._replace(mask={name: np.full(8, value) for name, value in on.items()}))
        assert_same_bits(state.params, other.params)
        for name, value in on.items():
            assert moved(previous.params.tasks[name], state.params.tasks[name]) == value
        assert moved(previous.params.shared, state.params.shared) == any(on.values())


def test_schedules_reach_masks_of_views_and_of_multi_input_batches():
    def step(state, batch):
        return state, views.add(batch, jax.random.key(0), {"view": lambda key, x: (x, x)})

    late = begin_at({"view": 1})
    have = np.arange(8) > 2
    state = make_state(0)
    _, batch = scheduled(step, late)(state, BATCH._replace(mask={"a": have}))
    assert not batch.mask["view"].any()
    assert (batch.mask["a"] == have).all()
    multi = {"a": mtljax.Batch(X[:4], {"a": X[:4]}, {"a": have[:4]}), "view": mtljax.Batch(X[:8], {})}
    _, batch = scheduled(step, begin_at({"view": 1, "a": 0}))(state, multi)
    assert batch["a"].mask["a"].tolist() == have[:4].tolist()
    assert batch["view"].mask["view"].tolist() == [False] * 8
    _, batch = scheduled(step, late)(make_state(1), multi)
    assert batch["view"].mask["view"].all()
    weights = np.arange(16.0).reshape(8, 2)
    for now, expected in ((0, 0 * weights), (1, weights)):
        _, batch = scheduled(step, begin_at({"a": 1}))(make_state(now), BATCH._replace(mask={"a": weights}))
        np.testing.assert_array_equal(batch.mask["a"], expected)
    with pytest.raises(ValueError, match=r"batch must have an entry for task 'view', found \['a'\]"):
        scheduled(step, late)(state, {"a": multi["a"]})


def make_state(step):
    return mtljax.TrainState(jnp.int32(step), mtljax.Params((), {}), (), (), mtljax.MethodState((), ()), None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pretrain_then_finetune(KEPT, KEPT, probe_steps=2),
            "finetune: keep_optimizer of stage 'a' must be False",
        ),
        (
            lambda: add_task_later(KEPT, KEPT, task="a", alone_steps=2),
            "later: keep_optimizer of stage 'a' must be False",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
