"""The benchmark of many tasks: all JAX sides compute the same numbers, and growth and goals are read off rightly."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.many_tasks import goals, program


@pytest.mark.slow
@pytest.mark.parametrize("method", ["equal", "uncertainty"])
def test_a_bank_and_single_entries_make_the_steps_of_the_program_by_hand(method):
    problem = program.make_problem(3, batch=8)
    chosen = program.methods(3)[method]
    sides = [
        program.by_hand(problem, uncertainty=method == "uncertainty"),
        program.by_mtljax(problem, chosen),
        program.by_mtljax(problem, chosen, banked=False),
    ]
    for _ in range(3):
        told = [(side.step(), side.losses())[1] for side in sides]
        np.testing.assert_allclose(told[1], told[0], rtol=1e-5)
        np.testing.assert_allclose(told[2], told[0], rtol=1e-5)


def test_exponents_of_growth():
    assert goals.exponent([(8, 3.0 * 8**1.5), (32, 3.0 * 32**1.5), (128, 3.0 * 128**1.5)]) == 1.5
    assert goals.exponent([(8, 3.0), (8, 4.0)]) is None


def test_goals_take_the_worst_and_do_not_hide_what_misses():
    def record(side, tasks, ratio, compile_s):
        over = {"median": ratio, "low": ratio, "high": ratio}
        return {"method": "equal", "T": tasks, "side": side, "over_hand": over, "compile_s": compile_s, "trace_s": 0.1}

    records = [record("by hand", 8, 1.0, 1.0), record("bank", 8, 1.05, 1.2)]
    records += [record("by hand", 128, 1.0, 1.0), record("bank", 128, 1.4, 1.2)]
    step, large, compiling, *_ = goals.judge(records)
    assert step[2:] == ("1.4 (equal, T=128)", "NO (1 of 2)")
    assert large[2:] == ("not measured", "-")
    assert compiling[2:] == ("1.2 (equal, T=8)", "yes")
