"""Bad calls of the checks themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mtljax
from mtljax import checks
from tests.bad_calls.bad import INF, NAN, NO_FLAGS, NO_FUNCTIONS, Bad, count, each, number

NAMES = ("here", "this")


def traced(value, shape=()):
    return jax.eval_shape(lambda x: checks.check_number(*NAMES, x, shape=shape), value)


BAD = [
    *number(lambda x: checks.check_number(*NAMES, x), NAMES, INF, -INF),
    *each(lambda x: checks.check_number(*NAMES, x, least=0, below=1), (*NAMES, "at least 0 and below 1"), [-1, 1, NAN]),
    *each(lambda x: checks.check_number(*NAMES, x, above=0, finite=False), (*NAMES, "above 0"), [0, -INF, NAN]),
    Bad(lambda: checks.check_number(*NAMES, [1.0, "2"], shape=None), NAMES, TypeError),
    Bad(lambda: checks.check_number(*NAMES, [[1.0], [2.0, 3.0]], shape=None), NAMES, TypeError),
    Bad(lambda: checks.check_number(*NAMES, [1.0, NAN], shape=("T",)), (*NAMES, "finite")),
    Bad(lambda: checks.check_number(*NAMES, [1.0, 2.0], shape=(3,)), (*NAMES, "[3]", "(2,)")),
    Bad(lambda: traced(jnp.ones(2)), (*NAMES, "scalar", "(2,)")),
    Bad(lambda: traced(jnp.ones((), bool)), (*NAMES, "bool"), TypeError),
    Bad(lambda: traced(jnp.ones((), complex)), (*NAMES, "complex64"), TypeError),
    Bad(lambda: checks.check_number(*NAMES, jax.random.key(0)), (*NAMES, "key"), TypeError),
    Bad(lambda: checks.check_number(*NAMES, np.full((2, 2), NAN), shape=(2, 2)), (*NAMES, "(2, 2)", "float64")),
    *count(lambda x: checks.check_count(*NAMES, x, most=5), NAMES, 0, 6, np.int32(-1)),
    *each(lambda x: checks.check_flag(*NAMES, x), NAMES, NO_FLAGS, TypeError),
    *each(lambda x: checks.check_callable(*NAMES, x), NAMES, NO_FUNCTIONS, TypeError),
    *each(lambda x: checks.check_choice(*NAMES, x, ["a", "b"]), (*NAMES, "'a' or 'b'"), [1, None], TypeError),
    Bad(lambda: checks.check_choice(*NAMES, "c", ["a", "b"]), (*NAMES, "'a' or 'b'", "'c'")),
    *each(lambda x: checks.check_key(*NAMES, x), NAMES, [0, None, "key", np.zeros(2)], TypeError),
    *each(lambda x: checks.check_method(*NAMES, x), NAMES, [None, "mgda", print], TypeError),
    Bad(lambda: checks.check_method(*NAMES, mtljax.methods.pcgrad), (*NAMES, "call it: pcgrad()"), TypeError),
    *each(lambda x: checks.check_optimizer(*NAMES, x), NAMES, [None, "adam", 1e-3], TypeError),
    Bad(lambda: checks.check_optimizer(*NAMES, mtljax.methods.mgda()), (*NAMES, "the method 'mgda'"), TypeError),
    *each(lambda x: checks.check_task("here", "this", x), NAMES, [None, "mse", print], TypeError),
    Bad(lambda: checks.check_task("here", "this", mtljax.Task("mse")), (*NAMES, "loss", "'mse'"), TypeError),
    Bad(lambda: checks.check_task("here", "this", mtljax.Task(print, prior=INF)), (*NAMES, "prior", "inf")),
    *each(lambda x: checks.check_mask(*NAMES, x, (2,)), NAMES, [None, [True, False], np.ones(2)], TypeError),
    Bad(lambda: checks.check_mask(*NAMES, np.ones(3, bool), (2,)), (*NAMES, "(2,)", "(3,)")),
    *each(lambda x: checks.check_preference("here", x, what="this"), NAMES, ["1", 1j, True, print, {}], TypeError),
    *each(lambda x: checks.check_preference("here", x, what="this"), NAMES, [NAN, 1.0, np.ones((2, 2, 2))]),
    *each(lambda x: checks.check_preference("here", x), ("here", "preference"), [[0, 0], [1, -1], [1, NAN]]),
    *each(lambda x: checks.check_names(*NAMES, x), NAMES, ["depth", None, 1, ["a", 1]], TypeError),
    *each(lambda x: checks.check_names(*NAMES, x), NAMES, [[], ["a", "a"]]),
]
