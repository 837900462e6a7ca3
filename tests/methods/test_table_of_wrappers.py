"""The columns of the table for wrappers and for methods that need batches, measured on rules that have them or not.

"its method's" means: kept where the wrapped rule has it, and not given where it has it not. "no" means: lost by a rule
that had it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax import methods, trees
from mtljax.methods import reconcile
from mtljax.types import Method, MethodState, Params

ROWS = {row.name: row for row in methods.table()}
DRAWS, STEPS, SIZE = 24, 2, 3
COLUMNS = ("nonconflicting", "invariant", "homogeneous", "permutation")
WRAPPERS = {
    "cr_mogm": methods.cr_mogm,
    "ema": methods.ema,
    "every": lambda method: methods.every(method, 2),
    "log_losses": methods.log_losses,
    "normalize": methods.normalize,
    "rescale": methods.rescale,
    "clip": lambda method: methods.clip(method, 0.1),
    "preference": lambda method: methods.preference(method, [1.0, 30.0]),
    "warmup": lambda method: methods.warmup(method, 1),
    "per_group": lambda method: methods.per_group(method, lambda path: path),
}
BATCHES = {
    "auto_lambda": methods.auto_lambda(inner_lr=0.1),
    "moml": methods.moml(inner_lr=0.1),
    "forum": methods.forum(inner_lr=0.1),
}


def rule(weights) -> Method:
    """Two tasks, weighed by a function of the lengths of their gradients."""

    def update(gramian, state, *, scale=1.0, **extra):
        found = weights(trees.norms(gramian) / scale)
        return found, MethodState(found, state.residual)

    def init(num_tasks, shared=None):
        return MethodState(jnp.zeros(num_tasks), jnp.zeros(()))

    return Method("gramian", init, update, name="rule")


RULES = {
    # Of two unit vectors none conflicts with the sum, and units of losses are gone.
    "of everything": rule(lambda norms: (1.0 / norms) / jnp.sum(1.0 / norms)),
    "of nothing": rule(lambda norms: jnp.stack([norms[0], 0.5 * norms[1] ** 2])),
    "sum": rule(jnp.ones_like),
}


def steps_of(method):
    """`(rows [STEPS, 2, SIZE], losses [STEPS, 2]) -> updates [STEPS, SIZE]`; shared are two leaves."""

    def run(rows, losses):
        tree = {"a": rows[..., :1], "b": rows[..., 1:]}

        def body(state, given):
            update, state, _ = reconcile(method, state, given[0], losses=given[1])
            return state, jnp.concatenate([update["a"], update["b"]])

        start = method.init(2, jax.tree.map(lambda leaf: leaf[0, 0], tree))
        return jax.lax.scan(body, start, (tree, losses))[1]

    return run


def losses_fn(params, rows, losses, curvature=0.5):
    """Losses and gradients as given at 0, and curvature that grows with the gradients."""
    along = jnp.roll(rows, 1, axis=1) @ params.shared
    found = losses + rows @ params.shared + curvature * along**2 / jnp.linalg.norm(rows, axis=1)
    return {"a": found[0], "b": found[1]}


def steps_on_batches(update, start):
    """The same of `(params, state, batch) -> (grads, state)`."""
    params = Params(jnp.zeros(SIZE), {"a": (), "b": ()})

    def run(rows, losses):
        def body(state, given):
            grads, state = update(params, state, given)
            return state, grads.shared

        return jax.lax.scan(body, start, (rows, losses))[1]

    return run


def bilevel(method):
    """Validated on what it is trained on."""
    f = mtljax.value_and_grad(losses_fn, method)
    return steps_on_batches(lambda params, state, given: f(params, state, given, given)[1:], method.init(2))


def sharp(method):
    method = methods.fs_mtl(method, rho=0.5)
    f = mtljax.value_and_grad(functools.partial(losses_fn, curvature=5.0), method)
    return steps_on_batches(lambda params, state, given: f(params, state, *given)[1:], method.init(2))


def resampled(method):
    """Two batches whose gradients differ, for every task by the same rule."""
    method = methods.sampled(method, 2)
    f = mtljax.value_and_grad(losses_fn, method)

    def update(params, state, given):
        rows, losses = given
        return f(params, state, (rows, losses), (rows + 0.5 * jnp.roll(rows, 1, axis=1), losses))[1:]

    return steps_on_batches(update, method.init(2))


def batch(seed, *, identical=False):
    """Rows [DRAWS, STEPS, 2, SIZE] and losses [DRAWS, STEPS, 2]."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(DRAWS, STEPS, 2, SIZE)) * np.exp(draw.normal(size=(DRAWS, STEPS, 2, 1)))
    losses = np.exp(draw.normal(size=(DRAWS, STEPS, 2)))
    if identical:
        rows, losses = np.repeat(rows[:, :, :1], 2, axis=2), np.repeat(losses[:, :, :1], 2, axis=2)
    return rows, losses


def measured(run, swapped=None, single=None) -> dict:
    """What the columns say, of `(rows, losses) -> updates`, over draws.

    `swapped` is the same with what belongs to tasks swapped; `single` what one task alone gives, if not its gradient.
    """
    rows, losses = batch(0)
    same, same_losses = batch(1, identical=True)
    factor = np.array([100.0, 1.0])

    def many(run, *pairs):
        given = [jnp.asarray(np.stack(each), jnp.float32) for each in zip(*pairs, strict=True)]
        return np.asarray(jax.jit(jax.vmap(jax.vmap(run)))(*given), np.float64)

    inputs = [(rows, losses), (rows * factor[:, None], losses * factor), (8.0 * rows, losses)]
    other = (rows[:, :, ::-1], losses[..., ::-1])
    plain, unit, longer, swap, twins = many(run, *inputs, other, (same, same_losses))
    if swapped is not None:
        (swap,) = many(swapped, other)
    alone = same[:, :, 0] if single is None else many(single, (same, same_losses))[0]

    def length(vectors):
        return np.linalg.norm(vectors, axis=-1)

    cosines = (rows @ plain[..., None])[..., 0] / length(rows) / length(plain)[..., None]
    turned = np.sum(plain * unit, axis=-1) / length(plain) / length(unit)
    multiples = np.sum(twins * alone, axis=-1)[:, 0] / np.sum(alone[:, 0] ** 2, axis=-1)
    named = [name for name, value in (("sum", 2.0), ("mean", 1.0)) if np.allclose(multiples, value, rtol=1e-4)]
    return {
        "nonconflicting": bool((cosines > -1e-4).all()),
        "invariant": bool((turned > 1 - 1e-4).all()),
        "homogeneous": bool((length(longer / 8.0 - plain) < 1e-4 * length(plain)).all()),
        "permutation": bool((length(swap - plain) < 1e-4 * length(plain)).all()),
        "identical": named[0] if named else "other",
    }


def agrees(said, wrapped, plain) -> bool:
    """Whether a column's entry is what was found of wrapped rules, where these alone have what `plain` says."""
    pairs = list(zip(wrapped, plain, strict=True))
    if said == "other":
        return any(one == "other" != alone for one, alone in pairs)
    if isinstance(said, str):
        return all(one == said for one in wrapped)
    if said is None and isinstance(plain[0], str):
        return wrapped == plain
    if said is None:
        return all(one for one, alone in pairs if alone) and not all(one for one, alone in pairs if not alone)
    return all(wrapped) if said else any(alone and not one for one, alone in pairs)


def wrong(name, wrapped, plain):
    """The columns where a line is not what was measured."""
    return {
        column: (getattr(ROWS[name], column), [found[column] for found in wrapped])
        for column in (*COLUMNS, "identical")
        if not agrees(getattr(ROWS[name], column), [one[column] for one in wrapped], [one[column] for one in plain])
    }


@pytest.fixture(scope="module")
def plain():
    return [measured(steps_of(method)) for method in RULES.values()]


def test_the_rules_are_what_they_are_called(plain):
    everything, nothing, total = plain
    assert [everything[column] for column in COLUMNS] == [True] * 4 and everything["identical"] == "mean"
    assert [nothing[column] for column in COLUMNS] == [False] * 4 and nothing["identical"] == "other"
    assert [total[column] for column in COLUMNS] == [False, False, True, True] and total["identical"] == "sum"


def test_every_line_is_measured():
    assert {name for name, row in ROWS.items() if row.reads == "any"} == set(WRAPPERS)
    assert {name for name, row in ROWS.items() if row.reads == "batches"} == {*BATCHES, "fs_mtl", "sampled"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("ema", "log_losses") else pytest.mark.slow) for name in WRAPPERS]
)
def test_the_line_of_a_wrapper_is_what_is_measured(name, plain):
    wrap, swapped = WRAPPERS[name], None
    if name == "preference":
        swapped = lambda method: steps_of(methods.preference(method, [30.0, 1.0]))  # noqa: E731
    found = [measured(steps_of(wrap(each)), swapped and swapped(each)) for each in RULES.values()]
    assert not wrong(name, found, plain)
    if name != "log_losses":
        bounded = [wrap(RULES["sum"]._replace(least_loss=least)).least_loss for least in (None, 0.25)]
        assert (bounded == [None, 0.25]) == (ROWS[name].negative is None)
    else:
        assert wrap(RULES["sum"]).least_loss is not None and ROWS[name].negative is False


@pytest.mark.slow
@pytest.mark.parametrize("name", BATCHES)
def test_the_line_of_a_bilevel_method_is_what_is_measured(name):
    method = BATCHES[name]
    assert not wrong(name, [measured(bilevel(method))], [dict.fromkeys(COLUMNS, True) | {"identical": "sum"}])
    rows, losses = (jnp.asarray(each[0], jnp.float32) for each in batch(2))
    found = [bilevel(method)(rows, losses - offset) for offset in (0.0, 10.0)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4)
    assert ROWS[name].negative


@pytest.mark.slow
def test_the_line_of_fs_mtl_is_what_is_measured(plain):
    single = sharp(rule(lambda norms: jnp.array([1.0, 0.0])))
    assert not wrong("fs_mtl", [measured(sharp(method), single=single) for method in RULES.values()], plain)


@pytest.mark.slow
def test_the_line_of_sampled_is_what_is_measured(plain):
    single = resampled(rule(lambda norms: jnp.array([1.0, 0.0])))
    assert not wrong("sampled", [measured(resampled(method), single=single) for method in RULES.values()], plain)
