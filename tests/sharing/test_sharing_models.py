"""Hard and soft sharing on networks written out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.penalties import Penalty, l2_to_mean, pairwise_l2
from mtljax.sharing import Network, hard, soft
from mtljax.types import Params, TaskInputs
from tests.sharing.blocks import dense

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
HEADS = {"depth": dense(1), "label": dense(5)}
MODELS = {
    "hard": hard(dense(4), HEADS),
    "soft": soft(dense(4), HEADS, l2_to_mean()),
    "soft_names": soft(dense(4), ["label", "depth"]),
    "soft_stacked": soft(dense(4), HEADS, l2_to_mean(), stacked=True),
}


def fresh(name):
    return MODELS[name].init(jax.random.key(0), X)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_hard_is_head_after_trunk():
    model, (params, state) = MODELS["hard"], fresh("hard")
    outputs, after = model.apply(params, state, X)
    assert isinstance(params, Params)
    for task in HEADS:
        np.testing.assert_allclose(outputs[task], X @ params.shared["w"] @ params.tasks[task]["w"], rtol=1e-5)
    equal(state, after)
    assert state == {"trunk": {"calls": 0}, "tasks": {"depth": {"calls": 0}, "label": {"calls": 0}}}


def test_soft_runs_each_task_on_its_own_copy():
    model, (params, state) = MODELS["soft"], fresh("soft")
    assert params.shared == ()
    params.tasks["label"]["trunk"]["w"] *= 2.0
    outputs, _ = model.apply(params, state, X)
    for task in HEADS:
        own = params.tasks[task]
        np.testing.assert_allclose(outputs[task], X @ own["trunk"]["w"] @ own["head"]["w"], rtol=1e-5)


def test_soft_without_heads_gives_the_networks_output():
    model, (params, state) = MODELS["soft_names"], fresh("soft_names")
    assert sorted(params.tasks) == ["depth", "label"] and model.penalty is None
    np.testing.assert_array_equal(model.apply(params, state, X)[0]["depth"], X @ params.tasks["depth"]["trunk"]["w"])


def test_soft_starts_where_hard_does():
    shared, _ = MODELS["hard"].init(jax.random.key(3), X)
    copies, _ = MODELS["soft"].init(jax.random.key(3), X)
    for task in HEADS:
        equal(copies.tasks[task], {"trunk": shared.shared, "head": shared.tasks[task]})


def test_with_equal_copies_soft_computes_what_hard_does_dropout_included():
    key = jax.random.key(1)
    outputs = []
    for name in ("hard", "soft"):
        params, state = fresh(name)
        outputs.append(MODELS[name].apply(params, state, X, key=key, train=True)[0])
    equal(*outputs)


def test_a_head_does_not_depend_on_the_tasks_beside_it():
    alone = hard(dense(4), {"label": HEADS["label"]})
    params, state = alone.init(jax.random.key(0), X)
    whole, whole_state = fresh("hard")
    equal(params.tasks["label"], whole.tasks["label"])
    key = jax.random.key(1)
    equal(
        alone.apply(params, state, X, key=key, train=True)[0]["label"],
        MODELS["hard"].apply(whole, whole_state, X, key=key, train=True)[0]["label"],
    )


def drawing():
    """A network that adds what it draws, as dropout would."""

    def apply(params, state, inputs, *, key=None, train=False):
        return (inputs if key is None else inputs + jax.random.uniform(key, inputs.shape)), state

    return Network(lambda key, inputs: ((), ()), apply)


def drawn(trunk, head, inputs):
    model = hard(trunk, {"a": head, "b": head})
    params, state = model.init(jax.random.key(0), inputs)
    outputs, _ = model.apply(params, state, inputs, key=jax.random.key(1), train=True)
    return outputs


def test_every_head_and_every_task_s_inputs_have_a_key_of_their_own():
    plain = Network(lambda key, inputs: ((), ()), lambda params, state, inputs, **_: (inputs, state))
    of_heads = drawn(plain, drawing(), X)
    assert (of_heads["a"] != of_heads["b"]).all()
    of_inputs = drawn(drawing(), plain, TaskInputs({"a": X, "b": X}))
    assert (of_inputs["a"] != of_inputs["b"]).all()
    of_one_trunk = drawn(drawing(), plain, X)
    np.testing.assert_array_equal(of_one_trunk["a"], of_one_trunk["b"])


@pytest.mark.parametrize("name", list(MODELS))
def test_one_task_runs_alone(name):
    model, (params, state), key = MODELS[name], fresh(name), jax.random.key(1)
    every, _ = model.apply(params, state, X, key=key, train=True)
    outputs, after = model.apply(params, state, X, tasks=("depth",), key=key, train=True)
    assert list(outputs) == ["depth"]
    np.testing.assert_allclose(outputs["depth"], every["depth"], rtol=1e-5)
    equal(after["tasks"]["label"], state["tasks"]["label"])
    assert all(leaf == 1 for leaf in jax.tree.leaves(after["tasks"]["depth"]))
    # Nothing of the other task is read.
    params.tasks["label"] = None
    equal(model.apply(params, state, X, tasks=["depth"], key=key, train=True)[0], outputs)


def test_the_penalty_sees_the_trunks_in_task_order_and_nothing_else():
    relation = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    model = soft(dense(4), {"c": dense(1), "a": dense(2), "b": dense(3)}, pairwise_l2(relation))
    params, _ = model.init(jax.random.key(0), X)
    assert float(model.penalty(params)) == 0.0
    params.tasks["c"]["trunk"]["w"] += 7.0
    params.tasks["b"]["head"]["w"] += 7.0
    assert float(model.penalty(params)) == 0.0
    params.tasks["b"]["trunk"]["w"] += 2.0
    assert float(model.penalty(params)) == pytest.approx(4.0 * 12, rel=1e-5)


def moved(params, seed=0):
    """The same parameters with nothing left equal."""
    drawn = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(drawn.normal(size=leaf.shape), leaf.dtype), params)


@pytest.mark.parametrize("inputs", [X, TaskInputs({"depth": X, "label": 2.0 * X - 1.0})], ids=["shared", "own"])
def test_stacked_copies_compute_what_copies_one_by_one_do(inputs):
    params, state = MODELS["soft"].init(jax.random.key(0), inputs)
    params = moved(params)
    state["tasks"]["label"]["trunk"]["calls"] += 5

    def loss(params, model):
        outputs, after = model.apply(params, state, inputs, key=jax.random.key(1), train=True)
        return sum(jnp.sum(out**2) for out in outputs.values()), (outputs, after)

    plain, together = (jax.value_and_grad(loss, has_aux=True)(params, MODELS[k]) for k in ("soft", "soft_stacked"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), plain, together)
    assert together[0][1][1]["tasks"]["label"]["trunk"]["calls"] == 6


def test_a_nan_in_one_stacked_copy_reaches_no_other():
    model, method = MODELS["soft_stacked"], mtljax.methods.equal()
    params, state = model.init(jax.random.key(0), X)
    losses_fn = mtljax.make_losses_fn(model, dict.fromkeys(HEADS, mtljax.Task(mtljax.losses.squared_error)))
    batch = mtljax.Batch(X, {"depth": jnp.zeros((6, 1)), "label": jnp.zeros((6, 5))})
    step = jax.jit(lambda p: mtljax.value_and_grad(losses_fn, method, has_aux=True)(p, method.init(2), state, batch)[1])
    clean = step(params)
    params.tasks["depth"]["trunk"]["w"] *= jnp.nan
    poisoned = step(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(poisoned.tasks["depth"]))
    assert np.any(clean.tasks["label"]["trunk"]["w"])
    equal(poisoned.tasks["label"], clean.tasks["label"])


PARTS = soft(dense(4), HEADS, Penalty(lambda w: jnp.sum(w["a"]["w"]) + 10.0 * w["b"]["w"][1, 0, 0], parts=("b", "a")))


def test_parts_of_a_penalty_are_summands_of_the_trunk():
    params, state = PARTS.init(jax.random.key(0), X)
    whole, _ = fresh("soft")
    for task in HEADS:
        zeros = {"w": jnp.zeros((3, 4))}
        equal(params.tasks[task], whole.tasks[task] | {"trunk": {"b": whole.tasks[task]["trunk"], "a": zeros}})
    params = moved(params)
    for task in HEADS:
        own = params.tasks[task]["trunk"]
        whole.tasks[task] = params.tasks[task] | {"trunk": {"w": own["a"]["w"] + own["b"]["w"]}}
    equal(*(m.apply(p, state, X) for m, p in ((PARTS, params), (MODELS["soft"], whole))))
    rows = [params.tasks[task]["trunk"] for task in ("depth", "label")]
    expected = sum(np.sum(row["a"]["w"]) for row in rows) + 10.0 * rows[1]["b"]["w"][0, 0]
    np.testing.assert_allclose(PARTS.penalty(params), expected, rtol=1e-5)


def test_parts_in_half_precision_are_added_in_single():
    penalty = Penalty(lambda w: jnp.zeros(()), parts=("x", "y", "z"))
    model = soft(Network(lambda key, x: (x, ()), lambda w, state, x, **_: (w, state)), ["a"], penalty)
    params, state = model.init(jax.random.key(0), jnp.ones(1, jnp.bfloat16))
    for part in ("y", "z"):
        params.tasks["a"]["trunk"][part] += 2.0**-8  # added one by one in bfloat16, they are lost
    found = model.apply(params, state, jnp.ones(1))[0]["a"]
    assert found.dtype == jnp.bfloat16 and float(found[0]) == 1.0 + 2.0**-7


def test_each_copy_reads_inputs_of_its_own_shape():
    channels = {"depth": jnp.ones((2, 5, 3)), "label": jnp.ones((6, 7, 3))}
    flat = Network(
        lambda key, x: (jnp.ones(x.shape[1:]), ()), lambda w, state, x, **_: ((x * w[None]).sum((1, 2)), state)
    )
    model = soft(dense(4), {"depth": flat, "label": flat})
    params, state = model.init(jax.random.key(0), TaskInputs(channels))
    assert [params.tasks[task]["head"].shape for task in ("depth", "label")] == [(5, 4), (7, 4)]
    outputs, _ = model.apply(params, state, TaskInputs(channels))
    assert [outputs[task].shape for task in ("depth", "label")] == [(2,), (6,)]
    equal(model.apply(params, state, channels["label"], tasks=("label",))[0]["label"], outputs["label"])


TARGETS = {"a": X @ jnp.ones((3, 1)), "b": X @ jnp.array([[1.0], [-1.0], [2.0]])}


def task_loss(model, state, params, task):
    outputs, _ = model.apply(params, state, X, tasks=(task,))
    return jnp.mean((outputs[task] - TARGETS[task]) ** 2)


def descend(objective, params, *, prox=lambda params: params, steps=30, rate=0.05):
    gradient = jax.jit(jax.grad(objective))
    for _ in range(steps):
        params = prox(jax.tree.map(lambda p, g: p - rate * g, params, gradient(params)))
    return params


def test_zero_strength_is_training_each_task_alone():
    together = soft(dense(1), ("a", "b"), l2_to_mean(0.0))
    params, state = together.init(jax.random.key(0), X)
    trained = descend(lambda p: sum(task_loss(together, state, p, t) for t in "ab") + together.penalty(p), params)
    for task in "ab":
        single = soft(dense(1), (task,))
        own, own_state = single.init(jax.random.key(0), X)
        own = descend(lambda p, s=single, st=own_state, t=task: task_loss(s, st, p, t), own)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), trained.tasks[task], own.tasks[task])


def test_huge_strength_is_hard_sharing():
    identity = Network(lambda key, x: ((), ()), lambda params, state, x, *, key=None, train=False: (x, state))
    tied, shared = soft(dense(1), ("a", "b")), hard(dense(1), {"a": identity, "b": identity})
    pull = l2_to_mean(1e8).prox

    def prox(params):
        names = sorted(params.tasks)
        trunks = [params.tasks[name]["trunk"] for name in names]
        pulled = pull(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trunks), 1.0)
        tasks = {n: params.tasks[n] | {"trunk": jax.tree.map(lambda x, k=k: x[k], pulled)} for k, n in enumerate(names)}
        return params._replace(tasks=tasks)

    params, state = tied.init(jax.random.key(0), X)
    copies = descend(lambda p: sum(task_loss(tied, state, p, t) for t in "ab"), params, prox=prox)
    np.testing.assert_allclose(copies.tasks["a"]["trunk"]["w"], copies.tasks["b"]["trunk"]["w"], rtol=1e-6)

    # Two tied copies move by the mean of the two gradients, one shared trunk by the sum.
    params, state = shared.init(jax.random.key(0), X)
    one = descend(lambda p: sum(task_loss(shared, state, p, t) for t in "ab"), params, rate=0.025)
    np.testing.assert_allclose(one.shared["w"], copies.tasks["a"]["trunk"]["w"], rtol=1e-5)


def test_two_tied_regressions_meet_their_closed_form():
    # Stationarity, task by task: 2/n X'(X w_k - y_k) + s (w_k - w_other) = 0, for |w_1 - m|^2 + |w_2 - m|^2.
    strength, x = 0.7, np.asarray(X, np.float64)
    moment = 2 / len(x) * x.T @ x + strength * np.eye(3)
    system = np.block([[moment, -strength * np.eye(3)], [-strength * np.eye(3), moment]])
    right = np.concatenate([2 / len(x) * x.T @ np.asarray(TARGETS[task], np.float64) for task in "ab"])
    optimum = np.linalg.solve(system, right).reshape(2, 3, 1)
    model = soft(dense(1), ("a", "b"), l2_to_mean(strength))
    params, state = model.init(jax.random.key(0), X)
    trained = descend(
        lambda p: sum(task_loss(model, state, p, t) for t in "ab") + model.penalty(p), params, steps=1500, rate=0.2
    )
    for task, expected in zip("ab", optimum, strict=True):
        np.testing.assert_allclose(trained.tasks[task]["trunk"]["w"], expected, rtol=1e-4)


def unstackable(change):
    params, _ = fresh("soft")
    change(params.tasks)
    return MODELS["soft"].penalty(params)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: hard(dense(4), {}), ValueError, "hard: heads must hold at least one Network by task name, found none"),
        (
            lambda: hard(dense(4), {0: dense(1)}),
            TypeError,
            "hard: the names of heads must be a sequence of strings, found [0]",
        ),
        (
            lambda: soft(dense(4), "depth"),
            TypeError,
            "soft: tasks must be a sequence of strings, found 'depth'; write ('depth',)",
        ),
        (
            lambda: soft(dense(4), ["a", "b", "a"]),
            ValueError,
            "soft: tasks must be names that differ, found ['a', 'b', 'a']",
        ),
        (
            lambda: unstackable(lambda tasks: tasks["label"]["trunk"].update(w=jnp.ones((3, 7)))),
            ValueError,
            "soft: the trunks must be alike, found that leaf ['w'] is (3, 4) for task 'depth' but (3, 7)",
        ),
        (
            lambda: unstackable(lambda tasks: tasks["label"]["trunk"].update(b=jnp.ones(4))),
            ValueError,
            "leaf ['b'] is no such leaf for task 'depth' but (4,) for task 'label'",
        ),
        (
            lambda: MODELS["soft_stacked"].apply(*fresh("soft"), TaskInputs({"depth": X, "label": X[:2]})),
            ValueError,
            "soft: the copies must be alike for stacked=True, found that leaf ['inputs'] is ((6, 3), 'float32') for "
            "task 'depth' but ((2, 3), 'float32') for task 'label'",
        ),
        (
            lambda: PARTS.apply(*fresh("soft"), X),
            ValueError,
            "soft: the trunk of task 'depth' must be a dict of the parts ['b', 'a'], found ['w']",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
