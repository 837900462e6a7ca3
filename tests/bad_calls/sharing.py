"""Bad calls of `mtljax.sharing`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

from mtljax.sharing import (
    Experts,
    Network,
    adapters,
    adatt,
    add_task,
    carry_over,
    cgc,
    cross_stitch,
    deep_fusion,
    dselect_k,
    encoders,
    esmm,
    film,
    freeze,
    hard,
    hierarchical,
    low_rank,
    ltb,
    mmoe,
    moe,
    mtan,
    nddr,
    part_labels,
    ple,
    prune,
    single_task,
    sluice,
    soft,
    statistics_by_task,
    successive_regularization,
    thaw,
    tree,
    without_task,
)
from mtljax.types import Params, TaskInputs
from tests.bad_calls.bad import INF, NAN, NO_FLAGS, NO_FUNCTIONS, Bad, count, each, number

NET = Network(lambda key, x: ((), ()), lambda params, state, x, *, key=None, train=False: (x, state))
HEADS = {"a": NET, "b": NET}
STAGES = [NET, NET]
PATHS = {"a": (0, 0), "b": (0, 1)}
DEPTHS = {"a": 0, "b": 1}
KEY, X = np.zeros(2, np.uint32), np.ones((2, 3), np.float32)
SCALE = Network(lambda key, x: (np.float32(1), ()), lambda w, state, x, *, key=None, train=False: (x * w, state))
MODEL = hard(SCALE, {"a": SCALE, "b": SCALE})
PARAMS, STATE = (
    Params(np.float32(1), {"a": np.float32(1), "b": np.float32(1)}),
    {
        "trunk": (),
        "tasks": {"a": (), "b": ()},
    },
)
NO_NETWORKS = (nn.Dense, None, "net", lambda x: x, MODEL, 3)

# By architecture: what it is, given heads; and given each argument that is one network or several.
WITH_HEADS = {
    "hard": lambda heads: hard(NET, heads),
    "single_task": lambda heads: single_task(NET, heads),
    "encoders": lambda heads: encoders(HEADS, NET, heads),
    "cross_stitch": lambda heads: cross_stitch(STAGES, heads),
    "sluice": lambda heads: sluice(STAGES, heads),
    "nddr": lambda heads: nddr(STAGES, heads),
    "deep_fusion": lambda heads: deep_fusion(STAGES, heads),
    "mmoe": lambda heads: mmoe(NET, heads, num_experts=2),
    "moe": lambda heads: moe(NET, heads, num_experts=2),
    "dselect_k": lambda heads: dselect_k(NET, heads, num_experts=2),
    "cgc": lambda heads: cgc(NET, heads),
    "ple": lambda heads: ple(STAGES, heads),
    "adatt": lambda heads: adatt(STAGES, heads),
    "esmm": lambda heads: esmm(NET, heads, click="a", conversion="b"),
    "mtan": lambda heads: mtan(STAGES, heads, STAGES, [NET]),
    "tree": lambda heads: tree(STAGES, heads, PATHS),
    "ltb": lambda heads: ltb(STAGES, heads),
    "hierarchical": lambda heads: hierarchical(STAGES, heads, DEPTHS),
    "adapters": lambda heads: adapters(STAGES, heads, 2),
    "film": lambda heads: film(STAGES, heads),
    "low_rank": lambda heads: low_rank(NET, heads, 2),
    "prune": lambda heads: prune(STAGES, heads, PARAMS, STATE),
}
WITH_STAGES = {
    "cross_stitch": lambda stages: cross_stitch(stages, HEADS),
    "sluice": lambda stages: sluice(stages, HEADS),
    "nddr": lambda stages: nddr(stages, HEADS),
    "deep_fusion": lambda stages: deep_fusion(stages, HEADS),
    "mtan": lambda stages: mtan(stages, HEADS, STAGES, [NET]),
    "tree": lambda stages: tree(stages, HEADS, PATHS),
    "ltb": lambda stages: ltb(stages, HEADS),
    "hierarchical": lambda stages: hierarchical(stages, HEADS, DEPTHS),
    "adapters": lambda stages: adapters(stages, HEADS, 2),
    "film": lambda stages: film(stages, HEADS),
    "prune": lambda stages: prune(stages, HEADS, PARAMS, STATE),
}
WITH_NETWORK = {
    ("hard", "trunk"): lambda net: hard(net, HEADS),
    ("soft", "network"): lambda net: soft(net, HEADS),
    ("encoders", "body"): lambda net: encoders(HEADS, net, HEADS),
    ("encoders", "encoders"): lambda net: encoders({"a": net, "b": NET}, NET, HEADS),
    ("esmm", "trunk"): lambda net: esmm(net, HEADS, click="a", conversion="b"),
    ("low_rank", "trunk"): lambda net: low_rank(net, HEADS, 2),
    ("mmoe", "expert"): lambda net: mmoe([net, NET], HEADS),
    ("mmoe", "gate"): lambda net: mmoe(NET, HEADS, num_experts=2, gate=net),
    ("moe", "expert"): lambda net: moe([NET, net], HEADS),
    ("moe", "gate"): lambda net: moe(NET, HEADS, num_experts=2, gate=net),
    ("dselect_k", "expert"): lambda net: dselect_k([NET, net], HEADS),
    ("dselect_k", "gate"): lambda net: dselect_k(NET, HEADS, num_experts=2, per_example=True, gate=net),
    ("mmoe", "encoder"): lambda net: mmoe(NET, HEADS, num_experts=2, encoder=net),
    ("moe", "encoder"): lambda net: moe(NET, HEADS, num_experts=2, encoder=net),
    ("dselect_k", "encoder"): lambda net: dselect_k(NET, HEADS, num_experts=2, encoder=net),
    ("cgc", "encoder"): lambda net: cgc(NET, HEADS, encoder=net),
    ("cgc", "levels[0]"): lambda net: cgc(net, HEADS),
    ("ple", "levels[1]"): lambda net: ple([NET, net], HEADS),
    ("adatt", "levels[0]"): lambda net: adatt([net], HEADS),
    ("ple", "levels[0].shared[0]"): lambda net: ple([Experts([net], {})], HEADS),
    ("ple", "levels[0].specific['a'][0]"): lambda net: ple([Experts([NET], {"a": [net]})], HEADS),
    ("nddr", "norm"): lambda net: nddr(STAGES, HEADS, norm=net),
    ("sluice", "projections[1]"): lambda net: sluice(STAGES, HEADS, projections=[None, net]),
    ("deep_fusion", "projections[0]"): lambda net: deep_fusion(STAGES, HEADS, projections=[net, None]),
    ("mtan", "masks[0]"): lambda net: mtan(STAGES, HEADS, [net, NET], [NET]),
    ("mtan", "forward[0]"): lambda net: mtan(STAGES, HEADS, STAGES, [net]),
    ("mtan", "stages[1][0]"): lambda net: mtan([NET, (net, NET)], HEADS, STAGES, [NET]),
    ("hierarchical", "embed"): lambda net: hierarchical(STAGES, HEADS, DEPTHS, embed=net),
    ("single_task", "networks['a']"): lambda net: single_task({"a": net}),
    ("soft", "tasks['a']"): lambda net: soft(NET, {"a": net}),
}
NO_NONE = {key: make for key, make in WITH_NETWORK.items() if key[1] not in ("gate", "encoder", "norm", "embed")}
NO_NONE = {key: make for key, make in NO_NONE.items() if not key[1].startswith("projections")}


def applied(**wrong):
    """`apply` of a model, with some arguments wrong."""
    given = {"params": PARAMS, "state": STATE, "inputs": X} | wrong
    options = {name: given.pop(name) for name in ("tasks", "key", "train") if name in given}
    return lambda: MODEL.apply(given["params"], given["state"], given["inputs"], **options)


BAD = [
    *(Bad(lambda make=make: make(None), (name, "heads"), TypeError) for name, make in WITH_HEADS.items()),
    *(Bad(lambda make=make: make([NET]), (name, "heads"), TypeError) for name, make in WITH_HEADS.items()),
    *(Bad(lambda make=make: make({}), (name, "heads")) for name, make in WITH_HEADS.items()),
    *(
        Bad(lambda make=make: make(HEADS | {"b": nn.Dense(4)}), (name, "heads['b']", "from_linen"), TypeError)
        for name, make in WITH_HEADS.items()
    ),
    *(Bad(lambda make=make: make({"a": NET, 1: NET}), (name, "heads"), TypeError) for name, make in WITH_HEADS.items()),
    *(Bad(lambda make=make: make(NET), (name, "stages"), TypeError) for name, make in WITH_STAGES.items()),
    *(Bad(lambda make=make: make([]), (name, "stages")) for name, make in WITH_STAGES.items()),
    *(
        Bad(lambda make=make: make([NET, nn.Dense(4)]), (name, "stages[1]", "from_linen"), TypeError)
        for name, make in WITH_STAGES.items()
    ),
    *(
        Bad(lambda make=make: make(nn.Dense(4)), (*names, "from_linen"), TypeError)
        for names, make in WITH_NETWORK.items()
    ),
    *(Bad(lambda make=make: make(None), names, TypeError) for names, make in NO_NONE.items()),
    *each(lambda net: hard(net, HEADS), ("hard", "trunk", "Network"), NO_NETWORKS, TypeError),
    Bad(lambda: hard(nnx.Linear, HEADS), ("hard", "trunk", "from_nnx"), TypeError),
    Bad(lambda: hard(Network(None, NET.apply), HEADS), ("hard", "trunk.init"), TypeError),  # type: ignore[arg-type]
    Bad(lambda: mmoe(nn.Dense(4), HEADS, num_experts=2), ("mmoe", "expert", "from_linen"), TypeError),
    # Names of tasks.
    Bad(lambda: soft(NET, "depth"), ("soft", "tasks", "depth"), TypeError),
    Bad(lambda: soft(NET, ()), ("soft", "tasks")),
    Bad(lambda: soft(NET, ("a", "a")), ("soft", "tasks")),
    Bad(lambda: soft(NET, 3), ("soft", "tasks"), TypeError),
    Bad(lambda: esmm(NET, HEADS), ("esmm", "heads", "click")),
    Bad(lambda: esmm(NET, HEADS, click="a", conversion="a"), ("esmm", "click")),
    Bad(lambda: esmm(NET, HEADS, click=1, conversion="a"), ("esmm", "click"), TypeError),
    Bad(lambda: encoders(HEADS, NET, HEADS, kinds={"a": "a"}), ("encoders", "kinds")),
    Bad(lambda: encoders(HEADS, NET, HEADS, kinds={"a": "a", "b": "c"}), ("encoders", "kinds['b']")),
    Bad(lambda: encoders(HEADS, NET, HEADS, kinds={"a": 1, "b": "a"}), ("encoders", "kinds['a']"), TypeError),
    Bad(lambda: encoders(HEADS, NET, HEADS, kinds={"a": "a", "b": "a"}), ("encoders", "encoders")),
    Bad(lambda: encoders(HEADS, NET, HEADS, kinds="a"), ("encoders", "kinds"), TypeError),
    Bad(lambda: single_task({"a": NET}, HEADS), ("single_task", "heads"), TypeError),
    Bad(lambda: single_task(NET), ("single_task", "heads"), TypeError),
    Bad(lambda: single_task(nn.Dense(4)), ("single_task", "networks", "from_linen"), TypeError),
    # Strengths and shares.
    *number(lambda x: cross_stitch(STAGES, HEADS, same=x), ("cross_stitch", "same"), -0.1, 1.1, INF),
    *number(lambda x: nddr(STAGES, HEADS, same=x), ("nddr", "same"), -0.1, 1.1),
    *number(lambda x: sluice(STAGES, HEADS, same=x), ("sluice", "same"), -0.1, 1.1),
    *number(lambda x: sluice(STAGES, HEADS, last=x), ("sluice", "last"), -0.1, 1.1),
    *number(lambda x: deep_fusion(STAGES, HEADS, same=x), ("deep_fusion", "same"), 0.0, 1.0),
    *number(lambda x: deep_fusion(STAGES, HEADS, last=x), ("deep_fusion", "last"), 0.0, 1.0),
    *number(lambda x: moe(NET, HEADS, num_experts=2, balance=x), ("moe", "balance"), -1.0, INF),
    *number(lambda x: dselect_k(NET, HEADS, num_experts=2, gamma=x), ("dselect_k", "gamma"), -1.0, 0.0, INF),
    *number(lambda x: dselect_k(NET, HEADS, num_experts=2, entropy=x), ("dselect_k", "entropy"), -1.0, INF),
    *(
        bad
        for bad in number(lambda x: ltb(STAGES, HEADS, temperature=x), ("ltb", "temperature"), 0.0, -1.0, INF)
        if bad.call.args != (print,)
    ),
    *number(lambda x: successive_regularization(PARAMS, x), ("successive_regularization", "strength"), -1.0, INF),
    *each(lambda x: low_rank(NET, HEADS, 2, alpha=x), ("low_rank", "alpha"), ("1", 1j, True), TypeError),
    *each(lambda x: low_rank(NET, HEADS, 2, alpha=x), ("low_rank", "alpha"), (0.0, -1.0, NAN, INF, np.ones(2))),
    *each(lambda x: sluice(STAGES, HEADS, orthogonality=x), ("sluice", "orthogonality"), ("1", 1j, True), TypeError),
    *each(lambda x: sluice(STAGES, HEADS, orthogonality=x), ("sluice", "orthogonality"), (-1.0, NAN, np.ones(2))),
    Bad(lambda: sluice(STAGES, HEADS, subspaces=1, orthogonality=1.0), ("sluice", "orthogonality", "subspaces")),
    # Counts.
    *count(lambda n: mmoe(NET, HEADS, num_experts=n), ("mmoe", "num_experts"), 0, -1),
    *count(lambda n: moe(NET, HEADS, num_experts=n), ("moe", "num_experts"), 0, -1),
    *count(lambda n: moe(NET, HEADS, num_experts=4, num_selected=n), ("moe", "num_selected"), 0, 5),
    *count(lambda n: dselect_k(NET, HEADS, num_experts=n), ("dselect_k", "num_experts"), 0, -1),
    *count(lambda n: dselect_k(NET, HEADS, num_experts=4, num_selected=n), ("dselect_k", "num_selected"), 0, 5),
    *count(lambda n: cgc(NET, HEADS, num_shared=n), ("cgc", "num_shared"), -1),
    *count(lambda n: cgc(NET, HEADS, num_specific=n), ("cgc", "num_specific"), -1)[:-4],
    *count(lambda n: cgc(NET, HEADS, num_specific={"a": n, "b": 1}), ("cgc", "num_specific['a']"), -1),
    *count(lambda n: ple(STAGES, HEADS, num_shared=n), ("ple", "num_shared"), -1),
    *count(lambda n: adatt(STAGES, HEADS, num_shared=n), ("adatt", "num_shared"), -1),
    *count(lambda n: sluice(STAGES, HEADS, subspaces=n), ("sluice", "subspaces"), 0),
    *count(lambda n: adapters(STAGES, HEADS, n), ("adapters", "size"), 0, -1),
    *count(lambda n: low_rank(NET, HEADS, n), ("low_rank", "rank"), 0, -1),
    *count(lambda n: ltb(STAGES, HEADS, warmup=n), ("ltb", "warmup"), -1),
    *count(lambda n: ltb(STAGES, HEADS, widths=[n, 2]), ("ltb", "widths[0]"), 0),
    *each(lambda n: ltb(STAGES, HEADS, widths=n), ("ltb", "widths"), ("2", 2.0, True), TypeError),
    *each(lambda n: ltb(STAGES, HEADS, widths=n), ("ltb", "widths"), (0, [2], [2, 2, 2])),
    *count(lambda n: tree(STAGES, HEADS, {"a": (0, n), "b": (0, 1)}), ("tree", "paths['a'][1]"), -1),
    *count(lambda n: hierarchical(STAGES, HEADS, {"a": n, "b": 1}), ("hierarchical", "layers['a']"), -1, 2),
    *count(
        lambda n: hierarchical(STAGES, HEADS, DEPTHS, predictions=("a",), label_size=n),
        ("hierarchical", "label_size"),
        0,
    ),
    *each(lambda after: cross_stitch(STAGES, HEADS, after=after), ("cross_stitch", "after"), ("01", 1, 1.0), TypeError),
    *each(lambda after: nddr(STAGES, HEADS, after=after), ("nddr", "after"), ([0.0], [True], ["0"]), TypeError),
    *each(lambda after: sluice(STAGES, HEADS, after=after), ("sluice", "after"), ([2], [-1], [0, 0])),
    Bad(lambda: mmoe([NET, NET], HEADS, num_experts=3), ("mmoe", "num_experts")),
    Bad(lambda: mmoe([], HEADS), ("mmoe", "expert")),
    # What does not fit together.
    Bad(lambda: ple([], HEADS), ("ple", "levels")),
    Bad(lambda: ple(NET, HEADS), ("ple", "levels"), TypeError),
    Bad(lambda: ple([Experts([], {"c": [NET]})], HEADS), ("ple", "levels[0].specific", "'c'")),
    Bad(lambda: ple([Experts([], [NET])], HEADS), ("ple", "levels[0].specific"), TypeError),  # type: ignore[arg-type]
    Bad(lambda: ple(STAGES, HEADS, num_specific={"a": 1}), ("ple", "num_specific")),
    Bad(lambda: ple(STAGES, HEADS, num_shared=0, num_specific=0), ("ple", "level 0", "'a'")),
    Bad(lambda: adatt(STAGES, HEADS, num_specific=0), ("adatt", "level 0", "'a'")),
    Bad(lambda: jax.eval_shape(cgc(NET, HEADS, gate=NET).init, KEY, X), ("cgc", "gate"), TypeError),
    Bad(lambda: jax.eval_shape(cgc(NET, HEADS, gate=lambda n: nn.Dense(n)).init, KEY, X), ("cgc", "gate"), TypeError),
    Bad(lambda: dselect_k(NET, HEADS, num_experts=2, gate=NET), ("dselect_k", "gate", "per_example")),
    Bad(lambda: mtan(STAGES, HEADS, [NET], [NET]), ("mtan", "masks")),
    Bad(lambda: mtan(STAGES, HEADS, STAGES, STAGES), ("mtan", "forward")),
    Bad(lambda: mtan([(NET,), NET], HEADS, STAGES, [NET]), ("mtan", "stages[0]")),
    Bad(lambda: sluice(STAGES, HEADS, projections=[None]), ("sluice", "projections")),
    Bad(lambda: sluice(STAGES, HEADS, projections=NET), ("sluice", "projections"), TypeError),
    Bad(lambda: deep_fusion(STAGES, HEADS, layers=False, projections=[None, None]), ("deep_fusion", "projections")),
    Bad(lambda: tree(STAGES, HEADS, {"a": (0, 0)}), ("tree", "paths")),
    Bad(lambda: tree(STAGES, HEADS, None), ("tree", "paths"), TypeError),
    Bad(lambda: tree(STAGES, HEADS, {"a": 0, "b": 1}), ("tree", "paths['a']"), TypeError),
    Bad(lambda: tree(STAGES, HEADS, {"a": (0,), "b": (0, 1)}), ("tree", "paths['a']")),
    Bad(lambda: tree(STAGES, HEADS, {"a": (0, 1), "b": (1, 1)}), ("tree", "'a'", "'b'", "node 1")),
    Bad(lambda: hierarchical(STAGES, HEADS, {"a": 0}), ("hierarchical", "layers")),
    Bad(lambda: hierarchical(STAGES, HEADS, [0, 1]), ("hierarchical", "layers"), TypeError),
    Bad(lambda: hierarchical(STAGES, HEADS, {"a": 0, "b": 0}), ("hierarchical", "layers")),
    Bad(
        lambda: hierarchical(STAGES, HEADS, DEPTHS, predictions="a", label_size=2),
        ("hierarchical", "predictions"),
        TypeError,
    ),
    Bad(
        lambda: hierarchical(STAGES, HEADS, DEPTHS, predictions=("c",), label_size=2),
        ("hierarchical", "predictions", "'c'"),
    ),
    Bad(
        lambda: hierarchical(STAGES, HEADS, DEPTHS, predictions=("b",), label_size=2),
        ("hierarchical", "predictions", "'b'"),
    ),
    Bad(lambda: hierarchical(STAGES, HEADS, DEPTHS, predictions=None), ("hierarchical", "predictions"), TypeError),
    Bad(lambda: hierarchical(STAGES, HEADS, DEPTHS, label_size=2), ("hierarchical", "label_size")),
    # Flags and functions.
    *each(lambda x: hierarchical(STAGES, HEADS, DEPTHS, shortcut=x), ("hierarchical", "shortcut"), NO_FLAGS, TypeError),
    *each(lambda x: cross_stitch(STAGES, HEADS, per_channel=x), ("cross_stitch", "per_channel"), NO_FLAGS, TypeError),
    *each(lambda x: moe(NET, HEADS, num_experts=2, noise=x), ("moe", "noise"), NO_FLAGS, TypeError),
    *each(
        lambda x: dselect_k(NET, HEADS, num_experts=2, per_example=x), ("dselect_k", "per_example"), NO_FLAGS, TypeError
    ),
    *each(lambda x: soft(NET, HEADS, stacked=x), ("soft", "stacked"), NO_FLAGS, TypeError),
    *each(lambda x: film(STAGES, HEADS, frozen=x), ("film", "frozen"), NO_FLAGS, TypeError),
    *each(lambda x: adapters(STAGES, HEADS, 2, frozen=x), ("adapters", "frozen"), NO_FLAGS, TypeError),
    *each(lambda x: low_rank(NET, HEADS, 2, frozen=x), ("low_rank", "frozen"), NO_FLAGS, TypeError),
    *each(lambda x: deep_fusion(STAGES, HEADS, layers=x), ("deep_fusion", "layers"), NO_FLAGS, TypeError),
    *each(lambda x: adapters(STAGES, HEADS, 2, activation=x), ("adapters", "activation"), NO_FUNCTIONS, TypeError),
    *each(lambda x: low_rank(NET, HEADS, 2, select=x), ("low_rank", "select"), ("kernel", 1.0), TypeError),
    *each(lambda x: soft(NET, HEADS, x), ("soft", "penalty"), ("l2", 1.0), TypeError),
    *each(lambda x: sluice(STAGES, HEADS, kernels=x), ("sluice", "kernels"), NO_FUNCTIONS, TypeError),
    *each(lambda x: statistics_by_task(x), ("statistics_by_task", "model"), (NET, None, hard, nn.Dense(4)), TypeError),
    *each(lambda x: successive_regularization(x, 1.0), ("successive_regularization", "anchor"), (None, {}), TypeError),
    Bad(
        lambda: successive_regularization(PARAMS, 1.0, select="shared"),
        ("successive_regularization", "select"),
        TypeError,
    ),
    Bad(lambda: successive_regularization(PARAMS, 1.0)(None), ("successive_regularization", "params"), TypeError),
    # The functions of a model.
    *each(lambda key: MODEL.init(key, X), ("init", "key"), (0, None, "0", 1.5, X), TypeError),
    Bad(
        lambda: jax.eval_shape(lambda key: MODEL.init(jax.random.split(jax.random.wrap_key_data(key)), X), KEY),
        ("init", "key"),
    ),
    *each(lambda key: applied(key=key)(), ("apply", "key"), (0, "0", X), TypeError),
    *each(lambda train: applied(train=train)(), ("apply", "train"), NO_FLAGS, TypeError),
    *each(lambda tasks: applied(tasks=tasks)(), ("apply", "tasks"), ("a", 1), TypeError),
    *each(lambda tasks: applied(tasks=tasks)(), "apply", (("c",), (1,), ("a", None))),
    *each(
        lambda params: applied(params=params)(), ("apply", "params"), (None, {}, np.ones(2), PARAMS.shared), TypeError
    ),
    Bad(applied(params=PARAMS._replace(tasks={"a": np.float32(1)})), ("apply", "params.tasks", "'b'")),
    Bad(applied(params=PARAMS._replace(tasks=())), ("apply", "params.tasks"), TypeError),
    Bad(applied(inputs=TaskInputs({"a": X})), ("apply", "TaskInputs", "'b'")),
    Bad(applied(inputs=TaskInputs(X)), ("apply", "TaskInputs"), TypeError),  # type: ignore[arg-type]
    Bad(lambda: MODEL.encode(1.0, STATE, X, key=0), ("encode", "key"), TypeError),  # type: ignore[misc]
    Bad(lambda: MODEL.encode(1.0, STATE, X, train="yes"), ("encode", "train"), TypeError),  # type: ignore[misc]
    Bad(lambda: MODEL.decode({"a": 1.0}, STATE, X), ("decode", "tasks_params", "'b'")),  # type: ignore[misc]
    Bad(lambda: MODEL.decode(None, STATE, X), ("decode", "tasks_params"), TypeError),  # type: ignore[misc]
    Bad(
        lambda: jax.eval_shape(
            lambda key: ltb(STAGES, HEADS, temperature=lambda calls: jnp.ones(2)).apply(
                *ltb(STAGES, HEADS).init(key, X), X, key=key, train=True
            ),
            KEY,
        ),
        ("ltb", "temperature"),
    ),
    # Surgery.
    *each(
        lambda where: freeze(optax.sgd(0.1), where), ("freeze", "where"), (None, (), ["shared"], 1, ("a", 1)), TypeError
    ),
    *each(lambda where: thaw(optax.sgd(0.1), where), ("thaw", "where"), (None, ()), TypeError),
    *each(lambda opt: freeze(opt, "shared"), ("freeze", "optimizer"), (optax.sgd, None, "sgd", 0.1), TypeError),
    *each(lambda opt: thaw(opt, "shared"), ("thaw", "optimizer"), (optax.sgd, None), TypeError),
    *each(
        lambda rule: part_labels(rule, default="x"), ("part_labels", "rule"), ("shared", ("shared", 1), None), TypeError
    ),
    Bad(lambda: part_labels(("shared", "slow"), default=None), ("part_labels", "default"), TypeError),
    Bad(lambda: part_labels(("nowhere", "slow"), default="x")(PARAMS), ("part_labels", "nowhere")),
    Bad(lambda: carry_over({"a": X}, {"b": X}), ("carry_over", "['a']", "['b']")),
    Bad(lambda: carry_over({"a": X}, {"a": X[0]}), ("carry_over", "['a']")),
    *each(lambda model: add_task(PARAMS, STATE, model, KEY, X), ("add_task", "model"), (None, hard), TypeError),
    *each(lambda params: add_task(params, STATE, MODEL, KEY, X), ("add_task", "params"), (None, {}), TypeError),
    *each(lambda key: add_task(PARAMS, STATE, MODEL, key, X), ("add_task", "key"), (0, None), TypeError),
    Bad(lambda: add_task(PARAMS, STATE, MODEL, KEY, X), ("add_task", "tasks")),
    *each(lambda model: without_task(PARAMS, STATE, model, X), ("without_task", "model"), (None, hard), TypeError),
    *each(lambda params: without_task(params, STATE, MODEL, X), ("without_task", "params"), (None, {}), TypeError),
    Bad(lambda: without_task(PARAMS, STATE, MODEL, X), ("without_task", "tasks")),
    *each(
        lambda params: prune(STAGES, HEADS, params, STATE), ("prune", "params"), (None, {}, PARAMS.shared), TypeError
    ),
    *each(lambda params: prune(STAGES, HEADS, params, STATE), ("prune", "params"), (PARAMS,)),
]
