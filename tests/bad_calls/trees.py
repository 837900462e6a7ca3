"""Bad calls of the algebra along the task axis."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax import trees
from tests.bad_calls.bad import Bad, each

ROWS = {"a": jnp.ones((2, 3)), "b": jnp.ones((2,))}
UNEVEN = {"a": jnp.ones((2, 3)), "b": jnp.ones((3,))}

BAD = [
    *each(trees.num_rows, ("num_rows", "leaf"), ["J", 1.0, {"w": "x"}, {"a": jnp.ones(2), "b": 1.0}], TypeError),
    *each(trees.num_rows, ("num_rows",), [None, {}, (), jnp.ones(())]),
    Bad(lambda: trees.num_rows(UNEVEN), ("num_rows", "['b']", "axis of 2", "(3,)")),
    *each(trees.gramian, ("gramian", "leaf"), ["J", [1.0, 2.0]], TypeError),
    *each(trees.gramian, ("gramian", "floating"), [jnp.ones((2, 3), int), jnp.ones((2, 3), bool)], TypeError),
    Bad(lambda: trees.gramian(UNEVEN), ("gramian", "['b']", "(3,)")),
    Bad(lambda: trees.gramian({}), ("gramian", "num_tasks")),
    Bad(lambda: trees.cross_gramian({}, {}), ("cross_gramian", "rows=(S, T)")),
    *each(lambda w: trees.weighted_sum(w, ROWS), ("weighted_sum", "weights"), [None, "w", [1.0, 2.0]], TypeError),
    *each(
        lambda w: trees.weighted_sum(w, ROWS), ("weighted_sum", "(2,)"), [jnp.ones(3), jnp.ones((2, 1)), jnp.ones(())]
    ),
    Bad(lambda: trees.weighted_sum(jnp.ones(2), UNEVEN), ("weighted_sum", "['b']", "(3,)")),
    *(
        row
        for function in (trees.norms, trees.cosines)
        for row in [
            *each(function, (function.__name__, "gramian"), [None, "G", [[1.0]], jnp.ones((2, 2), int)], TypeError),
            *each(function, (function.__name__, "gramian"), [jnp.ones(2), jnp.ones((2, 3)), jnp.ones(())]),
        ]
    ),
    Bad(lambda: trees.stack([]), ("stack", "trees")),
    Bad(lambda: trees.stack([{"a": jnp.ones(2)}, {"b": jnp.ones(2)}]), ("stack", "tree 1")),
    Bad(lambda: trees.stack([{"a": jnp.ones(2)}, {"a": jnp.ones(3)}]), ("stack", "(3,)", "(2,)")),
]
