"""Augmentations and pairs: what each may do to an image, and how often."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.data import views
from mtljax.sharing import Network
from tests.data.views.test_images import KEY, uniform

MANY = 3000
IMAGE = np.arange(1.0, 21.0, dtype=np.float32).reshape(1, 4, 5, 1)
COPIES = np.repeat(IMAGE, MANY, axis=0)
AUGMENTATIONS = {
    "flip": views.flip(),
    "flip seldom": views.flip(probability=0.2),
    "crop": views.crop(1),
    "cutout 2": views.cutout(2),
    "cutout 3": views.cutout(3),
}


@pytest.fixture(scope="module")
def found():
    # One compiled function for all: compiling is what takes the time.
    return jax.device_get(jax.jit(lambda x: {name: each(KEY, x) for name, each in AUGMENTATIONS.items()})(COPIES))


def which_of(found, candidates):
    """Index of the candidate that each found image equals."""
    equal = (np.asarray(found)[:, None] == np.asarray(candidates)[None]).all((2, 3, 4))
    assert (equal.sum(1) == 1).all()
    return equal.argmax(1)


def test_half_of_the_images_are_mirrored(found):
    both = [IMAGE[0], IMAGE[0][:, ::-1]]
    assert uniform(np.bincount(which_of(found["flip"], both)))
    assert uniform(np.bincount(which_of(found["flip seldom"], both)), [0.8, 0.2])


def test_crops_are_all_shifts_with_equal_probability(found):
    padded = np.pad(IMAGE[0], ((1, 1), (1, 1), (0, 0)))
    windows = [padded[i : i + 4, j : j + 5] for i in range(3) for j in range(3)]
    assert uniform(np.bincount(which_of(found["crop"], windows), minlength=9))


@pytest.mark.parametrize("side", [2, 3])
def test_cutout_is_a_square_around_a_uniform_pixel(side, found):
    squares = []
    for i in range(4):
        for j in range(5):
            cut = IMAGE[0].copy()
            cut[max(i - side // 2, 0) : i - side // 2 + side, max(j - side // 2, 0) : j - side // 2 + side] = 0
            squares.append(cut)
    which = which_of(found[f"cutout {side}"], squares)
    assert uniform(np.bincount(which, minlength=20))


def test_a_chain_is_its_parts_in_order_with_keys_of_their_own():
    first, second = jax.random.split(KEY)
    chained = views.chain(lambda key, x: (key, x), lambda key, x: (key, x))(KEY, IMAGE)
    assert chained[0] == second
    assert chained[1][0] == first
    assert chained[1][1] is IMAGE


def test_the_two_views_of_a_pair_are_drawn_apart():
    pair, present = jax.jit(views.contrastive_pairs(views.noise(1.0)))(KEY, COPIES[:4])
    assert present.tolist() == [True] * 4
    noises = np.stack([np.asarray(pair.first), np.asarray(pair.second)]) - COPIES[:4]
    assert len(np.unique(noises.round(6))) == noises.size
    pair, _ = views.contrastive_pairs(lambda key, x: x, lambda key, x: -x)(KEY, IMAGE)
    np.testing.assert_array_equal(pair.first, -pair.second)


def test_a_network_on_pairs_is_called_once_on_both_halves():
    sizes = []

    def apply(params, state, inputs, *, key=None, train=False):
        sizes.append(len(inputs))
        return {"out": params * inputs, "mean": jnp.broadcast_to(inputs.mean(), inputs.shape)}, state + 1

    network = views.on_pairs(Network(lambda key, x: (jnp.float32(3), jnp.int32(len(x))), apply))
    params, state = network.init(KEY, views.Pair(jnp.zeros(2), jnp.zeros(2)))
    assert int(state) == 4
    outputs, state = network.apply(params, state, views.Pair(jnp.array([1.0, 2.0]), jnp.array([3.0, 6.0])))
    assert (outputs.first["out"].tolist(), outputs.second["out"].tolist()) == ([3.0, 6.0], [9.0, 18.0])
    assert outputs.first["mean"].tolist() == [3.0, 3.0]
    outputs, state = network.apply(params, state, jnp.ones(5))
    assert outputs["out"].tolist() == [3.0] * 5
    assert (sizes, int(state)) == ([4, 5], 6)
