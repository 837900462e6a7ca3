"""Time T soft-shared copies of a network, stacked and unrolled, beside T networks trained in a Python loop.

python -m benchmarks.stacked [--quick] [--tasks 2 8] [--kinds mlp conv] [--out FILE]

Sides, each a whole training step with plain SGD and equal weights:

- `loop`: T separate networks, one jitted step each, called in turn from Python; by hand, without mtljax.
- `unrolled`, `stacked`: `sharing.soft` with `stacked=False` and `stacked=True`, no penalty.
- `... + penalty`: the same with `l2_to_mean`; the table shows the penalty's share of the step that has it.
- `stored`, `restacked`: by hand, one vmapped network on parameters that are stored stacked, `[T, *p]`, and on
  parameters that are stored by task and stacked anew at every step. Their ratio is the price of stacking, free of
  what else mtljax's step does. Dense networks only: stacked convolutions are slow enough to tell nothing more.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from benchmarks import nets, timing
from benchmarks.nets import Problem
from benchmarks.ours import Side, compiled, first_state
from mtljax.sharing.frames.network import Network

TASKS = [2, 4, 8, 16, 32]
QUICK_TASKS = [2, 8]
STRENGTH = 1e-3
GOAL = 0.05
"""What a penalty may add to a step, as a share of it."""


class Kind(NamedTuple):
    """What is copied.

    Attributes:
        widths: of a dense network; empty for the convolutional one of `nets`.
        batch: B.
        tasks: the numbers of copies that are timed unless others are asked for; empty for all of `TASKS`.
    """

    widths: tuple[int, ...]
    batch: int
    tasks: tuple[int, ...] = ()


KINDS = {
    "mlp": Kind((784, 512, 512, 512), 64),
    "conv": Kind((), 8),
    # Small dense copies, where stacking has most to gain.
    "dense 16": Kind((16, 16, 16), 32, (8,)),
    "dense 64": Kind((64, 64, 64), 32, (8,)),
    "dense 256": Kind((256, 256, 256), 32, (8,)),
}

Record = dict[str, Any]


def make_problem(name: str, num_tasks: int) -> Problem:
    """One network at its first parameters, T heads and a batch."""
    kind = KINDS[name]
    problem = nets.make_problem("small" if kind.widths else "conv", num_tasks, kind.batch)
    if not kind.widths:
        return problem
    rng = np.random.default_rng(len(kind.widths))

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    shapes = list(itertools.pairwise(kind.widths))
    shared = {f"w{i}": normal(*shape, scale=(2 / shape[0]) ** 0.5) for i, shape in enumerate(shapes)}
    shared |= {f"b{i}": np.zeros(shape[1], np.float32) for i, shape in enumerate(shapes)}
    head = (kind.widths[-1], nets.CLASSES)
    tasks = {k: {"w": normal(*head, scale=head[0] ** -0.5), "b": own["b"]} for k, own in problem.tasks.items()}
    return problem._replace(kind=name, shared=shared, tasks=tasks, inputs=normal(kind.batch, kind.widths[0]))


def soft(problem: Problem, stacked: bool, tied: bool) -> Side:
    """A step of `sharing.soft`, as `mtljax.training.jit` runs it."""

    def at(values: Any, apply: Any) -> Network:
        return Network(
            init=lambda key, inputs: (jax.tree.map(jnp.array, values), ()),
            apply=lambda params, state, inputs, *, key=None, train=False: (apply(params, inputs), state),
        )

    heads = {name: at(own, nets.head) for name, own in problem.tasks.items()}
    penalty = mtljax.penalties.l2_to_mean(STRENGTH) if tied else None
    model = mtljax.sharing.soft(at(problem.shared, nets.trunk), heads, penalty, stacked=stacked)
    init, step = mtljax.training.make_train_step(
        nets.losses_fn(problem, model),
        mtljax.methods.equal(),
        optax.sgd(nets.LEARNING_RATE),
    )
    state, batch = first_state(problem, init, model), problem.batch
    program, facts = compiled(step, state, batch, donate=(0,))
    return _side(program, state, batch, lambda metrics: list(metrics["losses"].values()), facts)


def vmapped(problem: Problem, restack: bool) -> Side:
    """One vmapped network, by hand; on parameters stored stacked, or stored by task and stacked at every step."""
    names = sorted(problem.tasks)

    def stack(params: Any) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)

    def step(params: Any, batch: Any) -> Any:
        inputs, labels = batch

        def total(params: Any) -> Any:
            losses = jax.vmap(_loss, in_axes=(0, None, 0))(stack(params) if restack else params, inputs, labels)
            return losses.sum(), losses

        (_, losses), grads = jax.value_and_grad(total, has_aux=True)(params)
        return _descend(params, grads), losses

    params = [_own(problem, name) for name in names]
    params = params if restack else stack(params)
    batch = jnp.asarray(problem.inputs), jnp.stack([jnp.asarray(problem.targets[name]) for name in names])
    program, facts = compiled(step, params, batch, donate=(0,))
    return _side(program, params, batch, lambda losses: losses, facts)


def loop(problem: Problem) -> Side:
    """T separate networks, one jitted step each."""
    names = sorted(problem.tasks)

    def step(params: Any, inputs: Any, labels: Any) -> Any:
        loss, grads = jax.value_and_grad(_loss)(params, inputs, labels)
        return _descend(params, grads), loss

    params = {name: _own(problem, name) for name in names}
    inputs, labels = jnp.asarray(problem.inputs), {k: jnp.asarray(each) for k, each in problem.targets.items()}
    _, facts = compiled(step, params[names[0]], inputs, labels[names[0]], donate=(0,))
    # A compiled program is called through Python, a jitted function through C++: what a user would write.
    jitted = jax.jit(step, donate_argnums=(0,))
    losses: dict[str, Any] = {}

    def run() -> Any:
        for name in names:
            params[name], losses[name] = jitted(params[name], inputs, labels[name])
        return params, losses

    return Side(run, lambda: np.array([losses[name] for name in names]), dict, **facts)


def _own(problem: Problem, name: str) -> Any:
    return jax.tree.map(jnp.array, {"trunk": problem.shared, "head": problem.tasks[name]})


def _loss(own: Any, inputs: Any, labels: Any) -> jax.Array:
    return nets.cross_entropy(nets.head(own["head"], nets.trunk(own["trunk"], inputs)), labels)


def _descend(params: Any, grads: Any) -> Any:
    return jax.tree.map(lambda p, g: p - nets.LEARNING_RATE * g, params, grads)


def _side(program: Any, state: Any, batch: Any, losses: Any, facts: Record) -> Side:
    now = [state, None]

    def step() -> Any:
        now[:] = program(now[0], batch)
        return now

    return Side(step, lambda: np.array(losses(now[1])), dict, **facts)


def measure(name: str, num_tasks: int, *, rounds: int, seconds: float) -> Record:
    """One network at one T: milliseconds, ratios to the loop, penalty's share, memory."""
    problem = make_problem(name, num_tasks)
    sides = {
        "loop": loop(problem),
        "unrolled": soft(problem, False, False),
        "stacked": soft(problem, True, False),
        "unrolled + penalty": soft(problem, False, True),
        "stacked + penalty": soft(problem, True, True),
    }
    if KINDS[name].widths:
        sides |= {"stored": vmapped(problem, False), "restacked": vmapped(problem, True)}
    # The second step's losses see the first step's update.
    for side in sides.values():
        side.step()
        side.step()
    expected = sides["loop"].losses()
    for form, side in sides.items():
        if not np.allclose(side.losses(), expected, rtol=1e-4, atol=0):
            raise RuntimeError(f"{name} T={num_tasks}: losses of {form} are {side.losses()}, expected {expected}")
    steps = {form: side.step for form, side in sides.items()}
    times = timing.alternate(steps, rounds=rounds, seconds=seconds, warmup=0)
    size = problem.num_shared + sum(leaf.size for leaf in problem.tasks["task00"].values())
    return {
        "kind": name,
        "T": num_tasks,
        "B": len(problem.inputs),
        "parameters": size,
        "rounds": len(times["loop"]),
        "ms": {form: timing.milliseconds(taken) for form, taken in times.items()},
        "over_loop": {form: timing.ratio(taken, times["loop"])._asdict() for form, taken in times.items()},
        "stacked_over_unrolled": timing.ratio(times["stacked"], times["unrolled"])._asdict(),
        "restacked_over_stored": (
            timing.ratio(times["restacked"], times["stored"])._asdict() if "stored" in times else None
        ),
        "penalty": {
            form: 1 - timing.ratio(times[form], times[f"{form} + penalty"]).median for form in ("unrolled", "stacked")
        },
        "temp_bytes": {form: side.temp_bytes for form, side in sides.items()},
        "compile_s": {form: side.compile_s for form, side in sides.items()},
    }


def show(records: Sequence[Record]) -> str:
    """The table that is printed."""
    header = ["network", "T", "loop ms", "unrolled", "stacked", "stored", "restacked", "stacked / unrolled"]
    header += ["restacked / stored", "penalty unrolled", "stacked", "temp MB unrolled", "stacked", "stored"]
    header += ["compile s unrolled", "stacked"]
    lines = []
    for record in records:
        over, memory, took = record["over_loop"], record["temp_bytes"], record["compile_s"]
        line = [record["kind"], record["T"], f"{record['ms']['loop']:.2f}"]
        forms = ("unrolled", "stacked", "stored", "restacked")
        line += [f"{over[form]['median']:.2f}" if form in over else "-" for form in forms]
        for pair in ("stacked_over_unrolled", "restacked_over_stored"):
            line.append(str(timing.Ratio(**record[pair])) if record[pair] else "-")
        line += [f"{record['penalty'][form]:.1%}" for form in ("unrolled", "stacked")]
        known = [memory.get(form) for form in ("unrolled", "stacked", "stored")]
        line += ["-" if bytes_ is None else f"{bytes_ / 1e6:.2f}" for bytes_ in known]
        line += [f"{took[form]:.1f}" for form in ("unrolled", "stacked")]
        lines.append(line)
    return timing.table(header, lines)


def judge(records: Sequence[Record]) -> str:
    """The penalty's goal against the worst that was measured."""
    shares = [(share, form, record) for record in records for form, share in record["penalty"].items()]
    reached = sum(share < GOAL for share, *_ in shares)
    worst, form, record = max(shares, key=lambda each: each[0])
    return (
        f"penalty's share of a soft-sharing step below {GOAL:.0%}: in {reached} of {len(shares)}; "
        f"worst {worst:.1%} ({record['kind']}, T={record['T']}, {form})"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="T = 2 and 8, few rounds; under a minute and a half")
    parser.add_argument("--tasks", nargs="+", type=int, metavar="T", help="only these numbers of copies")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args(argv)
    asked = options.tasks or (QUICK_TASKS if options.quick else TASKS)
    effort = {"rounds": 5, "seconds": 1.5} if options.quick else {"rounds": 9, "seconds": 3.0}
    facts, busy, begin = timing.machine(), timing.Busy(), time.perf_counter()
    records: list[Record] = []
    share, path = 0.0, None
    for name in options.kinds:
        for num_tasks in asked:
            if options.tasks is None and KINDS[name].tasks and num_tasks not in KINDS[name].tasks:
                continue
            records.append(measure(name, num_tasks, **effort))
            jax.clear_caches()
            print("\n".join(show(records[-1:]).splitlines()[0 if len(records) == 1 else 2 :]), flush=True)
            # After every record: a run that is cut off keeps what it has measured.
            share = busy.share()
            results = {"quick": options.quick, "busy": share, "records": records}
            path = timing.write("stacked-quick" if options.quick else "stacked", facts, results, options.out)
    print(f"\n{show(records)}\n\n{judge(records)}")
    print(f"\n{time.perf_counter() - begin:.0f} s; other processes took {share:.1%} of the CPU.\nWritten to {path}")


if __name__ == "__main__":
    main()
