"""Rates of mixing: as published, annealed, and driven by losses of any size."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mtljax.data.mixing.rates import annealed, loss_driven, proportional, uniform

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
    assert proportional({"a": 1e300, "b": 3e300}, scale=1e300)["a"] == 0.25
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
    driven = loss_driven(["a", "b", "c"], decay=0.75, power=2.0, floor=0.3)
    state = driven.init()
    assert driven.rates(state) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    state = driven.update(state, {"a": 10.0, "b": 1e-6, "c": 0.0})  # a first loss of 0 gives no measure
    state = driven.update(state, {"a": 5.0, "b": float("nan")})
    found, (a, b, c) = driven.rates(json.loads(json.dumps(state))), (0.875**2, 1.0, 1.0)
    total = a + b + c
    assert found == pytest.approx({"a": 0.1 + 0.7 * a / total, "b": 0.1 + 0.7 * b / total, "c": 0.1 + 0.7 * c / total})
    scaled = driven.update(driven.update(driven.init(), {"a": 1e9, "b": 1.0}), {"a": 5e8})
    assert driven.rates(scaled) == pytest.approx(found)


def test_loss_driven_rates_stay_finite_whatever_the_losses_are():
    for power, expected in ((50.0, [0, 0, 1]), (-50.0, [0.5, 0.5, 0]), (0.0, [1 / 3] * 3)):
        driven = loss_driven(["a", "b", "c"], decay=0.0, power=power, floor=0.0)
        state = driven.update(driven.init(), {"a": 1.0, "b": 1e-300, "c": 1.0})
        state = driven.update(state, {"a": 0.0, "b": -1.0})
        np.testing.assert_allclose(list(driven.rates(state).values()), expected, atol=1e-15)
        risen = driven.rates(driven.update(state, {"b": 1e300}))
        assert np.isfinite(list(risen.values())).all() and sum(risen.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: proportional({"a": 0}), r"proportional: sizes\['a'\] must be above 0, found 0"),
        (lambda: proportional(GLUE, temperature=0), "temperature must be above 0, found 0"),
        (lambda: proportional(GLUE, scale=np.inf), "scale must be finite and above 0, found inf"),
        (lambda: loss_driven(["a"], power=np.inf), "power must be finite, found inf"),
        (lambda: annealed(GLUE, epochs=0, steps_per_epoch=1), "epochs must be at least 1, found 0"),
        (lambda: annealed(GLUE, epochs=1, steps_per_epoch=1, drop=2), "drop must be at least 0 and at most 1, found 2"),
        (lambda: loss_driven(["a"], decay=1.0), "decay must be at least 0 and below 1"),
        (
            lambda: loss_driven(["a"]).update({"first": {}, "mean": {}}, {"b": 1.0}),
            r"must be of the tasks \['a'\], found \['b'\]",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
