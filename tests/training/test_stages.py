"""Stages: what is carried over, what is new, and that a run stopped anywhere ends with the same bits."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.sharing import Network, hard
from mtljax.training import log
from mtljax.training.stages import Stage, run_stages, stage_functions
from tests.training.problem import assert_same_bits

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
TARGETS = {"a": X.sum(1), "b": X[:, 0], "c": X[:, 1] * X[:, 2]}


def dense(size):
    """A layer with dropout, so that it matters which key a step has; its state counts calls."""

    def init(key, x):
        return jax.random.normal(key, (x.shape[-1], size)), jnp.zeros((), jnp.int32)

    def apply(w, state, x, *, key=None, train=False):
        keep = jax.random.bernoulli(key, 0.8, x.shape) if train else True
        return jnp.where(keep, x, 0) @ w, state + train

    return Network(init, apply)


def head():
    inner = dense(1)

    def apply(w, state, x, *, key=None, train=False):
        out, state = inner.apply(w, state, x, key=key, train=train)
        return out[:, 0], state

    return Network(inner.init, apply)


def batches_of(names):
    def batches(start):
        for step in itertools.count(start):
            rows = np.random.default_rng(step).permutation(40)[:8]
            yield mtljax.Batch(X[rows], {name: TARGETS[name][rows] for name in names})

    return batches


def make_stage(name, tasks, num_steps, *, optimizer=None, **fields):
    model = hard(dense(4), {task: head() for task in tasks})
    losses_fn = mtljax.make_losses_fn(model, {task: mtljax.Task(mtljax.losses.squared_error) for task in tasks})
    optimizer = optax.adam(1e-2) if optimizer is None else optimizer
    return Stage(name, model, losses_fn, mtljax.methods.equal(), optimizer, batches_of(tasks), num_steps, **fields)


FIRST, SECOND = make_stage("first", "ab", 4), make_stage("second", "bc", 6)
OPTIONS = {"key": KEY, "progress": False, "log_every": 2}


COMPILED = {}


def reused(*stages):
    """A `wrap` that compiles a stage's step once, for all the tests that run it."""
    names = iter([stage.name for stage in stages])

    def wrap(start, step):
        return COMPILED.setdefault(next(names), (start, mtljax.training.jit(step)))

    return {"wrap": wrap}


def never(start):
    raise AssertionError("there is nothing to train")


def timeless(directory):
    return {
        path.parent.name: [{k: v for k, v in record.items() if k != "time"} for record in log.read(path)]
        for path in directory.glob("*/log.jsonl")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory, run_stages([FIRST, SECOND], X, directory=directory, **reused(FIRST, SECOND), **OPTIONS)


def test_what_both_models_have_is_carried_over_and_all_else_is_new(whole):
    last = whole[1]["first"].state
    start, _ = stage_functions(SECOND, X)
    state = start(KEY, last)
    fresh = start(KEY)
    assert_same_bits(state.params.shared, last.params.shared)
    assert_same_bits(state.params.tasks["b"], last.params.tasks["b"])
    assert_same_bits(state.params.tasks["c"], fresh.params.tasks["c"])
    assert sorted(state.params.tasks) == ["b", "c"]
    assert int(state.model_state["trunk"]) == 4
    assert int(state.model_state["tasks"]["c"]) == 0
    assert int(state.step) == 0
    assert_same_bits(state.opt_state, fresh.opt_state)
    assert_same_bits(state.method_state, fresh.method_state)
    assert state.key == fresh.key != last.key


def test_the_optimizer_goes_on_where_it_is_to(whole):
    last = whole[1]["first"].state
    state = stage_functions(SECOND._replace(keep_optimizer=True), X)[0](KEY, last)
    (adam, _), (before, _) = state.opt_state, last.opt_state
    assert int(adam.count) == 4
    assert_same_bits(adam.mu.shared, before.mu.shared)
    assert (adam.mu.tasks["c"] == 0).all()


def test_the_run_is_one_fit_after_the_other(whole):
    state = None
    for index, stage in enumerate((FIRST, SECOND)):
        start, step = COMPILED[stage.name]
        key = jax.random.fold_in(KEY, index)
        state = start(key) if state is None else start(key, state)
        options = {"num_steps": stage.num_steps, "progress": False}
        state = mtljax.training.fit(step, state, stage.batches, **options).state
        # An earlier stage's state survives the donation of the next one's.
        assert_same_bits(state, whole[1][stage.name].state)


@pytest.mark.parametrize(
    ("stage", "stop"),
    [("second", 5), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("first", 3), ("second", 1)))],
)
def test_a_run_stopped_in_any_stage_ends_with_the_same_bits(stage, stop, whole, tmp_path):
    class Stopped(Exception):
        pass

    def breaking(batches):
        def broken(start):
            for step, batch in enumerate(batches(start), start=start):
                if step == stop:
                    raise Stopped
                yield batch

        return broken

    stages = [FIRST, SECOND]
    broken = [each._replace(batches=breaking(each.batches)) if each.name == stage else each for each in stages]
    with pytest.raises(Stopped):
        run_stages(broken, X, directory=tmp_path, checkpoint_every=2, **reused(*stages), **OPTIONS)
    results = run_stages(stages, X, directory=tmp_path, checkpoint_every=2, **reused(*stages), **OPTIONS)
    for name, result in results.items():
        assert_same_bits(result.state, whole[1][name].state)
    assert timeless(tmp_path) == timeless(whole[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_first", "1_second"]
    assert (tmp_path / "1_second" / "checkpoints" / "mtljax_6").is_dir()


def test_a_stage_that_is_complete_is_not_run_again(whole):
    directory, before = whole

    logged = timeless(directory)
    complete = [stage._replace(batches=never) for stage in (FIRST, SECOND)]
    again = run_stages(complete, X, directory=directory, **reused(*complete), **OPTIONS)
    assert_same_bits(again["second"].state, before["second"].state)
    assert timeless(directory) == logged
    assert [result.record for result in again.values()] == [result.record for result in before.values()]
    # Longer than it was, though what came after has begun.
    with pytest.raises(ValueError, match=r"stage 'first' has 5 steps, .* is of step 4, but stage 1_second has begun"):
        run_stages([FIRST._replace(num_steps=5), SECOND], X, directory=directory, **reused(FIRST), **OPTIONS)


@pytest.mark.slow
def test_stages_evaluate_and_may_be_mapped_over_seeds():
    stage = make_stage("only", "ab", 2, optimizer=optax.sgd(0.1), evaluate=lambda state: {"key": state.step})
    axes = mtljax.TrainState(**{field: None if field == "step" else 0 for field in mtljax.TrainState._fields})

    def wrap(start, step):
        mapped = jax.vmap(step, in_axes=(axes, None), out_axes=(axes, 0))
        return lambda key: jax.vmap(start, out_axes=axes)(jax.random.split(key, 2)), jax.jit(mapped)

    result = run_stages([stage], X, wrap=wrap, **OPTIONS)["only"]
    assert result.state.params.shared.shape == (2, 3, 4)
    assert result.record["eval"] == {"key": 2}


def test_states_of_the_models_need_not_meet_where_their_parameters_do():
    trunk = Network(lambda key, x: (dense(4).init(key, x)[0], ()), lambda w, state, x, **_: (x @ w, state))
    old, new = (FIRST._replace(model=hard(trunk, {task: head()})) for task in "ac")
    state = jax.eval_shape(stage_functions(old, X)[0], KEY)
    state = jax.eval_shape(stage_functions(new, X)[0], KEY, state)
    assert list(state.model_state["tasks"]) == ["c"]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "stages must be at least one, found none"),
        ([FIRST, FIRST], "names must be different names of folders"),
        ([FIRST._replace(name="a/b")], r"names must be different names of folders, found \['a/b'\]"),
        ([FIRST._replace(name="")], "names must be different names of folders"),
        ([FIRST, SECOND._replace(num_steps=0)], "num_steps of stage 'second' must be at least 1, found 0"),
    ],
)
def test_mistakes_are_named_before_the_first_step(stages, message):
    with pytest.raises(ValueError, match=message):
        run_stages([stage._replace(batches=never) for stage in stages], X, **OPTIONS)


@pytest.mark.parametrize("option", ["log", "checkpoint_dir"])
def test_what_would_serve_one_stage_alone_is_refused(option, tmp_path):
    # The second stage would cut the first one's log off, or go on from the first one's checkpoint.
    with pytest.raises(TypeError, match=rf"run_stages: options for fit are \['eval_every', .*\], found '{option}'"):
        run_stages([FIRST, SECOND], X, **{option: tmp_path / "one"}, **OPTIONS)
