"""What penalties cost: work that grows as documented, nothing of size T x T x P, no gathering of sharded leaves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtljax.penalties import l2_to_mean, pairwise_l2

WIDTH = 4096


def chain(size):
    return np.eye(size, k=1) + np.eye(size, k=-1)


def star(size):
    relation = np.zeros((size, size))
    relation[0, 1:] = relation[1:, 0] = 1.0
    return relation


def clusters(size):
    member = np.arange(size) // 4
    return 1.0 * (member[:, None] == member[None, :])


def dense(size):
    relation = np.random.default_rng(0).uniform(0.1, 1, (size, size))
    return relation + relation.T


PENALTIES = {
    "mean": lambda size: l2_to_mean(),
    "uniform": lambda size: pairwise_l2(np.ones((size, size))),
    "rank_one": lambda size: pairwise_l2(np.outer(np.arange(1, size + 1), np.arange(1, size + 1))),
    "clusters": lambda size: pairwise_l2(clusters(size)),
    "chain": lambda size: pairwise_l2(chain(size)),
    "star": lambda size: pairwise_l2(star(size)),
    "dense": lambda size: pairwise_l2(dense(size)),
}
LINEAR = ["uniform", "rank_one", "clusters", "chain", "star"]


def flops(function, size):
    return jax.jit(function).lower(jax.ShapeDtypeStruct((size, WIDTH), jnp.float32)).compile().cost_analysis()["flops"]


def intermediates(jaxpr):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval.size
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                yield from intermediates(getattr(inner, "jaxpr", inner))


# The mean has one form up to 32 tasks, and another beyond.
@pytest.mark.parametrize(
    ("name", "sizes"), [("mean", (8, 32)), ("mean", (36, 144)), *((name, (16, 64)) for name in LINEAR)], ids=str
)
def test_work_is_linear_in_the_number_of_tasks(name, sizes):
    make = PENALTIES[name]
    for operator in (lambda size: make(size).value, lambda size: jax.grad(make(size).value)):
        small, large = (flops(operator(size), size) for size in sizes)
        assert large < 4.4 * small  # 16 would be quadratic
        assert large < 20 * sizes[-1] * WIDTH


@pytest.mark.parametrize("size", [4, 16])
def test_rows_that_were_stacked_just_before_are_not_copied(size):
    def penalty(rows):
        return l2_to_mean()(jnp.stack(rows))

    rows = [jax.ShapeDtypeStruct((WIDTH,), jnp.float32)] * size
    memory = jax.jit(jax.value_and_grad(penalty)).lower(rows).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 5 * 4 * WIDTH  # the stack alone would take `size` rows


def test_a_dense_relation_costs_one_matrix_product():
    size = 64
    assert flops(PENALTIES["dense"](size).value, size) < 2 * size * size * WIDTH + 10 * size * WIDTH


@pytest.mark.parametrize("name", PENALTIES)
def test_nothing_larger_than_the_parameters_is_formed(name):
    size = 32
    penalty = PENALTIES[name](size)
    w = jnp.ones((size, WIDTH))
    for function in (penalty.value, jax.grad(penalty.value), lambda w: penalty.prox(w, 0.1)):
        assert max(intermediates(jax.make_jaxpr(function)(w).jaxpr)) <= 2 * size * WIDTH


@pytest.mark.parametrize("name", ["mean", "clusters", "star", "dense"])
def test_a_sharded_leaf_is_not_gathered(name):
    penalty = PENALTIES[name](8)
    mesh = Mesh(np.array(jax.devices()[:8]), ("d",))
    w = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4, 16)), jnp.float32)
    split = jax.device_put(w, NamedSharding(mesh, PartitionSpec(None, None, "d")))
    for function in (jax.value_and_grad(penalty.value), lambda w: penalty.prox(w, 0.1)):
        compiled = jax.jit(function).lower(split).compile()
        assert "all-gather" not in compiled.as_text()
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), compiled(split), jax.jit(function)(w)
        )
