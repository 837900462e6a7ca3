"""What every view and augmentation promises, over the table of all of them: static shapes under `jit` and `vmap`."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.data import views

IMAGES = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((4, 6), jnp.int32)
VIEWS = {
    "autoencoding": (views.autoencoding(), IMAGES),
    "cbow": (views.cbow(2), TOKENS),
    "colorization": (views.colorization(), IMAGES),
    "contrastive_pairs": (views.contrastive_pairs(views.flip()), IMAGES),
    "denoising": (views.denoising(0.1), IMAGES),
    "jigsaw": (views.jigsaw(), IMAGES),
    "masked_cells": (views.masked_cells(2), IMAGES),
    "masked_tokens": (views.masked_tokens(20, 1), TOKENS),
    "next_sentence": (views.next_sentence(), (TOKENS, TOKENS)),
    "next_token": (views.next_token(), TOKENS),
    "rotation": (views.rotation(), IMAGES),
    "skip_gram": (views.skip_gram(2, 3, np.ones(20)), TOKENS),
    "super_resolution": (views.super_resolution(2), IMAGES),
}
AUGMENTATIONS = {
    "chain": views.chain(views.flip(), views.crop(1)),
    "crop": views.crop(1),
    "cutout": views.cutout(3),
    "flip": views.flip(),
    "noise": views.noise(0.1),
}
NEITHER = {"add", "evaluation_batches", "far_permutations", "hidden_loss", "on_pairs", "span", "subset", "with_views"}
"""What serves views and is none."""
KEY = jax.eval_shape(lambda: jax.random.key(0))


def test_every_public_view_is_in_the_table():
    public = {name for name in views.__all__ if isinstance(getattr(views, name), types.FunctionType)}
    assert public == {*VIEWS, *AUGMENTATIONS, *NEITHER}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_gives_inputs_targets_and_perhaps_a_mask_of_as_many_examples(name):
    view, x = VIEWS[name]
    inputs, targets, *mask = jax.eval_shape(view, KEY, x)
    assert {leaf.shape[0] for leaf in jax.tree.leaves((inputs, targets, mask))} == {4}
    assert all(each.shape == (4,) and each.dtype == jnp.bool_ for each in mask) and len(mask) <= 1
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    several = jax.eval_shape(jax.vmap(view, in_axes=(0, None)), keys, x)
    assert jax.tree.map(lambda leaf: leaf.shape[1:], several) == jax.tree.map(jnp.shape, (inputs, targets, *mask))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_keeps_shape_and_type(name):
    assert jax.eval_shape(AUGMENTATIONS[name], KEY, IMAGES) == IMAGES
