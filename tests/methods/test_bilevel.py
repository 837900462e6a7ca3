"""Bilevel methods: meta-gradients against finite differences in float64, closed forms, absent tasks, mistakes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from mtljax import training, value_and_grad
from mtljax.methods.from_batches import auto_lambda, forum, moml
from mtljax.methods.from_batches.common import descend, slope_of, softmax
from mtljax.methods.from_batches.forum import barrier_weights
from mtljax.methods.from_batches.moml import hypergradients
from mtljax.types import Aux, Batches, MethodState, Params

NAMES = "abc"
GENERATOR = np.random.default_rng(0)
INPUTS = {"train": GENERATOR.normal(size=(6, 4)), "val": GENERATOR.normal(size=(6, 4))}
TARGETS = {part: GENERATOR.normal(size=(3, 6)) for part in INPUTS}
WEIGHTS = {"shared": GENERATOR.normal(size=(4, 5)), "heads": GENERATOR.normal(size=(3, 5))}


def losses_fn(params, inputs, targets):
    hidden = jnp.tanh(inputs @ params.shared["w"])
    return {
        name: jnp.mean((hidden @ params.tasks[name] - targets[index]) ** 2)
        for name, index in zip(sorted(params.tasks), range(len(params.tasks)), strict=True)
    }


def problem(dtype=jnp.float32, keep=(0, 1, 2)):
    keep = list(keep)
    params = Params(
        {"w": jnp.asarray(WEIGHTS["shared"], dtype)}, {NAMES[k]: jnp.asarray(WEIGHTS["heads"][k], dtype) for k in keep}
    )
    batches = [(jnp.asarray(INPUTS[part], dtype), jnp.asarray(TARGETS[part][keep], dtype)) for part in INPUTS]
    return params, *batches


def vector(params, batch):
    losses = losses_fn(params, *batch)
    return jnp.stack([losses[name] for name in sorted(losses)])


def differences(function, point, step=1e-5):
    columns = []
    for index in range(point.size):
        shift = np.zeros(point.size)
        shift[index] = step
        columns.append((np.asarray(function(point + shift)) - np.asarray(function(point - shift))) / (2 * step))
    return np.stack(columns, axis=-1)


MAKERS = {
    "auto_lambda": functools.partial(auto_lambda, inner_lr=0.1),
    "moml": functools.partial(moml, inner_lr=0.1),
    "forum": functools.partial(forum, inner_lr=0.1),
}


@functools.cache
def stepper(name, **options):
    """One trace for a method and T; Adam's first step is the sign alone, so plain descent shows more."""
    method = MAKERS[name](optimizer=optax.sgd(1.0), **options)
    f = value_and_grad(losses_fn, method)
    return method, jax.jit(lambda params, state, train, val, active: f(params, state, train, val, active=active))


# meta-gradients


@pytest.mark.parametrize("simplex", [False, True])
def test_auto_lambdas_meta_gradient_against_finite_differences(simplex):
    with jax.enable_x64(True):
        params, train, val = problem(jnp.float64)
        primary = np.array([1.0, 0.0, 2.0])
        method = auto_lambda(inner_lr=0.1, optimizer=optax.sgd(1.0), primary=primary.tolist(), simplex=simplex)
        state = method.init(3)
        start = np.asarray(state.inner.meta, np.float64)

        @jax.jit
        def ahead(meta):
            weights = jax.nn.softmax(meta) if simplex else meta
            moved = descend(params, jax.grad(lambda params: weights @ vector(params, train))(params), 0.1)
            return primary @ vector(moved, val)

        expected = differences(ahead, start)
        assert np.abs(expected).min() > 1e-3
        _, grads, state = jax.jit(value_and_grad(losses_fn, method))(params, state, train, val)
        np.testing.assert_allclose(start - np.asarray(state.inner.meta, np.float64), expected, rtol=2e-5, atol=1e-7)
        weights = np.asarray(state.weights, np.float64)
        plain = jax.grad(lambda params: weights @ vector(params, train))(params)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), grads, plain)
        assert grads.shared["w"].dtype == jnp.float64 and state.inner.meta.dtype == jnp.float32


@pytest.mark.parametrize("steps", [1, 3])
def test_momls_meta_gradients_against_finite_differences(steps):
    with jax.enable_x64(True):
        params, train, val = problem(jnp.float64)
        meta = jnp.array([0.3, -0.2, 0.5])

        @jax.jit
        def after(meta):
            moved = params
            for _ in range(steps):
                gradient = jax.grad(lambda params: jax.nn.softmax(meta) @ vector(params, train))(moved)
                moved = jax.tree.map(lambda value, slope: value - 0.1 * slope, moved, gradient)
            return vector(moved, val)

        expected = differences(after, np.asarray(meta))
        found = jax.jit(
            lambda meta: hypergradients(
                slope_of(Batches(lambda params, index: losses_fn(params, *train), params, jnp.ones((2, 3), bool)), 0),
                lambda params: vector(params, val),
                params,
                meta,
                jnp.ones(3, bool),
                0.1,
                steps,
            )[0]
        )(meta)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def quadratics():
    """`L_k = |theta - c_k|^2 / 2` on training data, centres elsewhere on validation data; no heads."""
    centres = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]])
    others = np.array([[0.5, 0.3], [0.1, 1.5], [-2.0, 0.7]])
    point = np.array([0.2, -0.4])

    def quadratic(params, centres):
        return 0.5 * jnp.sum((params.shared[None, :] - centres) ** 2, axis=1)

    params = Params(jnp.asarray(point, jnp.float32), dict.fromkeys(NAMES, ()))
    return quadratic, params, point, centres, others


def test_auto_lambda_on_quadratics():
    quadratic, params, point, centres, others = quadratics()
    method = auto_lambda(inner_lr=0.25, optimizer=optax.sgd(1.0))
    args = (jnp.asarray(centres, jnp.float32),), (jnp.asarray(others, jnp.float32),)
    losses, grads, state = value_and_grad(quadratic, method)(params, method.init(3), *args)
    slopes = point - centres
    ahead = point - 0.25 * 0.1 * slopes.sum(axis=0)
    weights = 0.1 + 0.25 * slopes @ (ahead - others).sum(axis=0)
    np.testing.assert_allclose(state.weights, weights, rtol=1e-5)
    np.testing.assert_allclose(grads.shared, weights @ slopes, rtol=1e-5)
    np.testing.assert_allclose(losses, 0.5 * (slopes**2).sum(axis=1), rtol=1e-6)
    assert grads.tasks == dict.fromkeys(NAMES, ())


@pytest.mark.parametrize("normalize", [False, True])
def test_moml_on_quadratics(normalize):
    quadratic, params, point, centres, others = quadratics()
    method = moml(inner_lr=0.25, optimizer=optax.sgd(1.0), normalize=normalize)
    args = (jnp.asarray(centres, jnp.float32),), (jnp.asarray(others, jnp.float32),)
    _, grads, state = jax.jit(value_and_grad(quadratic, method))(params, method.init(3), *args)
    slopes = point - centres
    ahead = point - 0.25 * slopes.mean(axis=0)
    by_weights = -0.25 * (ahead - others) @ slopes.T
    rows = (by_weights - by_weights.mean(axis=1, keepdims=True)) / 3  # through the softmax at even weights
    if normalize:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    best = shortest(rows)
    np.testing.assert_allclose(state.inner.meta, -best, rtol=1e-4, atol=1e-6)
    weights = np.exp(-best) / np.exp(-best).sum()
    np.testing.assert_allclose(state.weights, weights, rtol=1e-4)
    np.testing.assert_allclose(grads.shared, weights @ slopes, rtol=1e-4)


def shortest(rows):
    """The shortest vector of a convex hull, in float64."""
    size = len(rows)
    scale = np.abs(rows).max()
    found = minimize(
        lambda w: 0.5 * np.sum((w @ rows / scale) ** 2),
        np.full(size, 1 / size),
        jac=lambda w: rows @ (w @ rows) / scale**2,
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(size)},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x @ rows


# FORUM


def constrained(rows, q, rho):
    """`-d` of FORUM's problem, from its primal, in float64."""
    size = rows.shape[1]
    start = np.append(-rho * q, np.max(rows @ (-rho * q)))
    found = minimize(
        lambda x: x[-1] + 0.5 * x[:-1] @ x[:-1],
        start,
        jac=lambda x: np.append(x[:-1], 1.0),
        constraints=[
            {"type": "ineq", "fun": lambda x: x[-1] - rows @ x[:-1], "jac": lambda x: np.c_[-rows, np.ones(len(rows))]},
            {"type": "ineq", "fun": lambda x: -rho * q @ q - q @ x[:-1], "jac": lambda x: np.append(-q, 0.0)},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success and found.x.size == size + 1
    return -found.x[:-1]


@functools.cache
def barrier():
    return jax.jit(jax.vmap(barrier_weights, in_axes=(0, 0, 0, None, None)), static_argnums=3)


def test_forums_problem_against_its_primal():
    generator = np.random.default_rng(1)
    rows, q = generator.normal(size=(12, 3, 6)), generator.normal(size=(12, 6))
    rows[0] += 2 * q[0]  # the constraint is slack: all descend along it anyway
    rows[1] -= 2 * q[1]
    rows[2] = rows[2] * np.array([[1e-3], [1.0], [30.0]])
    length = np.linalg.norm(q, axis=1)
    along = np.einsum("btp,bp->bt", rows, q) / length[:, None]
    gramian = np.einsum("btp,bsp->bts", rows, rows)
    solution = barrier()(*(jnp.asarray(x, jnp.float32) for x in (gramian, along, length)), 0.1, jnp.ones(3, bool))
    weights = np.asarray(solution.weights, np.float64)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    push = np.maximum(0.1 - (weights * along).sum(axis=1) / length, 0.0)
    found = np.einsum("bt,btp->bp", weights, rows) + push[:, None] * q
    assert push[0] == 0 and push[1] > 0
    for index in range(12):
        expected = constrained(rows[index], q[index], 0.1)
        np.testing.assert_allclose(found[index], expected, atol=2e-4 * float(np.linalg.norm(expected)))
    scaled = barrier()(
        *(jnp.asarray(x, jnp.float32) for x in (1e-16 * gramian, 1e-8 * along, 1e-8 * length)), 0.1, jnp.ones(3, bool)
    )
    np.testing.assert_allclose(scaled.weights, weights, atol=1e-3)


def forum_step(point, meta, average, share, centres, others, *, rate, steps, rho, normalize):
    """One step of FORUM on quadratics in float64."""
    weights = np.exp(meta) / np.exp(meta).sum()
    losses = lambda point, centres: 0.5 * ((point - centres) ** 2).sum(axis=1)  # noqa: E731
    inner = point
    for _ in range(steps):
        inner = inner - rate * weights @ (inner - centres)
    by_weights = losses(point, centres) - losses(inner, centres)
    q = np.concatenate([weights @ (point - centres), weights * (by_weights - weights @ by_weights)])
    rows = point - others
    if normalize:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.c_[rows, np.zeros((3, 3))]
    direction = constrained(rows, q, rho)
    # The last row: multipliers of the rows sum to 1.
    system = np.vstack([np.c_[rows.T, q], [1.0, 1.0, 1.0, 0.0]])
    multipliers = np.linalg.lstsq(system, np.append(direction, 1.0), rcond=None)[0]
    average = (1 - share) * average + share * multipliers[:3]
    push = max(average @ (rho - rows @ q / (q @ q)), 0.0)
    final = average @ rows + push * q
    return final[:2], meta - final[2:], average


@pytest.mark.parametrize("normalize", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_steps_of_forum_on_quadratics(normalize):
    quadratic, params, point, centres, others = quadratics()
    centres = centres + 0.3
    method = forum(inner_lr=0.2, steps=2, rho=0.5, optimizer=optax.sgd(1.0), normalize=normalize)
    update = jax.jit(value_and_grad(quadratic, method))
    args = (jnp.asarray(centres, jnp.float32),), (jnp.asarray(others, jnp.float32),)
    state = method.init(3)
    meta, average = np.zeros(3), np.zeros(3)
    for index in range(2):
        expected, meta, average = forum_step(
            point,
            meta,
            average,
            (index + 1) ** -0.75,
            centres,
            others,
            rate=0.2,
            steps=2,
            rho=0.5,
            normalize=normalize,
        )
        _, grads, state = update(params, state, *args)
        np.testing.assert_allclose(state.inner.rest.average, average, atol=1e-3)
        np.testing.assert_allclose(grads.shared, expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state.inner.meta, meta, rtol=1e-3, atol=1e-4)


# what all three share


@pytest.mark.parametrize("name", ["auto_lambda", *(pytest.param(n, marks=pytest.mark.slow) for n in ("moml", "forum"))])
def test_an_inactive_task_is_as_good_as_absent(name):
    method, update = stepper(name)
    params, train, val = problem()
    fewer, fewer_train, fewer_val = problem(keep=(0, 2))
    state, alone = method.init(3), method.init(2)
    mask = jnp.array([True, False, True])
    for _ in range(2):
        _, grads, state = update(params, state, train, val, mask)
        _, expected, alone = update(fewer, alone, fewer_train, fewer_val, jnp.ones(2, bool))
        np.testing.assert_allclose(grads.shared["w"], expected.shared["w"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(grads.tasks["a"], expected.tasks["a"], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(grads.tasks["b"], 0)
        np.testing.assert_allclose(state.weights[np.array([0, 2])], alone.weights, rtol=1e-4)
        assert state.weights[1] == 0
    first = method.init(3)
    assert state.inner.meta[1] == first.inner.meta[1]
    _, grads, state = update(params, state, train, val, jnp.zeros(3, bool))
    assert all(not leaf.any() for leaf in jax.tree.leaves(grads))
    _, grads, state = update(params, state, train, val, jnp.ones(3, bool))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, state)))


@pytest.mark.parametrize("name", MAKERS)
def test_the_state_is_arrays_that_keep_their_form(name):
    method, update = stepper(name)
    params, train, val = problem()
    state = method.init(3)
    leaves = jax.tree.leaves(state)
    assert isinstance(state, MethodState) and all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    losses, grads, after = update(params, state, train, val, jnp.ones(3, bool))
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for old, new in zip(leaves, jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert sorted(losses) == list(NAMES)
    assert jax.tree.structure(grads) == jax.tree.structure(params)


@pytest.mark.parametrize("name", ["auto_lambda", *(pytest.param(n, marks=pytest.mark.slow) for n in ("moml", "forum"))])
def test_one_task_is_plain_descent_on_it(name):
    params, train, val = problem(keep=(1,))
    method, update = stepper(name)
    _, grads, state = update(params, method.init(1), train, val, jnp.ones(1, bool))
    np.testing.assert_array_less(0.0, state.weights)
    if name != "forum":
        plain = jax.grad(lambda params: vector(params, train)[0])(params)
        np.testing.assert_allclose(grads.shared["w"], state.weights[0] * plain.shared["w"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", MAKERS)
def test_aux_and_array_losses(name):
    params, train, val = problem()
    method = MAKERS[name]()
    f = value_and_grad(lambda params, *batch: (vector(params, batch), {"n": 6.0}), method, has_aux=True)
    out = jax.eval_shape(lambda state: f(params, state, train, val, key=jax.random.key(0)), method.init(3))
    assert out[0][0].shape == (3,) and list(out[0][1]) == ["n"]


@pytest.mark.parametrize("name", ["auto_lambda", "moml"])
def test_a_task_with_corrupted_training_labels_loses_weight(name):
    params, train, val = problem()
    hidden = jnp.tanh(train[0] @ jnp.asarray(WEIGHTS["shared"][::-1], jnp.float32))
    good = jnp.stack([hidden @ jnp.asarray(head, jnp.float32) for head in WEIGHTS["heads"]])
    train = (train[0], good.at[1].multiply(-2.0))
    val = (train[0], good)
    method = MAKERS[name](optimizer=optax.sgd(1.0 if name == "auto_lambda" else 5.0))
    update = value_and_grad(losses_fn, method)

    @jax.jit
    def run(params, state):
        def body(carry, _):
            params, state = carry
            _, grads, state = update(params, state, train, val)
            return (descend(params, grads, 0.02), state), None

        return jax.lax.scan(body, (params, state), None, length=60)[0]

    _, state = run(params, method.init(3))
    assert state.weights.argmin() == 1


def test_forum_lowers_every_validation_loss():
    params, train, val = problem()
    method, update = stepper("forum")
    before = vector(params, val)
    state = method.init(3)
    for _ in range(5):
        _, grads, state = update(params, state, train, val, jnp.ones(3, bool))
        params = descend(params, grads, 0.02)
    assert (vector(params, val) < before).all()


def test_softmax_of_active_tasks():
    found = softmax(jnp.array([500.0, jnp.nan, 500.0]), jnp.array([True, False, True]))
    np.testing.assert_allclose(found, [0.5, 0.0, 0.5])
    slopes = jax.jacfwd(lambda values: softmax(values, jnp.zeros(2, bool)))(jnp.ones(2))
    np.testing.assert_array_equal(slopes, 0)


def call(name, params=None, train=None, active=None, num_tasks=3, **options):
    given, batch, val = problem()
    method = MAKERS[name](**options)
    return value_and_grad(losses_fn, method)(
        given if params is None else params,
        method.init(num_tasks),
        batch if train is None else train,
        val,
        active=active,
    )


MISTAKES = {
    "tasks": (ValueError, {"num_tasks": 2}, r"was initialised for 2 tasks but params.tasks has \['a', 'b', 'c'\]"),
    "params": (TypeError, {"params": {}}, "value_and_grad: params must be a mtljax.Params"),
    "batches": (ValueError, {"train": {}}, r"{name} reads 2 batches, .* found \['dict', 'tuple'\]"),
    "active": (TypeError, {"active": jnp.ones(3)}, "{name}: active must be of dtype bool"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", MAKERS)
def test_mistakes_are_named(name, mistake):
    kind, options, message = MISTAKES[mistake]
    with pytest.raises(kind, match=message.replace("{name}", name)):
        call(name, **options)


@pytest.mark.parametrize("name", MAKERS)
def test_losses_of_other_tasks_are_named(name):
    given, batch, val = problem()
    f = value_and_grad(lambda params, *batch: {"a": jnp.ones(())}, MAKERS[name]())
    with pytest.raises(ValueError, match=r"losses_fn: losses must be of the tasks of params.tasks, .*found \['a'\]"):
        f(given, MAKERS[name]().init(3), batch, val)


@pytest.mark.parametrize("labeled", [True, False])
def test_an_auxiliary_task_of_auto_lambda_needs_no_labels_for_validation(labeled):
    """`primary` is 0 for b, of which the validation batch has labels or not; a task that counts sits out without."""
    params, train, val = problem()

    def with_counts(params, inputs, targets, count):
        return losses_fn(params, inputs, targets), Aux(examples=count)

    method = auto_lambda(inner_lr=0.1, optimizer=optax.sgd(1.0), primary=[1.0, 0.0, 1.0])
    f = jax.jit(value_and_grad(with_counts, method, has_aux=True))
    counts = jnp.array([1.0, 1.0 * labeled, 1.0])
    _, _, state = f(params, method.init(3), (*train, jnp.ones(3)), (*val, counts))
    _, _, expected = jax.jit(value_and_grad(losses_fn, method))(params, method.init(3), train, val)
    np.testing.assert_allclose(state.weights, expected.weights, rtol=1e-6)
    _, _, state = f(params, method.init(3), (*train, jnp.ones(3)), (*val, jnp.array([0.0, 1.0, 1.0])))
    assert state.weights[0] == 0 and (state.weights[1:] != 0).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_training_step_takes_two_batches(name):
    """The step is what `value_and_grad` and the optimizer make by hand; the first batch moves the network's state."""
    params, train, val = problem()

    def step_losses(params, state, batch, key, train):
        return losses_fn(params, *batch), Aux(state + batch[0].sum())

    method = MAKERS[name]()
    init, step = training.make_train_step(step_losses, method, optax.sgd(0.1))
    state, metrics = jax.jit(step)(init(params, jnp.zeros(()), key=jax.random.key(0)), (train, val))
    losses, grads, after = jax.jit(value_and_grad(losses_fn, method))(params, method.init(3), train, val)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), metrics["losses"], losses)
    expected = descend(params, grads, 0.1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.params, expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.method_state, after)
    np.testing.assert_allclose(state.model_state, train[0].sum(), rtol=1e-6)
    with pytest.raises(ValueError, match=rf"step: batch must be a tuple of 2 batches, as many as {name} reads, found"):
        step(state, {"train": train})
    with pytest.raises(
        ValueError, match=f"{name} reads batches, and would decide on each device by that device's alone"
    ):
        _, each = training.make_train_step(step_losses, method, optax.sgd(0.1), axis_name="batch")
        jax.vmap(each, in_axes=(None, 0), axis_name="batch")(state, jax.tree.map(lambda x: x[None], (train, val)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: auto_lambda(inner_lr=0.1, primary=[-1.0]), "auto_lambda: primary must be"),
        (lambda: auto_lambda(inner_lr=0.1, primary=[1.0]).init(2), "primary must be of shape"),
        (lambda: moml(inner_lr=0.0), "moml: inner_lr must be"),
        (lambda: moml(inner_lr=0.1, steps=0), "moml: steps"),
        (lambda: forum(inner_lr=0.1, rho=-1.0), "forum: rho must be"),
        (lambda: forum(inner_lr=0.1, steps=0), "forum: steps"),
    ],
    ids=range(6),
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
