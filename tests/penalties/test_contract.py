"""What every penalty promises, over the table of all of them."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import penalties
from tests.penalties.table import CASES, NOT_TRACED

DRAW = np.random.default_rng(0)
TREE = {key: jnp.asarray(DRAW.normal(size=(3, *shape)), jnp.float32) for key, shape in (("w", (4, 2)), ("b", ()))}
each = pytest.mark.parametrize("name", CASES)


def test_every_public_penalty_is_in_the_table():
    public = {name: getattr(penalties, name) for name in penalties.__all__}
    made = {name for name, function in public.items() if inspect.signature(function).return_annotation == "Penalty"}
    assert made == set(CASES)


def test_every_number_is_swept_or_said_not_to_be():
    for name, (_, arguments) in CASES.items():
        parameters = inspect.signature(getattr(penalties, name)).parameters
        numbers = {key for key, parameter in parameters.items() if "Array" in parameter.annotation}
        counts = {key for key, parameter in parameters.items() if parameter.annotation == "int"}
        assert numbers | counts <= {*arguments, *NOT_TRACED.get(name, ()), "omega"}, name


def stacked(penalty):
    return {part: jax.tree.map(lambda leaf, i=i: leaf + i, TREE) for i, part in enumerate(penalty.parts)} or TREE


@jax.jit
def traced(rows):
    """Values of all penalties, over rows of all their numbers."""
    made = {
        name: jax.vmap(lambda row, name=name: made_of(name, row)(stacked(made_of(name, row))))(rows[name])
        for name in CASES
    }
    return made


def made_of(name, row):
    make, arguments = CASES[name]
    return make(**dict(zip(arguments, row, strict=True)))


def test_a_traced_number_gives_what_the_concrete_one_gives():
    rows = {
        name: [[0.3, 0.7, 1.1][: len(arguments)], [1.7, 0.2, 0.4][: len(arguments)]]
        for name, (_, arguments) in CASES.items()
    }
    found = traced({name: jnp.asarray(of, jnp.float32) for name, of in rows.items()})

    @jax.jit
    def concrete():
        return {name: [made_of(name, row)(stacked(made_of(name, row))) for row in of] for name, of in rows.items()}

    for name, expected in concrete().items():
        assert found[name].dtype == jnp.float32
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, err_msg=name)
        assert found[name][0] != found[name][1], name


@each
def test_the_prox_is_traced_with_all_numbers(name):
    def moved(row, step_size):
        penalty = made_of(name, row)
        return None if penalty.prox is None else penalty.prox(stacked(penalty), step_size)

    rows = jax.ShapeDtypeStruct((2, len(CASES[name][1])), jnp.float32)
    shapes = jax.eval_shape(jax.vmap(moved), rows, jax.ShapeDtypeStruct((2,), jnp.float32))
    if shapes is not None:
        one = stacked(made_of(name, [1.0] * len(CASES[name][1])))
        assert jax.tree.map(lambda leaf: leaf.shape[1:], shapes) == jax.tree.map(jnp.shape, one)
