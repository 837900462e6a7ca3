"""`Batch.task`: each example is of one task of a bank, as if all its other labels were missing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import engines, methods, sharing, training
from tests.banks import nets
from tests.sharing.blocks import dense


def stateless(size, **options):
    """The network of other tests without the state that counts its calls."""
    network = dense(size, **options)

    def apply(params, state, x, **rest):
        return network.apply(params, {"calls": jnp.int32(0)}, x, **rest)[0], state

    return sharing.Network(lambda key, x: (network.init(key, x)[0], ()), apply)


TRUNK, HEAD = dense(4, activation=jnp.tanh, rate=0), stateless(1, rate=0, bias=True)
INDEX = jnp.array([1, 0, 1, -1, 2, 1])
ARCHITECTURES = {
    "hard": lambda heads: sharing.hard(TRUNK, heads),
    "mmoe": lambda heads: sharing.mmoe(TRUNK, heads, num_experts=3),
}


def close(a, b, tolerance=2e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


def model_of(name="hard"):
    return ARCHITECTURES[name]({**nets.heads(True, head=HEAD), "z": dense(2, rate=0)})


def batches(index=INDEX, *, weights=None, labels=None):
    """One task for each example: as an index, and as a mask over all tasks."""
    full = nets.batch(True, missing=False)
    one = jnp.clip(index, 0)
    seen = jax.nn.one_hot(index, 3, dtype=bool) if weights is None else jax.nn.one_hot(index, 3) * weights[:, None]
    targets = full.targets["a"] if labels is None else labels
    spelled = full._replace(targets={**full.targets, "a": targets}, mask={"a": seen})
    chosen = targets[jnp.arange(len(index)), one]
    mask = {} if weights is None else {"a": weights}
    return full._replace(targets={**full.targets, "a": chosen}, mask=mask, task={"a": index}), spelled


def both(method, *, architecture="hard", engine=None, steps=2, **options):
    f = mtljax.make_losses_fn(model_of(architecture), nets.tasks(True))
    init, step = training.make_train_step(f, method, optax.adam(0.01), engine=engine)
    found = []
    for batch in batches(**options):
        state, taken = init(jax.random.key(0), batch.inputs), jax.jit(step)
        for _ in range(steps):
            state, metrics = taken(state, batch)
        found.append((state.params, state.nonfinite, metrics))
    return found


METHODS = [methods.equal(), methods.uncertainty(), methods.pooled(), methods.mgda(), methods.graddrop()]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_an_index_is_a_mask_over_all_tasks(method):
    ours, theirs = both(method)
    close(ours[0], theirs[0])
    for name in ("losses", "weights", "active"):
        close(ours[2][name].array, theirs[2][name].array)
    close(ours[2]["tasks"]["a"], theirs[2]["tasks"]["a"])


@pytest.mark.parametrize("engine", [engines.gramian(), engines.chunked(2), engines.features()], ids=lambda e: e.name)
def test_engines(engine):
    ours, theirs = both(methods.mgda(), engine=engine)
    close(ours[0], theirs[0])


def test_gates_of_a_bank():
    ours, theirs = both(methods.uncertainty(), architecture="mmoe")
    close(ours[0], theirs[0])


def test_weights_and_an_absent_task():
    """Task a0 has the only example of weight 0, so it rests; -1 is of no task."""
    weights = jnp.array([0.5, 0.0, 2.0, 1.0, 3.0, 0.25])
    ours, theirs = both(methods.dwa(), weights=weights)
    close(ours[0], theirs[0])
    assert ours[2]["active"]["a"].tolist() == theirs[2]["active"]["a"].tolist() == [False, True, True]


def test_nan_labels():
    """That of no task is never seen; that of a1 makes a1 alone sit out."""
    labels = nets.batch(True).targets["a"].at[3].set(jnp.nan).at[2].set(jnp.nan)
    for method in (methods.equal(), methods.mgda()):
        ours, theirs = both(method, labels=labels)
        close(ours[0], theirs[0])
        assert ours[1].tolist() == theirs[1].tolist() == [0, 2, 0, 0]


def test_evaluate():
    model = model_of()
    params, model_state = model.init(jax.random.key(1), nets.batch(True).inputs)
    state = mtljax.TrainState(0, params, model_state, (), (), None)
    ours, theirs = (training.make_evaluate(model, nets.tasks(True))(state, [batch] * 2) for batch in batches())
    for name in ("loss", "absolute"):
        np.testing.assert_allclose(ours["a"][name].array, theirs["a"][name].array, rtol=1e-6)


def test_dropout_differs_from_example_to_example():
    model = sharing.hard(dense(8, rate=0), {"a": sharing.Bank(stateless(8), nets.NAMES)})
    x = jnp.ones((40, 3))
    params, state = model.init(jax.random.key(0), x)
    given = {"task": {"a": jnp.ones(40, jnp.int32)}, "key": jax.random.key(1), "train": True}
    outputs = np.asarray(model.apply(params, state, x, **given)[0]["a"])
    assert len(np.unique(outputs != 0, axis=0)) > 10


def test_an_index_beyond_the_bank_is_seen():
    """Concrete, it is an error; traced, the last task is left out, as one with a NaN loss is."""
    f = mtljax.make_losses_fn(model_of(), nets.tasks(True))
    batch, _ = batches(INDEX.at[0].set(3))
    params, state = f.model.init(jax.random.key(0), batch.inputs)
    with pytest.raises(ValueError, match=r"task\['a'\] must be below the number of tasks 3, found 3"):
        f(params, state, batch)
    losses, _ = jax.jit(f)(params, state, batch)
    assert np.isnan(losses["a"]).tolist() == [False, False, True]


MISTAKES = {
    "floating": ({"a": jnp.ones(6)}, TypeError, r"task\['a'\] must be an array of integers"),
    "shape": ({"a": jnp.ones((6, 1), jnp.int32)}, ValueError, r"task\['a'\] must be \[B\] with B = 6, found \[6, 1\]"),
    "single": ({"z": INDEX}, ValueError, r"task must be for banks of the model, \['a'\], found 'z'"),
    "unknown": ({"b": INDEX}, ValueError, r"task of the batch must be of tasks \['a', 'z'\], found 'b'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    task, error, message = MISTAKES[name]
    f = mtljax.make_losses_fn(model_of(), nets.tasks(True))
    batch = batches()[0]
    params, state = f.model.init(jax.random.key(0), batch.inputs)
    with pytest.raises(error, match=message):
        f(params, state, batch._replace(task=task))


REFUSED = {
    "film": (lambda heads: sharing.film([TRUNK], heads), HEAD, r"task must be empty for this architecture"),
    "state": (lambda heads: sharing.hard(TRUNK, heads), dense(1), "the network of 'a' must have no state"),
    "term": (
        lambda heads: sharing.moe(TRUNK, heads, num_experts=3, num_selected=2, balance=0.1),
        HEAD,
        "the outputs of 'a' must have no term of their own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_without_examples_of_one_task_each(name):
    make, head, message = REFUSED[name]
    model = make({"a": sharing.Bank(head, nets.NAMES)})
    batch = batches()[0]
    params, state = model.init(jax.random.key(0), batch.inputs)
    with pytest.raises(ValueError, match=message):
        model.apply(params, state, batch.inputs, task=batch.task, key=jax.random.key(1), train=True)
