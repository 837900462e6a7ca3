"""One device, pmap, shard_map and a mesh take the same steps."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import mtljax
from mtljax import engines, methods, training
from mtljax.training.identity import program
from tests.engines import nets
from tests.training.ways import DEVICES, MESHED, compiled, many_ways, mesh, needs_devices

MISSING = {"b": [0, 1, 2, 5], "c": list(range(8))}
METHODS = {
    "equal": methods.equal,
    "uncertainty": methods.uncertainty,
    "mgda": methods.mgda,
    "graddrop": methods.graddrop,
    "every": lambda: methods.every(methods.pcgrad(), 2),
}


def run(make_model, method, how, *, engine=None, steps=3, penalty=None):
    batch = nets.batch(missing=MISSING)
    spread = how in ("pmap", "shard_map")
    model = make_model("batch" if spread else None)
    params, model_state = model.init(jax.random.key(1), batch.inputs)
    # SGD, since Adam would hide a gradient that is N times too large.
    init, step = training.make_train_step(
        mtljax.make_losses_fn(model, nets.tasks()),
        method,
        optax.sgd(0.05),
        axis_name="batch" if spread else None,
        engine=engine,
        penalty=penalty,
    )
    state = init(params, model_state, key=jax.random.key(3))
    run_step, batch = compiled(step, batch, how)
    metrics = None
    for _ in range(steps):
        # One program at a time: emulated devices that run several share their threads badly.
        state, metrics = jax.block_until_ready(run_step(state, batch))
    return state, metrics


def without_residual(result):
    """The certificate is itself a bound on rounding, so it is not the same number where sums are ordered otherwise."""
    state, metrics = result
    method_state = jax.tree_util.tree_map_with_path(
        lambda path, leaf: None if "residual" in jax.tree_util.keystr(path) else leaf, state.method_state
    )
    return state._replace(method_state=method_state), {k: v for k, v in metrics.items() if k != "residual"}


def assert_same(found, expected):
    found, expected = without_residual(found), without_residual(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=1e-6)


def mlp(axis):
    return nets.mlp()


@functools.cache
def on_one(make_model, make_method):
    return run(make_model, make_method(), "jit")


# Every kind of method once, and every way.
AT_ONCE = {("mgda", "shard_map"), ("uncertainty", "pmap"), ("graddrop", "sharded"), ("every", "pmap")}


@needs_devices
@pytest.mark.parametrize(("name", "how"), many_ways(list(METHODS), AT_ONCE))
def test_all_devices_take_the_steps_of_one(name, how):
    assert_same(run(mlp, METHODS[name](), how), on_one(mlp, METHODS[name]))


@needs_devices
@pytest.mark.parametrize(
    "how", ["shard_map", *(pytest.param(how, marks=pytest.mark.slow) for how in ("sharded", "pmap"))]
)
def test_batch_statistics_are_those_of_the_whole_batch(how):
    assert_same(run(nets.conv, methods.upgrad(), how), on_one(nets.conv, methods.upgrad))


@needs_devices
@pytest.mark.parametrize("how", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "make_model",
    [pytest.param(mlp, id="mlp"), pytest.param(nets.conv, id="conv", marks=pytest.mark.slow)],
)
def test_the_gramian_engine_across_devices(how, make_model):
    expected = run(make_model, methods.mgda(), "jit", engine=engines.full())
    assert_same(run(make_model, methods.mgda(), how, engine=engines.gramian()), expected)


@needs_devices
@pytest.mark.parametrize("how", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)])
def test_the_features_engine_across_devices(how):
    expected = run(mlp, methods.mgda(), "jit", engine=engines.features())
    assert_same(run(mlp, methods.mgda(), how, engine=engines.features()), expected)


@needs_devices
def test_rows_by_parameter_are_summed_over_devices():
    """Those of a task that reads the parameters themselves, where the others read features of examples."""

    def losses_fn(params, x):
        hidden = jnp.tanh(x @ params.shared)
        losses = {k: jnp.mean(hidden * params.tasks[k]) for k in ("a", "b")}
        return losses | {"c": jnp.sum(jnp.mean(x, axis=0) * params.shared) * params.tasks["c"]}

    params = mtljax.Params(
        jnp.array([0.3, -0.2, 0.5]), {k: jnp.array(v) for k, v in (("a", 1.0), ("b", -2.0), ("c", 1.0))}
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(DEVICES, 2, 3)) + 0.5, jnp.float32)
    start = methods.nash_mtl().init(3)

    def weights(x, axis_name=None):
        f = mtljax.value_and_grad(losses_fn, methods.nash_mtl(), engine=engines.features(), axis_name=axis_name)
        return f(params, start, x)[2].weights

    expected = jax.jit(weights)(x.reshape(-1, 3))
    spread = jax.pmap(functools.partial(weights, axis_name="batch"), axis_name="batch")(x)
    np.testing.assert_allclose(spread, np.broadcast_to(expected, spread.shape), rtol=1e-4)


@needs_devices
@pytest.mark.parametrize(
    "how", ["pmap", *(pytest.param(how, marks=pytest.mark.slow) for how in ("sharded", "shard_map"))]
)
def test_a_penalty_is_not_summed_over_devices(how):
    penalty = lambda params: 0.1 * optax.tree.norm(params, squared=True)  # noqa: E731
    expected = run(mlp, methods.equal(), "jit", penalty=penalty)
    assert_same(run(mlp, methods.equal(), how, penalty=penalty), expected)


@needs_devices
@pytest.mark.parametrize("name", ["pcgrad", pytest.param("graddrop", marks=pytest.mark.slow)])
def test_replicas_stay_identical_with_stochastic_methods_and_dropout(name):
    """Inside shard_map the state's replication is proved statically; pmap's copies are compared bit by bit."""
    model = mtljax.sharing.hard(nets.from_linen(nets.Dropped()), nets.heads())
    batch = training.split_batch(nets.batch(), DEVICES)
    params, model_state = model.init(jax.random.key(1), nets.batch().inputs)
    init, step = training.make_train_step(
        mtljax.make_losses_fn(model, nets.tasks()), getattr(methods, name)(), optax.adam(1e-2), axis_name="batch"
    )
    copies = jax.pmap(step, axis_name="batch", in_axes=(None, 0), out_axes=0)
    state = init(params, model_state, key=jax.random.key(3))
    for _ in range(3):
        spread, _ = jax.block_until_ready(copies(state, batch))
        for leaf in jax.tree.leaves(jax.device_get(spread.params)):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
        # The first device's copy, without a program that slices: that would run on all devices.
        state = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data.reshape(leaf.shape[1:]), spread)


def test_split_batch_names_what_does_not_divide():
    with pytest.raises(ValueError, match=r"leaf .*inputs.* a multiple of 3 devices, found shape \(16, "):
        training.split_batch(nets.batch(), 3)


def test_sharded_wants_auto_axes():
    explicit = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    with pytest.raises(ValueError, match=r"mesh must have axes of type Auto, found another for mesh axis 'data'"):
        training.sharded(lambda state, batch: (state, batch), explicit)


@functools.cache
def made(**rest):
    model = mlp(None)
    init, step = training.make_train_step(
        mtljax.make_losses_fn(model, nets.tasks()), methods.equal(), optax.sgd(0.05), **rest
    )
    params, model_state = model.init(jax.random.key(1), nets.batch().inputs)
    return init(params, model_state, key=jax.random.key(3)), step


@needs_devices
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda step: step,
        lambda step: training.scheduled(step, lambda number: {"a": number >= 0}),
        functools.partial,
    ],
    ids=["made", "scheduled", "partial"],
)
def test_pmap_refuses_a_step_without_an_axis(wrapped):
    _, step = made()
    with pytest.raises(ValueError, match=r"pmap: step must be made with make_train_step\(..., axis_name='batch'\)"):
        training.pmap(wrapped(step))


@needs_devices
def test_pmap_refuses_a_step_with_another_axis_and_its_run_is_known_again():
    state, step = made(axis_name="batch")
    with pytest.raises(ValueError, match=r"pmap: step must be made with .*axis_name='rows'.* found \('batch',\)"):
        training.pmap(step, axis_name="rows")
    assert program(training.pmap(step), state, training.split_batch(nets.batch(), DEVICES)) is not None


@needs_devices
@pytest.mark.parametrize(
    "wrong",
    [
        lambda batch: batch,
        lambda batch: training.split_batch(batch, 4),
        lambda batch: training.split_batch(batch, DEVICES)._replace(mask={"b": jnp.array(True)}),
    ],
    ids=["whole", "for 4 devices", "a mask without examples"],
)
def test_pmap_refuses_what_would_train_on_a_part_of_the_batch(wrong):
    state, step = made(axis_name="batch")
    run = training.pmap(step)
    with pytest.raises(ValueError, match=r"pmap: leaf .* of the batch must be \[8, B / 8, ...\], .* found shape"):
        run(state, wrong(nets.batch()))


@needs_devices
@pytest.mark.parametrize(
    "how",
    [lambda step: step, training.jit, lambda step: training.sharded(step, mesh("data"))],
    ids=["eager", "jit", "sharded"],
)
def test_an_axis_that_is_not_mapped_is_named(how):
    state, step = made(axis_name="batch")
    with pytest.raises(ValueError, match=r"make_train_step: axis_name must be a mapped axis, found 'batch', which"):
        jax.eval_shape(how(step), state, nets.batch())


@needs_devices
def test_each_device_may_train_on_its_own():
    """One seed per device, by `axis_name=()`; named axes of `jax.vmap` ask for nothing."""
    model, batch = nets.mlp(), nets.batch()
    params, model_state = model.init(jax.random.key(1), batch.inputs)
    losses_fn, keys = mtljax.make_losses_fn(model, nets.tasks()), jax.random.split(jax.random.key(0), MESHED)
    found = []
    for axis_name in ((), None):
        init, step = training.make_train_step(losses_fn, methods.pcgrad(), optax.sgd(0.05), axis_name=axis_name)
        each = functools.partial(lambda step, init, key: step(init(params, model_state, key=key), batch)[0], step, init)
        run = jax.jit(jax.vmap(each, axis_name="seeds")) if axis_name is None else jax.pmap(each)
        found.append(run(keys))
    assert_same((found[0], {}), (found[1], {}))
    f = mtljax.value_and_grad(lambda shared: {"a": shared, "b": 2 * shared}, methods.equal())
    with pytest.raises(ValueError, match=r"value_and_grad: axis_name must be 'rows' inside pmap or shard_map"):
        jax.pmap(lambda x: f(mtljax.Params(x, {"a": (), "b": ()}), methods.equal().init(2)), axis_name="rows")(
            jnp.ones(MESHED)
        )


@pytest.mark.slow
@needs_devices
@pytest.mark.parametrize("how", ["sharded", "pmap", "shard_map"])
def test_a_refined_step(how):
    with jax.enable_x64(True):
        steps = [run(mlp, methods.dualproj(), each, engine=engines.full(refine=True), steps=2) for each in ("jit", how)]
    assert_same(*steps)
