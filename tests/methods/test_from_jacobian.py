"""Methods that read task gradients: rules by hand, references' numbers, absent tasks, mistakes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.methods import aggregate, reconcile
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_jacobian import (
    adatask,
    db_mtl,
    excess_mtl,
    graddrop,
    m_config,
    moco,
    sam_gs,
    trimmed_mean,
)
from mtljax.methods.from_jacobian.common import UNROLL_LIMIT, row_norms, sum_over_tasks
from mtljax.methods.from_jacobian.moco import norms_over_losses, simplex_softmax

J_BASE = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
LIBMTL_MOCO = {"normalization": norms_over_losses, "projection": simplex_softmax}
KEY = jax.random.key(3)

STATEFUL = {
    "db_mtl": db_mtl(beta=0.8, decay=0.5),
    "moco": moco(gamma=0.05),
    "excess_mtl": excess_mtl(step_size=0.5),
    "sam_gs": sam_gs(threshold=0.7),
    "adatask": adatask(optax.scale_by_adam()),
    "m_config": m_config(),
}


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def compiled(method):
    """One step, traced once for each number of tasks."""

    @jax.jit
    def step(state, rows, losses, active):
        return reconcile(method, state, rows, losses=losses, active=active, key=KEY)[:2]

    return step


def run(method, rows, *, losses=None, active=None):
    """Rows [S, T, n] -> updates [S, n], weights [S, T], last state."""
    steps, num_tasks = rows.shape[:2]
    losses = np.ones((steps, num_tasks), np.float32) if losses is None else losses
    active = np.ones((steps, num_tasks), bool) if active is None else active
    state = method.init(num_tasks, jnp.zeros(rows.shape[2]))
    updates, weights = [], []
    for each in zip(rows, losses, active, strict=True):
        update, state = compiled(method)(state, *each)
        updates.append(np.asarray(update, np.float64))
        weights.append(np.asarray(state.weights, np.float64))
    return np.stack(updates), np.stack(weights), state


# references' numbers


def test_golden_values():
    ones = jnp.ones(2)
    np.testing.assert_allclose(aggregate(moco(**LIBMTL_MOCO), J_BASE, losses=ones), [0.0076, 0.0995, 0.0995], atol=5e-5)
    np.testing.assert_allclose(aggregate(db_mtl(), J_BASE, losses=ones), [0.0188, 0.2453, 0.2453], atol=5e-5)


# absent tasks


@pytest.mark.parametrize("name", STATEFUL)
def test_absent_at_all_steps_is_removed(name):
    rows, losses = draw(5, 4, 6), 0.5 + np.abs(draw(5, 4, seed=1))
    active = np.ones((5, 4), bool)
    active[:, 1] = False
    active[2, 3] = False
    poisoned = np.where(active[:, :, None], rows, np.nan)
    update, weights, state = run(STATEFUL[name], poisoned, losses=np.where(active, losses, np.nan), active=active)
    kept = [0, 2, 3]
    fewer, fewer_weights, _ = run(STATEFUL[name], rows[:, kept], losses=losses[:, kept], active=active[:, kept])
    np.testing.assert_allclose(update, fewer, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(weights[:, kept], fewer_weights, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(weights[:, 1], 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_step_without_any_task_leaves_no_trace(name):
    rows = draw(4, 3, 6)
    active = np.ones((4, 3), bool)
    active[2] = False
    update, weights, _ = run(STATEFUL[name], rows, active=active)
    np.testing.assert_array_equal(update[2], 0)
    fewer, fewer_weights, _ = run(STATEFUL[name], rows[[0, 1, 3]])
    np.testing.assert_allclose(update[[0, 1, 3]], fewer, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(weights[[0, 1, 3]], fewer_weights, rtol=1e-6, atol=1e-7)


# trimmed_mean


@pytest.mark.parametrize(("num_tasks", "trim"), [(3, 1), (8, 3), (5, 0), (70, 2)])
def test_trimmed_mean_is_the_mean_of_the_sorted_middle(num_tasks, trim):
    rows = draw(num_tasks, 40)
    rows[:, 0] = 1.5
    expected = np.sort(rows.astype(np.float64), axis=0)[trim : num_tasks - trim].mean(axis=0)
    np.testing.assert_allclose(jax.jit(lambda rows: aggregate(trimmed_mean(trim), rows))(rows), expected, atol=1e-6)


@pytest.mark.parametrize("trim", [1, 3])
def test_trimmed_mean_of_the_active(trim):
    rows, rng = draw(8, 30), np.random.default_rng(0)
    active = np.stack([rng.permutation(np.arange(8) < n) for n in range(9)])
    poisoned = np.where(active[:, :, None], rows, np.nan)
    found = jax.jit(jax.vmap(lambda rows, active: aggregate(trimmed_mean(trim), rows, active=active)))(poisoned, active)
    np.testing.assert_array_equal(found[0], 0)
    for n in range(1, 9):
        cut = min(trim, (n - 1) // 2)
        expected = np.sort(rows[active[n]].astype(np.float64), axis=0)[cut : n - cut].mean(axis=0)
        np.testing.assert_allclose(found[n], expected, atol=1e-6)


def test_trimmed_mean_loses_no_digit_to_an_outlier():
    rows = np.concatenate([draw(3, 10), np.full((1, 10), 1e30, np.float32), np.full((1, 10), -1e30, np.float32)])
    expected = rows[:3].astype(np.float64).mean(axis=0)
    # Of the rounding of three numbers around 1.
    np.testing.assert_allclose(aggregate(trimmed_mean(1), jnp.asarray(rows)), expected, atol=2e-7)


def test_trimmed_mean_wants_enough_tasks():
    with pytest.raises(ValueError, match="trim is 2, which needs at least 5 tasks, found 4"):
        trimmed_mean(2).init(4)
    with pytest.raises(TypeError, match=r"trim must be an integer, found 1\.5"):
        trimmed_mean(1.5)


@pytest.mark.parametrize("num_tasks", [1, 3, UNROLL_LIMIT + 2])
def test_sums_over_tasks_written_out_and_in_a_loop(num_tasks):
    values, factors = draw(num_tasks, 4, 2), draw(num_tasks, 1, 1, seed=1)
    double, product = sum_over_tasks(lambda row, factor: (2 * row, factor * row), *map(jnp.asarray, (values, factors)))
    np.testing.assert_allclose(double, 2 * values.sum(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(product, (factors * values).sum(axis=0), rtol=1e-5, atol=1e-6)


# db_mtl


def test_db_mtl_by_hand():
    rows, losses = draw(3, 2, 4).astype(np.float64), np.array([[2.0, 0.5], [1.0, 0.25], [0.5, 3.0]])
    active = np.array([[True, True], [True, False], [True, True]])
    average, steps = np.zeros((2, 4)), np.zeros(2)
    found, weights, _ = run(
        db_mtl(beta=0.8, decay=0.5, eps=0.1), rows.astype(np.float32), losses=losses.astype(np.float32), active=active
    )
    for step in range(3):
        for k in np.flatnonzero(active[step]):
            steps[k] += 1
            share = 0.8 / np.sqrt(steps[k])
            average[k] = share * average[k] + (1 - share) * rows[step, k] / (losses[step, k] + 0.1)
        norms = np.linalg.norm(average, axis=1)[active[step]]
        expected = norms.max() * sum(average[k] / np.linalg.norm(average[k]) for k in np.flatnonzero(active[step]))
        np.testing.assert_allclose(found[step], expected, rtol=1e-5)
        np.testing.assert_allclose(weights[step], np.where(active[step], 1 / (losses[step] + 0.1), 0), rtol=1e-6)


def test_db_mtl_heads_descend_on_log_losses():
    params = mtljax.Params(jnp.array([1.0, -2.0]), {"a": jnp.array([2.0, 0.5]), "b": jnp.array([-1.0, 3.0])})

    def losses_fn(params):
        return {k: jnp.sum((params.shared - params.tasks[k]) ** 2) for k in "ab"}

    method = db_mtl(eps=0.1)
    _, grads, _ = jax.jit(mtljax.value_and_grad(losses_fn, method))(params, method.init(2, params.shared))
    expected = jax.grad(lambda params: sum(jnp.log(loss + 0.1) for loss in losses_fn(params).values()))(params)
    for name in "ab":
        np.testing.assert_allclose(grads.tasks[name], expected.tasks[name], rtol=1e-5)


def test_db_mtl_has_no_logarithm_of_a_loss_that_is_not_positive():
    losses = jnp.array([0.0, -1.0, 2.0])
    method = db_mtl(eps=0.0)
    rows = jnp.asarray(draw(3, 4))
    update, state = jax.jit(method.update)(rows, method.init(3, rows[0]), losses=losses)
    np.testing.assert_array_equal(state.weights, [0.0, 0.0, 0.5])
    np.testing.assert_allclose(update, 0.1 * rows[2] / 2, rtol=1e-5)
    np.testing.assert_array_equal(state.inner.average[:2], 0)


# moco


def projected(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)[::-1]
    shifts = (np.cumsum(ordered) - 1) / np.arange(1, values.size + 1)
    return np.maximum(values - shifts[np.flatnonzero(ordered > shifts)[-1]], 0)


def test_moco_by_hand():
    rows = draw(3, 3, 4).astype(np.float64)
    found, weights, _ = run(moco(beta=0.6, gamma=0.7, gamma_decay=1.0, rho=0.2), rows.astype(np.float32))
    average, share = np.zeros((3, 4)), np.full(3, 1 / 3)
    for step in range(3):
        average = average - 0.6 / np.sqrt(step + 1) * (average - rows[step])
        share = projected(share - 0.7 / (step + 1) * (average @ average.T @ share + 0.2 * share))
        np.testing.assert_allclose(weights[step], share, atol=1e-6)
        np.testing.assert_allclose(found[step], share @ average, atol=1e-6)


def test_moco_as_in_libmtl_by_hand():
    rows, losses = draw(3, 2, 4).astype(np.float64), np.array([[2.0, 0.5], [1.0, 0.25], [0.5, 3.0]])
    found, weights, _ = run(moco(**LIBMTL_MOCO), rows.astype(np.float32), losses=losses.astype(np.float32))
    average, share = np.zeros((2, 4)), np.full(2, 0.5)
    for step in range(3):
        scaled = rows[step] / np.linalg.norm(rows[step], axis=1, keepdims=True) * losses[step][:, None]
        average = average - 0.5 / np.sqrt(step + 1) * (average - scaled)
        values = share - 0.1 / np.sqrt(step + 1) * (average @ average.T) @ share
        share = np.exp(values) / np.exp(values).sum()
        np.testing.assert_allclose(weights[step], share, rtol=1e-5)
        np.testing.assert_allclose(found[step], share @ average, rtol=1e-5, atol=1e-6)


def test_moco_tends_to_mgda():
    """With the same gradients at every step, lambda descends on the length of their combination."""
    rows = np.broadcast_to(np.asarray(J_BASE), (200, 2, 3))
    found, _, _ = run(moco(gamma=0.02, gamma_decay=0.0), rows)
    np.testing.assert_allclose(found[-1], [0.0, 1.0, 1.0], atol=1e-2)


# excess_mtl


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("raw", [True, False])
def test_excess_mtl_by_hand(mean, raw):
    rows = draw(4, 3, 5).astype(np.float64)
    method = excess_mtl(step_size=0.3, eps=0.01, relative_from_first=not raw, mean=mean)
    found, weights, _ = run(method, rows.astype(np.float32))
    squares, share, first = np.zeros((3, 5)), np.full(3, 1 / 3), None
    for step in range(4):
        squares += rows[step] ** 2
        excess = (rows[step] ** 2 / np.sqrt(squares + 0.01)).sum(axis=1)
        first = excess if first is None else first
        ratio = excess if raw and step == 0 else excess / first
        share = share * np.exp(0.3 * ratio)
        share /= share.sum()
        expected = share if mean else 3 * share
        np.testing.assert_allclose(weights[step], expected, rtol=1e-5)
        np.testing.assert_allclose(found[step], expected @ rows[step], rtol=1e-4, atol=1e-6)


def test_excess_mtl_does_not_know_units():
    rows = draw(4, 3, 6)
    method = STATEFUL["excess_mtl"]
    _, weights, _ = run(method, rows)
    for scale in (1e-24, 1e12):
        scaled = rows * np.array([1.0, 1e-3, 1e2], np.float32)[:, None] * np.float32(scale)
        np.testing.assert_allclose(run(method, scaled)[1], weights, rtol=1e-4)


def test_excess_mtl_holds_an_absent_tasks_share():
    rows, active, method = draw(3, 3, 6), np.ones((3, 3), bool), STATEFUL["excess_mtl"]
    active[1, 2] = False
    _, weights, state = run(method, rows, active=active)
    np.testing.assert_allclose(weights[0], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(weights[1].sum(), 1.0, rtol=1e-6)
    middle = run(method, rows[:2], active=active[:2])[2].inner.log_weights
    np.testing.assert_allclose(middle[2], 0.0)
    np.testing.assert_allclose(np.exp(middle[:2]).sum(), 2.0, rtol=1e-5)
    assert np.isfinite(state.inner.log_weights).all()


def test_excess_mtl_waits_for_the_first_gradient():
    rows = draw(3, 2, 5)
    rows[0, 1] = 0
    _, weights, state = run(STATEFUL["excess_mtl"], rows)
    np.testing.assert_allclose(weights[0], 0.5)
    np.testing.assert_allclose(state.inner.first, np.abs([rows[0, 0], rows[1, 1]]).sum(axis=1), rtol=1e-5)


# sam_gs


def test_sam_gs_by_hand():
    rows = draw(4, 3, 5).astype(np.float64)
    rows[[0, 2], 0] *= 30
    found, _, _ = run(sam_gs(momentum=0.8, beta=0.9, threshold=0.5), rows.astype(np.float32))
    moment, spread, equal = np.zeros((3, 5)), 0.0, []
    for step in range(4):
        norms = np.linalg.norm(rows[step], axis=1)
        pairs = [(0, 1), (0, 2), (1, 2)]
        similarity = np.mean([2 * norms[i] * norms[j] / (norms[i] ** 2 + norms[j] ** 2) for i, j in pairs])
        moment = 0.8 * moment + 0.2 * rows[step]
        spread = 0.9 * spread + 0.1 * (1 - similarity) ** 2 + 1e-8
        equal.append(similarity < 0.5)
        if equal[-1]:
            expected = norms.mean() * (rows[step] / norms[:, None]).sum(axis=0)
        else:
            corrected = np.abs(moment) / (1 - 0.8 ** (step + 1)) / np.sqrt(spread / (1 - 0.9 ** (step + 1)))
            expected = (rows[step] * corrected).sum(axis=0)
        np.testing.assert_allclose(found[step], expected, rtol=1e-4, atol=1e-5)
    assert equal == [True, False, True, False]


def test_sam_gs_edges():
    method = jax.jit(functools.partial(aggregate, sam_gs()))
    rows = jnp.asarray(draw(3, 5))
    np.testing.assert_allclose(method(rows, active=jnp.array([False, True, False])), rows[1], rtol=1e-6)
    np.testing.assert_array_equal(method(jnp.zeros((3, 5))), 0)
    one_zero = method(rows.at[1].set(0))
    assert np.isfinite(one_zero).all()
    np.testing.assert_array_equal(aggregate(sam_gs(eps=0.0), jnp.stack([rows[0], -rows[0]])), 0)
    # Quadratic in the gradients where they are of similar lengths, and the order of tasks does not matter.
    np.testing.assert_allclose(method(1e-3 * rows), 1e-6 * method(rows), rtol=1e-3)
    np.testing.assert_allclose(method(rows[::-1]), method(rows), rtol=1e-4)


# adatask


def test_adatask_runs_the_optimiser_once_a_task():
    rows, active = draw(5, 3, 4), np.ones((5, 3), bool)
    active[1:3, 1] = False
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())
    found, _, state = run(adatask(optimizer), rows, active=active)
    states = [optimizer.init(jnp.zeros(4)) for _ in range(3)]
    for step in range(5):
        total = np.zeros(4)
        for k in np.flatnonzero(active[step]):
            direction, states[k] = optimizer.update(jnp.asarray(rows[step, k]), states[k])
            total += direction
        np.testing.assert_allclose(found[step], total, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.inner[1].count, [5, 3, 5])


def test_adatask_of_one_task_with_sgd_is_adam():
    target = jnp.array([1.0, -2.0])
    params = mtljax.Params(jnp.zeros(2), {"a": jnp.ones(2)})

    def losses_fn(params):
        return {"a": jnp.sum((params.shared - target * params.tasks["a"]) ** 4)}

    labels = mtljax.Params(shared="shared", tasks="own")
    optimizer = optax.partition({"shared": optax.sgd(0.1), "own": optax.adam(0.1)}, labels)

    def trained(method, optimizer):
        @jax.jit
        def step(params, state, opt_state):
            _, grads, state = mtljax.value_and_grad(losses_fn, method)(params, state)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), state, opt_state

        carry = (params, method.init(1, params.shared), optimizer.init(params))
        for _ in range(3):
            carry = step(*carry)
        return carry[0]

    found = trained(adatask(optax.scale_by_adam()), optimizer)
    expected = trained(mtljax.methods.equal(), optax.adam(0.1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


# m_config


def test_m_config_with_adam_is_the_papers_algorithm():
    """Algorithm 2 by hand, with tasks that had no turn yet left out, and numpy's pseudo-inverse for the direction."""
    rows, lr = draw(7, 3, 6).astype(np.float64), 0.1
    found, weights, _ = run(m_config(beta=0.8), rows.astype(np.float32))
    moment, steps = np.zeros((3, 6)), np.zeros(3)
    old, second, params = np.zeros(6), np.zeros(6), np.zeros(6)
    adam = optax.adam(lr, b1=0.8, b2=0.9)
    ours, opt_state = jnp.zeros(6), adam.init(jnp.zeros(6))
    for t in range(1, 8):
        k = (t - 1) % 3
        moment[k] = 0.8 * moment[k] + 0.2 * rows[t - 1, k]
        steps[k] += 1
        seen = steps > 0
        corrected = moment[seen] / (1 - 0.8 ** steps[seen])[:, None]
        units = corrected / np.linalg.norm(corrected, axis=1, keepdims=True)
        direction = np.linalg.pinv(units) @ np.ones(seen.sum())
        direction /= np.linalg.norm(direction)
        direction *= (corrected @ direction).sum()
        np.testing.assert_allclose(weights[t - 1][seen] @ corrected, direction, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(weights[t - 1][~seen], 0)
        fake = direction * (1 - 0.8**t)
        pseudo, old = (fake - 0.8 * old) / 0.2, fake
        second = 0.9 * second + 0.1 * pseudo**2
        params -= lr * direction / (np.sqrt(second / (1 - 0.9**t)) + 1e-8)
        np.testing.assert_allclose(found[t - 1], pseudo, rtol=1e-3, atol=1e-4)
        updates, opt_state = adam.update(jnp.asarray(found[t - 1], jnp.float32), opt_state)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, params, rtol=1e-4, atol=1e-5)


def test_m_config_without_momentum_is_config_of_the_last_gradients():
    rows = draw(3, 3, 6)
    found, _, state = run(m_config(beta=0.0), rows)
    last = jnp.asarray(rows[np.arange(3), np.arange(3)])
    np.testing.assert_allclose(found[-1], aggregate(config(), last), rtol=1e-5, atol=1e-6)
    assert float(state.residual) < 1e-4


def test_m_config_takes_turns_among_the_active():
    method = m_config()
    state, update = method.init(4, jnp.zeros(3)), jax.jit(method.update)
    masks = [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1], [0, 1, 0, 1]]
    turns = []
    for mask in masks:
        active = jnp.array(mask, bool)
        turns.append(int(method.pick(state, active=active)))
        _, state = update(jnp.ones(3), state, active=active)
    assert [turn for turn, mask in zip(turns, masks, strict=True) if any(mask)] == [0, 2, 0, 1, 3, 1]
    np.testing.assert_array_equal(state.inner.steps, [2, 2, 1, 1])
    assert int(method.pick(state)) == 2


def test_m_config_costs_one_backward_pass():
    """A train step gives what the full Jacobian's row gives."""
    params = mtljax.Params({"w": jnp.array([1.0, -2.0])}, {k: jnp.ones(2) * i for i, k in enumerate("abc")})

    def losses_fn(params):
        return {k: jnp.sum(jnp.sin(params.shared["w"] - params.tasks[k])) for k in "abc"}

    method = m_config()
    state = other = method.init(3, params.shared)
    step = jax.jit(mtljax.value_and_grad(losses_fn, method))
    _, rows = mtljax.value_and_task_grads(losses_fn)(params)
    for _ in range(4):
        _, grads, state = step(params, state)
        expected, other = compiled(method)(other, rows.shared, jnp.ones(3), jnp.ones(3, bool))
        np.testing.assert_allclose(grads.shared["w"], expected["w"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grads.tasks["b"], rows.tasks["b"])


# graddrop


def test_graddrop_by_hand_with_a_leak_for_each_task():
    rows = draw(3, 50)
    leak = np.array([0.0, 0.25, 1.0])
    above = np.maximum(rows, 0).sum(axis=0)
    drawn = jax.random.uniform(jax.random.split(KEY, 1)[0], (50,))
    positive = above / np.abs(rows).sum(axis=0) > drawn
    kept = np.where(positive, rows > 0, rows < 0)
    expected = ((leak[:, None] + (1 - leak[:, None]) * kept) * rows).sum(axis=0)
    np.testing.assert_allclose(aggregate(graddrop(leak=leak), rows, key=KEY), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        aggregate(graddrop(leak=[0.3] * 3), rows, key=KEY), aggregate(graddrop(leak=0.3), rows, key=KEY), rtol=1e-6
    )
    np.testing.assert_allclose(aggregate(graddrop(leak=1.0), rows, key=KEY), rows.sum(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aggregate(graddrop(), rows, key=KEY), (kept * rows).sum(axis=0), rtol=1e-6, atol=1e-7)


def test_graddrop_draws_signs_by_their_purity():
    rows = jnp.broadcast_to(jnp.array([[3.0], [-1.0]]), (2, 20_000))
    update = aggregate(graddrop(), rows, key=KEY)
    assert set(np.unique(update)) == {3.0, -1.0}
    assert abs(float(jnp.mean(update > 0)) - 0.75) < 0.01
    squared = aggregate(graddrop(monotone=jnp.square), rows, key=KEY)
    assert abs(float(jnp.mean(squared > 0)) - 0.5625) < 0.01


# mistakes

MISTAKES = [
    (lambda: trimmed_mean(-1), "trimmed_mean: trim must be"),
    (lambda: db_mtl(beta=1.0), r"db_mtl: beta must be"),
    (lambda: db_mtl(eps=-1.0), "db_mtl: eps must be"),
    (lambda: db_mtl().init(2), "db_mtl: init needs shared="),
    (lambda: aggregate(db_mtl(), J_BASE), r"db_mtl takes logarithms of losses: give losses= of shape \(2,\)"),
    (
        lambda: aggregate(db_mtl(), J_BASE, losses=jnp.ones(3)),
        r"db_mtl: losses must be of shape \(2,\), .*found shape \(3,\)",
    ),
    (lambda: moco(beta=0.0), "moco: beta must be"),
    (lambda: moco(rho=float("nan")), "moco: rho must be"),
    (lambda: aggregate(moco(normalization=norms_over_losses), J_BASE), "moco: this normalization reads the losses"),
    (
        lambda: aggregate(moco(normalization=lambda norms, losses: norms[0]), J_BASE),
        r"moco: what normalization returned must be of shape .*found shape \(\)",
    ),
    (lambda: excess_mtl(step_size=0.0), "excess_mtl: step_size must be"),
    (lambda: excess_mtl(eps=-1e-7), "excess_mtl: eps must be"),
    (lambda: sam_gs(momentum=1.0), r"sam_gs: momentum must be"),
    (lambda: sam_gs(threshold=-1.0), "sam_gs: threshold must be"),
    (lambda: m_config(beta=-0.1), r"m_config: beta must be"),
    (lambda: m_config().init(2), "m_config: init needs shared="),
    (
        lambda: m_config().update(J_BASE, m_config().init(2, J_BASE[0])),
        "m_config: state must be what m_config's init makes for 2 tasks",
    ),
    (
        lambda: m_config().update({"w": J_BASE[0]}, m_config().init(2, J_BASE[0])),
        "m_config: state must be what m_config's init makes for 2 tasks",
    ),
    (lambda: graddrop(leak=[0.5, 2.0]), r"graddrop: leak must be"),
    (lambda: graddrop(leak=[0.5] * 3).init(2), r"graddrop: leak must have an entry for each of 2 tasks, found 3"),
    (lambda: graddrop(leak=np.zeros((2, 2))), r"graddrop: leak must be a number or of shape \[T\], found"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_named(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


def test_adatask_wants_an_optimiser():
    with pytest.raises(TypeError, match=r"adatask: optimizer must be an optax.GradientTransformation, found 0.1"):
        adatask(0.1)


def test_lengths_of_rows_of_any_size():
    """In the ordinary range to the bit what plain squares give."""
    rows = {"a": draw(4, 5), "b": draw(4, 2, 3)}
    flat = np.concatenate([rows["a"], rows["b"].reshape(4, -1)], axis=1).astype(np.float64)
    plain = np.sqrt(
        sum(jnp.sum(jnp.square(jnp.asarray(leaf)), axis=tuple(range(1, leaf.ndim))) for leaf in rows.values())
    )
    norms = jax.jit(lambda rows: row_norms(rows, 4))
    np.testing.assert_array_equal(norms(rows), plain)
    factors = np.float32([1e-30, 1.0, 0.0, 1e30])
    found = norms(jax.tree.map(lambda leaf: leaf * factors.reshape(4, *[1] * (leaf.ndim - 1)), rows))
    np.testing.assert_allclose(found, factors * np.linalg.norm(flat, axis=1), rtol=1e-5)
    assert found[1] == plain[1]


def test_excess_mtl_does_not_starve_the_others_after_one_enormous_gradient():
    method = excess_mtl()
    update, rows = jax.jit(method.update), jnp.asarray(draw(3, 4))
    state = method.init(3, rows[0])
    for step in range(4):
        _, state = update(rows.at[0].multiply(1e18 if step == 2 else 1.0), state)
    assert (state.weights > 0.1).all()


@pytest.mark.parametrize("make", [db_mtl, excess_mtl, moco, sam_gs], ids=lambda make: make.__name__)
def test_gradients_of_any_size_give_finite_updates(make):
    """Those of 1e15 and more have squares beyond float32; what has no unit, scales."""
    rows, losses = jnp.asarray(draw(3, 4)), jnp.ones(3)
    run = jax.jit(lambda rows: aggregate(make(), rows, losses=losses))
    small, large = run(rows), run(1e20 * rows)
    assert np.isfinite(small).all() and (make is sam_gs or np.isfinite(large).all())
    if make in (db_mtl, excess_mtl):
        np.testing.assert_allclose(large / 1e20, small, rtol=1e-5)
