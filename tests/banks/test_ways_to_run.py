"""Banks on devices, over seeds, in bf16, of one task; optimizers and penalties that look at leaves of a bank."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import mtljax
from mtljax import engines, methods, penalties, sharing, training
from mtljax.engines import cut
from tests.banks import nets
from tests.sharing.blocks import dense
from tests.training.ways import DEVICES, MESHED, compiled, many_ways, needs_devices

METHODS = {
    "equal": methods.equal,
    "uncertainty": methods.uncertainty,
    "mgda": methods.mgda,
    "graddrop": methods.graddrop,
}
TRUNK = dense(4, activation=jnp.tanh, rate=0)
HEAD = dense(1, rate=0, bias=True)


def close(a, b, tolerance=2e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


def model_of(banked, **options):
    return sharing.hard(TRUNK, {**nets.heads(banked, head=HEAD, **options), "z": dense(2, rate=0)})


def stepped(banked, method, *, optimizer=None, axis_name=None, engine=None, loss=None, names=nets.NAMES, **options):
    f = mtljax.make_losses_fn(model_of(banked, names=names), nets.tasks(banked, loss=loss, names=names))
    return training.make_train_step(
        f, method, optimizer or optax.sgd(0.05), axis_name=axis_name, engine=engine, **options
    )


def bad_label(banked, batch, value, *, example=0):
    """Another label of task a1."""
    old = batch.targets["a" if banked else "a1"]
    new = {"a": old.at[example, 1].set(value)} if banked else {"a1": old.at[example].set(value)}
    shown = batch.mask["a" if banked else "a1"]
    seen = {"a": shown.at[example, 1].set(True)} if banked else {"a1": shown.at[example].set(True)}
    return batch._replace(targets={**batch.targets, **new}, mask={**batch.mask, **seen})


def run(banked, method, how="jit", *, steps=2, change=None, **options):
    """The parameters and the counts of what was not finite, after some steps; the bank's spelled out."""
    batch = nets.batch(banked, examples=DEVICES)
    batch = batch if change is None else change(banked, batch)
    spread = how in ("pmap", "shard_map")
    init, step = stepped(banked, method, axis_name="batch" if spread else None, **options)
    state = init(jax.random.key(1), batch.inputs)
    taken, batch = compiled(step, batch, how)
    for _ in range(steps):
        state, _ = jax.block_until_ready(taken(state, batch))
    params = nets.spelled_out(state.params) if banked else state.params
    return params, state.nonfinite


AT_ONCE = {("mgda", "shard_map"), ("uncertainty", "pmap"), ("equal", "sharded")}


@needs_devices
@pytest.mark.parametrize(("name", "how"), many_ways(list(METHODS), AT_ONCE))
def test_many_devices_take_the_steps_of_one(name, how):
    ours, theirs = run(True, METHODS[name](), how), run(False, METHODS[name]())
    close(ours[0], theirs[0], 2e-5)


def rooted(outputs, targets):
    """Finite, with an infinite derivative times 0 at the target 7."""
    return jnp.sqrt(jnp.abs(outputs - targets).sum(-1) * (targets[..., 0] - 7) ** 2)


@needs_devices
@pytest.mark.parametrize(
    ("name", "how"),
    [("equal", "shard_map"), ("mgda", "pmap"), pytest.param("uncertainty", "sharded", marks=pytest.mark.slow)],
)
def test_a_nan_gradient_on_one_device_makes_the_task_sit_out_on_all(monkeypatch, name, how):
    monkeypatch.setattr(cut, "GROUP", 2 * 4 * DEVICES // MESHED)  # groups of two tasks, or of one
    change = functools.partial(bad_label, value=7.0, example=6)
    ours = run(True, METHODS[name](), how, change=change, loss=rooted)
    theirs = run(False, METHODS[name](), change=change, loss=rooted)
    assert ours[1].tolist() == theirs[1].tolist() == [0, 2, 0, 0]
    close(ours[0], theirs[0], 2e-5)


def test_seeds_and_rates_along_a_mapped_axis():
    """Each member of a sweep is the run by itself, where one member's label is NaN, too."""
    batch, rates = nets.batch(True), jnp.array([0.01, 0.1, 0.1])
    targets = jnp.stack([batch.targets["a"]] * 3).at[2, 0, 1].set(jnp.nan)

    def train(key, rate, labels):
        init, step = stepped(True, methods.dwa(), optimizer=optax.sgd(rate))
        given = batch._replace(targets={**batch.targets, "a": labels})
        state = init(key, batch.inputs)
        return jax.lax.fori_loop(0, 3, lambda _, state: step(state, given)[0], state)

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(train))(keys, rates, targets)
    assert together.nonfinite.tolist() == [[0] * 4, [0] * 4, [0, 3, 0, 0]]
    for k in range(3):
        alone = jax.jit(train)(keys[k], rates[k], targets[k])
        close(jax.tree.map(lambda leaf, k=k: leaf[k], together.params), alone.params)


@pytest.mark.parametrize("method", [methods.equal(), methods.mgda()], ids=lambda method: method.name)
def test_bf16(method):
    found = []
    for banked in (True, False):
        init, step = stepped(banked, method)
        batch = nets.batch(banked, dtype=jnp.bfloat16)
        state = init(jax.random.key(1), batch.inputs)
        state = state._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.params))
        state, metrics = jax.jit(step)(state, batch)
        found.append((nets.spelled_out(state.params) if banked else state.params, metrics["losses"].array))
    close(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), found[0][0]), found[1][0], 2**-7)
    close(found[0][1], found[1][1], 2**-7)


@pytest.mark.parametrize("names", [("a0",), tuple(f"a{k:02}" for k in range(17))], ids=["one task", "17 tasks"])
@pytest.mark.parametrize("method", [methods.equal(), methods.mgda(), methods.graddrop()], ids=lambda each: each.name)
def test_sizes(names, method):
    found = []
    for banked in (True, False):
        init, step = stepped(banked, method, names=names)
        batch = nets.batch(banked, names=names)
        state, metrics = jax.jit(step)(init(jax.random.key(1), batch.inputs), batch)
        found.append((nets.spelled_out(state.params, names) if banked else state.params, metrics["weights"].array))
    close(found[0], found[1])


def test_a_bank_alone():
    """T is the bank's n; with one task the Gramian is 1 x 1."""
    for names in (("a0",), nets.NAMES):
        model = sharing.hard(TRUNK, {"a": sharing.Bank(HEAD, names)})
        f = mtljax.make_losses_fn(model, {"a": nets.tasks(True)["a"]})
        init, step = training.make_train_step(f, methods.upgrad(), optax.sgd(0.1))
        batch = nets.batch(True, names=names)
        batch = batch._replace(targets={"a": batch.targets["a"]})
        _, metrics = jax.jit(step)(init(jax.random.key(1), batch.inputs), batch)
        assert metrics["cosines"].shape == (len(names),) * 2
        assert np.isfinite(np.asarray(metrics["losses"].array)).all()


OPTIMIZERS = {
    "muon": lambda: contrib.muon(0.02),
    "lamb": lambda: optax.lamb(0.02),
    "adafactor": lambda: optax.adafactor(0.02, min_dim_size_to_factor=2),
    "adamw, kernels alone": lambda: optax.adamw(
        0.02, weight_decay=0.3, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_that_look_at_whole_leaves(name):
    """Mapped over the bank by `by_task`, each does what it does for single tasks."""
    found = []
    for banked in (True, False):
        optimizer = training.by_task(OPTIMIZERS[name](), banks=("a",) if banked else ())
        found.append(run(banked, methods.dwa(), optimizer=optimizer)[0])
    close(found[0], found[1], 5e-6)


def test_a_penalty_on_a_bank_is_that_on_its_stacked_tasks():
    """It reaches absent tasks' rows, as it does single tasks."""
    coupled = penalties.l2_to_mean(0.3)

    def hidden(banked, batch):
        if banked:
            return batch._replace(mask={**batch.mask, "a": batch.mask["a"].at[:, 1].set(False)})
        return batch._replace(mask={**batch.mask, "a1": jnp.zeros(DEVICES, bool)})

    def stacked(params):
        return mtljax.trees.stack([params.tasks[name] for name in nets.NAMES])

    ours = run(True, methods.dwa(), change=hidden, penalty=lambda params: coupled(params.tasks["a"]))
    theirs = run(False, methods.dwa(), change=hidden, penalty=lambda params: coupled(stacked(params)))
    close(ours[0], theirs[0])


def test_proximal_on_a_bank():
    rate, joint = 0.05, penalties.l21(20.0)
    spelled = {
        True: penalties.proximal(joint, rate, bank="a"),
        False: penalties.proximal(joint, rate, where=lambda params: {name: params.tasks[name] for name in nets.NAMES}),
    }
    ours, theirs = (
        run(banked, methods.equal(), optimizer=optax.chain(optax.sgd(rate), spelled[banked]), steps=3)
        for banked in (True, False)
    )
    close(ours[0], theirs[0])
    assert any((np.asarray(leaf) == 0).any() for leaf in jax.tree.leaves(ours[0].tasks["a0"]))


def test_proximal_wants_a_bank_that_is_there():
    params = mtljax.Params(jnp.zeros(1), {"a": jnp.ones((2, 1))})
    optimizer = penalties.proximal(penalties.l21(), 0.1, bank="b")
    with pytest.raises(ValueError, match=r"bank must be an entry of params.tasks, of \['a'\], found 'b'"):
        optimizer.update(params, optimizer.init(params), params)


@pytest.mark.parametrize("engine", [engines.full(), engines.features()], ids=lambda engine: engine.name)
def test_labels_of_nobody(engine):
    """A batch without any label of the bank: the trunk moves by the other task alone."""

    def hidden(banked, batch):
        names = ["a"] if banked else nets.NAMES
        return batch._replace(mask={name: jnp.zeros_like(batch.mask[name]) for name in names})

    ours, theirs = (run(banked, methods.mgda(), change=hidden, engine=engine) for banked in (True, False))
    close(ours[0], theirs[0])
