"""One trunk that each task bends a little: adapters, feature-wise modulation and low-rank differences."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import trees
from mtljax.sharing import Network, hard
from mtljax.sharing.adapters import adapters
from mtljax.sharing.film import film
from mtljax.sharing.low_rank import low_rank
from tests.sharing.blocks import dense as dropping

dense = functools.partial(dropping, rate=0.0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
HEADS = {"depth": dense(1), "label": dense(5)}
STAGES = [dense(4), dense(7)]


def conv(size):
    """A 3x3 convolution with a bias, and a scale that is no matrix."""

    def init(key, x):
        kernel = jax.random.normal(key, (3, 3, x.shape[-1], size), x.dtype)
        return {"kernel": kernel, "bias": jnp.zeros(size, x.dtype), "table": jnp.ones((2, size), x.dtype)}, ()

    def apply(params, state, x, *, key=None, train=False):
        axes = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, params["kernel"], (1, 1), "SAME", dimension_numbers=axes)
        return (y + params["bias"][None, None, None, :]) * params["table"][0][None, None, None, :], state

    return Network(init, apply)


BUILD = {
    "adapters": lambda **rest: adapters(STAGES, HEADS, 2, **rest),
    "film": lambda **rest: film(STAGES, HEADS, **rest),
    "low_rank": lambda **rest: low_rank(dense(7), HEADS, 2, **rest),
}
each = pytest.mark.parametrize("name", list(BUILD))


def filled(model, x=X):
    """Parameters that are drawn, without compiling what `init` does, and a state of zeros."""
    shapes, state = jax.eval_shape(model.init, jax.random.key(0), x)
    draw = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), shapes)
    return params, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)


def wide(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def chain(*networks):
    """Networks one after another."""

    def init(key, x):
        params, states = [], []
        for network, own in zip(networks, jax.random.split(key, len(networks)), strict=True):
            made = network.init(own, x)
            x, _ = network.apply(*made, x)
            params.append(made[0])
            states.append(made[1])
        return params, states

    def apply(params, state, x, *, key=None, train=False):
        after = []
        for network, own, before in zip(networks, params, state, strict=True):
            x, moved = network.apply(own, before, x, key=key, train=train)
            after.append(moved)
        return x, after

    return Network(init, apply)


STARTED_AT_ZERO = {"adapters": ("up", "up_bias", "down_bias"), "film": ("scale", "shift"), "low_rank": ("b",)}


@each
def test_at_the_start_it_is_hard_sharing_to_the_bit(name):
    model = BUILD[name]()

    @jax.jit
    def zeros(key):
        tasks = model.init(key, X)[0].tasks
        deltas = jax.tree.leaves([own[name] for own in tasks.values()], is_leaf=lambda x: STARTED_AT_ZERO[name][0] in x)
        return [delta[part] for delta in deltas for part in STARTED_AT_ZERO[name]]

    assert not any(np.any(leaf) for leaf in zeros(jax.random.key(3)))
    params, state = filled(model)
    tasks = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if path[-1].key in STARTED_AT_ZERO[name] else leaf, params.tasks
    )
    reference = hard(dense(7) if name == "low_rank" else chain(*STAGES), HEADS)
    made, reference_state = filled(reference)
    assert jax.tree.structure(made.shared) == jax.tree.structure(params.shared)
    heads = params._replace(tasks={task: own["head"] for task, own in tasks.items()})
    expected, _ = jax.jit(reference.apply)(heads, reference_state, X)
    outputs, _ = jax.jit(model.apply)(params._replace(tasks=tasks), state, X)
    for task in HEADS:
        np.testing.assert_array_equal(outputs[task], expected[task])


def test_low_rank_gives_trunk_and_heads_the_keys_of_hard():
    """Networks that hand out the keys they get, as parameters and as outputs."""

    def init(key, x):
        return {"key": jax.random.key_data(key), "w": jnp.zeros((2, 2))}, jnp.zeros((2,), jnp.uint32)

    def apply(params, state, x, *, key=None, train=False):
        return x, state if key is None else jax.random.key_data(key)

    noting = Network(init, apply)
    heads = {"a": noting, "b": noting}

    @jax.jit
    def handed(key):
        found = []
        for model, own in ((low_rank(noting, heads, 1), "head"), (hard(noting, heads), None)):
            params, state = model.init(key, X)
            _, after = model.apply(params, state, X, key=key, train=True)
            starts = [params.tasks[task]["head"] if own else params.tasks[task] for task in heads]
            units = [after["tasks"][task]["head"] if own else after["tasks"][task] for task in heads]
            trunks = [after["tasks"][task]["trunk"] if own else after["trunk"] for task in heads]
            found.append([params.shared["key"], *(start["key"] for start in starts), *units, *trunks])
        return found

    for one, two in zip(*handed(jax.random.key(3)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_adapters_are_the_papers_bottlenecks():
    model = adapters(STAGES, HEADS, 2, activation=jnp.tanh)
    params, state = filled(model)
    outputs, _ = jax.jit(model.apply)(params, state, X)
    for task, own in wide(params.tasks).items():
        h = np.asarray(X, np.float64)
        for stage, adapter in zip(wide(params.shared), own["adapters"], strict=True):
            h = h @ stage["w"]
            h = h + np.tanh(h @ adapter["down"] + adapter["down_bias"]) @ adapter["up"] + adapter["up_bias"]
        close(outputs[task], h @ own["head"]["w"])
    assert trees.num_elements(params.tasks["depth"]) == sum(2 * 2 * c + c + 2 for c in (4, 7)) + 7


def test_film_scales_and_shifts_channels():
    model, images = film(STAGES, HEADS), X.reshape(2, 1, 3, 3)
    params, state = filled(model, images)
    outputs, _ = jax.jit(model.apply)(params, state, images)
    for task, own in wide(params.tasks).items():
        h = np.asarray(images, np.float64)
        for stage, bend in zip(wide(params.shared), own["film"], strict=True):
            h = (1.0 + bend["scale"]) * (h @ stage["w"]) + bend["shift"]
        close(outputs[task], h @ own["head"]["w"])
    assert trees.num_elements(params.tasks["depth"]) == 2 * (4 + 7) + 7


def test_low_rank_differences_are_scaled_products():
    model = low_rank(dense(7), HEADS, 2, alpha=6.0)
    params, state = filled(model)
    outputs, _ = jax.jit(model.apply)(params, state, X)
    for task, own in wide(params.tasks).items():
        thin = own["low_rank"]["['w']"]
        change = 3.0 * thin["a"] @ thin["b"]
        assert np.linalg.matrix_rank(change) == 2
        close(outputs[task], np.asarray(X, np.float64) @ (np.asarray(params.shared["w"]) + change) @ own["head"]["w"])
    assert trees.num_elements(params.tasks["depth"]) == 2 * (3 + 7) + 7


def test_a_kernels_leading_axes_are_taken_together():
    images = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5, 5, 3)), jnp.float32)
    model = low_rank(conv(4), {"depth": dense(1)}, 2, select=lambda path, leaf: "kernel" in path)
    params, state = filled(model, images)
    (thin,) = params.tasks["depth"]["low_rank"].values()
    assert list(params.tasks["depth"]["low_rank"]) == ["['kernel']"]
    assert thin["a"].shape == (3, 3, 3, 2) and thin["b"].shape == (2, 4)
    kernel = np.asarray(params.shared["kernel"]) + (
        np.asarray(thin["a"]).reshape(27, 2) @ np.asarray(thin["b"])
    ).reshape(3, 3, 3, 4)
    features, _ = jax.jit(conv(4).apply)(params.shared | {"kernel": jnp.asarray(kernel)}, (), images)
    head = np.asarray(params.tasks["depth"]["head"]["w"])
    close(jax.jit(model.apply)(params, state, images)[0]["depth"], np.asarray(features) @ head)
    # By default matrices alone get a difference.
    default, _ = jax.eval_shape(low_rank(conv(4), HEADS, 2).init, jax.random.key(0), images)
    assert list(default.tasks["label"]["low_rank"]) == ["['table']"]


@pytest.mark.parametrize("name", ["film", "low_rank"])  # adapters run the lines of film
def test_a_frozen_trunk_gets_no_gradient_and_costs_none(name):
    open_model, frozen_model = BUILD[name](), BUILD[name](frozen=True)
    params, state = filled(open_model)

    def compiled(model):
        def loss(params):
            return jnp.sum(model.apply(params, state, X, tasks=("depth",))[0]["depth"] ** 2)

        return jax.jit(jax.grad(loss)).lower(params).compile()

    programs = [compiled(model) for model in (open_model, frozen_model)]
    opened, frozen = (program(params) for program in programs)
    assert all(np.any(leaf) for leaf in jax.tree.leaves([opened.shared, opened.tasks["depth"]]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen.shared))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), frozen.tasks, opened.tasks)
    full, less = (program.cost_analysis()["flops"] for program in programs)
    # The slope of a changed weight is that of its difference too, so it cannot be spared.
    assert less < full or name == "low_rank"


@pytest.mark.parametrize("name", ["film", "low_rank"])
def test_each_task_keeps_the_trunks_statistics_for_itself(name):
    model = BUILD[name]()
    params, state = filled(model)
    _, after = jax.jit(lambda p, s: model.apply(p, s, X, tasks=("label",), train=True))(params, state)
    assert all(leaf == 1 for leaf in jax.tree.leaves(after["tasks"]["label"]))
    assert all(leaf == 0 for leaf in jax.tree.leaves(after["tasks"]["depth"]))
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_narrow_parameters_are_changed_in_float32():
    model = low_rank(dense(7), {"depth": KEEP}, 2)
    x = jnp.eye(3, dtype=jnp.bfloat16)  # shows the weights themselves
    params, state = filled(model, x)
    thin = params.tasks["depth"]["low_rank"]["['w']"]
    output = jax.jit(model.apply)(params, state, x)[0]["depth"]
    a, b, w = (np.asarray(leaf, np.float64) for leaf in (thin["a"], thin["b"], params.shared["w"]))
    assert output.dtype == jnp.bfloat16
    np.testing.assert_array_equal(output, jnp.asarray((w + a @ b).astype(np.float32)).astype(jnp.bfloat16))


def started(model):
    return jax.eval_shape(model.init, jax.random.key(0), X)


def unknown_leaf():
    model = BUILD["low_rank"]()
    params, state = filled(model)
    params.tasks["depth"]["low_rank"]["['v']"] = params.tasks["depth"]["low_rank"]["['w']"]
    return model.apply(params, state, X)


KEEP = Network(lambda key, x: ((), ()), lambda params, state, x, **rest: (x, state))
FLAT = Network(lambda key, x: ((), ()), lambda params, state, x, **rest: (x[:, 0], state))
COUNTS = Network(lambda key, x: ((), ()), lambda params, state, x, **rest: (jnp.zeros((2, 2), jnp.int32), state))
PAIR = Network(lambda key, x: ((), ()), lambda params, state, x, **rest: ((x, x), state))
WHOLE = Network(lambda key, x: ({"n": jnp.zeros((2, 2), jnp.int32)}, ()), lambda params, state, x, **rest: (x, state))


@pytest.mark.parametrize(
    ("attempt", "error", "text"),
    [
        (lambda: adapters(STAGES, HEADS, 0), ValueError, "adapters: size must be at least 1, found 0"),
        (lambda: adapters(STAGES, HEADS, 2.0), TypeError, "adapters: size must be an integer, found 2.0"),
        (lambda: adapters([], HEADS, 2), ValueError, "adapters: stages must hold at least one Network, found 0"),
        (
            lambda: film(dense(4), HEADS),
            TypeError,
            "film: stages must be a sequence of Network, found a Network; write (network,)",
        ),
        (lambda: film(STAGES, {}), ValueError, "film: heads must hold at least one Network by task name, found none"),
        (lambda: started(film([FLAT], HEADS)), ValueError, "film: the output of stage 0 must be [B, ..., C], found"),
        (lambda: started(film([COUNTS], HEADS)), TypeError, "must be of a floating-point type, found int32"),
        (lambda: started(film([PAIR], HEADS)), TypeError, "film: the output of stage 0 must be one array, found tuple"),
        (lambda: low_rank(dense(4), HEADS, 0), ValueError, "low_rank: rank must be at least 1, found 0"),
        (lambda: low_rank(dense(4), HEADS, True), TypeError, "low_rank: rank must be an integer, found True"),
        (lambda: low_rank(dense(4), HEADS, 2, alpha=0.0), ValueError, "low_rank: alpha must be above 0, found 0.0"),
        (
            lambda: started(low_rank(dense(4), HEADS, 2, select=lambda path, leaf: False)),
            ValueError,
            "low_rank: select must choose at least one of the trunk's parameters {\"['w']\": (3, 4)}, found",
        ),
        (
            lambda: started(low_rank(dense(4, bias=True), HEADS, 2, select=lambda path, leaf: True)),
            ValueError,
            "low_rank: leaf ['b'] must have at least two axes, found shape (4,)",
        ),
        (
            lambda: started(low_rank(WHOLE, HEADS, 2, select=lambda path, leaf: True)),
            TypeError,
            "low_rank: leaf ['n'] must be of a floating-point type, found int32",
        ),
        (unknown_leaf, ValueError, "low_rank: differences must be for leaves of the trunk [\"['w']\"], found ['v']"),
    ],
)
def test_mistakes_get_messages(attempt, error, text):
    with pytest.raises(error) as caught:
        attempt()
    assert text in str(caught.value)
