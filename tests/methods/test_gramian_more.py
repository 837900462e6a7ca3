"""What all further methods on the Gramian promise: absence, scale, degenerate gradients, mistakes, head policy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.cagrad import cagrad
from mtljax.methods.from_gramian.conicgrad import conicgrad
from mtljax.methods.from_gramian.dualproj import dualproj
from mtljax.methods.from_gramian.epo import epo
from mtljax.methods.from_gramian.gradnorm import gradnorm
from mtljax.methods.from_gramian.gradvac import gradvac
from mtljax.methods.from_gramian.mgda import loss_values, mgda
from mtljax.methods.from_gramian.modo import modo
from mtljax.methods.from_gramian.pcgrad import pcgrad
from mtljax.methods.from_gramian.sdmgrad import sdmgrad
from mtljax.methods.from_gramian.upgrad import upgrad
from tests.methods.steps.gramian import METHODS, ROWS, STATEFUL, random_rows, step


@pytest.mark.parametrize("name", STATEFUL)
def test_a_task_that_is_away_leaves_the_others_alone_over_several_steps(name):
    """Task 1 of five is away from the start, with NaN wherever it could be read."""
    method, keep = METHODS[name], np.arange(5) != 1
    state, fewer = method.init(5), method.init(4)
    for t in range(3):
        rows, key = random_rows(5, t), jax.random.key(t)
        losses = np.random.default_rng(t).uniform(0.5, 2.0, 5)
        expected, fewer = step(method, rows[keep], fewer, losses=losses[keep], key=key)
        rows[~keep], losses[~keep] = np.nan, np.nan
        weights, state = step(method, rows, state, losses=losses, active=keep, key=key)
        np.testing.assert_allclose(np.asarray(weights)[keep], expected, rtol=2e-5, atol=2e-6)
        assert (np.asarray(weights)[~keep] == 0).all()
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", STATEFUL)
def test_what_a_task_had_is_kept_while_it_is_away(name):
    method, rows = STATEFUL[name], random_rows(4, 1)
    _, before = step(method, rows)
    _, after = step(method, rows, before, active=np.arange(4) != 2)
    for old, new in zip(jax.tree.leaves(before.inner), jax.tree.leaves(after.inner), strict=True):
        if old.shape[:1] == (4,):
            np.testing.assert_array_equal(old[2], new[2])
        if old.shape == (4, 4):
            np.testing.assert_array_equal(old[:, 2], new[:, 2])
    _, none = step(method, rows, after, active=np.zeros(4, bool))
    for old, new in zip(jax.tree.leaves(after.inner), jax.tree.leaves(none.inner), strict=True):
        if old.shape[:1] == (4,):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("modo", "mgda")])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_weights_do_not_depend_on_scale(name, scale):
    plain = step(METHODS[name], random_rows(4, 1))[0]
    scaled = step(METHODS[name], scale * random_rows(4, 1))[0]
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["zero", "one zero", "identical", "opposed", "spread", "rank one"])
def test_degenerate_gradients_are_harmless(name, kind):
    rows = random_rows(4, 3)
    one, signs = rows[:1], np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    rows = {
        "zero": 0.0 * rows,
        "one zero": rows * np.array([1.0, 0.0, 1.0, 1.0])[:, None],
        "identical": np.repeat(one, 4, axis=0),
        "opposed": signs * one,
        "spread": rows * np.array([1e-3, 1.0, 1e3, 1.0])[:, None],
        "rank one": np.arange(1, 5)[:, None] * signs * one,
    }[kind]
    method = METHODS[name]
    state = method.init(4)
    for t in range(2):
        weights, state = step(method, rows, state, key=jax.random.key(t))
        assert np.isfinite(np.asarray(weights)).all()
        assert 0 <= float(state.residual) <= 1
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gradvac(beta=1.5), r"gradvac: beta must be at least 0 and at most 1, found 1.5"),
        (lambda: dualproj(preference=[-1.0, 1.0]), "dualproj: preference must be"),
        (
            lambda: dualproj(preference=[1.0, 1.0]).init(3),
            "dualproj: preference must have an entry for each of 3 tasks",
        ),
        (lambda: gradnorm(-1.0), "gradnorm: alpha must be at least 0, found -1.0"),
        (lambda: gradnorm(initial_losses=[0.0, 1.0]), "gradnorm: initial_losses must be above 0"),
        (
            lambda: gradnorm(initial_losses=[1.0]).init(2),
            "gradnorm: initial_losses must have an entry for each of 2 tasks",
        ),
        (
            lambda: gradnorm().update(jnp.eye(2), gradnorm().init(2)),
            r"gradnorm: losses must be of shape \(2,\), found None",
        ),
        (lambda: sdmgrad(pull=-1.0), "sdmgrad: pull must be at least 0, found -1.0"),
        (lambda: sdmgrad(steps=0), "sdmgrad: steps must be at least 1, found 0"),
        (lambda: sdmgrad(rate=0.0), "sdmgrad: rate must be above 0, found 0.0"),
        (lambda: sdmgrad(momentum=1.0), r"sdmgrad: momentum must be at least 0 and below 1, found 1.0"),
        (lambda: modo(gamma=-1.0), "modo: gamma must be at least 0, found -1"),
        (lambda: modo(rho=float("nan")), "modo: rho must be at least 0, found nan"),
        (lambda: conicgrad(1.5), r"conicgrad: c must be at least 0 and at most 1, found 1.5"),
        (lambda: epo(eps=-1.0), "epo: eps must be at least 0, found -1.0"),
        (lambda: epo([[1.0]]), r"epo: preference must be of shape \[T\], found an array of shape \(1, 1\)"),
        (lambda: epo().update(jnp.eye(2), epo().init(2)), r"epo: losses must be of shape \(2,\), found None"),
        (
            lambda: mgda(normalization=loss_values).update(jnp.eye(2), mgda().init(2)),
            "mgda: losses must be of shape",
        ),
        (
            lambda: step(mgda(normalization=lambda norms, losses: norms[:1]), ROWS),
            r"mgda: what normalization returned must be of shape .*found shape \(1,\)",
        ),
        (
            lambda: gradvac().update(jnp.eye(3), gradvac().init(3)),
            "gradvac: key must be a random key for 3 tasks, found None",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_number_of_steps_is_an_integer():
    with pytest.raises(TypeError, match=r"sdmgrad: steps must be an integer, found 1\.5"):
        sdmgrad(steps=1.5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("dtype", "active", "error", "message"),
    [
        (np.int32, None, TypeError, "gramian must be of a floating-point type, found int32"),
        (np.float32, np.ones(2, np.float32), TypeError, "active must be of dtype bool, found float32"),
        (
            np.float32,
            np.ones(3, bool),
            ValueError,
            r"active must be of shape \(2,\), found an array of shape \(3,\)",
        ),
    ],
    ids=["gramian", "active-dtype", "active-shape"],
)
def test_mistaken_types_are_named(name, dtype, active, error, message):
    method = METHODS[name]
    with pytest.raises(error, match=f"{name}: {message}"):
        method.update(jnp.eye(2, dtype=dtype), method.init(2), active=active, losses=jnp.ones(2), key=jax.random.key(0))


def test_head_policy_defaults():
    off = [mgda(), pcgrad(), cagrad(), upgrad(), gradvac(), dualproj(), sdmgrad(), modo(), conicgrad()]
    assert not any(method.weigh_tasks for method in off)
    assert gradnorm().weigh_tasks and epo().weigh_tasks
    for make in (mgda, pcgrad, cagrad, upgrad, gradvac, dualproj, sdmgrad, modo, conicgrad, gradnorm, epo):
        assert make(weigh_tasks=True).weigh_tasks and not make(weigh_tasks=False).weigh_tasks
