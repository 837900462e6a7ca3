"""Numeric arguments of methods and wrappers may be traced: sweeps and fronts vmap over them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax import methods, training, value_and_grad
from mtljax.methods import (
    aligned_mtl,
    auto_lambda,
    cagrad,
    clip,
    config,
    conicgrad,
    cosmos,
    cov_weighting,
    db_mtl,
    dualproj,
    dwa,
    dynamic_task_priority,
    ema,
    epo,
    equal,
    every,
    excess_mtl,
    fairgrad,
    famo,
    fixed,
    forum,
    fs_mtl,
    go4align,
    graddrop,
    gradnorm,
    gradvac,
    igb,
    krum,
    ldc_mtl,
    log_losses,
    loss_normalization,
    m_config,
    moco,
    modo,
    moml,
    nash_mtl,
    ntkmtl,
    pbi,
    pcd,
    pivrg,
    preference,
    reconcile,
    rescale,
    sam_gs,
    sdmgrad,
    stch,
    tchebycheff,
    uncertainty,
    uncertainty_softmax,
    upgrad,
    warmup,
)
from mtljax.types import Aux, Params

PREFERENCES = [[1.0, 2.0, 3.0], [3.0, 1.0, 0.5]]
OFFSETS = [[0.1, 0.2, 0.3], [0.0, -0.2, 0.1]]
CHEAP = methods.ntkmtl()
DESCENT = dict(pull=0.3, rate=1.0, momentum=0.2)

# For each argument a function of it that makes the method, and two values.
TABLE: dict[tuple[str, str], tuple[Callable[..., Any], list[Any]]] = {
    ("fixed", "weights"): (fixed, PREFERENCES),
    ("uncertainty", "log_variance"): (lambda v: uncertainty(log_variance=v), [0.0, -0.5]),
    ("uncertainty_softmax", "temperature"): (uncertainty_softmax, [1.0, 3.0]),
    ("dwa", "period"): (dwa, [1, 2]),
    ("dwa", "temperature"): (lambda v: dwa(1, temperature=v), [2.0, 0.5]),
    ("cov_weighting", "epsilon"): (lambda v: cov_weighting(epsilon=v), [1e-8, 0.1]),
    ("dynamic_task_priority", "gamma"): (dynamic_task_priority, PREFERENCES),
    ("dynamic_task_priority", "smoothing"): (lambda v: dynamic_task_priority(smoothing=v), [0.1, 1.0]),
    ("dynamic_task_priority", "floor"): (lambda v: dynamic_task_priority(floor=v), [1e-6, 0.5]),
    ("famo", "learning_rate"): (lambda v: famo(learning_rate=v), [0.025, 0.5]),
    ("famo", "gamma"): (lambda v: famo(gamma=v), [0.001, 0.1]),
    ("famo", "min_losses"): (lambda v: famo(min_losses=v), OFFSETS),
    ("famo", "epsilon"): (lambda v: famo(epsilon=v), [1e-8, 0.1]),
    ("go4align", "step_size"): (lambda v: go4align(step_size=v), [1e-4, 0.1]),
    ("igb", "period"): (lambda v: igb(v, start=0), [1, 2]),
    ("igb", "start"): (lambda v: igb(1, start=v), [0, 1]),
    ("ldc_mtl", "penalty"): (ldc_mtl, [0.1, 1.0]),
    ("loss_normalization", "step_size"): (lambda v: loss_normalization(step_size=v), [3e-4, 0.5]),
    ("loss_normalization", "floor"): (lambda v: loss_normalization(floor=v), [1e-4, 2.0]),
    ("stch", "mu"): (stch, [1.0, 0.1]),
    ("stch", "preference"): (lambda v: stch(preference=v), PREFERENCES),
    ("stch", "reference"): (lambda v: stch(reference=v), OFFSETS),
    ("tchebycheff", "preference"): (lambda v: tchebycheff(preference=v), PREFERENCES),
    ("tchebycheff", "reference"): (lambda v: tchebycheff(reference=v), OFFSETS),
    ("pbi", "theta"): (pbi, [5.0, 0.5]),
    ("pbi", "preference"): (lambda v: pbi(preference=v), PREFERENCES),
    ("pbi", "reference"): (lambda v: pbi(reference=v), OFFSETS),
    ("cosmos", "penalty"): (cosmos, [1.0, 3.0]),
    ("cosmos", "preference"): (lambda v: cosmos(preference=v), PREFERENCES),
    ("upgrad", "preference"): (lambda v: upgrad(preference=v), PREFERENCES),
    ("dualproj", "preference"): (lambda v: dualproj(preference=v), PREFERENCES),
    ("config", "preference"): (lambda v: config(preference=v), PREFERENCES),
    ("aligned_mtl", "preference"): (lambda v: aligned_mtl(preference=v), PREFERENCES),
    ("epo", "preference"): (epo, PREFERENCES),
    ("epo", "eps"): (lambda v: epo(eps=v), [1e-4, 10.0]),
    ("cagrad", "c"): (cagrad, [0.5, 0.9]),
    ("conicgrad", "c"): (conicgrad, [0.5, 0.9]),
    ("fairgrad", "alpha"): (fairgrad, [0.0, 2.0]),
    ("nash_mtl", "max_norm"): (lambda v: nash_mtl(max_norm=v), [0.1, 10.0]),
    ("ntkmtl", "exponent"): (ntkmtl, [0.5, 1.0]),
    ("gradnorm", "alpha"): (gradnorm, [1.5, 0.5]),
    ("gradnorm", "initial_losses"): (lambda v: gradnorm(initial_losses=v), PREFERENCES),
    ("gradvac", "beta"): (lambda v: gradvac(beta=v), [0.01, 0.5]),
    ("krum", "n_byzantine"): (krum, [0, 1]),
    ("krum", "n_selected"): (lambda v: krum(n_selected=v), [1, 2]),
    ("modo", "gamma"): (lambda v: modo(gamma=v), [0.1, 0.01]),
    ("modo", "rho"): (lambda v: modo(rho=v), [0.0, 0.5]),
    ("pcd", "tau"): (lambda v: pcd(tau=v), [0.1, 0.3]),
    ("pcd", "priority"): (lambda v: pcd(priority=v), [0, 2]),
    ("pcd", "beta"): (lambda v: pcd(beta=v), [0.9, 0.5]),
    ("pivrg", "bound"): (lambda v: pivrg(bound=v), [2.0, 5.0]),
    ("pivrg", "min_temperature"): (lambda v: pivrg(min_temperature=v), [10.0, 0.5]),
    ("sdmgrad", "pull"): (lambda v: sdmgrad(**{**DESCENT, "pull": v}), [0.3, 1.0]),
    ("sdmgrad", "rate"): (lambda v: sdmgrad(**{**DESCENT, "rate": v}), [1.0, 0.1]),
    ("sdmgrad", "momentum"): (lambda v: sdmgrad(**{**DESCENT, "momentum": v}), [0.5, 0.0]),
    ("sdmgrad", "preference"): (lambda v: sdmgrad(preference=v, steps=None), PREFERENCES),
    ("graddrop", "leak"): (lambda v: graddrop(leak=v), [[0.0, 0.0, 0.0], [0.1, 0.5, 1.0]]),
    ("db_mtl", "beta"): (lambda v: db_mtl(beta=v), [0.9, 0.1]),
    ("db_mtl", "decay"): (lambda v: db_mtl(decay=v), [0.0, 0.5]),
    ("db_mtl", "eps"): (lambda v: db_mtl(eps=v), [1e-8, 0.1]),
    ("excess_mtl", "step_size"): (lambda v: excess_mtl(step_size=v), [0.01, 1.0]),
    ("excess_mtl", "eps"): (lambda v: excess_mtl(eps=v), [0.0, 0.1]),
    ("m_config", "beta"): (lambda v: m_config(beta=v), [0.9, 0.5]),
    ("moco", "beta"): (lambda v: moco(beta=v), [0.5, 0.9]),
    ("moco", "beta_decay"): (lambda v: moco(beta_decay=v), [0.5, 0.0]),
    ("moco", "gamma"): (lambda v: moco(gamma=v), [0.1, 0.01]),
    ("moco", "gamma_decay"): (lambda v: moco(gamma_decay=v), [0.5, 0.0]),
    ("moco", "rho"): (lambda v: moco(rho=v), [0.0, 0.5]),
    ("sam_gs", "momentum"): (lambda v: sam_gs(momentum=v), [0.9, 0.5]),
    ("sam_gs", "beta"): (lambda v: sam_gs(beta=v), [0.99, 0.5]),
    ("sam_gs", "threshold"): (lambda v: sam_gs(threshold=v), [0.1, 2.0]),
    ("sam_gs", "eps"): (lambda v: sam_gs(eps=v), [1e-8, 0.1]),
    ("preference", "vector"): (lambda v: preference(CHEAP, v), PREFERENCES),
    ("ema", "decay"): (lambda v: ema(CHEAP, v), [0.9, 0.5]),
    ("ema", "initial"): (lambda v: ema(CHEAP, initial=v), PREFERENCES),
    ("every", "n"): (lambda v: every(CHEAP, v), [1, 2]),
    ("warmup", "steps"): (lambda v: warmup(CHEAP, v), [0, 1]),
    ("clip", "max_norm"): (lambda v: clip(CHEAP, v), [0.1, 10.0]),
    ("rescale", "to"): (lambda v: rescale(CHEAP, v), [1.0, 2.0]),
    ("log_losses", "eps"): (lambda v: log_losses(CHEAP, eps=v), [1e-8, 0.1]),
}
# What sets the length of a loop is a Python integer.
STATIC = {
    ("trimmed_mean", "trim"),
    ("go4align", "num_groups"),
    ("sdmgrad", "steps"),
    ("forum", "steps"),
    ("moml", "steps"),
    ("sampled", "batches"),
}
# Functions of the loss function: one by one below.
WITH_LOSSES = {
    ("auto_lambda", "inner_lr"): [0.1, 0.5],
    ("auto_lambda", "initial"): [0.1, 0.5],
    ("auto_lambda", "primary"): [[1.0, 0.0], [0.5, 1.0]],
    ("forum", "inner_lr"): [0.1, 0.5],
    ("forum", "rho"): [0.1, 0.5],
    ("moml", "inner_lr"): [0.1, 0.5],
    ("fs_mtl", "rho"): [0.05, 0.5],
    ("fs_mtl", "rho_tasks"): [0.05, 0.5],
}
ROWS = jnp.array([[1.0, -0.5, 0.3, 0.2], [-0.6, 1.2, 0.1, -0.4], [0.2, 0.3, -0.9, 0.5]])
FAST = {("stch", "preference"), ("dwa", "period"), ("clip", "max_norm")}


def steps(make: Callable[[Any], Any], value: Any, count: int = 2) -> Any:
    """Steps of a method on three tasks: the last update and weights."""
    method = make(value)
    state = method.init(3, ROWS[0])
    update = None
    for step in range(count):
        losses = jnp.array([1.0, 2.0, 0.5]) / (1.0 + step)
        update, state, _ = reconcile(method, state, ROWS, losses=losses, key=jax.random.key(step))
        if method.observe is not None:
            state = method.observe(0.5 * losses, state)
    return update, state.weights


def bilevel_step(name: str, argument: str, value: Any, count: int = 1) -> Any:
    def losses_fn(params: Params, x: Any) -> Any:
        return {k: jnp.sum((params.shared * x - params.tasks[k]) ** 2) for k in "ab"}

    params = Params(jnp.array([1.0, 2.0]), {"a": jnp.array([0.5, 0.1]), "b": jnp.array([3.0, -1.0])})
    if name == "fs_mtl":
        method = fs_mtl(equal(), **{argument: value})
        return value_and_grad(losses_fn, method)(params, method.init(2), 0.5)[1]
    options = {"inner_lr": 0.1, argument: value}
    method = {"auto_lambda": auto_lambda, "forum": forum, "moml": moml}[name](**options)
    return value_and_grad(losses_fn, method)(params, method.init(2), (0.5,), (0.7,))[1:]


ALL = {key: (functools.partial(steps, make), values) for key, (make, values) in TABLE.items()} | {
    key: (functools.partial(bilevel_step, *key), values) for key, values in WITH_LOSSES.items()
}


def test_every_numeric_argument_is_in_the_table():
    numeric = set()
    for row in methods.table():
        for parameter in inspect.signature(getattr(methods, row.name)).parameters.values():
            words = str(parameter.annotation).replace("Callable[[Array], Array]", "")
            if any(kind in words for kind in ("float", "int", "ArrayLike", "Array", "Sequence[float]")):
                numeric.add((row.name, parameter.name))
    aliases = {("cr_mogm", "decay"), ("cr_mogm", "initial")}
    known = set(ALL) | STATIC | aliases
    functions = {key for key in numeric - known if "Callable" in str(annotation(*key))}
    assert numeric - known - functions == set()
    assert set(ALL) | STATIC <= numeric


def annotation(name: str, argument: str) -> Any:
    return inspect.signature(getattr(methods, name)).parameters[argument].annotation


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, id="-".join(key), marks=pytest.mark.slow if key[0] == "forum" else []) for key in sorted(ALL)],
)
def test_a_numeric_argument_may_be_traced(key):
    run, values = ALL[key]
    jax.eval_shape(jax.vmap(functools.partial(run, count=1)), jnp.asarray(values))


def test_a_preference_of_traced_numbers_in_a_list():
    def run(share: Any) -> Any:
        method = upgrad(preference=[share, 1.0 - share, 2.0])
        return method.update(ROWS @ ROWS.T, method.init(3))[0]

    assert jax.eval_shape(jax.vmap(run), jnp.array([0.1, 0.5])).shape == (2, 3)


def test_a_sweep_maps_whole_training_steps():
    params = Params(jnp.ones(2), {"a": jnp.ones(2), "b": jnp.ones(2)})

    def losses_fn(params, state, batch, key, train):
        return {k: jnp.sum((params.shared * params.tasks[k] - batch) ** 2) for k in "ab"}, Aux(state)

    def run(c: Any, vector: Any) -> Any:
        method = every(preference(cagrad(c), vector), 2)
        init, step = training.make_train_step(losses_fn, method, optax.sgd(0.1))
        return step(init(params, key=jax.random.key(0)), jnp.zeros(2))[0].params.shared

    found = jax.eval_shape(jax.vmap(run), jnp.array([0.1, 0.5]), jnp.array([[1.0, 2.0], [2.0, 1.0]]))
    assert found.shape == (2, 2)


@pytest.mark.parametrize(
    "key", [pytest.param(key, id="-".join(key), marks=[] if key in FAST else pytest.mark.slow) for key in sorted(ALL)]
)
def test_a_traced_argument_gives_the_numbers_of_a_concrete_one(key):
    run, values = ALL[key]
    traced = jax.jit(jax.vmap(run))(jnp.asarray(values))
    concrete = jax.jit(lambda: [run(value) for value in values])()
    for k, one in enumerate(concrete):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(traced), strict=True):
            np.testing.assert_allclose(a, b[k], rtol=2e-4, atol=2e-5)


def test_what_may_not_be_traced_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    for name, argument in STATIC:
        assert f"`{name}({argument}=)`" in text


@pytest.mark.parametrize(
    "make",
    [methods.trimmed_mean, go4align, lambda steps: sdmgrad(steps=steps)],
    ids=["trimmed_mean", "go4align", "sdmgrad"],
)
def test_what_may_not_be_traced_is_refused_by_name(make):
    with pytest.raises(TypeError, match="must be an integer"):
        jax.eval_shape(lambda v: make(v) and v, jnp.array(1))
