"""Which engine is chosen, and that one can see it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import mtljax
from mtljax import engines
from mtljax.engines.linear import linearize
from tests.engines import nets
from tests.engines.test_engines_agree import problem, separate_losses, small_params


def chosen(method, model="mlp", backend="cpu"):
    losses_fn, params, state = problem(model)
    linear = linearize(losses_fn, params, (state, nets.batch(), None, True), True)
    return engines.choose(method, linear, params.shared, backend=backend)


def test_a_method_that_reads_losses_needs_no_engine():
    assert chosen(mtljax.methods.equal()).engine is None


@pytest.mark.parametrize(
    ("model", "backend", "rows"),
    [("mlp", "cpu", "looped"), ("conv", "cpu", "unrolled"), ("mlp", "gpu", "vmapped"), ("conv", "tpu", "vmapped")],
)
def test_rows_depend_on_device_and_convolutions(model, backend, rows):
    choice = chosen(mtljax.methods.graddrop(), model, backend)
    assert choice.engine.name == f"full({rows})"
    assert f"{rows} on {backend}" in choice.reason
    if (model, backend) != ("mlp", "cpu"):
        assert chosen(mtljax.methods.upgrad(), model, backend).engine.name == f"full({rows})"


@pytest.mark.parametrize(
    ("examples", "name"), [(engines.CPU_USES // 2, "gramian"), (4 * engines.CPU_USES, "full(looped)")]
)
def test_small_batches_of_a_dense_net_store_no_rows_on_a_cpu(examples, name):
    params, x = small_params(), jnp.ones((examples, 4))
    linear = linearize(separate_losses, params, (x,), False)
    assert linear.products == examples * params.shared["w"].size
    choice = engines.choose(mtljax.methods.upgrad(), linear, params.shared, backend="cpu")
    assert choice.engine.name == name
    assert engines.choose(mtljax.methods.upgrad(), linear, params.shared, backend="gpu").engine.name == "full(vmapped)"


def test_rows_beyond_the_caches_of_a_cpu_are_not_stored():
    params, x = small_params(), jnp.ones((4 * engines.CPU_USES, 4))
    linear = linearize(separate_losses, params, (x,), False)._replace(products=1 << 62)
    large = jax.ShapeDtypeStruct((engines.CPU_ROWS // 4,), jnp.float32)
    assert engines.choose(mtljax.methods.upgrad(), linear, large, backend="cpu").engine.name == "gramian"


def test_rows_that_do_not_fit_are_not_stored():
    losses_fn, params, state = problem("mlp")
    linear = linearize(losses_fn, params, (state, nets.batch(), None, True), True)
    huge = jax.ShapeDtypeStruct((engines.ROWS_LIMIT // 4,), jnp.float32)
    choice = engines.choose(mtljax.methods.upgrad(), linear, huge, backend="gpu")
    assert choice.engine.name == "gramian"
    assert "too many to store" in choice.reason
    choice = engines.choose(mtljax.methods.graddrop(), linear, huge, backend="gpu")
    assert choice.engine.name == "full(vmapped)"


def test_explain_traces_and_computes_nothing():
    shapes = jax.eval_shape(small_params)
    choice = engines.explain(separate_losses, mtljax.methods.mgda(), shapes, jax.ShapeDtypeStruct((7, 4), jnp.float32))
    assert choice.engine.name == ("gramian" if jax.default_backend() == "cpu" else "full(vmapped)")


def gramian_for_task_gradients():
    params, method = small_params(2), mtljax.methods.graddrop()
    f = mtljax.value_and_grad(separate_losses, method, engine=engines.gramian())
    return f(params, method.init(2), jnp.ones((7, 4)), key=jax.random.key(0))


def features_without_encode():
    network = mtljax.sharing.Network(lambda k, x: ((), ()), lambda p, s, x, **_: (x, s))
    return engines.features(mtljax.sharing.soft(network, ("a",)))


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("engine gramian does not read task_grads, but graddrop does", gramian_for_task_gradients),
        ("chunked: size must be at least 1, found 0", lambda: engines.chunked(0)),
        ("gramian: chunk must be at least 1, found 0", lambda: engines.gramian(0)),
        ("model has no encode", features_without_encode),
    ],
)
def test_engines_refuse_what_they_cannot_do(message, call):
    with pytest.raises(ValueError, match=message):
        call()
