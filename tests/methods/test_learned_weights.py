"""Methods that learn their weights beside the network: uncertainty, IMTL-L, FAMO, LDC-MTL."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.methods.from_losses import famo, imtl_l, ldc_mtl, uncertainty
from mtljax.methods.from_losses.uncertainty import gaussian, laplace
from tests.methods.steps.learned import STEPS, history


@pytest.mark.parametrize("optimizer", [optax.adam(0.02), optax.sgd(0.1)], ids=["adam", "sgd"])
@pytest.mark.parametrize("make", [uncertainty, imtl_l, ldc_mtl], ids=lambda make: make.__name__)
def test_one_enormous_loss_is_not_remembered_for_ever(make, optimizer):
    """What was learned from it is not far away, and learning goes on."""
    method, losses = make(optimizer=optimizer), np.full((600, 2), [0.5, 2.0], np.float32)
    usual = np.asarray(history(method, losses, after=losses)[1].inner[0])
    losses[20, 1] = 1e30
    found = np.asarray(history(method, losses, after=losses)[1].inner[0])
    assert abs(found - usual).max() < 7.0
    if make is ldc_mtl:  # its logits have no optimum that they could come back to
        np.testing.assert_allclose(found[-1] - found[-2], usual[-1] - usual[-2], rtol=0.2)
    else:
        np.testing.assert_array_equal(found[:, 0], usual[:, 0])
        np.testing.assert_allclose(found[-1, 1], usual[-1, 1], atol=0.05)


@pytest.mark.parametrize("method", [uncertainty(), imtl_l()], ids=lambda method: method.name)
def test_a_loss_of_zero_leaves_what_was_learned(method):
    """Its logarithm has no bottom, and the weight would grow until the task comes back."""
    _, states = history(method, np.zeros((6, 3), np.float32), after=np.zeros((6, 3), np.float32))
    np.testing.assert_array_equal(states.inner[0], 0)


@pytest.mark.parametrize("method", [uncertainty(), imtl_l(), ldc_mtl(), famo()], ids=lambda method: method.name)
def test_a_late_task_is_corrected_for_its_own_steps(method):
    """Adam's first step is its learning rate, whenever it comes."""
    active = np.ones(STEPS.shape, bool)
    active[:4, 2] = False
    _, states = history(method, STEPS, active)
    learned = np.asarray(states.inner[0])
    assert (learned[:4, 2] == learned[0, 2]).all()
    start = np.asarray(method.init(3).inner[0])
    np.testing.assert_allclose(abs(learned[4, 2] - start[2]), abs(learned[0, 0] - start[0]), rtol=2e-2)


def test_the_optimizer_s_state_is_a_state_for_each_task():
    state = uncertainty().init(3)
    assert {leaf.shape for leaf in jax.tree.leaves(state.inner)} == {(3,)}
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(famo().init(3))]
    assert len(set(buffers)) == len(buffers)


def test_forms_that_are_not_functions():
    with pytest.raises(TypeError, match="uncertainty: forms must be a function"):
        uncertainty(forms="gaussian")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: uncertainty(forms=[gaussian, laplace]).init(3),
            "uncertainty: forms must have an entry for each of 3 tasks, found 2",
        ),
        (lambda: famo(learning_rate=0), "famo: learning_rate must be above 0, found 0"),
        (lambda: famo(gamma=-1), "famo: gamma must be at least 0, found -1"),
        (lambda: famo(epsilon=0.0), "famo: epsilon must be above 0"),
        (lambda: famo(min_losses=[0.0]).init(2), "famo: min_losses must have an entry for each of 2 tasks, found 1"),
        (
            lambda: famo().observe(jnp.ones(3), famo().init(2)),
            "famo: losses_after must be of shape",
        ),
        (lambda: ldc_mtl(-0.1), "ldc_mtl: penalty must be at least 0, found -0.1"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
