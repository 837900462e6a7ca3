"""Methods made of methods: recurrences by hand, identities, what is kept for absent tasks, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.methods.apply import aggregate, reconcile
from mtljax.methods.common import initial_state
from mtljax.methods.from_gramian import mgda, pcgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.from_losses import equal, fixed
from mtljax.methods.wrappers import (
    by_layer,
    by_leaf,
    clip,
    cr_mogm,
    ema,
    every,
    log_losses,
    mean_norm,
    normalize,
    per_group,
    preference,
    rescale,
    sum_norm,
    warmup,
)
from mtljax.types import Method, Params

ROWS = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
KEY = jax.random.key(0)


def counting(reads="gramian", *, weigh_tasks=False) -> Method:
    """At its n-th step the weights are n, n + 1, ...; sees, observes and can be reused; nothing to solve."""

    def init(num_tasks, shared=None):
        inner = {"step": jnp.zeros((), jnp.int32), "seen": jnp.zeros(num_tasks), "after": jnp.zeros(num_tasks)}
        return initial_state(num_tasks, inner)

    def update(evidence, state, *, losses=None, active=None, key=None, **extra):
        weights = state.inner["step"] + jnp.arange(1.0, state.weights.shape[0] + 1)
        weights = weights if active is None else jnp.where(active, weights, 0.0)
        inner = {**state.inner, "step": state.inner["step"] + 1}
        if losses is not None:
            inner["seen"] = losses
        state = state._replace(weights=weights, inner=inner)
        if reads == "task_grads":
            return mtljax.trees.weighted_sum(weights, evidence), state
        return weights, state

    def observe(losses_after, state):
        return state._replace(inner={**state.inner, "after": losses_after})

    return Method(reads, init, update, observe, weigh_tasks, name="counting")


def picking() -> Method:
    """Task 1's gradient as it is."""
    return Method(
        "task_grads",
        lambda num_tasks, shared=None: initial_state(num_tasks),
        lambda evidence, state, **rest: (evidence, state),
        name="picking",
        pick=lambda state, *, active=None: jnp.asarray(1, jnp.int32),
    )


def steps(method, count, *, masks=None, losses=None, gramian=None):
    state = method.init(3)
    found = []
    for index in range(count):
        active = None if masks is None else jnp.array(masks[index])
        weights, state = method.update(jnp.eye(3) if gramian is None else gramian, state, losses=losses, active=active)
        np.testing.assert_array_equal(weights, state.weights)
        found.append(np.asarray(weights))
    return np.stack(found), state


# ema


def test_ema_by_hand():
    found, _ = steps(ema(counting(), 0.9), 3)
    first = np.array([1.0, 2.0, 3.0])
    second = 0.9 * first + 0.1 * (first + 1)
    third = 0.9 * second + 0.1 * (first + 2)
    np.testing.assert_allclose(found, [first, second, third], rtol=1e-6)
    assert cr_mogm is ema


def test_ema_holds_absent_tasks_and_starts_each_at_its_own_first_step():
    masks = [[True, False, True], [True, True, False], [True, True, True]]
    found, _ = steps(ema(counting(), 0.5), 3, masks=masks)
    np.testing.assert_allclose(found[:, 0], [1.0, 1.5, 2.25])
    np.testing.assert_allclose(found[:, 1], [0.0, 3.0, 3.5])
    np.testing.assert_allclose(found[:, 2], [3.0, 0.0, 4.0])


def test_ema_from_given_weights_and_with_a_schedule():
    found, _ = steps(ema(counting(), 0.5, initial=[3.0, 0.0, 1.0]), 1)
    np.testing.assert_allclose(found[0], [2.0, 1.0, 2.0])
    found, _ = steps(ema(counting(), lambda count: count / (count + 1.0)), 3)
    np.testing.assert_allclose(found[2], [2.0, 3.0, 4.0], rtol=1e-6)  # the plain mean of three


def test_ema_over_every_averages_the_kept_weights():
    method = ema(every(counting(), 2), 0.5)
    state = method.init(3)
    gramian = jnp.eye(3)
    _, state = method.update(gramian, state)
    assert not method.due(state)
    _, state = method.reuse(state)
    assert method.due(state)
    weights, state = method.update(gramian, state)
    np.testing.assert_allclose(weights, [1.5, 2.5, 3.5])


# log_losses


@pytest.mark.parametrize("eps", [0.0, 1e-8, 0.5])
def test_log_losses_of_equal_is_the_gradient_of_the_sum_of_logarithms(eps):
    losses = jnp.array([0.3, 2.0, 7.0])
    expected = jax.grad(lambda values: jnp.sum(jnp.log(values + eps)))(losses)
    method = log_losses(equal(), eps=eps)
    np.testing.assert_allclose(method.update(losses, method.init(3))[0], expected, rtol=1e-6)


@pytest.mark.parametrize("method", [pcgrad(), graddrop()], ids=lambda method: method.name)
def test_log_losses_reconciles_the_gradients_of_logarithms(method):
    losses = jnp.array([0.5, 4.0])
    found = aggregate(log_losses(method), ROWS, losses=losses, key=KEY)
    expected = aggregate(method, ROWS / (losses[:, None] + 1e-8), losses=jnp.log(losses), key=KEY)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_log_losses_does_not_care_for_units_and_shows_logarithms():
    method = log_losses(counting("losses"), eps=0.0)
    losses = jnp.array([1.0, 2.0, 4.0])
    weights, state = method.update(losses, method.init(3), losses=losses)
    np.testing.assert_allclose(weights, [1.0, 1.0, 0.75])
    np.testing.assert_allclose(state.inner.method.inner["seen"], np.log(losses), rtol=1e-6)
    state = method.observe(2.0 * losses, state)
    np.testing.assert_allclose(state.inner.method.inner["after"], np.log(2.0 * losses), rtol=1e-6)
    other, _ = method.update(1e3 * losses, method.init(3), losses=1e3 * losses)
    np.testing.assert_allclose(1e3 * other, weights, rtol=1e-6)


def test_a_loss_without_logarithm_sits_out():
    method = log_losses(equal())
    losses, active = jnp.array([2.0, -1.0, jnp.nan]), jnp.array([True, True, False])
    weights, _ = jax.jit(method.update)(losses, method.init(3), active=active)
    np.testing.assert_allclose(weights, [0.5, 0.0, 0.0])


def test_log_losses_gives_heads_of_task_gradient_methods_the_logarithms_gradient():
    method = log_losses(graddrop())
    assert method.weigh_tasks and not log_losses(mgda()).weigh_tasks
    losses = jnp.array([0.5, 4.0])
    _, state, _ = reconcile(method, method.init(2), ROWS, losses=losses, active=jnp.array([True, True]), key=KEY)
    np.testing.assert_allclose(state.weights, 1 / losses, rtol=1e-6)


# normalize


@pytest.mark.parametrize("method", [pcgrad(), graddrop()], ids=lambda method: method.name)
def test_normalize_feeds_unit_gradients(method):
    unit = ROWS / jnp.linalg.norm(ROWS, axis=1, keepdims=True)
    expected = aggregate(method, unit, key=KEY)
    scaled = ROWS * jnp.array([[1e-6], [3.0]])
    np.testing.assert_allclose(aggregate(normalize(method), scaled, key=KEY), expected, rtol=1e-5, atol=1e-6)


def test_normalize_leaves_a_zero_gradient_zero():
    weights, _ = normalize(pcgrad()).update(jnp.diag(jnp.array([4.0, 0.0])), normalize(pcgrad()).init(2))
    assert weights[0] == 0.5 and np.isfinite(weights[1])


def test_normalize_one_picked_gradient():
    method = normalize(picking())
    np.testing.assert_allclose(aggregate(method, ROWS), ROWS[1] / jnp.linalg.norm(ROWS[1]), rtol=1e-6)


# rescale and clip


@pytest.mark.parametrize("method", [pcgrad(), graddrop()], ids=lambda method: method.name)
def test_rescale_sets_the_length_and_nothing_else(method):
    plain = aggregate(method, ROWS, key=KEY)
    total = float(jnp.linalg.norm(ROWS.sum(axis=0)))
    for to, length in [(sum_norm, total), (mean_norm, total / 2), (0.25, 0.25)]:
        found = aggregate(rescale(method, to), ROWS, key=KEY)
        np.testing.assert_allclose(found, length * plain / jnp.linalg.norm(plain), rtol=1e-5, atol=1e-6)
        alone = aggregate(rescale(method, to), ROWS, key=KEY, active=jnp.array([True, False]))
        assert jnp.linalg.norm(alone) == pytest.approx(
            0.25 if to == 0.25 else float(jnp.linalg.norm(ROWS[0])), rel=1e-5
        )


def test_rescale_does_not_blow_up_rounding():
    opposed = jnp.array([[1.0, 2.0, 0.3], [-1.0, -2.0, -0.3]])
    assert jnp.linalg.norm(aggregate(rescale(mgda(), 1.0), opposed)) < 1e-5


@pytest.mark.parametrize("method", [pcgrad(), graddrop()], ids=lambda method: method.name)
@pytest.mark.parametrize("max_norm", [0.1, 1e3])
def test_clip(method, max_norm):
    plain = aggregate(method, ROWS, key=KEY)
    expected = plain * min(1.0, max_norm / float(jnp.linalg.norm(plain)))
    np.testing.assert_allclose(aggregate(clip(method, max_norm), ROWS, key=KEY), expected, rtol=1e-5, atol=1e-6)


def test_a_picked_gradient_is_clipped_too():
    np.testing.assert_allclose(jnp.linalg.norm(aggregate(clip(picking(), 0.5), ROWS)), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "wrap", [lambda m: rescale(m, 2.0), lambda m: clip(m, 2.0), log_losses, normalize], ids=range(4)
)
def test_kept_weights_keep_their_units(wrap):
    method = wrap(every(counting(), 2))
    losses = jnp.array([1.0, 2.0, 4.0])
    weights, state = method.update(4.0 * jnp.eye(3), method.init(3), losses=losses)
    assert not method.due(state)
    again, state = method.reuse(state, active=jnp.array([True, False, True]))
    np.testing.assert_allclose(again, jnp.where(jnp.array([True, False, True]), weights, 0.0))
    np.testing.assert_array_equal(state.weights, again)
    observed = method.observe(losses, state)
    assert jax.tree.structure(observed) == jax.tree.structure(state)


# warmup


def test_warmup_then_the_method_from_its_beginning():
    method = warmup(counting(), 2)
    found, _ = steps(method, 4, masks=[[True, True, False], *[[True] * 3] * 3])
    np.testing.assert_allclose(found, [[1, 1, 0], [1, 1, 1], [1, 2, 3], [2, 3, 4]])


def test_warmup_asks_for_no_jacobian_and_hides_its_losses():
    method = warmup(counting(), 2)
    state = method.init(3)
    for _ in range(2):
        assert not method.due(state)
        weights, state = method.reuse(state)
        np.testing.assert_array_equal(weights, 1.0)
        state = method.observe(jnp.ones(3), state)
        np.testing.assert_array_equal(state.inner.method.inner["after"], 0.0)
    assert method.due(state)
    _, state = method.update(jnp.eye(3), state)
    state = method.observe(jnp.ones(3), state)
    np.testing.assert_array_equal(state.inner.method.inner["after"], 1.0)


def test_warmup_with_another_method_first():
    method = warmup(graddrop(), 1, fixed([1.0, 0.5]))
    state = method.init(2)
    update, state, _ = reconcile(method, state, ROWS, losses=jnp.ones(2), key=KEY)
    np.testing.assert_allclose(update, ROWS[0] + 0.5 * ROWS[1])
    update, state, _ = reconcile(method, state, ROWS, losses=jnp.ones(2), key=KEY)
    np.testing.assert_allclose(update, aggregate(graddrop(), ROWS, key=KEY))
    method = warmup(graddrop(), 1, pcgrad())
    np.testing.assert_allclose(aggregate(method, ROWS, key=KEY), aggregate(pcgrad(), ROWS), rtol=1e-5)
    assert method.due is None


# per_group


def test_per_group_reconciles_each_group_alone():
    rows = jax.random.normal(jax.random.key(1), (2, 10))
    jacobian = {"enc": {"b": rows[:, :2], "w": rows[:, 2:6].reshape(2, 2, 2)}, "neck": {"w": rows[:, 6:]}}
    found = aggregate(per_group(pcgrad(), by_layer), jacobian)
    encoder = aggregate(pcgrad(), rows[:, :6])
    np.testing.assert_allclose(found["enc"]["b"], encoder[:2], rtol=1e-5)
    np.testing.assert_allclose(found["enc"]["w"].ravel(), encoder[2:], rtol=1e-5)
    np.testing.assert_allclose(found["neck"]["w"], aggregate(pcgrad(), rows[:, 6:]), rtol=1e-5)
    leaves = aggregate(per_group(pcgrad(), by_leaf), jacobian)
    np.testing.assert_allclose(leaves["enc"]["b"], aggregate(pcgrad(), rows[:, :2]), rtol=1e-5)
    whole = aggregate(per_group(pcgrad(), lambda path: "all"), jacobian)
    np.testing.assert_allclose(whole["neck"]["w"], aggregate(pcgrad(), rows)[6:], rtol=1e-5)


def test_per_group_with_a_method_for_each_group():
    jacobian = {"a": ROWS, "b": ROWS}
    methods = {"left": counting("losses"), "right": counting("task_grads")}
    method = per_group(methods, {"a": "left", "b": "right"}, weigh_tasks=True)
    state = method.init(2, {"a": ROWS[0], "b": ROWS[0]})
    update, state, _ = reconcile(method, state, jacobian, losses=jnp.ones(2), active=jnp.array([True, False]))
    np.testing.assert_allclose(update["a"], ROWS[0])
    np.testing.assert_allclose(update["b"], ROWS[0])
    np.testing.assert_allclose(state.weights, [1.0, 0.0])
    state = method.observe(jnp.array([3.0, 4.0]), state)
    assert state.inner["left"].inner["after"].tolist() == [3.0, 4.0]


def test_per_group_without_shared_parameters():
    method = per_group(pcgrad(), by_leaf)
    update, state, _ = reconcile(method, method.init(2, {}), {}, losses=jnp.ones(2))
    assert update == {} and state.inner == {}


# every and preference with what is new


def test_preference_of_one_picked_gradient():
    np.testing.assert_allclose(aggregate(preference(picking(), [2.0, 3.0]), ROWS), 3.0 * ROWS[1])


MISTAKES = [
    (lambda: ema(mgda(), 1.5), r"ema: decay must be"),
    (lambda: ema(graddrop()), "ema: graddrop reads task gradients"),
    (lambda: ema(mgda(), initial=[1.0]).init(2), r"ema: initial must be of shape \[2\]"),
    (lambda: log_losses(mgda(), eps=-1.0), "log_losses: eps must be"),
    (lambda: log_losses(picking()), "log_losses: picking reads one task's gradient a step"),
    (lambda: aggregate(log_losses(mgda()), ROWS), r"log_losses\(mgda\) needs losses"),
    (lambda: normalize(equal()), "normalize: equal reads losses alone"),
    (lambda: rescale(equal()), "rescale: equal reads losses alone"),
    (lambda: rescale(mgda(), 0.0), "rescale: to must be"),
    (lambda: rescale(picking()), "rescale: picking reads one task's gradient a step, which makes no Gramian"),
    (lambda: clip(mgda(), -1.0), "clip: max_norm must be"),
    (lambda: clip(equal(), 1.0), "clip: equal reads losses alone"),
    (lambda: warmup(mgda(), -1), "warmup: steps must be"),
    (
        lambda: warmup(equal(), 1, mgda()),
        "warmup: mgda reads gramian, but equal, which follows, reads no more than losses",
    ),
    (lambda: warmup(picking(), 1), "warmup: picking reads one task's gradient"),
    (lambda: per_group({}, by_leaf), "per_group: methods is empty"),
    (lambda: per_group(picking(), by_leaf), "per_group: picking reads one task's gradient"),
    (lambda: per_group(mgda(), by_leaf).init(2), "per_group: init needs shared="),
    (lambda: per_group({"a": mgda()}, by_leaf).init(2, {"b": ROWS}), r"for \['a'\], but the groups are \['b'\]"),
    (lambda: per_group(mgda(), {"a": "g"}).init(2, {"b": ROWS}), "per_group: groups has structure"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_named(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


def test_a_group_name_must_be_a_string():
    with pytest.raises(TypeError, match="per_group: groups must be a string for each leaf, found 3"):
        per_group(mgda(), lambda path: 3).init(2, {"b": ROWS})


@pytest.mark.parametrize("name", ["ema", "log_losses", "normalize", "rescale", "clip", "warmup", "per_group"])
def test_a_train_step_takes_them(name):
    wrap = {
        "ema": ema,
        "log_losses": log_losses,
        "normalize": normalize,
        "rescale": rescale,
        "clip": lambda method: clip(method, 1.0),
        "warmup": lambda method: warmup(method, 1),
        "per_group": lambda method: per_group(method, by_leaf),
    }[name]
    method = wrap(pcgrad())
    params = mtljax.Params({"w": jnp.ones(2)}, {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, -4.0])})

    def losses_fn(params):
        return {k: jnp.sum((params.shared["w"] - params.tasks[k]) ** 2) for k in "ab"}

    step = jax.jit(mtljax.value_and_grad(losses_fn, method))
    _, grads, state = step(params, method.init(2, params.shared))
    _, grads, state = step(params, state)
    assert np.isfinite(grads.shared["w"]).all() and np.abs(grads.shared["w"]).max() > 0


def test_a_preference_holds_at_steps_that_reuse_weights():
    method = preference(every(mgda(), 2), [1.0, 3.0])
    weights, state = method.update(jnp.eye(2), method.init(2))
    np.testing.assert_allclose(weights, [0.5, 1.5], atol=1e-6)
    np.testing.assert_allclose(method.reuse(state)[0], [0.5, 1.5], atol=1e-6)


def test_a_prior_holds_at_steps_that_reuse_weights():
    def losses_fn(params, state, batch, key, train):
        return dict(zip("ab", params.shared, strict=True)), mtljax.Aux(state, prior=jnp.array([1.0, 3.0]))

    init, step = mtljax.training.make_train_step(losses_fn, every(mgda(), 2), optax.sgd(0.1))
    state, step = init(Params(jnp.ones(2), {"a": (), "b": ()}), key=jax.random.key(0)), jax.jit(step)
    weights = []
    for _ in range(2):
        state, metrics = step(state, None)
        weights.append([float(weight) for weight in metrics["weights"].values()])
    np.testing.assert_allclose(weights, [[0.5, 1.5]] * 2, atol=1e-6)
