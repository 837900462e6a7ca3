"""Banks in runs: logs, checkpoints and the names in them, surgery, stages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import ByTask, methods, sharing, training
from mtljax.sharing import add_task, carry_over, without_task
from mtljax.training import log
from tests.banks import nets
from tests.sharing.blocks import dense

NAMES = ("a0", "a1", "a2")
OTHER = ("a2", "new", "a0", "a1")
FEWER = ("a2", "a0")


def model_of(names=NAMES):
    return sharing.hard(dense(4, activation=jnp.tanh), nets.heads(True, names=names))


def made(names=NAMES, method=None, optimizer=None):
    losses_fn = mtljax.make_losses_fn(model_of(names), nets.tasks(True))
    init, step = training.make_train_step(losses_fn, method or methods.equal(), optimizer or optax.adam(0.01))
    return init(jax.random.key(0), nets.batch(True, names=names).inputs), jax.jit(step)


def run(num_steps, *, names=NAMES, method=None, batch=None, **options):
    state, step = made(names, method)
    batch = nets.batch(True, names=names) if batch is None else batch
    return training.fit(step, state, lambda start: iter([batch] * 9), num_steps=num_steps, progress=False, **options)


def test_a_record_is_short_unless_asked():
    batch = nets.batch(True)
    batch = batch._replace(mask={**batch.mask, "a": batch.mask["a"].at[:, 1].set(False)})
    short, long = [], []
    for records, asked in ((short, False), (long, True)):
        run(1, method=methods.mgda(), batch=batch, log=records.append, log_tasks=asked)
    train, every = short[0]["train"], long[0]["train"]
    losses = [every["losses"][name] for name in ("a0", "a2")]  # a1 takes no part
    assert train["losses"]["a"] == {"mean": pytest.approx(np.mean(losses)), "min": min(losses), "max": max(losses)}
    assert train["losses"]["z"] == every["losses"]["z"]
    assert train["active"] == {"a": {"sum": 2, "max": True}, "z": True}
    assert set(every["losses"]) == {*NAMES, "z"}
    cosines = np.array(every["cosines"])[np.ix_([0, 2, 3], [0, 2, 3])][np.triu_indices(3, 1)]
    assert train["cosines"] == {
        "mean": pytest.approx(cosines.mean()),
        "min": pytest.approx(cosines.min()),
        "conflicting": pytest.approx((cosines < 0).mean()),
    }
    assert set(train["tasks"]["a"]["absolute"]) == {"mean", "min", "max"}


def test_a_record_of_nothing_is_not_a_number():
    values = ByTask(jnp.full((2, 3), jnp.nan), (("a", NAMES),))
    assert np.isnan(log.to_record(values)["mean"]).tolist() == [True, True]


def test_a_task_of_a_bank_that_sits_out_is_named():
    batch = nets.batch(True)
    batch = batch._replace(targets={**batch.targets, "a": batch.targets["a"].at[0, 1].set(jnp.nan)})
    state, step = made()
    with pytest.warns(UserWarning, match=r"task 'a1' was inactive in 10 of 10 steps"):
        training.fit(step, state, lambda start: iter([batch] * 10), num_steps=10, progress=False, log_every=10)


def test_a_run_resumes_with_its_tasks_alone(tmp_path):
    whole = run(4)
    run(2, checkpoint_dir=tmp_path)
    with pytest.raises(
        ValueError, match=r"the tasks of the bank 'a' must be those of .*found \['a2'\] in place of \['a0'\]"
    ):
        run(4, names=("a2", "a1", "a0"), checkpoint_dir=tmp_path)
    resumed = run(4, checkpoint_dir=tmp_path)
    for ours, theirs in zip(jax.tree.leaves(resumed.state.params), jax.tree.leaves(whole.state.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_parameters_are_restored_by_the_names_of_tasks(tmp_path):
    old = run(2, checkpoint_dir=tmp_path).state.params
    new, _ = model_of(OTHER).init(jax.random.key(7), nets.batch(True).inputs)
    found = training.restore_params(tmp_path, new, banks={"a": OTHER})
    assert_rows(found.params.tasks["a"], old.tasks["a"], new.tasks["a"])
    leaf = next(name.split(" of ")[0] for name in found.new)
    assert f"{leaf} of new" in found.new
    assert f"{leaf} of a1" in found.taken
    fewer = training.restore_params(tmp_path, without(new, FEWER), banks={"a": FEWER})
    assert f"{leaf} of a1" in fewer.left
    with pytest.raises(ValueError, match=r"banks must tell the tasks of the bank 'a', found \{\}"):
        training.restore_params(tmp_path, new)


def without(params, names):
    rows = np.array([OTHER.index(name) for name in names])
    return params._replace(tasks={**params.tasks, "a": jax.tree.map(lambda leaf: leaf[rows], params.tasks["a"])})


def assert_rows(found, old, new, names=OTHER):
    """Rows of tasks that were there are the old ones; others are new."""
    for ours, before, fresh in zip(*map(jax.tree.leaves, (found, old, new)), strict=True):
        for k, name in enumerate(names):
            expected = before[NAMES.index(name)] if name in NAMES else fresh[k]
            np.testing.assert_array_equal(ours[k], expected)


def test_a_bank_grows_and_shrinks():
    inputs, optimizer = nets.batch(True).inputs, optax.adam(0.1)
    params, state = model_of().init(jax.random.key(1), inputs)
    grown, grown_state = add_task(params, state, model_of(OTHER), jax.random.key(2), inputs, banks={"a": NAMES})
    assert_rows(grown.tasks["a"], params.tasks["a"], model_of(OTHER).init(jax.random.key(2), inputs)[0].tasks["a"])
    moments = optimizer.update(params, optimizer.init(params), params)[1]
    carried = carry_over(optimizer.init(grown), moments, banks=({"a": OTHER}, {"a": NAMES}))
    assert_rows(carried[0].mu.tasks["a"], moments[0].mu.tasks["a"], jax.tree.map(jnp.zeros_like, grown.tasks["a"]))
    back, _ = without_task(grown, grown_state, model_of(FEWER), inputs, banks={"a": OTHER})
    assert_rows(back.tasks["a"], params.tasks["a"], back.tasks["a"], FEWER)
    with pytest.raises(ValueError, match="banks must tell the tasks of 'a' in the old model"):
        add_task(params, state, model_of(OTHER), jax.random.key(2), inputs)
    with pytest.raises(ValueError, match=r"model must have the old tasks \['a/a0', 'a/a1', 'a/a2', 'z'\]"):
        add_task(params, state, model_of(FEWER), jax.random.key(2), inputs, banks={"a": NAMES})


def test_a_bank_grows_from_stage_to_stage():
    def stage(name, names):
        model = model_of(names)
        losses_fn = mtljax.make_losses_fn(model, nets.tasks(True))
        batch = nets.batch(True, names=names)
        stream = lambda start: iter([batch] * 2)  # noqa: E731
        return training.Stage(name, model, losses_fn, methods.equal(), optax.sgd(0.0), stream, 2)

    stages = [stage("first", NAMES), stage("second", OTHER)]
    found = training.run_stages(stages, nets.batch(True).inputs, key=jax.random.key(0), progress=False)
    before, after = (found[name].state.params.tasks["a"] for name in ("first", "second"))
    assert_rows(after, before, after)


@pytest.mark.parametrize("where", [("tasks", "a", "a1"), lambda path: "/a1/" in path], ids=["a prefix", "a function"])
def test_a_task_of_a_bank_is_frozen(where):
    """Its row stays as it is to the bit, weight decay included; the other rows train as they would."""
    params, _ = model_of().init(jax.random.key(1), nets.batch(True).inputs)
    moved = {}
    for name, optimizer in (
        ("all", optax.adamw(0.1, weight_decay=0.5)),
        ("frozen", sharing.freeze(optax.adamw(0.1, weight_decay=0.5), where, banks={"a": NAMES})),
    ):
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        moved[name] = optax.apply_updates(params, updates)
    for before, every, found in zip(
        *(jax.tree.leaves(each.tasks["a"]) for each in (params, moved["all"], moved["frozen"])), strict=True
    ):
        np.testing.assert_array_equal(found[1], before[1])
        np.testing.assert_array_equal(found[::2], every[::2])
    np.testing.assert_array_equal(moved["frozen"].shared["w"], moved["all"].shared["w"])


def test_a_whole_bank_is_frozen_without_a_state():
    params, _ = model_of().init(jax.random.key(1), nets.batch(True).inputs)
    optimizer = sharing.freeze(optax.adam(0.1), ("tasks", "a"), banks={"a": NAMES})
    state = optimizer.init(params)
    assert len(jax.tree.leaves(state)) == len(
        jax.tree.leaves(sharing.freeze(optax.adam(0.1), ("tasks", "a")).init(params))
    )
    updates, _ = optimizer.update(params, state, params)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(updates.tasks["a"]))
    with pytest.raises(ValueError, match="where must select a leaf"):
        sharing.freeze(optax.adam(0.1), ("tasks", "a", "a9"), banks={"a": NAMES}).init(params)
