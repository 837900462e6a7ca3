"""Six ways to train four tasks at once, on real scanned digits: a table and a plot in about a minute, offline.

The input is a canvas with two digits and one blank cell. A network predicts the left digit, the right digit, their sum
(half of these labels are missing), and the canvas without the gap. Run it with `make demo`, or

    python examples/multi_digits.py --steps 3000 --seeds 5

All methods have the same network, optimizer, batches and initial parameters. Two numbers were tuned on the validation
split: the learning rate, for equal weighting and single-task training together, and the strength of soft sharing. The
parameters of the last step are tested.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro
from flax import linen as nn
from matplotlib.figure import Figure

import mtljax
from mtljax.adapters.flax_linen import from_linen

BATCH_SIZE = 128
LEARNING_RATE = 5e-3  # of Adam at the first step; a cosine schedule decreases it to 0
STRENGTH = 1e-4  # of the penalty of soft sharing; of 1e-4, 1e-3 and 1e-2 it has the smallest delta_m
LOG_EVERY = 5  # steps


def ink_error(logits: jax.Array, ink: jax.Array) -> jax.Array:
    """Absolute error of the painted canvas; ink goes from 0 to 1."""
    return mtljax.metrics.absolute_error(jax.nn.sigmoid(logits), ink)


# Outputs up to 18 would have gradients as large, so the network predicts `(sum - 9) / 5`.
def sum_loss(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Huber loss of the standardized sum."""
    return mtljax.losses.huber()(outputs, (targets - 9.0) / 5.0)


def sum_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Absolute error of the sum, in digits."""
    return mtljax.metrics.absolute_error(9.0 + 5.0 * outputs, targets)


TASKS = {
    "left": mtljax.Task(mtljax.losses.softmax_cross_entropy, {"accuracy": mtljax.metrics.accuracy}),
    "right": mtljax.Task(mtljax.losses.softmax_cross_entropy, {"accuracy": mtljax.metrics.accuracy}),
    "sum": mtljax.Task(sum_loss, {"error": sum_error}),
    "reconstruct": mtljax.Task(mtljax.losses.binary_cross_entropy, {"error": ink_error}),
}
SHAPES = {"left": (10,), "right": (10,), "sum": (), "reconstruct": (12, 16, 1)}
# What the table shows: the task's metric, a factor and a heading.
COLUMNS = {
    "left": ("accuracy", 100.0, "left, accuracy % ↑"),
    "right": ("accuracy", 100.0, "right, accuracy % ↑"),
    "sum": ("error", 1.0, "sum, mean abs. error ↓"),
    "reconstruct": ("error", 100.0, "reconstruct, mean abs. error % ↓"),
}
HIGHER_IS_BETTER = [metric == "accuracy" for metric, _, _ in COLUMNS.values()]

CAPTION = """

Test split, mean ± standard deviation over {seeds} seeds, after {steps} steps of {batch} examples. `sum` is in digits,
`reconstruct` in percent of the darkest ink. delta_m is the mean relative change against single-task training: positive
is worse. ms/step is the median time of one jitted step with one seed on this machine ({device}). A step of single-task
training or soft sharing trains one network per task.
"""

# Runs of several seeds in parallel: every array has an axis for seeds, except the common step.
FIELD_AXES: Any = {field: None if field == "step" else 0 for field in mtljax.TrainState._fields}
SEED_AXIS = mtljax.TrainState(**FIELD_AXES)


class Trunk(nn.Module):
    """From the canvas to features."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(192)(x.reshape(x.shape[0], -1)))
        return nn.relu(nn.Dense(192)(x))


class Head(nn.Module):
    """From features to a task's output `[B, *shape]`."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(math.prod(self.shape))(x).reshape(x.shape[0], *self.shape)


def contestants() -> dict[str, tuple[mtljax.Model, mtljax.Method]]:
    """Who owns which parameters, and how tasks are reconciled, by row of the table."""
    trunk, heads = from_linen(Trunk()), {task: from_linen(Head(shape)) for task, shape in SHAPES.items()}
    sharing, methods = mtljax.sharing, mtljax.methods
    one_trunk = sharing.hard(trunk, heads)
    tied = sharing.soft(trunk, heads, mtljax.penalties.l2_to_mean(STRENGTH))
    return {
        # One network per task, not coupled: four single-task trainings in one step.
        "single-task": (sharing.soft(trunk, heads), methods.equal()),
        "equal weighting": (one_trunk, methods.equal()),
        "uncertainty weighting": (one_trunk, methods.uncertainty()),
        "PCGrad": (one_trunk, methods.pcgrad()),
        "UPGrad": (one_trunk, methods.upgrad()),
        "soft sharing": (tied, methods.equal()),
    }


def make_run(model: mtljax.Model, method: mtljax.Method, steps: int) -> tuple[Callable, Callable]:
    """`(start, step)` of one run: `start(key) -> state` and `step(state, batch) -> (state, metrics)`."""
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))
    losses_fn = mtljax.make_losses_fn(model, TASKS)
    init, step = mtljax.training.make_train_step(losses_fn, method, optimizer)

    def start(key: jax.Array) -> mtljax.TrainState:
        params, model_state = model.init(key, np.zeros((1, 12, 16, 1), np.float32))
        return init(params, model_state, key=key)

    return start, step


def train(
    start: Callable, step: Callable, data: mtljax.Batch, *, steps: int, seeds: int
) -> tuple[mtljax.TrainState, list[dict]]:
    """Train one run per seed, all in one vmapped step; the records hold means over seeds."""
    vmapped = jax.vmap(step, in_axes=(SEED_AXIS, 0), out_axes=(SEED_AXIS, 0))

    def step_all(state: mtljax.TrainState, batch: mtljax.Batch) -> tuple[mtljax.TrainState, Any]:
        state, metrics = vmapped(state, batch)
        return state, jax.tree.map(lambda metric: metric.mean(0), metrics)

    def batches(first: int) -> Iterator[mtljax.Batch]:
        streams = [mtljax.data.batches(data, batch_size=BATCH_SIZE, seed=s, start_step=first) for s in range(seeds)]
        for each in zip(*streams, strict=True):
            yield jax.tree.map(lambda *arrays: np.stack(arrays), *each)

    state = jax.vmap(start, out_axes=SEED_AXIS)(jax.random.split(jax.random.key(0), seeds))
    history: list[dict] = []
    options = {"num_steps": steps, "log": history.append, "log_every": LOG_EVERY}
    return mtljax.training.fit(mtljax.training.jit(step_all), state, batches, **options).state, history


def measure(model: mtljax.Model, state: mtljax.TrainState, split: mtljax.Batch, *, seeds: int) -> np.ndarray:
    """Each task's metric on a split, `[seeds, tasks]` in the order of the columns."""
    evaluate = mtljax.training.make_evaluate(model, TASKS)
    rows = []
    for seed in range(seeds):
        params, model_state = jax.tree.map(lambda leaf, seed=seed: leaf[seed], (state.params, state.model_state))
        alone = state._replace(params=params, model_state=model_state)
        found = evaluate(alone, mtljax.data.evaluation_batches(split, 1000))
        rows.append([factor * found[task][metric] for task, (metric, factor, _) in COLUMNS.items()])
    return np.array(rows)


def milliseconds(
    runs: dict[str, tuple[Callable, Callable]], data: mtljax.Batch, *, rounds: int = 40
) -> dict[str, float]:
    """Median time of a step of one seed, after warm-up; methods take turns, so that other load affects all equally."""
    batch = next(mtljax.data.batches(data, batch_size=BATCH_SIZE, seed=0))
    steps = {name: mtljax.training.jit(step) for name, (_, step) in runs.items()}
    states = {name: start(jax.random.key(0)) for name, (start, _) in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _, name in itertools.product(range(5 + rounds), runs):
        begin = time.perf_counter()
        states[name], _ = jax.block_until_ready(steps[name](states[name], batch))
        times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: float(np.median(taken[5:])) for name, taken in times.items()}


def summarize(values: dict[str, np.ndarray], timed: dict[str, float]) -> tuple[str, dict[str, Any]]:
    """The table in markdown, and its contents as a dict for JSON."""
    baseline = values["single-task"].mean(0)
    header = ["method", *(heading for _, _, heading in COLUMNS.values()), "delta_m % ↓", "ms/step"]
    lines, record = [header], {}
    for name, table in values.items():
        change = mtljax.metrics.delta_m(table, baseline, higher_is_better=HIGHER_IS_BETTER)
        columns = dict(zip([*COLUMNS, "delta_m"], np.column_stack([table, change]).T, strict=True))
        record[name] = {
            key: {"mean": column.mean(), "std": column.std(ddof=1), "seeds": column.tolist()}
            for key, column in columns.items()
        } | {"milliseconds": timed[name]}
        digits = dict.fromkeys(columns, 1) | {"sum": 2, "reconstruct": 2}
        cells = [f"{c.mean():z.{digits[key]}f} ± {c.std(ddof=1):.{digits[key]}f}" for key, c in columns.items()]
        lines.append([name, *cells, f"{timed[name]:.1f}"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]])
    rows = [
        "| " + " | ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(row + " |" for row in rows), record


# Palettes for colour-blind readers: Okabe and Ito's for methods, Tol's for pairs of tasks.
STYLES = [("#000000", "-"), ("#E69F00", "-"), ("#56B4E9", "-"), ("#009E73", "-"), ("#D55E00", "--"), ("#CC79A7", "--")]
PAIR_COLORS = ["#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377"]
LOSS_UNITS = {"left": "cross-entropy", "right": "cross-entropy", "sum": "Huber loss", "reconstruct": "cross-entropy"}


def smooth(curve: np.ndarray, window: int) -> np.ndarray:
    """Moving average over records, with shorter windows at the ends."""
    kernel = np.ones(min(window, len(curve)))
    return np.convolve(curve, kernel, "same") / np.convolve(np.ones(len(curve)), kernel, "same")


def plot(histories: dict[str, list[dict[str, Any]]], observed: str) -> Figure:
    """Training loss per task and method, and the cosines of task gradients under one of the methods."""
    names = sorted(TASKS)  # the order of the Gramian's rows
    figure = Figure(figsize=(13, 7.4), layout="constrained", dpi=130)
    grid = figure.add_gridspec(2, 1, height_ratios=[1, 1.15])
    top, bottom = (figure.add_subfigure(cell) for cell in grid)

    axes = top.subplots(1, len(TASKS))
    for axis, task in zip(axes, TASKS, strict=True):
        for (method, history), (color, line) in zip(histories.items(), STYLES, strict=False):
            steps = [entry["step"] for entry in history]
            losses = np.array([entry["train"]["losses"][task] for entry in history])
            axis.plot(steps, smooth(losses, 9), line, color=color, label=method, linewidth=1.6)
        axis.set(
            yscale="log" if task in ("left", "right") else "linear",
            title=task,
            xlabel="step",
            ylabel=f"{LOSS_UNITS[task]} (training)",
        )
    top.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(histories), frameon=False)

    history = histories[observed]
    steps = [entry["step"] for entry in history]
    cosines = np.array([entry["train"]["cosines"] for entry in history])
    lines, first, last = bottom.subplots(1, 3, width_ratios=[2.1, 1, 1])
    lines.axhline(0, color="0.6", linewidth=1)
    for (i, j), color in zip(itertools.combinations(range(len(names)), 2), PAIR_COLORS, strict=True):
        label = f"{names[i]}, {names[j]}"
        lines.plot(steps, smooth(cosines[:, i, j], 15), color=color, label=label, linewidth=1.6)
    lines.set(title=f"cosine of task gradients under {observed}", xlabel="step", ylabel="conflict < 0 < agreement")
    lines.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.15))

    ends = max(1, len(history) // 10)
    matrices = {"first tenth of training": cosines[:ends].mean(0), "last tenth": cosines[-ends:].mean(0)}
    others = ~np.eye(len(names), dtype=bool)
    limit = max(0.1, *(float(np.abs(matrix[others]).max()) for matrix in matrices.values()))
    for axis, (title, matrix) in zip((first, last), matrices.items(), strict=True):
        axis.set_facecolor("0.85")  # of the diagonal, where the cosine is 1
        image = axis.imshow(np.where(others, matrix, np.nan), cmap="PuOr", vmin=-limit, vmax=limit)
        for i, j in np.argwhere(others):
            shade = "white" if abs(matrix[i, j]) > 0.7 * limit else "black"
            axis.text(j, i, f"{matrix[i, j]:+z.2f}", ha="center", va="center", color=shade, fontsize=9)
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names)
        axis.set_title(title)
    bottom.colorbar(image, ax=[first, last], shrink=0.8, label="cosine")
    for axis in (*axes, lines):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def main(steps: int = 700, seeds: int = 3, out: Path = Path("outputs/multi_digits")) -> None:
    """Train, test, print the table, draw the plot.

    Args:
        steps: training steps of each run.
        seeds: runs of each method, at least 2.
        out: folder for the data, the table and the plot.
    """
    if steps < 1 or seeds < 2:
        raise SystemExit(f"expected --steps of at least 1 and --seeds of at least 2, found {steps} and {seeds}")
    data = mtljax.data.load_multi_digits(out / "data")
    runs, values, histories = {}, {}, {}
    for name, (model, method) in contestants().items():
        print(f"{name}: {seeds} seeds, {steps} steps", flush=True)
        start, step = runs[name] = make_run(model, method, steps)
        state, histories[name] = train(start, step, data["train"], steps=steps, seeds=seeds)
        values[name] = measure(model, state, data["test"], seeds=seeds)
    table, record = summarize(values, milliseconds(runs, data["train"]))
    table += CAPTION.format(seeds=seeds, steps=steps, batch=BATCH_SIZE, device=jax.devices()[0].device_kind)
    settings = {"steps": steps, "seeds": seeds, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE}
    (out / "table.md").write_text(table)
    (out / "results.json").write_text(json.dumps({"settings": settings, "results": record}, indent=1))
    plot(histories, observed="UPGrad").savefig(out / "plot.png")
    print(f"\n{table}")
    for file in ("table.md", "results.json", "plot.png"):
        print((out / file).resolve())


if __name__ == "__main__":
    tyro.cli(main)
