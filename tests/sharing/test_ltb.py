"""Learning to branch: what is drawn, what is learned, and the tree that remains."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import trees
from mtljax.sharing import Network
from mtljax.sharing.ltb import ltb, prune
from mtljax.sharing.tree import tree
from mtljax.types import Params
from tests.sharing.blocks import dense as dropping

dense = functools.partial(dropping, rate=0.0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
STAGES = [dense(4), dense(4), dense(4)]
HEADS = {"depth": dense(1), "edges": dense(1), "label": dense(5)}
KEEP = Network(lambda key, x: ((), ()), lambda params, state, x, *, key=None, train=False: (x, state))


def filled(model, x=X, seed=1):
    """Parameters that are drawn, without compiling what `init` does, and a state of zeros."""
    shapes, state = jax.eval_shape(model.init, jax.random.key(0), x)
    draw = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), shapes)
    return params, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)


def chain(x, weights):
    return functools.reduce(np.matmul, [np.asarray(w, np.float64) for w in weights], np.asarray(x, np.float64))


def test_choices_are_draws_of_one_parent_uniform_during_warmup_with_the_derivative_of_a_softmax():
    """Node i returns the unit vector i and the head returns what it reads: the output is the vector of weights."""
    heat = jnp.array([1.0, 1.0, 1.0, 2.0])
    model = ltb([dense(3)], {"a": KEEP}, widths=3, temperature=lambda calls: heat[calls], warmup=1)
    theta = jnp.array([0.0, 1.0, -1.5])
    nodes = [{"w": row[None, :]} for row in jnp.eye(3)]
    params = Params({"nodes": [nodes], "routes": []}, {"a": {"route": theta, "head": ()}})
    _, state = filled(model, jnp.ones((1, 1)))

    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def draw(key, calls):
        def weights(theta):
            tasks = {"a": params.tasks["a"] | {"route": theta}}
            now = state | {"calls": calls}
            out, after = model.apply(params._replace(tasks=tasks), now, jnp.ones((1, 1)), key=key, train=True)
            return out["a"][0], (out["a"][0], after["calls"])

        slopes, found = jax.jacrev(weights, has_aux=True)(theta)
        return *found, slopes

    weights, calls, slopes = jax.jit(draw)(jax.random.split(jax.random.key(0), 4000), jnp.arange(4))
    np.testing.assert_array_equal(calls[0], [1, 2, 3, 4])
    assert set(np.unique(weights)) == {0.0, 1.0} and (np.sum(weights, axis=-1) == 1).all()
    # One of them, as often as the softmax of the logits says (Gumbel's maximum), whatever the temperature.
    np.testing.assert_array_equal(weights[:, 1], weights[:, 3])
    often = np.asarray(jnp.mean(weights, axis=0))
    np.testing.assert_allclose(often[0], np.ones(3) / 3, atol=4.5 * np.sqrt(2 / 9 / 4000))
    likely = np.exp(theta) / np.exp(theta).sum()
    np.testing.assert_allclose(often[1], likely, atol=4.5 * np.sqrt(0.25 / 4000))
    # The derivative is (diag p - p p') / temperature, from which p is known: a softmax, largest where the draw is.
    assert not np.any(slopes[:, 0])
    slopes = np.asarray(slopes[:200, 2:], np.float64) * np.array([1.0, 2.0])[None, :, None, None]
    others = [(1, 2), (2, 0), (0, 1)]
    squares = [-slopes[..., i, j] * slopes[..., i, k] / slopes[..., j, k] for i, (j, k) in enumerate(others)]
    soft = np.sqrt(np.stack(squares, axis=-1))
    np.testing.assert_allclose(soft.sum(-1), 1.0, rtol=1e-3)
    np.testing.assert_allclose(slopes.diagonal(axis1=-2, axis2=-1), soft * (1 - soft), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(soft.argmax(-1), np.argmax(weights[:200, 2:], axis=-1))
    # With the same noise, twice the temperature halves every difference between logarithms.
    apart = np.log(soft) - np.log(soft[..., :1])
    np.testing.assert_allclose(apart[:, 0], 2 * apart[:, 1], rtol=1e-3, atol=1e-3)


def test_a_node_reads_one_of_those_before_it_and_one_that_is_not_read_learns_nothing():
    model = ltb(STAGES[:2], {"a": KEEP}, widths=(2, 3))
    params, state = filled(model)
    keep = [{"w": jnp.eye(4)} for _ in range(3)]

    @jax.jit
    def encode(key):
        def features(nodes):
            found = model.encode(params.shared | {"nodes": nodes}, state, X, key=key, train=True)[0]
            return jnp.sum(found), found

        slopes, found = jax.grad(features, has_aux=True)(params.shared["nodes"])
        return found, features([params.shared["nodes"][0], keep])[1], slopes[0]

    before = [chain(X, [node["w"]]) for node in params.shared["nodes"][0]]
    drawn = set()
    for seed in range(6):
        found, read, slopes = encode(jax.random.key(seed))
        parents = [int(np.argmin([np.abs(read[child] - each).max() for each in before])) for child in range(3)]
        for child, parent in enumerate(parents):
            np.testing.assert_allclose(read[child], before[parent], rtol=1e-4, atol=1e-5)
            own = np.asarray(params.shared["nodes"][1][child]["w"], np.float64)
            np.testing.assert_allclose(found[child], before[parent] @ own, rtol=1e-4, atol=1e-4)
        assert [bool(np.any(slope["w"])) for slope in slopes] == [node in parents for node in range(2)]
        drawn.add(tuple(parents))
    assert len(drawn) > 1 and any(len(set(parents)) == 1 for parents in drawn)


def test_logits_learn_after_the_warmup_and_a_schedule_traces_once():
    traces = []

    def temperature(calls):
        traces.append(None)
        return 5.0 / jnp.sqrt(1.0 + calls / 10)

    model = ltb(STAGES[:2], {"depth": HEADS["depth"]}, widths=2, temperature=temperature, warmup=2)
    params, state = filled(model)

    @jax.jit
    def slope(logits, state, key):
        def loss(logits):
            shared = params.shared | {"routes": logits[:1]}
            own = params.tasks["depth"] | {"route": logits[1]}
            outputs, after = model.apply(Params(shared, {"depth": own}), state, X, key=key, train=True)
            return jnp.sum(outputs["depth"] ** 2), after

        return jax.grad(loss, has_aux=True)(logits)

    moved, logits = [], [*params.shared["routes"], params.tasks["depth"]["route"]]
    for seed in range(3):
        found, state = slope(logits, state, jax.random.key(seed))
        moved.append([bool(np.any(leaf)) for leaf in found])
    assert moved == [[False, False], [False, False], [True, True]]
    assert len(traces) == 2  # one for each choice, in one trace of the step
    assert int(state["calls"]) == 3 and state["calls"].dtype == jnp.int32


def test_without_a_draw_every_child_reads_its_likeliest_parent_alone():
    model = ltb(STAGES[:2], {"a": HEADS["depth"]}, widths=(2, 3))
    params, state = filled(model)
    params.shared["routes"][0] = jnp.array([[1.0, 2.0], [9.0, 0.0], [0.5, 0.5]])
    params.tasks["a"]["route"] = jnp.array([0.0, -1.0, 3.0])
    nodes = params.shared["nodes"]
    nodes[0][1] = {"w": jnp.asarray(np.full((3, 4), np.nan, np.float32))}
    nodes[1][1] = {"w": jnp.asarray(np.full((4, 4), np.nan, np.float32))}
    # Node 2 of the second stage ties and takes the first; nodes that hold NaN are not chosen and do not show.
    expected = chain(X, [nodes[0][0]["w"], nodes[1][2]["w"], params.tasks["a"]["head"]["w"]])
    for rest in ({"key": jax.random.key(0)}, {"train": True}):
        outputs, after = jax.jit(functools.partial(model.apply, **rest))(params, state, X)
        np.testing.assert_allclose(outputs["a"], expected, rtol=1e-4, atol=1e-5)
        assert after["calls"] == (1 if rest.get("train") else 0)


def test_the_parameters_are_all_nodes_the_logits_and_the_heads():
    params, _ = filled(ltb(STAGES, HEADS))
    assert trees.num_elements(params.shared) == 3 * (3 * 4 + 4 * 4 + 4 * 4) + 2 * 3 * 3
    assert [trees.num_elements(params.tasks[task]) for task in HEADS] == [3 + 4, 3 + 4, 3 + 20]
    params, _ = filled(ltb(STAGES, HEADS, widths=(1, 2, 4)))
    assert trees.num_elements(params.shared) == 3 * 4 + 2 * 16 + 4 * 16 + 2 * 1 + 4 * 2


def test_a_pruned_network_computes_the_same_with_the_chosen_nodes_alone():
    model, sizes = ltb(STAGES, HEADS), set()
    apply = jax.jit(model.apply)
    for seed in range(6):
        params, state = filled(model, seed=seed)
        smaller, kept, kept_state = prune(STAGES, HEADS, params, state)
        whole, _ = apply(params, state, X)
        outputs, _ = smaller.apply(kept, kept_state, X)
        assert outputs.keys() == whole.keys()
        for task in HEADS:
            np.testing.assert_allclose(outputs[task], whole[task], rtol=1e-6)
        # Which nodes there are, and whose, recomputed from the logits.
        passed = {}
        for task in HEADS:
            node = int(np.argmax(params.tasks[task]["route"]))
            for stage in (2, 1, 0):
                passed.setdefault(f"node/{stage}/{node}", []).append(task)
                node = int(np.argmax(params.shared["routes"][stage - 1][node])) if stage else None
        assert set(kept.shared) == {part for part, tasks in passed.items() if len(tasks) > 1}
        for task in HEADS:
            assert set(kept.tasks[task]) == {"head", *(part for part, tasks in passed.items() if tasks == [task])}
        assert set(kept_state["nodes"]) == set(passed)
        sizes.add(trees.num_elements(kept))
        fresh = jax.eval_shape(smaller.init, jax.random.key(0), X)
        assert jax.tree.structure(fresh) == jax.tree.structure((kept, kept_state))
    assert len(sizes) > 1 and max(sizes) < trees.num_elements(params)


def test_pruning_saves_the_work_of_what_is_not_chosen():
    stages, heads = [dense(32), dense(32)], {"a": dense(2), "b": dense(2)}
    model, x = ltb(stages, heads, widths=4), jnp.ones((16, 32))
    params, state = filled(model, x)
    smaller, kept, kept_state = prune(stages, heads, params, state)

    def flops(model, *arguments):
        return jax.jit(model.apply).lower(*arguments, x).compile().cost_analysis()["flops"]

    nodes = len(kept_state["nodes"])
    assert nodes <= 4
    needed = 2 * 16 * (nodes * 32 * 32 + 2 * 32 * 2)
    assert needed <= flops(smaller, kept, kept_state) <= 1.02 * needed
    assert flops(model, params, state) >= 2 * 16 * 8 * 32 * 32


def test_a_tree_runs_every_node_once_and_for_those_who_pass_it():
    paths = {"depth": (0, 7), "edges": (0, 7), "label": (0, 2)}
    model = tree(STAGES[:2], HEADS, paths)
    params, state = filled(model)
    outputs, after = jax.jit(functools.partial(model.apply, train=True))(params, state, X)
    nodes = params.shared | params.tasks["label"]
    for task, (first, second) in paths.items():
        weights = [nodes[f"node/0/{first}"]["w"], nodes[f"node/1/{second}"]["w"], params.tasks[task]["head"]["w"]]
        np.testing.assert_allclose(outputs[task], chain(X, weights), rtol=1e-4, atol=1e-5)
    assert all(leaf == 1 for leaf in jax.tree.leaves(after))
    _, after = model.apply(params, state, X, tasks=("label",), train=True)
    ran = {part: int(found["calls"]) for part, found in after["nodes"].items()}
    assert ran == {"node/0/0": 1, "node/1/2": 1, "node/1/7": 0}
    assert {task: int(found["calls"]) for task, found in after["tasks"].items()} == {"depth": 0, "edges": 0, "label": 1}
    alone = tree(STAGES[:2], HEADS, {task: (k, k) for k, task in enumerate(HEADS)})
    assert not jax.eval_shape(alone.init, jax.random.key(0), X)[0].shared


def pruned_in_jit():
    params, state = filled(ltb(STAGES, HEADS))
    return jax.eval_shape(lambda params: prune(STAGES, HEADS, params, state)[1], params)


def heated(temperature):
    model = ltb(STAGES, HEADS, temperature=temperature)
    return jax.eval_shape(lambda key: model.apply(*filled(model), X, key=key, train=True), jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ltb([], HEADS), ValueError, "ltb: stages must hold at least one Network, found 0"),
        (
            lambda: ltb(dense(4), HEADS),
            TypeError,
            "ltb: stages must be a sequence of Network, found a Network; write (network,)",
        ),
        (lambda: ltb(STAGES, {}), ValueError, "ltb: heads must hold at least one Network by task name, found none"),
        (lambda: ltb(STAGES, HEADS, widths=(2, 2)), ValueError, "ltb: widths must hold one number per stage"),
        (lambda: ltb(STAGES, HEADS, widths=0), ValueError, "ltb: widths must be at least 1, found 0"),
        (lambda: ltb(STAGES, HEADS, temperature=0.0), ValueError, "ltb: temperature must be above 0, found 0.0"),
        (
            lambda: heated(lambda calls: jnp.ones(3)),
            ValueError,
            "ltb: temperature(calls) must be a scalar, found an array of shape (3,)",
        ),
        (lambda: ltb(STAGES, HEADS, warmup=-1), ValueError, "ltb: warmup must be at least 0, found -1"),
        (
            lambda: prune(STAGES[:2], HEADS, *filled(ltb(STAGES, HEADS))),
            ValueError,
            "prune: stages must be the 3 stages of params, found 2",
        ),
        (
            lambda: prune(STAGES, {"depth": KEEP}, *filled(ltb(STAGES, HEADS))),
            ValueError,
            "prune: heads must be for the tasks of params, ['depth', 'edges', 'label'], found ['depth']",
        ),
        (pruned_in_jit, TypeError, "prune: params must be concrete, found traced arrays; call prune outside of jit"),
        (
            lambda: tree(STAGES[:1], HEADS, {"depth": (0,)}),
            ValueError,
            "tree: paths must be for the tasks ['depth', 'edges', 'label'], found ['depth']",
        ),
        (
            lambda: tree(STAGES[:2], HEADS, dict.fromkeys(HEADS, (0,))),
            ValueError,
            "tree: paths['depth'] must hold one node per stage, 2 nodes, found (0,)",
        ),
        (
            lambda: tree(STAGES[:1], {"a": KEEP}, {"a": (0.5,)}),
            TypeError,
            "tree: paths['a'][0] must be an integer, found 0.5",
        ),
        (
            lambda: tree(STAGES[:1], {"a": KEEP}, {"a": (-1,)}),
            ValueError,
            "tree: paths['a'][0] must be at least 0, found -1",
        ),
        (
            lambda: tree(STAGES[:2], {"a": KEEP, "b": KEEP}, {"a": (0, 3), "b": (1, 3)}),
            ValueError,
            "tree: tasks 'a' and 'b' must reach node 3 of stage 1 from one path, found (0,) and (1,)",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
