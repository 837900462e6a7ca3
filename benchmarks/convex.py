"""Time paths of 50 strengths under 5-fold cross-validation, beside scikit-learn on the same problems.

python -m benchmarks.convex [--out FILE]

* `l21, shared inputs`: `MultiTaskLassoCV` solves the same problem, since all tasks have the same rows: the computer
  survey (20 products, 14 features, 190 people) and drawn data (400 rows, 60 features, 30 tasks). Both sides stop at a
  certificate of 1e-4, each in its own unit; `excess` is each side's objective over the exact optimum, less 1, at the
  strength that theirs chose.
* `ridge per task, School`: every task by itself, 139 x 50 x 5 fits: `Ridge` in a loop, and ours on the device.
* `l21, School` has no counterpart in scikit-learn, since schools have rows of their own; it stands alone.

All in float32 on our side and float64 on theirs, as each has it by default.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.io
from sklearn.linear_model import MultiTaskLasso, MultiTaskLassoCV, Ridge

from benchmarks import timing
from benchmarks.school import school, standardized
from mtljax import penalties
from mtljax.convex.baselines import ridge_per_task
from mtljax.convex.fit import fit
from mtljax.convex.linear import predict
from mtljax.convex.path import cross_validate
from mtljax.convex.problem import TaskRows, columns
from mtljax.convex.splits import fold_numbers
from tests.real_data import folder

STRENGTHS, FOLDS, TOLERANCE = 50, 5, 1e-4


def survey() -> tuple[np.ndarray, np.ndarray] | None:
    path = folder("computer_survey")
    if path is None:
        return None
    found = scipy.io.loadmat(path / "conjointAnalysisComputerBuyers.mat")
    inputs, targets = found["designMarix"].astype(np.float64), found["likeBuy"].T.astype(np.float64)
    return inputs - inputs.mean(0), targets - targets.mean(0)


def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 60))
    weights = rng.normal(size=(60, 30)) * (np.arange(60) < 12)[:, None]
    return inputs, inputs @ weights + 3.0 * rng.normal(size=(400, 30))


def shared_inputs(inputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    size = len(inputs)
    largest = np.linalg.norm(inputs.T @ targets, axis=1).max() / size
    alphas = largest * np.logspace(0, -3, STRENGTHS)
    folds = np.arange(size) % FOLDS
    splits = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(FOLDS)]
    rows = columns(inputs.astype(np.float32), targets.astype(np.float32))

    def validate(rows: TaskRows) -> Any:
        return cross_validate(
            rows,
            penalties.l21,
            jnp.asarray(alphas, jnp.float32),
            folds=np.broadcast_to(folds, rows.mask.shape),
            average=True,
            tolerance=TOLERANCE,
        )

    ours = jax.jit(validate)

    def theirs() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Its annotation is of a number of strengths alone; it takes the strengths too.
            strengths: Any = alphas
            return MultiTaskLassoCV(alphas=strengths, cv=splits, fit_intercept=False, tol=TOLERANCE).fit(
                inputs, targets
            )

    reference = theirs()
    fitted = fit(rows, penalties.l21(float(reference.alpha_)), average=True, tolerance=TOLERANCE)
    exact = MultiTaskLasso(alpha=reference.alpha_, fit_intercept=False, tol=1e-10, max_iter=100_000)

    def objective(weights: np.ndarray) -> float:
        misfit = np.square(targets - inputs @ weights).sum() / (2 * size)
        return misfit + reference.alpha_ * np.linalg.norm(weights, axis=1).sum()

    best = objective(exact.fit(inputs, targets).coef_.T)
    return {
        **compare({"mtljax": lambda: ours(rows), "scikit-learn": theirs}),
        "excess": {
            "mtljax": float(objective(np.asarray(fitted.weights, np.float64).T) / best - 1.0),
            "scikit-learn": float(objective(reference.coef_.T) / best - 1.0),
        },
    }


def ridge_on_school() -> dict[str, Any]:
    rows = standardized(school())
    strengths = np.logspace(0, 3, STRENGTHS)
    numbers = fold_numbers(jax.random.key(0), rows, FOLDS)

    @jax.jit
    def ours() -> jax.Array:
        def fold(number: jax.Array) -> jax.Array:
            train = rows._replace(mask=rows.mask & (numbers != number))

            def one(strength: jax.Array) -> jax.Array:
                outputs = predict(ridge_per_task(train, strength, intercept=True), rows.inputs)
                return jnp.sum(jnp.where(numbers == number, jnp.square(outputs - rows.targets), 0.0))

            return jax.lax.map(one, jnp.asarray(strengths, jnp.float32))

        return jax.lax.map(fold, jnp.arange(FOLDS))

    inputs, targets, number = (np.asarray(x) for x in (rows.inputs, rows.targets, numbers))

    def theirs() -> np.ndarray:
        scores = np.zeros((FOLDS, STRENGTHS))
        for x, y, own in zip(inputs, targets, number, strict=True):
            for k in range(FOLDS):
                train, test = (own >= 0) & (own != k), own == k
                for s, strength in enumerate(strengths):
                    model = Ridge(alpha=strength).fit(x[train], y[train])
                    scores[k, s] += np.square(model.predict(x[test]) - y[test]).sum()
        return scores

    apart = np.abs(np.asarray(ours()) / theirs() - 1.0).max()
    return {**compare({"mtljax": ours, "scikit-learn": theirs}), "scores apart": float(apart)}


def l21_on_school() -> dict[str, Any]:
    rows = standardized(school())
    strengths = jnp.logspace(3, 0, STRENGTHS)

    def validate(rows: TaskRows, key: jax.Array) -> Any:
        return cross_validate(rows, penalties.l21, strengths, folds=FOLDS, key=key, intercept=True, tolerance=TOLERANCE)

    run = jax.jit(validate)
    return compare({"mtljax": lambda: run(rows, jax.random.key(0))})


def compare(sides: dict[str, Any]) -> dict[str, Any]:
    times = timing.alternate(sides, seconds=20.0)
    record: dict[str, Any] = {"seconds": {name: float(np.median(each)) for name, each in times.items()}}
    if "scikit-learn" in times:
        record["ratio"] = timing.ratio(times["scikit-learn"], times["mtljax"])._asdict()
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    facts, busy = timing.machine(), timing.Busy()
    found = survey()
    problems = {
        "l21, survey": None if found is None else lambda: shared_inputs(*found),
        "l21, drawn": lambda: shared_inputs(*drawn()),
        "ridge per task, School": ridge_on_school,
        "l21, School": l21_on_school,
    }
    records, path = [], None
    for name, measure in problems.items():
        if measure is None:
            continue
        records.append({"problem": name, **measure()})
        path = timing.write("convex", facts, {"busy": busy.share(), "records": records}, arguments.out)
        print(records[-1], flush=True)
    lines = []
    for record in records:
        seconds = record["seconds"]
        ratio = timing.Ratio(**record["ratio"]) if "ratio" in record else "-"
        theirs = f"{seconds['scikit-learn']:.3g}" if "scikit-learn" in seconds else "-"
        lines.append([record["problem"], f"{seconds['mtljax']:.3g}", theirs, ratio])
    print("\n" + timing.table(["50 strengths x 5 folds", "mtljax, s", "scikit-learn, s", "ratio"], lines))
    print(f"\nOther processes took {busy.share():.1%} of the CPU.\nWritten to {path}")


if __name__ == "__main__":
    main()
