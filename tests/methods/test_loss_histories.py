"""Methods that remember losses: their recurrences by hand, in float64."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_losses import cov_weighting, dwa, dynamic_task_priority, go4align, igb, loss_normalisation
from mtljax.methods.from_losses.go4align import group_means

STEPS = np.random.default_rng(1).uniform(0.3, 2.0, size=(9, 3)).astype(np.float32)


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


@functools.cache
def scanned(method):
    def run(losses, active, extra):
        def body(state, step):
            losses, active, extra = step
            weights, state = method.update(losses, state, active=active, **extra)
            return state, weights

        return jax.lax.scan(body, method.init(losses.shape[1]), (losses, active, extra))

    return jax.jit(run)


def weights_of(method, losses, active=None, **extra):
    """Weights of all steps, `[steps, T]`, and the last state."""
    active = np.ones(losses.shape, bool) if active is None else active
    state, weights = scanned(method)(losses, active, extra)
    return np.asarray(weights), state


def test_dwa_compares_the_last_two_periods():
    found, _ = weights_of(dwa(2, temperature=1.5), STEPS)
    for step in range(len(STEPS)):
        periods = STEPS[: 2 * (step // 2)].reshape(-1, 2, 3).mean(1)
        rates = periods[-1] / periods[-2] if len(periods) >= 2 else np.ones(3)
        np.testing.assert_allclose(found[step], 3 * softmax(rates / 1.5), rtol=1e-5)


def test_dwa_of_an_epoch_is_libmtl_s():
    """LibMTL: 1 for two epochs, then T softmax(ratio of the last two epochs' means / 2)."""
    found, _ = weights_of(dwa(3), STEPS)
    np.testing.assert_allclose(found[:6], 1, rtol=1e-6)
    rates = STEPS[3:6].mean(0) / STEPS[:3].mean(0)
    np.testing.assert_allclose(found[6:], np.tile(3 * softmax(rates / 2), (3, 1)), rtol=1e-5)


def test_igb_looks_back_to_the_base_period():
    found, _ = weights_of(igb(2), STEPS)
    base = STEPS[2:4].mean(0)
    np.testing.assert_allclose(found[:4], 1 / STEPS[:4], rtol=1e-5)
    for step in range(4, len(STEPS)):
        np.testing.assert_allclose(found[step], 3 * softmax(STEPS[step] / base) / STEPS[step], rtol=1e-5)


def test_cov_weighting_is_the_authors_recurrence():
    found, _ = weights_of(cov_weighting(), STEPS)
    losses = STEPS.astype(np.float64)
    ratios = np.stack([losses[t] / (losses[:t].mean(0) if t else losses[0]) for t in range(len(losses))])
    np.testing.assert_allclose(found[:2], 1 / 3, rtol=1e-6)
    for step in range(2, len(losses)):
        past = ratios[:step]
        variation = np.sqrt(past.var(0) + 1e-8) / past.mean(0)
        np.testing.assert_allclose(found[step], variation / variation.sum(), rtol=1e-4)


def test_cov_weighting_of_losses_that_stand_still_is_equal():
    for method in (cov_weighting(), cov_weighting(epsilon=0.0)):
        found, _ = weights_of(method, np.full((4, 3), [1.0, 2.0, 4.0], np.float32))
        np.testing.assert_allclose(found, 1 / 3, rtol=1e-6)


def test_dynamic_task_priority_smooths_the_kpi():
    kpi = np.random.default_rng(2).uniform(0.1, 0.9, size=STEPS.shape).astype(np.float32)
    gamma = np.array([0.0, 1.0, 2.5], np.float32)
    found, _ = weights_of(dynamic_task_priority([0.0, 1.0, 2.5], smoothing=0.3), STEPS, kpi=kpi)
    running = kpi[0].astype(np.float64)
    for step in range(len(STEPS)):
        running = running if step == 0 else 0.3 * kpi[step] + 0.7 * running
        np.testing.assert_allclose(found[step], -((1 - running) ** gamma) * np.log(running), rtol=1e-4, atol=1e-6)


def test_dynamic_task_priority_estimates_the_kpi_from_losses():
    method = dynamic_task_priority(smoothing=1.0)
    np.testing.assert_allclose(weights_of(method, STEPS)[0], (1 - np.exp(-STEPS)) * STEPS, rtol=1e-5)
    own = dynamic_task_priority(smoothing=1.0, kpi=lambda losses: 1 / (1 + losses))
    kpi = 1 / (1 + STEPS)
    np.testing.assert_allclose(weights_of(own, STEPS)[0], -(1 - kpi) * np.log(kpi), rtol=1e-5)


def test_dynamic_task_priority_at_the_ends_of_the_scale_and_without_a_measurement():
    kpi = np.array([[0.0, 1.0, np.nan], [2.0, -1.0, 0.5], [np.nan, np.nan, np.nan]], np.float32)
    found, state = weights_of(dynamic_task_priority(smoothing=1.0), np.ones_like(kpi), kpi=kpi)
    bound, half = -np.log(1e-6), 0.5 * np.log(2)
    np.testing.assert_allclose(found, [[bound, 0, 1], [0, bound, half], [0, bound, half]], rtol=1e-5, atol=1e-6)
    assert state.inner.kpi.tolist() == [1.0, 0.0, 0.5]


def test_loss_normalisation_divides_by_the_running_deviation():
    b = 0.2
    found, state = weights_of(loss_normalisation(step_size=b), STEPS)
    losses = STEPS.astype(np.float64)
    mean, second = np.zeros(3), losses[0] ** 2
    for step in range(len(losses)):
        mean, second = (1 - b) * mean + b * losses[step], (1 - b) * second + b * losses[step] ** 2
        np.testing.assert_allclose(found[step], 1 / np.sqrt(second - mean**2), rtol=1e-5)
    np.testing.assert_allclose(state.inner.mean, mean, rtol=1e-5)


def test_loss_normalisation_has_no_scale_of_its_own():
    method = loss_normalisation(step_size=0.2)
    plain, _ = weights_of(method, STEPS)
    for scale in (2.0**-40, 2.0**40, 2.0**-110, 2.0**110):
        np.testing.assert_allclose(weights_of(method, STEPS * np.float32(scale))[0] * scale, plain, rtol=1e-5)


def test_loss_normalisation_of_losses_without_spread_is_bounded():
    constant, _ = weights_of(loss_normalisation(step_size=1.0), np.full((3, 2), [2.0, 0.0], np.float32))
    np.testing.assert_allclose(constant, [[1e4 / 2, 1.0]] * 3, rtol=1e-5)


@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_go4align_by_hand(num_groups):
    found, _ = weights_of(go4align(num_groups, step_size=0.1), STEPS)
    p = np.full(3, 1 / 3)
    for step, losses in enumerate(STEPS.astype(np.float64)):
        p = p * np.exp(-0.1 * losses)
        p = p / p.sum()
        indicator = p * losses.sum() / losses
        np.testing.assert_allclose(found[step], clustered(indicator, num_groups), rtol=1e-4)


def clustered(values, num_groups):
    """Best least-squares clustering by trying every assignment."""

    def means(labels):
        return np.array([values[labels == label].mean() for label in labels])

    options = [means(np.array(labels)) for labels in itertools.product(range(num_groups), repeat=len(values))]
    return min(options, key=lambda option: np.sum((values - option) ** 2))


def test_group_means_are_the_best_of_all_clusterings():
    rng = np.random.default_rng(0)
    cases = np.exp(rng.normal(size=(8, 5)) * 2).astype(np.float32)
    active = rng.random((8, 5)) < 0.8
    active[:, 0] = True
    for num_groups in (2, 3):
        found = jax.jit(jax.vmap(lambda x, a, g=num_groups: group_means(x, a, g)))(cases, active)
        for values, mask, means in zip(cases, active, np.asarray(found), strict=True):
            np.testing.assert_allclose(means[mask], clustered(values[mask], num_groups), rtol=1e-4)
            assert (means[~mask] == 0).all()
    assert group_means(jnp.array([5.0]), jnp.array([True]), 3).tolist() == [5.0]


@pytest.mark.parametrize("method", [igb(1), go4align()], ids=["igb", "go4align"])
def test_a_loss_that_is_not_positive_sits_out(method):
    losses = STEPS[:5].copy()
    losses[:, 1] = [0.0, -1.0, 0.0, -2.0, 0.0]
    found, state = weights_of(method, losses)
    expected, other = weights_of(method, losses, np.tile([True, False, True], (5, 1)))
    np.testing.assert_array_equal(found, expected)
    jax.tree.map(np.testing.assert_array_equal, state.inner, other.inner)


@pytest.mark.parametrize("method", [dwa(1), cov_weighting(), loss_normalisation()], ids=["dwa", "cov", "normalised"])
def test_losses_of_zero_and_below_give_finite_weights(method):
    losses = np.array([[0.0, -1.0, 1.0], [0.0, 1.0, -1.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    found, _ = weights_of(method, losses)
    assert np.isfinite(found).all() and (found >= 0).all()


LATE = {
    "dwa": (dwa(2), 3.0),
    "igb": (igb(2), 3.0),
    "cov_weighting": (cov_weighting(), 1.0),
    "dynamic_task_priority": (dynamic_task_priority(), None),
    "loss_normalisation": (loss_normalisation(), None),
}


@pytest.mark.parametrize("name", LATE)
def test_a_task_starts_at_the_step_at_which_it_is_first_active(name):
    """Five steps late, with NaN before: its own state is what it would be had it been there alone from its start."""
    method, _ = LATE[name]
    losses = np.concatenate([STEPS, STEPS])
    losses[:5, 1] = np.nan
    active = np.isfinite(losses)
    _, late = weights_of(method, losses, active)
    alone = np.full_like(losses, np.nan)
    alone[: len(losses) - 5, 1] = losses[5:, 1]
    _, early = weights_of(method, alone, np.isfinite(alone))
    for found, expected in zip(late.inner, early.inner, strict=True):
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "neutral"),
    [("dwa", lambda losses: 1.0), ("igb", lambda losses: 1 / losses), ("cov_weighting", lambda losses: 1 / 3)],
)
def test_a_task_without_a_history_has_its_neutral_weight_or_score(name, neutral):
    """Where nobody has a history yet, a step is as the first one."""
    method, _ = LATE[name]
    np.testing.assert_allclose(weights_of(method, STEPS[:1])[0], np.broadcast_to(neutral(STEPS[:1]), (1, 3)), rtol=1e-5)


def test_cov_weighting_shares_with_a_newcomer():
    active = np.ones(STEPS.shape, bool)
    active[:4, 2] = False
    found, _ = weights_of(cov_weighting(), STEPS, active)
    two, _ = weights_of(cov_weighting(), STEPS[:, :2])
    np.testing.assert_allclose(found[4:6, 2], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(found[4:6, :2], 2 / 3 * two[4:6], rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_go4align_takes_a_newcomer_in_at_the_others_geometric_mean():
    active = np.ones(STEPS.shape, bool)
    active[:5, 2] = False
    found, _ = weights_of(go4align(3, step_size=0.5), STEPS, active)
    shares = -0.5 * STEPS[:5].astype(np.float64).sum(0)
    shares[:2] -= shares[:2].mean()
    shares[2] = 0.0
    p = softmax(shares - 0.5 * STEPS[5])
    np.testing.assert_allclose(found[5], p * STEPS[5].sum() / STEPS[5], rtol=1e-5)


def test_histories_over_many_decades_give_finite_weights():
    losses = np.array([[1e-30, 1e30, 1.0], [1.0, 1.0, 1e30], [1e30, 1e-30, 1e-30], [1e-30, 1.0, 1e30]], np.float32)
    for method in (dwa(1), igb(1), go4align(), dynamic_task_priority(), loss_normalisation(), cov_weighting()):
        assert np.isfinite(weights_of(method, losses)[0]).all(), method.name


def test_mistakes():
    for call, message in [
        (lambda: dwa(0), "dwa: period must be at least 1, found 0"),
        (lambda: dwa(temperature=0.0), "dwa: temperature must be above 0"),
        (lambda: igb(0), "igb: period must be at least 1, found 0"),
        (lambda: igb(start=-1), "igb: start must be at least 0, found -1"),
        (lambda: go4align(0), "go4align: num_groups must be at least 1, found 0"),
        (lambda: go4align(step_size=-1), "go4align: step_size must be at least 0, found -1"),
        (lambda: cov_weighting(epsilon=-1), "cov_weighting: epsilon must be at least 0"),
        (lambda: loss_normalisation(step_size=2), "loss_normalisation: step_size must be above 0"),
        (lambda: loss_normalisation(floor=-1), "loss_normalisation: floor must be at least 0"),
        (lambda: dynamic_task_priority(-1), "dynamic_task_priority: gamma must be at least 0, found -1"),
        (lambda: dynamic_task_priority([1.0]).init(2), "dynamic_task_priority: gamma must have an entry for each"),
        (lambda: dynamic_task_priority(smoothing=1.5), "dynamic_task_priority: smoothing must be above 0"),
        (lambda: dynamic_task_priority(floor=0), "dynamic_task_priority: floor must be above 0"),
        (
            lambda: dynamic_task_priority().update(jnp.ones(2), dynamic_task_priority().init(2), kpi=jnp.ones(3)),
            r"dynamic_task_priority: kpi must be of shape .*found shape \(3,\)",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"dwa: period must be an integer, found 2\.5"):
        dwa(2.5)
