"""Mixtures: rates as published, frequencies as asked for, shapes that never change, resumed to the bit."""

from __future__ import annotations

import itertools
import json

import jax
import numpy as np
import pytest

from mtljax.data.batches import batches
from mtljax.data.mixing import mix
from mtljax.data.mixing_draws import largest_remainder, multinomial, one_task, round_robin, systematic
from mtljax.data.mixing_rates import annealed, loss_driven, proportional, uniform
from mtljax.types import Batch

# Sizes of the GLUE tasks, and rates from T5's and seqio's own formulas (shared/reference/mixing_reference.json).
GLUE = {"cola": 8551, "sst2": 67349, "mrpc": 3668, "qqp": 363849, "stsb": 5749, "mnli": 392702, "qnli": 104743}
GLUE |= {"rte": 2490}
PUBLISHED = {
    (None, 1): [0.00901, 0.070961, 0.003865, 0.383362, 0.006057, 0.413762, 0.11036, 0.002624],
    (2**16, 1): [0.030258, 0.231902, 0.012979, 0.231902, 0.020343, 0.231902, 0.231902, 0.008811],
    (2**17, 1): [0.018806, 0.148119, 0.008067, 0.288264, 0.012644, 0.288264, 0.230359, 0.005476],
    (2**21, 2): [0.044207, 0.124065, 0.028953, 0.288367, 0.036248, 0.299583, 0.154721, 0.023855],
    (2**21, 4): [0.082286, 0.13785, 0.066593, 0.210162, 0.074511, 0.21421, 0.153941, 0.060447],
    (2**21, 8): [0.104363, 0.135078, 0.093885, 0.166786, 0.09931, 0.168385, 0.142745, 0.089448],
    (3000, 1): [0.127714, 0.127714, 0.127714, 0.127714, 0.127714, 0.127714, 0.127714, 0.106003],
    (None, 1 / 0.3): [0.073719, 0.136922, 0.057188, 0.227118, 0.065441, 0.232378, 0.156319, 0.050914],
}
RATES = {"a": 0.5, "b": 0.08, "c": 0.42}
DRAWS = [one_task, round_robin, multinomial, largest_remainder, systematic]


def own(name, size):
    """Data of one task, whose inputs and targets tell which example it is."""
    index = np.arange(size, dtype=np.int32)
    inputs = {"a": np.stack([index] * 3, 1), "b": {"tokens": index}, "c": index.astype(np.float32)}[name]
    return Batch(inputs, {name: index}, {name: index % 5 > 0} if name == "c" else {})


SOURCES = {name: own(name, size) for name, size in (("a", 7), ("b", 3), ("c", 20))}


def take(stream, count):
    return list(itertools.islice(stream, count))


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize(("cap", "temperature"), PUBLISHED)
def test_rates_are_those_of_t5(cap, temperature):
    found = proportional(GLUE, maximum=cap, temperature=temperature)
    np.testing.assert_allclose([found[name] for name in GLUE], PUBLISHED[cap, temperature], atol=1e-6)
    assert list(found) == sorted(GLUE)


def test_the_cap_comes_before_the_temperature():
    sizes = np.array(list(GLUE.values()))
    cap_first, cap_last = np.minimum(sizes, 2**12) ** 0.5, np.minimum(sizes**0.5, 2**12)
    found = np.array(list(proportional(GLUE, maximum=2**12, temperature=2).values()))
    order = np.argsort(list(GLUE))
    np.testing.assert_allclose(found, (cap_first / cap_first.sum())[order], rtol=1e-12)
    assert np.abs(found - (cap_last / cap_last.sum())[order]).max() > 0.05


def test_the_limits_of_cap_temperature_and_scale_are_uniform_rates_or_none():
    equal = uniform(GLUE)
    assert equal == proportional(GLUE, temperature=np.inf)
    for rates in (proportional(GLUE, maximum=2490), proportional(GLUE, maximum=1, scale=1e9)):
        np.testing.assert_allclose(list(rates.values()), 1 / 8, rtol=1e-12)
    np.testing.assert_allclose(list(proportional(GLUE, scale=1e-9).values()), list(proportional(GLUE).values()))
    small = proportional({"a": 1e300, "b": 1e299}, temperature=0.5)
    np.testing.assert_allclose([small["a"], small["b"]], [100 / 101, 1 / 101])


def test_annealed_rates_go_from_proportional_towards_uniform():
    rates = annealed(GLUE, epochs=25, steps_per_epoch=10)
    assert rates(0) == rates(9) == proportional(GLUE)
    for step, alpha in ((10, 1 - 0.8 / 24), (120, 0.6), (249, 0.2), (10**6, 0.2)):
        expected = {name: size**alpha for name, size in GLUE.items()}
        total = sum(expected.values())
        found = rates(step)
        np.testing.assert_allclose([found[name] for name in GLUE], [expected[name] / total for name in GLUE])
    assert annealed(GLUE, epochs=1, steps_per_epoch=1)(5) == proportional(GLUE)


def test_loss_driven_rates():
    driven = loss_driven(["a", "b", "c"], decay=0.5, power=2.0, floor=0.3)
    state = driven.init()
    assert driven.rates(state) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    state = driven.update(state, {"a": 10.0, "b": 1e-6, "c": 0.0})  # a first loss of 0 gives no measure
    state = driven.update(state, {"a": 5.0, "b": float("nan")})
    found, (a, b, c) = driven.rates(json.loads(json.dumps(state))), (0.75**2, 1.0, 1.0)
    total = a + b + c
    assert found == pytest.approx({"a": 0.1 + 0.7 * a / total, "b": 0.1 + 0.7 * b / total, "c": 0.1 + 0.7 * c / total})
    scaled = driven.update(driven.update(driven.init(), {"a": 1e9, "b": 1.0}), {"a": 5e8})
    assert driven.rates(scaled) == pytest.approx(found)


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


@pytest.mark.parametrize("draw", DRAWS)
def test_a_task_of_rate_zero_never_comes(draw):
    if draw is not round_robin:
        counts = np.array([draw(0, step, np.array([0.0, 1.0, 0.0]), 5) for step in range(50)])
        assert (counts == [[0, 5, 0]]).all()


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
            assert_equal(found.inputs, jax.tree.map(lambda leaf, rows=rows: leaf[rows], SOURCES[name].inputs))
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
    assert_equal(take(again, 5), expected)
    assert_equal(take(make(**arguments, start_step=9), 5), expected)


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
                assert_equal(found[name].targets, next(alone[name]).targets)
            else:
                assert not found[name].mask[name].any()
    state = json.loads(json.dumps(stream.get_state()))
    expected = take(stream, 6)
    again = mix(sources(), RATES, batch_size=2, seed=0)
    again.set_state(state)
    assert_equal(take(again, 6), expected)
    with pytest.raises(ValueError, match=r"mix: 1 of the 2 examples of a batch were drawn for 'a'"):
        take(mix(sources(), RATES, batch_size=2, seed=0, draw=systematic), 9)


def test_losses_drive_the_rates_and_are_part_of_the_state():
    stream = mix(SOURCES, loss_driven(SOURCES, decay=0.0, floor=0.0), batch_size=100, seed=0, draw=largest_remainder)
    stream.observe({"a": 2.0, "b": 2.0, "c": 1.0})
    stream.observe(
        {"a": np.float32(1.0), "b": np.float32(99.0), "c": np.float32(0.5)}, {"a": True, "b": False, "c": True}
    )
    assert stream.counts() == [25, 50, 25]
    state = json.loads(json.dumps(stream.get_state()))
    expected = next(stream)
    stream.set_state(state)
    assert_equal(next(stream), expected)
    with pytest.raises(ValueError, match="observe: the rates of this mixture are not driven by losses"):
        mix(SOURCES, RATES, batch_size=2, seed=0).observe({"a": 1.0})


def test_capacities():
    stream = mix(SOURCES, RATES, batch_size=8, seed=0, draw=systematic, capacity={"a": 4, "b": 1, "c": 4})
    shapes = {name: batch.mask[name].shape for name, batch in take(stream, 30)[-1].items()}
    assert shapes == {"a": (4,), "b": (1,), "c": (4,)}
    with pytest.raises(ValueError, match=r"mix: 8 examples were drawn for '[abc]', whose capacity is 7"):
        next(mix(SOURCES, RATES, batch_size=8, seed=0, capacity=7))


def test_mistakes():
    good = {"batch_size": 2, "seed": 0}
    for sources, rates, more, error, message in (
        (SOURCES, {"a": 1.0}, {}, ValueError, r"rates are for \['a'\], but the sources are \['a', 'b', 'c'\]"),
        (SOURCES, dict.fromkeys("abc", 0.0), {}, ValueError, "somewhere positive"),
        (SOURCES, RATES | {"a": -1.0}, {}, ValueError, "not negative"),
        (SOURCES, RATES, {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        (SOURCES, RATES, {"capacity": {"a": 2}}, ValueError, r"capacity is for \['a'\]"),
        (SOURCES, RATES, {"capacity": 0}, ValueError, "the capacity of 'a' must be at least 1, found 0"),
        (SOURCES, RATES, {"start_step": -1}, ValueError, "not negative, found -1"),
        (SOURCES, loss_driven(SOURCES), {"start_step": 1}, ValueError, "start_step must be 0 with streams or loss"),
        ({"a": SOURCES["b"]}, {"a": 1.0}, {}, ValueError, "source 'a' must have the target 'a' alone"),
        ({"a": iter([])}, {"a": 1.0}, {}, TypeError, "source 'a' must be a Batch, or a stream"),
    ):
        with pytest.raises(error, match=f"mix: .*{message}"):
            mix(sources, rates, **(good | more))
    for call, message in (
        (lambda: proportional({"a": 0}), "the size of 'a' must be positive and finite, found 0"),
        (lambda: proportional(GLUE, temperature=0), "temperature must be positive, found 0"),
        (lambda: annealed(GLUE, epochs=0, steps_per_epoch=1), "epochs and steps_per_epoch must be at least 1"),
        (lambda: annealed(GLUE, epochs=1, steps_per_epoch=1, drop=2), "drop must be from 0 to 1, found 2"),
        (lambda: loss_driven(["a"], decay=1.0), "decay must be at least 0 and below 1"),
        (lambda: loss_driven(["a"]).update({"first": {}, "mean": {}}, {"b": 1.0}), r"unknown tasks \['b'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
