"""All exact engines give the same gradients, for every method and network."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

import mtljax
from mtljax import engines
from tests.engines import nets
from tests.methods.table import CASES, FEW, over

MODELS = {"mlp": nets.mlp, "conv": nets.conv, "nnx": nets.nnx_model}
EXACT = {
    "vmapped": engines.full(engines.vmapped),
    "looped": engines.full(engines.looped),
    "unrolled": engines.full(engines.unrolled),
    "chunked": engines.chunked(2),
    "gramian": engines.gramian(),
    "gramian(2)": engines.gramian(2),
}
AT_ONCE = {"unrolled", "chunked", "gramian"}
PARAMS = [pytest.param(EXACT[k], id=k, marks=[] if k in AT_ONCE else pytest.mark.slow) for k in EXACT]
every_engine = pytest.mark.parametrize("engine", [None, *PARAMS])


@functools.cache
def problem(name: str):
    model = MODELS[name]()
    params, state = model.init(jax.random.key(1), nets.batch().inputs)
    return mtljax.make_losses_fn(model, nets.tasks()), params, state


def gradients(model: str, method, engine, batch, key=None):
    losses_fn, params, state = problem(model)
    f = mtljax.value_and_grad(losses_fn, method, has_aux=True, engine=engine)

    @jax.jit
    def run(params, batch):
        examples = jnp.stack([batch.mask[k].any() if k in batch.mask else jnp.array(True) for k in nets.NAMES])
        return f(params, method.init(3, params.shared), state, batch, None, True, key=key, active=examples)

    return run(params, batch)


def assert_close(found, expected, tolerance):
    """Within `tolerance` of the tree's largest entry: a bias before a batch norm has a gradient of rounding alone."""
    scale = max([float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected)], default=1.0)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a) / scale, np.asarray(b) / scale, rtol=0, atol=tolerance)


def reference(model: str, batch):
    """Rows by reverse-mode differentiation of one task after the other."""
    losses_fn, params, state = problem(model)
    out = {}
    for name in nets.NAMES:
        out[name] = jax.jit(jax.grad(lambda p, name=name: losses_fn(p, state, batch, None, True)[0][name]))(params)
    shared = mtljax.trees.stack([out[name].shared for name in nets.NAMES])
    return mtljax.Params(shared, {name: out[name].tasks[name] for name in nets.NAMES})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "missing",
    [
        pytest.param({}, marks=pytest.mark.slow, id="all"),
        pytest.param({"b": list(range(nets.SIZE)), "c": [0, 3, 5]}, id="missing"),
    ],
)
def test_task_gradients_are_the_tasks_own(model, missing):
    batch = nets.batch(missing=missing)
    losses_fn, params, state = problem(model)
    f = mtljax.value_and_task_grads(losses_fn, has_aux=True)
    (losses, aux), grads = jax.jit(lambda p: f(p, state, batch, None, True))(params)
    assert_close(grads, reference(model, batch), 1e-5)
    assert set(losses) == set(nets.NAMES)
    labels = [(nets.SIZE - len(missing.get(k, []))) * batch.targets[k][0].size for k in nets.NAMES]
    np.testing.assert_array_equal(aux.weight_sum, labels)


@over(CASES, at_once=lambda case: case.name in FEW - {"m_config", "every"})
def test_engines_agree_on_a_dense_net(case):
    method, batch, key = case.make(3), nets.batch(), jax.random.key(5)
    exact = {"none": None, "vmapped": EXACT["vmapped"], "chunked": EXACT["chunked"]}
    if method.reads == "gramian":
        exact["gramian"] = EXACT["gramian"]
    if method.reads == "losses" or method.pick is not None:
        exact = {"none": None}
    (_, expected, state) = gradients("mlp", method, engines.full(engines.unrolled), batch, key)
    for engine in exact.values():
        (_, found, found_state) = gradients("mlp", method, engine, batch, key)
        assert_close(found, expected, 3e-5)
        np.testing.assert_allclose(found_state.weights, state.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["nnx", pytest.param("conv", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "missing",
    [
        pytest.param({}, marks=pytest.mark.slow, id="all"),
        pytest.param({"b": list(range(nets.SIZE)), "c": [0, 3, 5]}, id="missing"),
    ],
)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case.name == "nash_mtl" else pytest.mark.slow, id=case.name)
        for case in CASES
        if case.make(3).reads != "losses" and case.make(3).pick is None
    ],
)
def test_engines_agree_with_batch_statistics_and_missing_tasks(model, missing, case):
    batch, method, key = nets.batch(missing=missing), case.make(3), jax.random.key(5)
    ((losses, aux), expected, _) = gradients(model, method, engines.full(engines.vmapped), batch, key)
    exact = [None, engines.chunked(2)] + ([engines.gramian()] if method.reads == "gramian" else [])
    for engine in exact:
        ((found_losses, found_aux), found, method_state) = gradients(model, method, engine, batch, key)
        assert_close(found, expected, 3e-5)
        # One forward pass: batch statistics are updated once, not once a task.
        assert_close(found_aux.state, aux.state, 1e-6)
        assert_close(found_losses, losses, 1e-6)
        if missing:
            assert method_state.weights[1] == 0
            assert not jnp.any(jax.flatten_util.ravel_pytree(found.tasks["b"])[0])


def test_features_equal_the_others_where_trunk_and_features_coincide():
    model = nets.linear_trunk()
    batch = nets.batch()._replace(inputs=jax.random.normal(jax.random.key(0), (nets.SIZE, 5)))
    params, state = model.init(jax.random.key(1), batch.inputs)
    losses_fn = mtljax.make_losses_fn(model, nets.tasks())
    for method in (mtljax.methods.pcgrad(), mtljax.methods.graddrop()):
        found = {}
        for engine in (engines.full(engines.vmapped), engines.features(model)):
            f = mtljax.value_and_grad(losses_fn, method, has_aux=True, engine=engine)
            run = jax.jit(lambda p, f=f, m=method: f(p, m.init(3, p.shared), state, batch, key=jax.random.key(2)))
            found[engine.name] = run(params)[1]
        assert_close(found["features"], found["full(vmapped)"], 2e-5)


def test_features_bound_the_norm_that_mgda_minimizes():
    method, batch = mtljax.methods.mgda(), nets.batch()
    _, exact, _ = gradients("mlp", method, None, batch)
    _, bound, _ = gradients("mlp", method, engines.features(nets.mlp()), batch)
    norm = lambda tree: float(jnp.linalg.norm(jax.flatten_util.ravel_pytree(tree.shared)[0]))  # noqa: E731
    assert norm(exact) <= norm(bound) * (1 + 1e-5)


def stacked_losses(params, x):
    """Heads applied as one stacked array: losses that cannot be told apart."""
    h = jnp.tanh(x @ params.shared["w"])
    table = jnp.stack([params.tasks[name] for name in sorted(params.tasks)])
    return jnp.mean((jnp.einsum("bi,tio->tbo", h, table) - 1.0) ** 2, axis=(1, 2))


def separate_losses(params, x):
    h = jnp.tanh(x @ params.shared["w"])
    return {name: jnp.mean((h @ params.tasks[name] - 1.0) ** 2) for name in params.tasks}


def small_params(num_tasks=3, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(4), num_tasks + 1)
    tasks = {f"t{k}": jax.random.normal(keys[k], (5, 2)).astype(dtype) for k in range(num_tasks)}
    return mtljax.Params({"w": jax.random.normal(keys[-1], (4, 5)).astype(dtype)}, tasks)


def reference_gradients(params, x, key):
    method = mtljax.methods.pcgrad()
    return jax.jit(mtljax.value_and_grad(separate_losses, method))(params, method.init(3), x, key=key)


@functools.cache
def separate_heads():
    """Parameters, inputs, a key, and the gradients that separate heads give."""
    params, x, key = small_params(), jax.random.normal(jax.random.key(0), (7, 4)), jax.random.key(1)
    return params, x, key, reference_gradients(params, x, key)[1]


@every_engine
def test_stacked_heads_give_what_separate_heads_give(engine):
    (params, x, key, expected), method = separate_heads(), mtljax.methods.pcgrad()
    f = jax.jit(mtljax.value_and_grad(stacked_losses, method, engine=engine))
    losses, grads, _ = f(params, method.init(3), x, key=key)
    assert losses.shape == (3,)
    assert_close(grads, expected, 2e-5)


def test_features_need_tasks_that_can_be_told_apart():
    params, method = small_params(), mtljax.methods.mgda()
    f = mtljax.value_and_grad(stacked_losses, method, engine=engines.features())
    with pytest.raises(ValueError, match="mixes the tasks before it returns"):
        f(params, method.init(3), jnp.ones((7, 4)))


def multi_input_losses(params, inputs):
    return {k: jnp.mean((jnp.tanh(x @ params.shared["w"]) @ params.tasks[k] - 1.0) ** 2) for k, x in inputs.items()}


@functools.cache
def inputs_apart():
    """Parameters, inputs of different sizes, a key, and the rows and update that they give."""
    params, keys, method = small_params(), jax.random.split(jax.random.key(0), 3), mtljax.methods.pcgrad()
    inputs, key = {f"t{k}": jax.random.normal(keys[k], (3 + k, 4)) for k in range(3)}, jax.random.key(1)
    _, rows = jax.jit(mtljax.value_and_task_grads(multi_input_losses))(params, inputs)
    expected, _, _ = jax.jit(lambda rows: mtljax.methods.reconcile(method, method.init(3), rows, key=key))(rows.shared)
    return params, inputs, key, rows, expected


@every_engine
def test_inputs_of_their_own(engine):
    (params, inputs, key, rows, expected), method = inputs_apart(), mtljax.methods.pcgrad()
    f = jax.jit(mtljax.value_and_grad(multi_input_losses, method, engine=engine))
    _, grads, _ = f(params, method.init(3), inputs, key=key)
    assert_close(grads.shared, expected, 2e-5)
    assert_close(grads.tasks, rows.tasks, 1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_half_precision_parameters_keep_their_dtype(dtype):
    params, x = small_params(dtype=dtype), jax.random.normal(jax.random.key(0), (7, 4)).astype(dtype)
    method, key = mtljax.methods.pcgrad(), jax.random.key(1)
    fine = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    _, expected, _ = reference_gradients(fine, x.astype(jnp.float32), key)
    for engine in (None, engines.gramian(), engines.chunked(2)):
        f = jax.jit(mtljax.value_and_grad(separate_losses, method, engine=engine))
        _, grads, state = f(params, method.init(3), x, key=key)
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(dtype)}
        assert state.weights.dtype == jnp.float32
        # The forward pass itself is in half precision: its rounding, a few units of 2^-8, is what remains.
        assert_close(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), grads), expected, 0.08)


def test_no_shared_parameters_at_all():
    params = mtljax.Params((), {"a": jnp.ones(2), "b": jnp.ones(2)})
    losses_fn = lambda p: {k: jnp.sum(p.tasks[k] ** 2) for k in p.tasks}  # noqa: E731
    for method in (mtljax.methods.equal(), mtljax.methods.upgrad(), mtljax.methods.graddrop()):
        for engine in (None, engines.features()):
            f = jax.jit(mtljax.value_and_grad(losses_fn, method, engine=engine))
            _, grads, state = f(params, method.init(2, ()), key=jax.random.key(0))
            factor = state.weights if method.weigh_tasks else jnp.ones(2)
            np.testing.assert_allclose(grads.tasks["a"], 2.0 * factor[0])
            assert np.isfinite(float(state.residual))


def test_a_custom_vjp_works_in_rows_and_is_named_by_the_gramian_engine():
    @jax.custom_vjp
    def double(x):
        return 2.0 * x

    double.defvjp(lambda x: (2.0 * x, None), lambda _, c: (2.0 * c,))
    losses_fn = lambda p: {k: jnp.sum((double(p.shared) - p.tasks[k]) ** 2) for k in p.tasks}  # noqa: E731
    params = mtljax.Params(jnp.ones(2), {"a": jnp.zeros(2), "b": jnp.ones(2)})
    method = mtljax.methods.mgda()
    plain = lambda p: {k: jnp.sum((2.0 * p.shared - p.tasks[k]) ** 2) for k in p.tasks}  # noqa: E731
    _, expected, _ = mtljax.value_and_grad(plain, method)(params, method.init(2))
    _, found, _ = mtljax.value_and_grad(losses_fn, method)(params, method.init(2))
    assert_close(found, expected, 1e-6)
    with pytest.raises(ValueError, match="custom_vjp without a forward rule"):
        mtljax.value_and_grad(losses_fn, method, engine=engines.gramian())(params, method.init(2))


def count_products(jaxpr, shapes):
    """Matrix products of operands of these shapes, inner jaxprs included."""
    found = 0
    for eqn in jaxpr.eqns:
        found += eqn.primitive.name == "dot_general" and {var.aval.shape for var in eqn.invars} == shapes
        found += sum(count_products(inner, shapes) for inner in core.jaxprs_in_params(eqn.params))
    return found


def test_heads_are_differentiated_once():
    """Counted in the jaxpr: one product of a head's cotangents with its weights a task, however many rows."""
    params, x, num_tasks = small_params(num_tasks=4), jnp.ones((7, 4)), 4
    head = {(7, 2), (5, 2)}  # cotangents [B, out] with weights [in, out]
    method = mtljax.methods.mgda()
    for engine in (engines.full(engines.unrolled), engines.full(engines.vmapped), engines.gramian()):
        f = mtljax.value_and_grad(separate_losses, method, engine=engine)
        assert count_products(jax.make_jaxpr(f)(params, method.init(num_tasks), x).jaxpr, head) == num_tasks

    def one_hot_rows(params):
        losses, pull = jax.vjp(lambda p: jnp.stack(list(separate_losses(p, x).values())), params)
        return [pull(row) for row in jnp.diag(jnp.ones_like(losses))]

    assert count_products(jax.make_jaxpr(one_hot_rows)(params).jaxpr, head) == num_tasks**2


def test_the_gramian_engine_stores_no_rows():
    """No array of T x P anywhere in its jaxpr; `full` has them."""
    params, x = small_params(num_tasks=13), jnp.ones((7, 4))
    method = mtljax.methods.mgda()
    rows = "f32[13,4,5]"
    for engine, stored in ((engines.full(engines.vmapped), True), (engines.gramian(), False)):
        f = mtljax.value_and_grad(separate_losses, method, engine=engine)
        text = str(jax.make_jaxpr(f)(params, method.init(13), x))
        assert (rows in text) == stored
