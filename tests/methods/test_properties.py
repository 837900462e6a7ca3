"""What every method promises, on Jacobians that hypothesis draws: of any rank and scale, with any tasks absent."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.table import CASES, FEW, over
from tests.methods.test_contract import compiled, flat, losses, only, rows, times

T = 4


def some(case):
    """Those that promise most, and one of each kind; the contract suite tells of all at once."""
    return case.nonconflicting or case.name in FEW


every_method = over(CASES, at_once=some)
few_examples = settings(max_examples=8)
seeds = st.integers(0, 10_000)
exponents = st.integers(-26, 26)
masks = st.lists(st.booleans(), min_size=T, max_size=T).filter(any)


@st.composite
def jacobians(draw, families=("normal", "low rank", "duplicate", "opposed", "spread", "collinear", "zero row")):
    """Task gradients in the form of the contract suite's, of about unit size.

    Equalities are asked for on "normal" and "uneven" ones: a rule that reads small eigenvalues, as aligned_mtl does,
    has no digits of them where norms spread over many decades.
    """
    family, seed = draw(st.sampled_from(families)), draw(seeds)
    rng = np.random.default_rng(seed)
    size = 1 + 3 + 64
    matrix = rng.normal(size=(T, size))
    if family == "low rank":
        matrix = rng.normal(size=(T, 2)) @ rng.normal(size=(2, size))
    elif family == "duplicate":
        matrix[-1] = matrix[0]
    elif family == "opposed":
        matrix[-1] = -matrix[0]
    elif family == "spread":
        matrix *= 10.0 ** rng.uniform(-3, 3, size=(T, 1))
    elif family == "uneven":
        matrix *= 10.0 ** rng.uniform(-0.5, 0.5, size=(T, 1))
    elif family == "collinear":
        matrix = matrix[:1] + 1e-3 * matrix
    elif family == "zero row":
        matrix[1] = 0.0
    return tree(matrix)


def tree(matrix):
    leaves = (matrix[:, 0], (matrix[:, 1:4], matrix[:, 4:].reshape(len(matrix), 4, 16)))
    return {"a": leaves[0].astype(np.float32), "b": tuple(x.astype(np.float32) for x in leaves[1])}


def run(case, jacobian, seed=0, active=None, values=None):
    active = np.ones(T, bool) if active is None else active
    values = losses(T) if values is None else values
    return compiled(case.name, T)(jacobian, active, values, jax.random.key(seed))


@every_method
@few_examples
@given(jacobian=jacobians(), exponent=exponents, active=masks, seed=seeds)
def test_what_comes_out_is_finite(case, jacobian, exponent, active, seed):
    update, state = run(case, times(2.0**exponent, jacobian), seed, np.array(active))
    assert np.isfinite(flat(update)).all()
    assert np.isfinite(np.asarray(state.weights)).all()
    assert 0 <= float(state.residual) <= 1
    assert (np.asarray(state.weights)[~np.array(active)] == 0).all()


@every_method
@few_examples
@given(jacobian=jacobians(), active=masks, seed=seeds)
def test_what_an_absent_task_holds_is_never_read(case, jacobian, active, seed):
    """To the bit: its gradient and its loss are replaced by others, both finite as engines see to."""
    mask = np.array(active)
    other = rows(T, seed=seed)
    replaced = jax.tree.map(
        lambda a, b: np.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, np.float32(1e3) * b), jacobian, other
    )
    update, state = run(case, jacobian, seed, mask)
    again, again_state = run(case, replaced, seed, mask, np.where(mask, losses(T), np.float32(77.0)))
    np.testing.assert_array_equal(flat(again), flat(update))
    np.testing.assert_array_equal(again_state.weights, state.weights)


@only(lambda case: case.degree is not None, at_once=some)
@few_examples
@given(jacobian=jacobians(("normal", "uneven")), exponent=exponents)
def test_the_update_scales_with_the_gradients(case, jacobian, exponent):
    expected = flat(run(case, jacobian)[0])
    scaled = flat(run(case, times(2.0**exponent, jacobian))[0]) / 2.0 ** (exponent * case.degree)
    np.testing.assert_allclose(scaled, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@only(lambda case: case.permutable, at_once=some)
@few_examples
@given(jacobian=jacobians(("normal", "uneven")), order=st.permutations(range(T)))
def test_the_order_of_tasks_makes_no_difference(case, jacobian, order):
    order = np.array(order)
    expected = flat(run(case, jacobian)[0])
    permuted = jax.tree.map(lambda leaf: leaf[order], jacobian)
    found = flat(run(case, permuted, values=losses(T)[order])[0])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@only(lambda case: case.nonconflicting)
@few_examples
@given(jacobian=jacobians(), exponent=exponents)
def test_no_task_is_hurt(case, jacobian, exponent):
    """Where the certificate says that the point is stationary to working precision there is no direction to judge."""
    scaled = times(2.0**exponent, jacobian)
    update, state = run(case, scaled)
    directions = np.concatenate([np.reshape(leaf, (T, -1)) for leaf in jax.tree.leaves(scaled)], axis=1).astype(float)
    update = flat(update)
    if float(state.residual) < 0.5:
        slack = 1e-4 * np.linalg.norm(directions, axis=1) * np.linalg.norm(update)
        assert (directions @ update >= -slack).all()
