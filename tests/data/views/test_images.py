"""Views of images: each target can be read off the input by the view's own definition, and draws are as stated."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtljax.data import views
from mtljax.losses import absolute_error, masked_loss, squared_error

KEY = jax.random.key(3)
MANY = 2000
SQUARES = np.random.default_rng(0).normal(size=(5, 6, 6, 3)).astype(np.float32)
IMAGES = {
    "masked_cells": views.masked_cells(2, ratio=0.5),
    "hidden": views.masked_cells((3, 2), ratio=0.3, hidden_only=True),
    "rotation": views.rotation(),
    "jigsaw": views.jigsaw(2),
    "autoencoding": views.autoencoding(),
    "denoising": views.denoising(0.5),
    "colorization": views.colorization(),
    "super_resolution": views.super_resolution(2),
    "pairs": views.contrastive_pairs(
        views.chain(views.flip(), views.crop(1), views.noise(0.1)), views.chain(views.cutout(2))
    ),
}
DETERMINISTIC = {"autoencoding", "colorization", "super_resolution"}
MOVES_PIXELS = ("masked_cells", "rotation", "jigsaw", "autoencoding")


def uniform(counts, probabilities=None):
    """Whether counts fit the probabilities (all equal by default): one wrong rejection in a million."""
    expected = None if probabilities is None else np.asarray(probabilities) * np.sum(counts)
    return stats.chisquare(counts, expected).pvalue > 1e-6


def same(a, b):
    return all(bool((p == q).all()) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# One compiled function for all: compiling is what takes the time.
EVERY = jax.jit(lambda key, x: {name: view(key, x) for name, view in IMAGES.items()})
DRAWS = jax.jit(
    lambda key, x: {
        "cells": views.masked_cells(2, ratio=0.5, hidden_only=True)(key, x[:, :4, :4])[1].hidden[:, ::2, ::2],
        "rotation": views.rotation()(key, x),
        "jigsaw 2 by 2": views.jigsaw(2)(key, x),
        "jigsaw 3 by 2": views.jigsaw((3, 2), permutations=views.far_permutations(6, 10))(key, x),
    }
)


@pytest.fixture(scope="module")
def found():
    return jax.device_get(EVERY(KEY, SQUARES))


@pytest.fixture(scope="module")
def many():
    return jax.device_get(DRAWS(KEY, np.repeat(SQUARES[:1], MANY, axis=0)))


def test_one_key_one_view_another_key_another_and_nothing_leaves_the_device(found):
    again, others = EVERY(KEY, SQUARES), EVERY(jax.random.key(4), SQUARES)
    for name, first in found.items():
        assert same(first, again[name])
        assert same(first[0], others[name][0]) == (name in DETERMINISTIC)
        assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(first))
    assert "callback" not in str(EVERY.trace(KEY, SQUARES).jaxpr)


@pytest.mark.slow
def test_views_can_be_mapped_over_seeds():
    keys = jax.random.split(KEY, 2)
    mapped = jax.jit(jax.vmap(EVERY, in_axes=(0, None)))(keys, SQUARES)
    alone = EVERY(keys[1], SQUARES)
    for a, b in zip(jax.tree.leaves(mapped), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-6, atol=1e-6)


def test_what_is_computed_is_computed_in_float32_at_least():
    low = SQUARES.astype(jnp.bfloat16)
    computed = [*(IMAGES[name] for name in ("denoising", "colorization", "super_resolution")), views.noise(0.1)]

    def inputs(x):
        return [jax.tree.leaves(view(KEY, x))[0].astype(jnp.bfloat16) for view in computed]

    for found, expected in zip(*jax.jit(lambda x: (inputs(x), inputs(x.astype(jnp.float32))))(low), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", IMAGES)
def test_dtype_stays(name):
    dtypes = [jnp.bfloat16, jnp.uint8] if name in MOVES_PIXELS else [jnp.bfloat16]
    for dtype in dtypes:
        inputs = jax.eval_shape(IMAGES[name], KEY, jax.ShapeDtypeStruct(SQUARES.shape, dtype))[0]
        assert {leaf.dtype for leaf in jax.tree.leaves(inputs)} == {jnp.dtype(dtype)}


def test_masked_cells_are_zero_and_the_rest_and_the_target_are_the_image(found):
    inputs, (values, hidden) = found["hidden"]
    np.testing.assert_array_equal(values, SQUARES)
    np.testing.assert_array_equal(inputs, np.where(hidden[..., None], 0, SQUARES))
    cells = np.asarray(hidden).reshape(5, 2, 3, 3, 2).transpose(0, 1, 3, 2, 4).reshape(5, 6, 6)
    assert (cells.all(-1) == cells.any(-1)).all()  # a cell of 3 by 2 pixels is hidden as a whole
    np.testing.assert_array_equal(cells.any(-1).sum(1), 2)  # of 6, by the ratio 0.3
    assert same(found["masked_cells"][1], SQUARES)


def test_every_set_of_cells_is_as_likely_as_any_other(many):
    codes = many["cells"].reshape(MANY, 4) @ [1, 2, 4, 8]
    values, counts = np.unique(codes, return_counts=True)
    assert len(values) == 6
    assert uniform(counts)


def test_hidden_loss_counts_hidden_pixels_alone():
    rng = np.random.default_rng(1)
    outputs, values = rng.normal(size=(2, 3, 4, 4, 2)).astype(np.float32)
    hidden = rng.random((3, 4, 4)) < 0.4
    hidden[2] = False
    # What the inputs show may even be NaN.
    shown = np.where(hidden[..., None], values, np.nan)
    targets = views.HiddenPixels(jnp.asarray(shown), jnp.asarray(hidden))
    pixels = {squared_error: np.square(outputs - values), absolute_error: np.abs(outputs - values)}

    def both(z):
        return jnp.stack([masked_loss(views.hidden_loss(loss), z, targets)[0] for loss in pixels])

    def low():
        # A bfloat16 count would end at 256.
        zeros = jnp.zeros((1, 1, 1024, 1), jnp.bfloat16)
        shown = views.HiddenPixels(zeros + 1, zeros[..., 0] == 0)
        return masked_loss(views.hidden_loss(lambda z, y: y - z), zeros, shown)[0]

    means, slopes, one = jax.jit(lambda z: (both(z), jax.grad(lambda z: both(z).sum())(z), low()))(outputs)
    assert (one.dtype, one.tolist()) == (jnp.float32, 1.0)
    for mean, pixel in zip(means, pixels.values(), strict=True):
        np.testing.assert_allclose(mean, pixel[hidden].mean(), rtol=1e-6)
    np.testing.assert_array_equal((np.asarray(slopes) != 0).all(-1), hidden)  # NaN would be unequal, too
    with pytest.raises(TypeError, match="hidden_loss: targets must be HiddenPixels, found ndarray"):
        views.hidden_loss(squared_error)(outputs, values)
    with pytest.raises(ValueError, match=r"hidden_loss: outputs must be .* with \[3, 4, 4\], found \[3, 4, 2\]"):
        views.hidden_loss(squared_error)(outputs[..., 0, :], targets)


def test_turning_back_gives_the_original_and_turns_are_equally_likely(many):
    inputs, turns = many["rotation"]
    for k in range(4):
        back = np.rot90(inputs[turns == k], -k, axes=(1, 2))
        np.testing.assert_array_equal(back, np.broadcast_to(SQUARES[0], back.shape))
    assert uniform(np.bincount(turns, minlength=4))


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 2)])
def test_undoing_the_permutation_gives_the_original_and_permutations_are_equally_likely(rows, columns, many):
    cells = rows * columns
    table = list(itertools.permutations(range(4))) if cells == 4 else views.far_permutations(6, 10)
    inputs, which = many[f"jigsaw {rows} by {columns}"]
    h, w = 6 // rows, 6 // columns

    def piece(images, i):
        row, column = divmod(i, columns)
        return images[:, row * h : (row + 1) * h, column * w : (column + 1) * w]

    for k, permutation in enumerate(table):
        shuffled = inputs[which == k]
        for i in range(cells):
            original = piece(SQUARES[:1], permutation[i])
            np.testing.assert_array_equal(piece(shuffled, i), original.repeat(len(shuffled), axis=0))
    assert uniform(np.bincount(which, minlength=len(table)))


def test_far_permutations_are_far():
    table = views.far_permutations(6, 6)
    distances = [(a != b).sum() for a, b in itertools.combinations(table, 2)]
    assert min(distances) == 6  # six that differ everywhere: a Latin square
    everything = views.far_permutations(4, 24)
    assert len(np.unique(everything, axis=0)) == 24
    # Each one is as far from those before it as any permutation is.
    every = np.array(list(itertools.permutations(range(5))))
    chosen = views.far_permutations(5, 9)
    least = (every[:, None] != chosen[None]).sum(2)
    for n in range(1, 9):
        assert (chosen[n] != chosen[:n]).sum(1).min() == least[:, :n].min(1).max()


def test_gray_is_the_luminance():
    expected = SQUARES @ np.array([0.299, 0.587, 0.114])
    inputs, targets = views.colorization(keep_channels=False)(KEY, SQUARES)
    np.testing.assert_allclose(inputs[..., 0], expected, rtol=1e-5, atol=1e-6)
    assert same(targets, SQUARES)
    np.testing.assert_array_equal(views.colorization()(KEY, SQUARES)[0], np.repeat(inputs, 3, axis=3))


def test_low_resolution_is_the_mean_of_each_cell():
    expected = [[SQUARES[:, i : i + 3, j : j + 3].mean((1, 2)) for j in (0, 3)] for i in (0, 3)]
    expected = np.array(expected).transpose(2, 0, 1, 3)
    inputs, targets = views.super_resolution(3, keep_size=False)(KEY, SQUARES)
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)
    assert same(targets, SQUARES)
    np.testing.assert_array_equal(views.super_resolution(3)(KEY, SQUARES)[0], np.kron(inputs, np.ones((1, 3, 3, 1))))


def test_noise_has_the_given_deviation_and_the_target_none(found):
    inputs, targets = found["denoising"]
    assert same(targets, SQUARES)
    assert stats.kstest((inputs - targets).ravel() / 0.5, "norm").pvalue > 1e-6
    assert np.corrcoef((inputs - targets).reshape(5, -1))[~np.eye(5, dtype=bool)].max() < 0.6  # each its own
    assert same(found["autoencoding"], (SQUARES, SQUARES))


X = jax.ShapeDtypeStruct((2, 4, 6, 3), jnp.float32)


@pytest.mark.parametrize(
    ("make", "x", "error", "message"),
    [
        (views.rotation, X, ValueError, "rotation: the inputs must be square images, found 4 by 6"),
        (
            views.rotation,
            X.update(shape=(4, 4, 3)),
            ValueError,
            r"rotation: the inputs must be images \[B, H, W, C\] with no empty axis",
        ),
        (lambda: views.jigsaw(3), X, ValueError, "jigsaw: a grid of 3 by 3 has 362880 permutations; choose some"),
        (lambda: views.jigsaw(1), X, ValueError, "jigsaw: grid must have at least two cells"),
        (lambda: views.jigsaw((1, 4)), X, ValueError, r"jigsaw: grid \(1, 4\) does not divide images of 4 by 6"),
        (lambda: views.jigsaw(2, permutations=[[0, 1, 2, 2], [0, 1, 2, 3]]), X, ValueError, "each row an order of"),
        (lambda: views.jigsaw(2, permutations=[[0, 1, 2, 3]] * 2), X, ValueError, "at least two, all different"),
        (lambda: views.far_permutations(10, 4), X, ValueError, "cells must be at most 9, found 10"),
        (lambda: views.far_permutations(3, 7), X, ValueError, "3 cells have 6 permutations, asked for 7"),
        (lambda: views.masked_cells(0), X, ValueError, "masked_cells: cell must be at least 1, found 0"),
        (lambda: views.masked_cells(2.0), X, TypeError, "masked_cells: cell must be an integer, found 2.0"),
        (lambda: views.masked_cells((1, 2, 3)), X, ValueError, "cell must be an integer or a pair"),
        (
            lambda: views.masked_cells(2, ratio=1.0),
            X,
            ValueError,
            r"masked_cells: ratio must be above 0 and below 1, found 1\.0",
        ),
        (lambda: views.masked_cells(2, ratio=0.01), X, ValueError, "ratio 0.01 of 2 by 3 cells hides 0 of them"),
        (lambda: views.masked_cells(4), X, ValueError, r"cell \(4, 4\) does not divide images of 4 by 6"),
        (lambda: views.denoising(0.0), X, ValueError, r"denoising: std must be above 0, found 0\.0"),
        (
            lambda: views.denoising(1.0),
            X.update(dtype=jnp.uint8),
            TypeError,
            "denoising: the inputs must be floating images, found uint8; convert them first",
        ),
        (
            views.colorization,
            X.update(shape=(2, 4, 4, 1)),
            ValueError,
            r"colorization: the inputs must have three channels \(red, green, blue\), found 1",
        ),
        (lambda: views.super_resolution(4), X, ValueError, r"factor \(4, 4\) does not divide"),
        (
            lambda: views.flip(probability=2),
            X,
            ValueError,
            "flip: probability must be at least 0 and at most 1, found 2",
        ),
        (lambda: views.flip(probability="half"), X, TypeError, "flip: probability must be a number, found 'half'"),
        (lambda: views.noise(None), X, TypeError, "noise: std must be a number, found None"),
        (views.chain, X, ValueError, "chain: augmentations must be at least one, found none"),
    ],
)
def test_mistakes_are_named(make, x, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(make(), KEY, x)
