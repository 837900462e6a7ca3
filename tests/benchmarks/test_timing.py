"""The benchmark's harness: that it times what it says, and that all JAX sides compute the same numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mtljax
from benchmarks import goals, nets, ours, steps, timing


class Clock:
    """Time that passes only when a side says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def side(self, log, name, seconds):
        def step():
            log.append(name)
            self.now += seconds
            return np.zeros(1)

        return step


def test_sides_take_turns_in_alternating_order():
    clock, log = Clock(), []
    sides = {"a": clock.side(log, "a", 2.0), "b": clock.side(log, "b", 1.0)}
    times = timing.alternate(sides, rounds=4, seconds=1e9, turn=1.0, settle=0.0, warmup=1, clock=clock)
    # A warm-up and a trial each; then turns of one call that is not timed and one that is.
    assert "".join(log) == "aabb" + "aabb" + "bbaa" + "aabb" + "bbaa"
    np.testing.assert_allclose(times["a"], np.full(4, 2.0))
    np.testing.assert_allclose(times["b"], np.full(4, 1.0))


def test_short_steps_are_called_until_the_turn_is_full():
    clock, log = Clock(), []
    sides = {"slow": clock.side(log, "s", 1.0), "fast": clock.side(log, "f", 0.125)}
    times = timing.alternate(sides, rounds=3, seconds=1e9, turn=1.0, settle=0.0, warmup=1, clock=clock)
    assert log.count("f") == 2 + 3 * (1 + 8)
    assert log.count("s") == 2 + 3 * (1 + 1)
    np.testing.assert_allclose(times["fast"], np.full(3, 0.125))


def test_a_long_call_needs_no_lead():
    clock, log = Clock(), []
    timing.alternate({"a": clock.side(log, "a", 4.5)}, rounds=3, seconds=1e9, turn=1.0, settle=0.0, clock=clock)
    assert len(log) == 2 + 3


def test_stops_after_three_rounds_when_time_is_spent():
    clock = Clock()
    times = timing.alternate({"a": clock.side([], "a", 5.0)}, rounds=50, seconds=1.0, settle=0.0, clock=clock)
    assert len(times["a"]) == 3


def test_ratio_is_the_median_of_paired_ratios_not_the_ratio_of_medians():
    slow, fast = np.array([2.0, 40.0, 6.0]), np.array([1.0, 10.0, 3.0])
    assert timing.ratio(slow, fast).median == 2.0
    assert timing.ratio(slow, fast).high == 3.0


@pytest.mark.parametrize(
    ("kind", "num_tasks", "batch"), [("small", 3, 8), pytest.param("conv", 2, 4, marks=pytest.mark.slow)]
)
def test_mtljax_computes_what_is_written_by_hand(kind, num_tasks, batch):
    problem = nets.make_problem(kind, num_tasks, batch)
    methods = ours.methods(num_tasks)
    for name, by_hand in [("equal", ours.equal_by_hand), ("uncertainty", ours.uncertainty_by_hand)]:
        sides = {"by hand": by_hand(problem), "mtljax": ours.by_mtljax(problem, methods[name])}
        for side in sides.values():
            side.step()
        found = steps.differences(problem, sides)
        assert found["by hand"] < 1e-4, name
        steps.check_same(problem, name, sides, found)


def test_a_side_that_computes_something_else_is_caught():
    problem = nets.make_problem("small", 2, 8)
    other = nets.make_problem("small", 2, 8, seed=1)
    sides = {"mtljax": ours.by_mtljax(problem, mtljax.methods.equal()), "by hand": ours.equal_by_hand(other)}
    for side in sides.values():
        side.step()
    with pytest.raises(RuntimeError, match="losses of by hand"):
        steps.check_same(problem, "equal", sides, steps.differences(problem, sides))


def test_a_side_that_fails_is_shown_with_its_reason():
    def broken():
        raise ValueError("cannot reshape\nand more")

    sides, reasons = steps.build({"peer": broken})
    assert not sides
    assert reasons == {"peer": "fails: ValueError: cannot reshape"}


def test_problems_are_reproducible_and_differ_by_seed():
    a, b = nets.make_problem("mlp", 2, 4), nets.make_problem("mlp", 2, 4)
    np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(a.shared["w2"], b.shared["w2"])
    assert not np.array_equal(a.inputs, nets.make_problem("mlp", 2, 4, seed=1).inputs)
    assert a.num_shared == 784 * 512 + 512 + 2 * (512 * 512 + 512)


def test_goals_name_the_worst_and_what_does_not_run():
    def record(problem, ratio):
        return {"problem": problem, "group": "equal", "side": "mtljax", "ms": 1.0, "ratio": [ratio, ratio, ratio]}

    rows = goals.judge(
        [
            record("mlp T=2 B=256", 1.01),
            record("mlp T=8 B=256", 1.05),
            {"problem": "mlp T=2 B=256", "group": "mgda", "side": "mtljax", "why": "fails: ValueError"},
        ]
    )
    equal = next(row for row in rows if row[0] == "equal over JAX by hand")
    assert equal == ("equal over JAX by hand", "<= 1.02", "1.05 (mlp T=8 B=256)", "NO (1 of 2)")
    assert next(row for row in rows if "penalty" in row[0])[3] == "-"
    assert rows[-1] == ("mlp T=2 B=256: mtljax, mgda", "runs", "fails: ValueError", "NO")


def test_results_are_written_with_the_machine(tmp_path):
    facts = timing.machine()
    assert facts["cores"] >= 1 and facts["versions"]["jax"]
    path = timing.write("steps", facts, {"records": [{"ratio": timing.Ratio(1.0, 0.9, 1.1)}]}, tmp_path / "r.json")
    read = json.loads(path.read_text())
    assert read["machine"] == facts
    assert read["records"][0]["ratio"] == [1.0, 0.9, 1.1]
    assert timing.slug({"cpu": "AMD EPYC (family 26)", "cores": 2, "platform": "cpu"}) == "amd-epyc-family-26-2-cores"


def test_table_keeps_columns_in_line():
    assert timing.table(["a", "b"], [["long", 1], ["x", 22]]).splitlines() == [
        "a      b",
        "--------",
        "long   1",
        "x     22",
    ]
