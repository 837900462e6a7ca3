"""Mixtures: frequencies as asked for, shapes that never change, resumed to the bit."""

from __future__ import annotations

import itertools
import json
from typing import Any

import chex
import jax
import numpy as np
import pytest

from mtljax.data.batches import batches
from mtljax.data.mixing import draws
from mtljax.data.mixing.draws import largest_remainder, multinomial, one_task, round_robin, systematic
from mtljax.data.mixing.rates import annealed, loss_driven
from mtljax.data.mixing.stream import mix
from mtljax.types import Batch

RATES = {"a": 0.5, "b": 0.08, "c": 0.42}
DRAWS = [one_task, round_robin, multinomial, largest_remainder, systematic]


def own(name, size):
    """Data of one task, whose inputs and targets tell which example it is."""
    index = np.arange(size, dtype=np.int32)
    inputs = {"a": np.stack([index] * 3, 1), "b": {"tokens": index}, "c": index.astype(np.float32)}[name]
    mask: Any = {name: index % 5 > 0} if name == "c" else {}
    return Batch(inputs, {name: index}, mask)


SOURCES = {name: own(name, size) for name, size in (("a", 7), ("b", 3), ("c", 20))}


def take(stream, count):
    return list(itertools.islice(stream, count))


def test_scheduled_rates_at_either_end_of_the_schedule():
    rates = annealed({"a": 1, "b": 9, "c": 90}, epochs=3, steps_per_epoch=2, drop=1.0)
    stream, seen = mix(SOURCES, rates, batch_size=100, seed=0, draw=largest_remainder), []
    for _ in range(8):
        seen.append(stream.counts())
        next(stream)
    assert seen[0] == seen[1] == [1, 9, 90]
    assert seen[2] == seen[3] == [8, 22, 70]  # square roots: 1, 3, 9.49
    assert seen[4] == seen[5] == seen[6] == seen[7] == [34, 33, 33]


@pytest.mark.parametrize("draw", DRAWS)
def test_frequencies_are_the_rates(draw):
    rates, size, steps = np.array([0.5, 0.08, 0.42]), 8, 3000
    counts = np.array([draw(3, step, rates, size) for step in range(steps)])
    assert (counts.sum(1) == size).all() and (counts >= 0).all()
    np.testing.assert_array_equal(counts[7], draw(3, 7, rates, size))
    if draw is round_robin:
        np.testing.assert_array_equal(counts, size * (np.arange(steps)[:, None] % 3 == np.arange(3)[None, :]))
    elif draw is largest_remainder:
        assert (counts == [[4, 1, 3]]).all()
    elif draw is systematic:
        assert (np.abs(counts - size * rates[None, :]) < 1).all()
        deviation = counts.mean(0) - size * rates
        assert (np.abs(deviation) < 4 * 0.5 / np.sqrt(steps)).all()
    else:
        # What is drawn is a task a step, or a task an example.
        draws = steps if draw is one_task else steps * size
        expected = draws * rates
        found = counts.sum(0) * draws / (steps * size)
        assert ((found - expected) ** 2 / expected).sum() < 13.8  # 2 degrees of freedom, once in a thousand


@pytest.mark.parametrize("draw", [one_task, multinomial, largest_remainder, systematic])
def test_a_task_of_rate_zero_never_comes(draw):
    counts = np.array([draw(0, step, np.array([0.0, 1.0, 0.0]), 5) for step in range(50)])
    assert (counts == [[0, 5, 0]]).all()


@pytest.mark.parametrize("number", [0.0, 9e-16, np.nextafter(1, 0)])
@pytest.mark.parametrize("draw", [one_task, systematic])
def test_no_rounding_gives_an_example_too_many_or_to_a_task_of_rate_zero(draw, number, monkeypatch):
    class Fixed:
        def random(self):
            return number

    monkeypatch.setattr(draws, "_rng", lambda seed, step: Fixed())
    for rates in ([0.5, 0.5], [0.0, *[0.1] * 10, 0.0]):
        counts = draw(0, 0, np.array(rates), 8)
        assert counts.sum() == 8 and (counts[np.array(rates) == 0] == 0).all()


def test_largest_remainders_by_hand():
    assert largest_remainder(0, 0, np.array([0.41, 0.33, 0.26]), 10).tolist() == [4, 3, 3]
    assert largest_remainder(0, 0, np.full(3, 1 / 3), 10).tolist() == [4, 3, 3]
    assert largest_remainder(0, 0, np.full(3, 1 / 3), 9).tolist() == [3, 3, 3]


@pytest.mark.parametrize("draw", DRAWS)
def test_batches_have_one_shape_and_say_what_is_there(draw):
    stream = mix(SOURCES, RATES, batch_size=6, seed=0, draw=draw)
    shapes = set()
    for step in range(12):
        counts = stream.counts()
        batch = next(stream)
        shapes.add(str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), batch)))
        for name, count in zip("abc", counts, strict=True):
            found = batch[name]
            rows = found.targets[name]
            present = found.mask[name]
            assert not present[count:].any(), step
            np.testing.assert_array_equal(present[:count], (rows % 5 > 0)[:count] if name == "c" else True)
            chex.assert_trees_all_equal(
                found.inputs, jax.tree.map(lambda leaf, rows=rows: leaf[rows], SOURCES[name].inputs)
            )
    assert len(shapes) == 1


def test_each_task_goes_through_its_data_in_exact_epochs():
    rows = {name: [] for name in SOURCES}
    stream = mix(SOURCES, RATES, batch_size=6, seed=1, draw=multinomial)
    for _ in range(60):
        counts = stream.counts()
        for (name, batch), count in zip(next(stream).items(), counts, strict=True):
            rows[name] += batch.targets[name][:count].tolist()
    for name, size in (("a", 7), ("b", 3), ("c", 20)):
        epochs = [tuple(rows[name][i : i + size]) for i in range(0, len(rows[name]) - size + 1, size)]
        assert len(epochs) >= 5
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len(set(epochs)) > 1


def test_tasks_of_one_size_are_shuffled_apart():
    data = {name: Batch(np.arange(20), {name: np.arange(20)}) for name in ("a", "b")}
    batch = next(mix(data, {"a": 0.5, "b": 0.5}, batch_size=40, seed=1, draw=largest_remainder, capacity=20))
    assert batch["a"].inputs.tolist() != batch["b"].inputs.tolist()


@pytest.mark.parametrize("draw", DRAWS)
def test_resumed_at_a_step_or_from_a_state(draw):
    make = lambda **more: mix(SOURCES, annealed({"a": 7, "b": 3, "c": 20}, epochs=3, steps_per_epoch=4), **more)  # noqa: E731
    arguments = {"batch_size": 5, "seed": 2, "draw": draw}
    stream = make(**arguments)
    take(stream, 9)
    state = json.loads(json.dumps(stream.get_state()))
    expected = take(stream, 5)
    again = make(**arguments)
    again.set_state(state)
    chex.assert_trees_all_equal(take(again, 5), expected)
    chex.assert_trees_all_equal(take(make(**arguments, start_step=9), 5), expected)


def test_streams_are_mixed_as_whole_batches():
    def sources():
        return {name: batches(data, batch_size=2, seed=4, prefetch=2) for name, data in SOURCES.items()}

    stream = mix(sources(), RATES, batch_size=2, seed=0)
    alone, expected = sources(), []
    for _ in range(10):
        counts = stream.counts()
        found = next(stream)
        for name, count in zip("abc", counts, strict=True):
            assert found[name].mask[name].shape == (2,)
            if count:
                chex.assert_trees_all_equal(found[name].targets, next(alone[name]).targets)
            else:
                assert not found[name].mask[name].any()
    state = json.loads(json.dumps(stream.get_state()))
    expected = take(stream, 6)
    again = mix(sources(), RATES, batch_size=2, seed=0)
    again.set_state(state)
    chex.assert_trees_all_equal(take(again, 6), expected)
    again = mix(sources(), RATES, batch_size=2, seed=0)
    again.skip(10)
    chex.assert_trees_all_equal(take(again, 6), expected)
    with pytest.raises(ValueError, match=r"mix: 1 of the 2 examples of a batch were drawn for 'a'"):
        take(mix(sources(), RATES, batch_size=2, seed=0, draw=systematic), 9)


def test_losses_drive_the_rates_and_are_part_of_the_state():
    stream = mix(SOURCES, loss_driven(SOURCES, decay=0.0, floor=0.0), batch_size=100, seed=0, draw=largest_remainder)
    stream.observe({"a": 2.0, "b": 2.0, "c": 1.0})
    stream.observe(
        {"a": np.float32(1.0), "b": np.float32(99.0), "c": np.float32(0.5)}, {"a": True, "b": False, "c": True}
    )
    assert stream.counts() == [25, 50, 25]
    stream.observe({"b": np.float32(np.nan)})
    stream.observe({})
    assert stream.counts() == [25, 50, 25]
    state = json.loads(json.dumps(stream.get_state()))
    expected = next(stream)
    with pytest.raises(ValueError, match=r"mix: loss_driven rates need .* call mixture.observe\(metrics\["):
        next(stream)
    stream.set_state(state)
    chex.assert_trees_all_equal(next(stream), expected)
    stream.observe({"a": 1.0})
    next(stream)


def test_fixed_rates_take_no_losses_and_go_with_no_state_of_loss_driven_ones():
    driven, fixed = (mix(SOURCES, rates, batch_size=2, seed=0) for rates in (loss_driven(SOURCES), RATES))
    with pytest.raises(ValueError, match=r"observe: the rates of the mixture must be loss_driven, found \{"):
        fixed.observe({"a": 1.0})
    with pytest.raises(ValueError, match="set_state: state and mixture must both have loss_driven rates, or neither"):
        driven.set_state(fixed.get_state())


def test_capacities():
    stream = mix(SOURCES, RATES, batch_size=8, seed=0, draw=systematic, capacity={"a": 4, "b": 1, "c": 4})
    shapes = {name: batch.mask[name].shape for name, batch in take(stream, 30)[-1].items()}
    assert shapes == {"a": (4,), "b": (1,), "c": (4,)}
    with pytest.raises(ValueError, match=r"mix: 8 examples were drawn for '[abc]', whose capacity is 7"):
        next(mix(SOURCES, RATES, batch_size=8, seed=0, capacity=7))


def test_weights_and_masks_of_elements_are_mixed_too():
    masks = {"a": np.arange(1.0, 8.0), "b": np.ones((3, 2), bool)}
    sources = SOURCES | {name: SOURCES[name]._replace(mask={name: mask}) for name, mask in masks.items()}
    drawn = next(mix(sources, RATES, batch_size=2, seed=0, draw=lambda *_: np.array([1, 0, 1]), capacity=2))
    number = int(drawn["a"].mask["a"][0]) - 1
    assert drawn["a"].mask["a"][1] == 0 and (drawn["a"].inputs[0] == SOURCES["a"].inputs[number]).all()
    assert drawn["b"].mask["b"].tolist() == [[False] * 2] * 2


@pytest.mark.parametrize(
    ("sources", "rates", "more", "error", "message"),
    [
        (SOURCES, {"a": 1.0}, {}, ValueError, r"rates must be for the tasks \['a', 'b', 'c'\], found \['a'\]"),
        (SOURCES, dict.fromkeys("abc", 0.0), {}, ValueError, "somewhere positive"),
        (SOURCES, RATES | {"a": -1.0}, {}, ValueError, "must be at least 0, found -1.0"),
        (SOURCES, RATES, {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        (SOURCES, RATES, {"capacity": {"a": 2}}, ValueError, r"capacity must be for .* found \['a'\]"),
        (SOURCES, RATES, {"capacity": 0}, ValueError, "capacity must be at least 1, found 0"),
        (SOURCES, RATES, {"start_step": -1}, ValueError, "start_step must be at least 0, found -1"),
        (SOURCES, loss_driven(SOURCES), {"start_step": 1}, ValueError, "start_step must be 0 with streams or loss"),
        ({"a": SOURCES["b"]}, {"a": 1.0}, {}, ValueError, r"sources\['a'\] must have the target 'a' alone"),
        (
            {"a": SOURCES["a"]._replace(mask={"a": np.ones(7, int)})},
            {"a": 1.0},
            {},
            TypeError,
            "must be of dtype bool, or floating weights, found int64",
        ),
        (
            {"a": SOURCES["a"]._replace(mask={"a": np.ones((6, 1), bool)})},
            {"a": 1.0},
            {},
            ValueError,
            r"the mask of sources\['a'\] must be \[B, ...\] with B = 7, found \[6, 1\]",
        ),
        ({"a": iter([])}, {"a": 1.0}, {}, TypeError, r"sources\['a'\] must be a Batch, or a stream"),
    ],
)
def test_mistakes(sources, rates, more, error, message):
    given: dict[str, Any] = {"sources": sources, "rates": rates, "batch_size": 2, "seed": 0, **more}
    with pytest.raises(error, match=f"mix: .*{message}"):
        mix(**given)


@pytest.mark.parametrize("counts", [[0.5, 1.0, 0.5], [1, 1], [3, -1, 0]])
def test_a_draw_must_return_a_count_per_task(counts):
    with pytest.raises(ValueError, match=r"mix: draw must return integers \[3\] .* found \["):
        mix(SOURCES, RATES, batch_size=2, seed=0, draw=lambda *_: np.array(counts)).counts()
