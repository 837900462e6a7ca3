"""Two spellings of the same tasks: a bank of three beside a single one, and four single ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import mtljax
from mtljax import sharing
from mtljax.types import Batch, Params, Task
from tests.sharing.blocks import dense

NAMES = ("a0", "a1", "a2")


def heads(banked, *, names=NAMES, head=None):
    head = dense(1, bias=True, activation=jnp.tanh) if head is None else head
    many = {"a": sharing.Bank(head, names)} if banked else dict.fromkeys(names, head)
    return {**many, "z": dense(2)}


def tasks(banked, *, names=NAMES, loss=None, prior=1.0):
    task = Task(squared if loss is None else loss, {"absolute": absolute}, prior)
    return {**({"a": task} if banked else dict.fromkeys(names, task)), "z": Task(squared)}


def squared(outputs, targets):
    return jnp.mean((outputs - targets) ** 2, axis=-1)


def absolute(outputs, targets):
    return jnp.mean(jnp.abs(outputs - targets), axis=-1)


def batch(banked, *, names=NAMES, examples=6, key=0, missing=True, dtype=jnp.float32):
    """Labels at random, some of them missing; task z has all of its."""
    keys = jax.random.split(jax.random.key(key), 4)
    inputs = jax.random.normal(keys[0], (examples, 3), dtype)
    many = jax.random.normal(keys[1], (examples, len(names), 1), dtype)
    present = jax.random.bernoulli(keys[2], 0.6, (examples, len(names))).at[0].set(True)
    z = jax.random.normal(keys[3], (examples, 2), dtype)
    if banked:
        return Batch(inputs, {"a": many, "z": z}, {"a": present} if missing else {})
    targets = {name: many[:, k] for k, name in enumerate(names)}
    mask = {name: present[:, k] for k, name in enumerate(names)} if missing else {}
    return Batch(inputs, {**targets, "z": z}, mask)


def spelled_out(params, names=NAMES):
    """Parameters, or anything of their form, of the bank as those of single tasks."""
    own = {name: jax.tree.map(lambda leaf, k=k: leaf[k], params.tasks["a"]) for k, name in enumerate(names)}
    return Params(params.shared, {**own, "z": params.tasks["z"]})


def losses_fn(banked, *, model=None, **options):
    model = sharing.hard(dense(4, activation=jnp.tanh), heads(banked)) if model is None else model
    return mtljax.make_losses_fn(model, tasks(banked, **options))
