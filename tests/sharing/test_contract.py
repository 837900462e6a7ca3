"""What every architecture promises, over the table of all of them."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax import sharing
from mtljax.sharing.frames.network import selected
from mtljax.types import Batch, Params, Regularized, TaskInputs
from tests.sharing.blocks import dense
from tests.sharing.table import CASES, NOT_TRACED, NOTHING_SHARED, NUMBERS, TWO_ALIKE, VARIANTS, Blocks

TASKS = ("depth", "label")
WIDTH = 4
BLOCKS = Blocks(lambda: dense(WIDTH), WIDTH, {"depth": dense(1), "label": dense(5)})
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, WIDTH)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).normal(size=(6, WIDTH)), jnp.float32)


def over(at_once):
    """Parameters for a test of every architecture; those that are not `at_once` only where slow tests run too."""
    return pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=[] if at_once(name) else [pytest.mark.slow]) for name in CASES],
        scope="module",  # one architecture after the other, so that its programs serve all tests
    )


each = over(lambda name: name not in VARIANTS)
few = over(lambda name: name in {"hard", "soft", "cross_stitch", "mmoe", "ple", "ltb"})


@functools.cache
def case(name):
    """The model, its parameters with nothing left at zero, and its state."""
    model = CASES[name](BLOCKS)
    params, state = model.init(jax.random.key(0), X)
    leaves, tree = jax.tree.flatten(params)
    drawn = np.random.default_rng(2)
    leaves = [leaf + jnp.asarray(0.3 * drawn.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    return model, jax.tree.unflatten(tree, leaves), state


def shape(name, task):
    """Of a task's outputs for X."""
    return (6, 5) if task == "label" and name not in TWO_ALIKE else (6, 1)


def bare(outputs):
    return {task: found.outputs if isinstance(found, Regularized) else found for task, found in outputs.items()}


def without(params, task):
    return params._replace(tasks=params.tasks | {task: None})


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def same(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 2e-5, "atol": 1e-6})), a, b)


def test_every_public_architecture_is_in_the_table():
    public = {name: getattr(sharing, name) for name in sharing.__all__}
    made = {name for name, function in public.items() if inspect.signature(function).return_annotation == "Model"}
    assert len(made) > 20 and made <= set(CASES)


def test_every_number_is_swept_or_said_not_to_be():
    docs = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text()
    for name in sharing.__all__:
        if name not in CASES:
            continue
        for argument, parameter in inspect.signature(getattr(sharing, name)).parameters.items():
            annotation = re.sub(r"Callable\[.*\]", "", parameter.annotation)
            if any(kind in annotation for kind in ("int", "float")):
                fixed = argument in NOT_TRACED.get(name, ())
                assert fixed != ((name, argument) in NUMBERS), (name, argument)
                assert not fixed or (f"| {name} | " in docs and f"`{argument}`" in docs), (name, argument)


@pytest.mark.parametrize(("name", "argument"), NUMBERS)
def test_a_number_may_be_traced(name, argument):
    def outputs(number):
        model = NUMBERS[name, argument](BLOCKS, number)
        params, state = model.init(jax.random.key(0), X)
        penalty = () if model.penalty is None else model.penalty(params)
        return model.apply(params, state, X, key=jax.random.key(3), train=True)[0], penalty

    numbers = jax.ShapeDtypeStruct((2,), jnp.int32 if argument == "warmup" else jnp.float32)
    found = jax.eval_shape(jax.vmap(outputs), numbers)
    assert jax.tree.map(lambda leaf: leaf.shape[1:], found) == jax.tree.map(
        jnp.shape, jax.eval_shape(lambda: outputs(1 if argument == "warmup" else 0.5))
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "argument"), NUMBERS)
def test_a_traced_number_gives_what_the_concrete_one_gives(name, argument):
    """Outputs, state, penalty and gradient, at parameters that have moved off the start; and the number counts."""

    def everything(number):
        model = NUMBERS[name, argument](BLOCKS, number)
        params, state = model.init(jax.random.key(0), X)
        params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), params)

        def total(params):
            outputs, after = model.apply(params, state, X, key=jax.random.key(3), train=True)
            penalty = jnp.zeros(()) if model.penalty is None else model.penalty(params)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(outputs)) + penalty, (outputs, after, penalty)

        return jax.value_and_grad(total, has_aux=True)(params)

    numbers = [0, 4] if argument == "warmup" else [0.3, 0.7]
    traced = jax.jit(jax.vmap(everything))(jnp.asarray(numbers))
    concrete = jax.jit(lambda: [everything(number) for number in numbers])()
    for k, (one, slopes) in enumerate(concrete):
        # Gradients cancel: what is left of them is judged by the largest.
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes))
        value, gradient = jax.tree.map(lambda leaf, k=k: leaf[k], traced)
        same(value, one, rtol=2e-5, atol=1e-5)
        same(gradient, slopes, rtol=2e-5, atol=2e-6 * largest)
    first, second = (jax.tree.leaves(one) for one in concrete)
    assert any(not np.allclose(a, b, rtol=1e-3) for a, b in zip(first, second, strict=True))


@each
def test_init_needs_shapes_alone_and_follows_its_key(name):
    model, _, _ = case(name)
    made = model.init(jax.random.key(0), X)
    asked = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert shapes(made) == shapes(asked)
    assert isinstance(made[0], Params) and tuple(sorted(made[0].tasks)) == TASKS
    same(made, model.init(jax.random.key(0), X), rtol=0)
    other = model.init(jax.random.key(1), X)[0]
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (made[0], other)), strict=True))
    leaves = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(made)]
    assert len(set(leaves)) == len(leaves), "two leaves in one buffer cannot be donated"


@each
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_one_task_runs_alone_and_reads_nothing_of_the_others(name, train):
    model, params, state = case(name)
    key = jax.random.key(1) if train else None
    every, after = model.apply(params, state, X, key=key, train=train)
    assert tuple(sorted(every)) == TASKS
    assert {task: out.shape for task, out in bare(every).items()} == {task: shape(name, task) for task in TASKS}
    assert shapes(after) == shapes(state)
    if not train:
        same(after, state, rtol=0)
        assert not any(isinstance(found, Regularized) for found in every.values())
    for task, other in (TASKS, TASKS[::-1]):
        alone, alone_after = model.apply(without(params, other), state, X, tasks=(task,), key=key, train=train)
        same(alone, {task: every[task]})
        assert shapes(alone_after) == shapes(state)


@each
def test_a_loss_reaches_its_own_parameters_and_what_is_shared(name):
    model, params, state = case(name)

    def loss(params, task):
        return jnp.sum(bare(model.apply(params, state, X)[0])[task] ** 2)

    for task, other in (TASKS, TASKS[::-1]):
        grads = jax.grad(loss)(params, task)
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads.tasks[other]))
        owns_nothing = name in TWO_ALIKE and task == TASKS[0]
        assert any(np.any(leaf) for leaf in jax.tree.leaves(grads.tasks[task])) != owns_nothing
        assert bool(jax.tree.leaves(grads.shared)) == (name not in NOTHING_SHARED)
        if name not in NOTHING_SHARED:
            assert any(np.any(leaf) for leaf in jax.tree.leaves(grads.shared))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


@each
def test_each_task_may_bring_inputs_of_its_own(name):
    model, params, state = case(name)
    shared = model.apply(params, state, X)[0]
    same(model.apply(params, state, TaskInputs({"depth": X, "label": X}))[0], shared)
    apart = model.apply(params, state, TaskInputs({"depth": X, "label": Y}))[0]
    assert not np.allclose(apart["label"], shared["label"])
    made = model.init(jax.random.key(0), TaskInputs({"depth": X, "label": X}))
    same(made, model.init(jax.random.key(0), X), rtol=0)
    with pytest.raises(ValueError, match="'label'"):
        model.apply(params, state, TaskInputs({"depth": X}))


@each
def test_a_multi_input_batch_runs_each_task_on_its_own_examples(name):
    model, params, state = case(name)
    f = mtljax.make_losses_fn(model, dict.fromkeys(TASKS, mtljax.Task(mtljax.losses.squared_error)))
    zeros = {task: jnp.zeros(shape(name, task)) for task in TASKS}
    batch = {task: Batch(x, {task: zeros[task]}) for task, x in zip(TASKS, (X, Y), strict=True)}
    losses, _ = f(params, state, batch)
    for task, x in zip(TASKS, (X, Y), strict=True):
        alone, _ = f(params, state, Batch(x, zeros))
        np.testing.assert_allclose(losses[task], alone[task], rtol=1e-5)


@few
def test_it_runs_jitted_and_over_seeds(name):
    model, params, state = case(name)
    keys = jax.random.split(jax.random.key(3), 2)

    def outputs(params, key):
        found = model.apply(params, state, X, key=key, train=True)[0]
        return bare(found)

    several = jax.jit(jax.vmap(outputs, in_axes=(None, 0)))(params, keys)
    for row in range(2):
        same(jax.tree.map(lambda leaf, row=row: leaf[row], several), outputs(params, keys[row]), rtol=1e-4, atol=1e-5)
    assert not np.array_equal(several["label"][0], several["label"][1])


@few
def test_bfloat16_stays_bfloat16(name):
    model, params, state = case(name)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    found = model.apply(narrow, state, X.astype(jnp.bfloat16))[0]
    exact = model.apply(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow), state, X)[0]
    for task in TASKS:
        assert found[task].dtype == jnp.bfloat16
        scale = float(jnp.abs(exact[task]).max())
        np.testing.assert_allclose(found[task].astype(jnp.float32), exact[task], atol=0.06 * scale)


@each
def test_apply_is_decode_after_encode(name):
    model, params, state = case(name)
    assert (model.encode is None) == (model.decode is None)
    if model.encode is None or model.decode is None:
        pytest.skip("its tasks read no representation in common")
    key = jax.random.key(1)
    features, between = model.encode(params.shared, state, X, key=key, train=True)
    pieces = model.decode(params.tasks, between, features, key=key, train=True)
    same(pieces, model.apply(params, state, X, key=key, train=True))


@each
def test_unknown_tasks_get_messages(name):
    model, params, state = case(name)
    with pytest.raises(ValueError, match=r"^apply: tasks must be of the model's \['depth', 'label'\], found 'edges'$"):
        model.apply(params, state, X, tasks=("depth", "edges"))
    with pytest.raises(TypeError, match=r"found the string 'depth'; write \('depth',\)"):
        model.apply(params, state, X, tasks="depth")


def test_tasks_are_asked_for_in_any_order_and_run_once_in_their_own():
    assert selected(TASKS, ("label", "depth", "label")) == TASKS
    assert selected(TASKS, iter(["label"])) == ("label",)


@each
def test_terms_and_penalties_are_scalars_with_finite_slopes(name):
    model, params, state = case(name)
    outputs, _ = model.apply(params, state, X, key=jax.random.key(1), train=True)
    for found in outputs.values():
        if isinstance(found, Regularized):
            assert found.term.shape == () and found.term.dtype == jnp.float32
    if model.penalty is not None:
        value, slope = jax.value_and_grad(model.penalty)(params)
        assert value.shape == () and float(value) >= 0
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
