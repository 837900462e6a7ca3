"""A bank of n tasks is n single tasks: the same first values, outputs, losses, gradients and steps, to rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core

import mtljax
from mtljax import engines, methods, sharing, training
from mtljax.engines import cut
from tests.banks import nets
from tests.methods.table import CASES, over
from tests.sharing.blocks import dense

TRUNK = dense(4, activation=jnp.tanh)

ARCHITECTURES = {
    "hard": lambda heads: sharing.hard(TRUNK, heads),
    "mmoe": lambda heads: sharing.mmoe(TRUNK, heads, num_experts=3),
    "mmoe with an encoder": lambda heads: sharing.mmoe(TRUNK, heads, num_experts=2, encoder=dense(5)),
    "moe": lambda heads: sharing.moe(TRUNK, heads, num_experts=3, num_selected=2, balance=0.1),
    "film": lambda heads: sharing.film([TRUNK, dense(5)], heads),
    "adapters": lambda heads: sharing.adapters([TRUNK, dense(5)], heads, 2),
    "low_rank": lambda heads: sharing.low_rank(TRUNK, heads, 2),
    "dselect_k": lambda heads: sharing.dselect_k(TRUNK, heads, num_experts=4, num_selected=2, entropy=0.1),
}


def close(a, b, tolerance=2e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


def runs(method, *, steps=3, optimizer=None, architecture="hard", engine=None, batch=None, tasks=None, head=None):
    """The states after some steps, and the last metrics, of both spellings; the bank's spelled out."""
    found = []
    for banked in (True, False):
        model = ARCHITECTURES[architecture](nets.heads(banked, head=head))
        losses_fn = mtljax.make_losses_fn(model, nets.tasks(banked, **(tasks or {})))
        init, step = training.make_train_step(losses_fn, method, optimizer or optax.adam(0.01), engine=engine)
        first = (batch or nets.batch)(banked)
        state, step = init(jax.random.key(1), first.inputs), jax.jit(step)
        for k in range(steps):
            each = (batch or nets.batch)(banked, key=k)
            state, metrics = step(state, each if method.num_batches == 1 else (each,) * method.num_batches)
        params = nets.spelled_out(state.params) if banked else state.params
        found.append((params, state.method_state.weights, state.nonfinite, metrics))
    return found


def with_target(batch, banked, value, *, task=1):
    """Another label of the first example of a task of the bank, a1."""
    old = batch.targets["a" if banked else f"a{task}"]
    new = {"a": old.at[0, task].set(value)} if banked else {f"a{task}": old.at[0].set(value)}
    return batch._replace(targets={**batch.targets, **new})


def told(metrics):
    return {name: {k: np.asarray(v) for k, v in metrics[name].by_name().items()} for name in ("losses", "active")}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_values_and_outputs(architecture):
    banked, single = (ARCHITECTURES[architecture](nets.heads(each)) for each in (True, False))
    inputs, key = nets.batch(True).inputs, jax.random.key(5)
    (a, state_a), (b, state_b) = (model.init(jax.random.key(1), inputs) for model in (banked, single))
    close(nets.spelled_out(a), b, 0)
    # Also where units are dropped: each task of the bank has the key that it would have alone.
    ours = banked.apply(a, state_a, inputs, key=key, train=True)[0]
    theirs = single.apply(b, state_b, inputs, key=key, train=True)[0]
    for k, name in enumerate(nets.NAMES):
        if architecture in ("moe", "dselect_k"):
            close(ours["a"].outputs[:, k], theirs[name].outputs)
            close(ours["a"].term[k], theirs[name].term)
        else:
            close(ours["a"][:, k], theirs[name])
    assert banked.banks == {"a": nets.NAMES}


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in ("moe", "dselect_k")])
def test_a_task_of_a_bank_alone(architecture):
    model = ARCHITECTURES[architecture](nets.heads(True))
    x = nets.batch(True).inputs
    params, state = model.init(jax.random.key(1), x)
    whole, _ = model.apply(params, state, x)
    found, after = model.apply(params, state, x, tasks=("a2", "z", "a0"))
    assert found.keys() == {"a0", "a2", "z"}
    close([found["a0"], found["a2"], found["z"]], [whole["a"][:, 0], whole["a"][:, 2], whole["z"]])
    close(after, state, 0)
    with pytest.raises(ValueError, match=r"train must be False where tasks names tasks of banks, found \['a2'\]"):
        model.apply(params, state, x, tasks=("a2",), key=jax.random.key(0), train=True)
    with pytest.raises(ValueError, match=r"tasks must be of the model's \['a', 'z'\], found 'a9'"):
        model.apply(params, state, x, tasks=("a9",))


FIRST = {"equal", "uncertainty", "dwa", "upgrad", "pcgrad", "graddrop", "famo"}


@over(CASES, at_once=lambda case: case.name in FIRST)
def test_every_method(case):
    # SGD: where a gradient is rounding alone, Adam takes a whole step along it.
    ours, theirs = runs(case.make(4), optimizer=optax.sgd(0.05))
    close(ours[0], theirs[0])
    close(ours[1], theirs[1], 2e-5)
    assert ours[2].tolist() == theirs[2].tolist()
    close(told(ours[3]), told(theirs[3]), 1e-5)


SEVERAL_BATCHES = [methods.moml(inner_lr=0.05), methods.sampled(methods.mgda(), 2)]
MORE_OF_THEM = [methods.auto_lambda(inner_lr=0.05), methods.forum(inner_lr=0.05)]


@pytest.mark.parametrize(
    "method",
    [*SEVERAL_BATCHES, *(pytest.param(method, marks=pytest.mark.slow) for method in MORE_OF_THEM)],
    ids=lambda method: method.name,
)
def test_methods_of_several_batches(method):
    ours, theirs = runs(method, optimizer=optax.sgd(0.05), steps=2)
    close(ours[0], theirs[0], 5e-6)


def test_a_method_that_takes_no_banks_says_so():
    with pytest.raises(
        ValueError, match=r"fs_mtl: the tasks must be entries of their own, found 4 tasks in .*'a', 'z'"
    ):
        runs(methods.fs_mtl(methods.mgda()), steps=1)


@pytest.mark.parametrize("architecture", [each for each in ARCHITECTURES if each != "hard"])
@pytest.mark.parametrize(
    "method",
    [pytest.param(methods.uncertainty(), marks=pytest.mark.slow), methods.mgda()],
    ids=lambda method: method.name,
)
def test_every_architecture(architecture, method):
    ours, theirs = runs(method, architecture=architecture, steps=2)
    close(ours[0], theirs[0])


ENGINES = [
    engines.full(),
    engines.full(rows=engines.unrolled),
    engines.chunked(3),
    engines.gramian(),
    engines.gramian(2),
]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_every_engine(engine):
    ours, theirs = runs(methods.mgda(), engine=engine, steps=2)
    close(ours[0], theirs[0])


def test_priors_of_a_bank():
    ours, theirs = runs(methods.dwa(), tasks={"prior": 3.0})
    close(ours[0], theirs[0])


def test_absent_tasks_of_a_bank_rest():
    """No labels of a1 at the second step: its head, its moments and its state stay as they are."""

    def batch(banked, key=0):
        found = nets.batch(banked, key=key)
        if key != 1:
            return found
        hidden = {"a": found.mask["a"].at[:, 1].set(False)} if banked else {"a1": jnp.zeros(6, bool)}
        return found._replace(mask={**found.mask, **hidden})

    ours, theirs = runs(methods.uncertainty(), batch=batch)
    close(ours[0], theirs[0])


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("architecture", ["hard", "film"])
def test_groups_of_a_bank_are_summed_without_the_bad_task(monkeypatch, size, architecture):
    """In the step in which the sum over a bank is not finite: groups of one, of two that overlap, and all at once."""
    features = 6 * 4 if architecture == "hard" else 6 * 3 + 3 * 4 + 4 * 5
    monkeypatch.setattr(cut, "GROUP", size * features)

    def batch(banked, key=0):
        return with_target(nets.batch(banked, key=key), banked, jnp.nan, task=2)

    ours, theirs = runs(methods.uncertainty(), architecture=architecture, batch=batch, steps=2)
    close(ours[0], theirs[0])
    assert ours[2].tolist() == theirs[2].tolist() == [0, 0, 2, 0]


@pytest.mark.parametrize("method", [methods.equal(), methods.dwa(), methods.upgrad()], ids=lambda method: method.name)
def test_a_task_that_is_not_finite_is_contained(method):
    def batch(banked, key=0):
        found = nets.batch(banked, key=key)
        bad = (
            {"a": found.targets["a"].at[0, 1].set(jnp.nan)}
            if banked
            else {"a1": found.targets["a1"].at[0].set(jnp.nan)}
        )
        return found._replace(targets={**found.targets, **bad})

    ours, theirs = runs(method, batch=batch)
    close(ours[0], theirs[0])
    assert ours[2].tolist() == theirs[2].tolist() == [0, 3, 0, 0]


@pytest.mark.parametrize("method", [methods.dwa(), methods.uncertainty(), methods.mgda()], ids=lambda each: each.name)
def test_a_finite_loss_with_a_gradient_that_is_not(method):
    """The root has an infinite derivative at 0: the loss of task a1 is finite, and its gradient is NaN."""

    def loss(outputs, targets):
        return jnp.sqrt(jnp.abs(outputs - targets).sum(-1) * (targets[..., 0] - 7) ** 2)

    def batch(banked, key=0):
        return with_target(nets.batch(banked, key=key), banked, 7.0)

    # Without dropout, which might drop the unit.
    ours, theirs = runs(method, batch=batch, tasks={"loss": loss}, head=dense(1, rate=0, bias=True))
    close(ours[0], theirs[0])
    assert ours[2].tolist() == theirs[2].tolist() == [0, 3, 0, 0]


def test_names_are_found_in_metrics():
    metrics = runs(methods.equal(), steps=1)[0][3]
    assert metrics["losses"].names == (("a", nets.NAMES), ("z", None))
    assert float(metrics["losses"]["a1"]) == float(metrics["losses"]["a"][1]) == float(metrics["losses"].array[1])
    assert metrics["tasks"]["a"]["absolute"]["a2"].shape == ()


def test_value_and_task_grads():
    (losses, ours), (_, theirs) = (
        mtljax.value_and_task_grads(lambda params, f=f, banked=banked: f(params, f.state, nets.batch(banked))[0])(
            f.params
        )
        for f, banked in ((started(True), True), (started(False), False))
    )
    assert losses["a"].shape == (3,)
    close(ours.shared, theirs.shared)
    close(nets.spelled_out(ours), theirs)


def started(banked):
    f = nets.losses_fn(banked)
    params, state = f.model.init(jax.random.key(1), nets.batch(banked).inputs)
    f.__dict__.update(params=params, state=state)
    return f


def test_evaluate():
    found = []
    for banked in (True, False):
        model = ARCHITECTURES["hard"](nets.heads(banked))
        f = started(banked)
        state = mtljax.TrainState(0, f.params, f.state, (), (), None)
        found.append(
            training.make_evaluate(model, nets.tasks(banked))(state, [nets.batch(banked, key=k) for k in range(3)])
        )
    ours, theirs = found
    for name in nets.NAMES:
        for metric in ("loss", "absolute"):
            np.testing.assert_allclose(ours["a"][metric][name], theirs[name][metric], rtol=1e-6)


def test_equations_do_not_grow_with_the_bank():
    """The traced step has as many equations for 512 tasks as for 8."""

    def count(size, method):
        names = tuple(f"t{k}" for k in range(size))
        # So many features that a kernel's gradient is larger than its factors at either size.
        f = mtljax.make_losses_fn(sharing.hard(dense(32), nets.heads(True, names=names)), nets.tasks(True))
        init, step = training.make_train_step(f, method, optax.adam(0.1))
        batch = nets.batch(True, names=names)
        state = jax.eval_shape(lambda: init(jax.random.key(0), batch.inputs))
        return sum(1 for _ in every_equation(jax.make_jaxpr(step)(state, batch).jaxpr))

    for method in (methods.equal(), methods.uncertainty(), methods.graddrop()):
        assert count(512, method) <= count(8, method)


def every_equation(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in core.jaxprs_in_params(eqn.params):
            yield from every_equation(inner)
