"""Mistakes get messages, at trace time: each is tested by its text."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import mtljax
from mtljax import methods
from mtljax.types import Batch, Params, Task
from tests.engines import nets

PARAMS = Params({"w": jnp.ones(2)}, {"a": jnp.ones(2), "c": jnp.ones(2)})


def value(losses, params=PARAMS, method=None, **rest):
    method = methods.mgda() if method is None else method
    f = mtljax.value_and_grad(lambda params: losses, method)
    return jax.eval_shape(lambda: f(params, method.init(2), **rest))


def test_losses_and_params_that_name_different_tasks():
    with pytest.raises(
        ValueError, match=r"losses_fn: losses must be of the tasks of params.tasks, \['a', 'c'\], found \['a', 'b'\]"
    ):
        value({"a": jnp.array(1.0), "b": jnp.array(1.0)})
    with pytest.raises(ValueError, match=r"losses_fn: losses must be of shape \(2,\) for \['a', 'c'\], found \(3,\)"):
        value(jnp.ones(3))


def test_a_loss_that_is_not_a_scalar():
    with pytest.raises(ValueError, match=r"losses_fn: the loss of task 'c' must be a scalar, found shape \(4,\)"):
        value({"a": jnp.array(1.0), "c": jnp.ones(4)})


def test_a_loss_that_is_not_floating():
    with pytest.raises(TypeError, match=r"losses_fn: the loss of task 'c' must be of a floating dtype, found int32"):
        value({"a": jnp.array(1.0), "c": jnp.array(1)})


def test_a_method_fed_the_wrong_number_of_tasks():
    method = methods.mgda()
    f = mtljax.value_and_grad(lambda params: {"a": jnp.array(1.0), "c": jnp.array(1.0)}, method)
    with pytest.raises(ValueError, match=r"mgda was initialised for 3 tasks but params.tasks has \['a', 'c'\]"):
        f(PARAMS, method.init(3))


def test_an_active_mask_of_the_wrong_shape():
    losses = {"a": jnp.array(1.0), "c": jnp.array(1.0)}
    with pytest.raises(ValueError, match=r"mgda: active must be of shape \(2,\), found an array of shape \(3,\)"):
        value(losses, active=jnp.ones(3, bool))


def test_integer_parameters():
    with pytest.raises(TypeError, match=r"params.shared\['n'\] must be of a floating dtype, found int32"):
        value({"a": jnp.array(1.0), "c": jnp.array(1.0)}, Params({"n": jnp.arange(2)}, PARAMS.tasks))


def test_parameters_of_the_wrong_form():
    losses = {"a": jnp.array(1.0), "c": jnp.array(1.0)}
    with pytest.raises(
        TypeError, match=r"params must be a mtljax.Params\(shared, tasks\), found a dict; of one tree, such as Flax"
    ):
        value(losses, {"w": jnp.ones(2)})
    with pytest.raises(TypeError, match=r"params.tasks must be a dict by task name"):
        value(losses, Params({}, [jnp.ones(2)]))
    with pytest.raises(ValueError, match=r"params.tasks must be a dict by task name, .* found \{\}"):
        value(losses, Params({}, {}))


def batch_losses(batch, tasks=None):
    model = nets.mlp()
    params, state = model.init(jax.random.key(0), nets.batch().inputs)
    f = mtljax.losses_fn(model, nets.tasks() if tasks is None else tasks)
    return jax.eval_shape(lambda: f(params, state, batch))


def test_a_batch_without_a_tasks_target():
    batch = nets.batch()
    targets = {name: target for name, target in batch.targets.items() if name != "b"}
    with pytest.raises(ValueError, match=r"the batch has no target for task 'b', only for \['a', 'c'\]"):
        batch_losses(batch._replace(targets=targets))


def test_a_batch_with_an_unknown_task():
    batch = nets.batch()
    with pytest.raises(ValueError, match=r"targets for unknown task 'z', expected tasks \['a', 'b', 'c'\]"):
        batch_losses(batch._replace(targets={**batch.targets, "z": batch.targets["a"]}))
    with pytest.raises(ValueError, match=r"mask for unknown task 'z'"):
        batch_losses(batch._replace(mask={"z": jnp.ones(nets.SIZE, bool)}))


def test_a_mask_of_the_wrong_shape_or_type():
    batch = nets.batch()
    with pytest.raises(ValueError, match=r"mask\['b'\] of the batch has shape \(3,\), expected \(16,\)"):
        batch_losses(batch._replace(mask={"b": jnp.ones(3, bool)}))
    with pytest.raises(TypeError, match=r"mask\['b'\] of the batch has dtype float32, expected bool"):
        batch_losses(batch._replace(mask={"b": jnp.ones(nets.SIZE)}))


def test_targets_of_the_wrong_shape_are_not_broadcast():
    batch = nets.batch()
    with pytest.raises(ValueError, match=r"\[16, 2\].*\[16, 1\]|\[16, 1\].*\[16, 2\]"):
        batch_losses(batch._replace(targets={**batch.targets, "b": batch.targets["b"][:, :1]}))


def test_an_unknown_task_asked_of_apply():
    model = nets.mlp()
    params, state = model.init(jax.random.key(0), nets.batch().inputs)
    with pytest.raises(ValueError, match=r"unknown task.*'z'"):
        model.apply(params, state, nets.batch().inputs, tasks=("z",))


def test_a_multi_input_batch_of_other_tasks():
    own = nets.batch()
    batches = {name: Batch(own.inputs, {name: own.targets[name]}) for name in ("a", "b")}
    with pytest.raises(ValueError, match=r"multi-input batch has tasks \['a', 'b'\] but losses_fn was made for"):
        batch_losses(batches)
    with pytest.raises(ValueError, match=r"the batch of task 'c' has no target for task 'c'"):
        batch_losses({**batches, "c": Batch(own.inputs, {})})
    with pytest.raises(TypeError, match=r"batch is a tuple, expected a Batch"):
        batch_losses((1, 2))


def test_a_model_that_misses_a_task():
    tasks = {**nets.tasks(), "d": Task(mtljax.losses.squared_error)}
    batch = nets.batch()
    with pytest.raises(ValueError, match=r"the model returned outputs for \['a', 'b', 'c'\], none for task 'd'"):
        batch_losses(batch._replace(targets={**batch.targets, "d": batch.targets["a"]}), tasks)


def test_tasks_that_make_no_sense():
    with pytest.raises(ValueError, match="losses_fn: tasks must be names that differ, found"):
        mtljax.losses_fn(nets.mlp(), {})
    with pytest.raises(ValueError, match=r"the prior of task 'a' must be above 0, found 0.0"):
        mtljax.losses_fn(nets.mlp(), {"a": Task(mtljax.losses.squared_error, prior=0.0)})


def test_arguments_of_methods():
    with pytest.raises(ValueError, match=r"every: n must be"):
        methods.every(methods.mgda(), 0)
    with pytest.raises(ValueError, match=r"graddrop reads task gradients and returns no weights"):
        methods.every(methods.graddrop(), 2)
    with pytest.raises(ValueError, match=r"fixed: weights must be of shape \[3\], found an array of shape \(2,\)"):
        methods.fixed([1.0, 2.0]).init(3)
    with pytest.raises(ValueError, match=r"fixed: weights must be finite"):
        methods.fixed([1.0, float("nan")])
    with pytest.raises(ValueError, match=r"graddrop: leak must be"):
        methods.graddrop(leak=2.0)
    with pytest.raises(ValueError, match=r"preference: vector must be of shape \[3\], found an array of shape \(2,\)"):
        methods.preference(methods.equal(), [1.0, 2.0]).init(3)
    with pytest.raises(ValueError, match=r"graddrop draws signs at random: give key="):
        mtljax.aggregate(methods.graddrop(), jnp.ones((2, 2)))
    with pytest.raises(ValueError, match=r"equal reads losses: give losses= of shape \(2,\)"):
        mtljax.aggregate(methods.equal(), jnp.ones((2, 2)))


def test_features_engine_refuses_a_state_like_the_parameters():
    model = nets.mlp()
    params, state = model.init(jax.random.key(0), nets.batch().inputs)
    method = methods.db_mtl()
    f = mtljax.value_and_grad(
        mtljax.losses_fn(model, nets.tasks()), method, has_aux=True, engine=mtljax.engines.features()
    )
    with pytest.raises(ValueError, match=r"features: db_mtl keeps a state like the shared parameters"):
        f(params, method.init(3, params.shared), state, nets.batch())
