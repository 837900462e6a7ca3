"""School: explained variance of convex multi-task models on 139 schools, random splits, penalties by cross-validation.

python -m benchmarks.school [--models trace_norm l21] [--shares 75 10] [--splits 10] [--folds 3] [--out FILE]

The data (`school/school.mat`: 15,362 pupils of 139 schools, 27 features and a constant) is looked for in the folder
that `MTLJAX_DATA` names, then in ../shared/data. A split is a random part of each school's pupils for training, the
rest for testing; features are standardised by the training part, whose mean target is taken off, and a constant is
penalised like any other feature, so that what schools differ in is. Strengths are chosen by cross-validation inside the
training part. The figure is 100 (1 - SSE / sum of squares around the mean) of the test pupils of all schools pooled.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from mtljax import gaussian_process as gp
from mtljax import penalties
from mtljax.convex.alternating.learning import feature_learning, relation_learning
from mtljax.convex.baselines import mean_regularized, pooled, ridge_per_task
from mtljax.convex.linear import explained_variance, predict
from mtljax.convex.path import cross_validate
from mtljax.convex.problem import TaskRows, pad
from mtljax.convex.splits import fold_numbers, split_rows
from mtljax.types import Array, Key
from tests.convex.school import school as real_school
from tests.real_data import folder, missing

SHARES = [75, 30, 20, 10]
TOLERANCE = 1e-4

Learner = Callable[[TaskRows, Key, int], Array]
"""From training rows, a key for the folds and their number to outputs `[T, N]` for all rows."""


def by_penalty(*makes: Callable[[Any], penalties.Penalty], strengths: Any) -> Learner:
    """`fit` under the penalty, and at the strength, that cross-validation chooses."""

    def learn(rows: TaskRows, key: Key, folds: int) -> Array:
        found = [
            cross_validate(rows, make, strengths, folds=folds, key=key, score=explained_variance, tolerance=TOLERANCE)
            for make in makes
        ]
        best = jnp.argmax(jnp.stack([jnp.max(each.mean) for each in found]))
        return jnp.stack([predict(each.fit, rows.inputs) for each in found])[best]

    return learn


def by_fitting(fitted: Callable[[TaskRows, Any], Any], strengths: Any) -> Learner:
    """The same for a model that is no penalty: `fitted(rows, strength)` has weights and intercepts."""

    def learn(rows: TaskRows, key: Key, folds: int) -> Array:
        numbers = fold_numbers(key, rows, folds)

        def score(strength: Any, number: Array) -> Array:
            held_out = numbers == number
            outputs = predict(fitted(rows._replace(mask=rows.mask & ~held_out), strength), rows.inputs)
            return explained_variance(outputs, rows._replace(mask=rows.mask & held_out))

        def mean(strength: Any) -> Array:
            return jnp.mean(jax.lax.map(functools.partial(score, strength), jnp.arange(folds)))

        best = jnp.argmax(jax.lax.map(mean, strengths))
        return predict(fitted(rows, jax.tree.map(lambda leaf: leaf[best], strengths)), rows.inputs)

    return learn


def near_mean(rows: TaskRows, pair: Array) -> Any:
    """Penalties of the mean, and of what is a task's own: the latter `1 / pair[1]` times as strong."""
    return mean_regularized(rows, pair[0] / pair[1], pair[0])


def gaussian_process(rank: int) -> Learner:
    """Coregionalised linear functions, the hyper-parameters by likelihood: no folds.

    One noise for all schools: with a noise for each, those of a few pupils are fitted exactly, and the likelihood has
    no bound.
    """

    def tied(params: gp.Hyperparameters) -> gp.Hyperparameters:
        noise = jnp.mean(params.log_noise)
        return params._replace(log_noise=jnp.full_like(params.log_noise, noise))

    def learn(rows: TaskRows, key: Key, folds: int) -> Array:
        num_tasks, length, features = rows.inputs.shape
        tasks = jnp.broadcast_to(jnp.arange(num_tasks)[:, None], (num_tasks, length)).reshape(-1)
        inputs = rows.inputs.reshape(-1, features)
        data = gp.Observations(inputs, tasks, rows.targets.reshape(-1), rows.mask.reshape(-1))
        statistics = gp.linear_statistics(data, num_tasks)
        start = gp.init(data, num_tasks, rank=rank, kernel=gp.linear())
        found = gp.fit(
            start, statistics, log_likelihood=lambda params, data: gp.linear_log_likelihood(tied(params), data)
        )
        return gp.linear_predict(tied(found.params), statistics, inputs, tasks).mean.reshape(num_tasks, length)

    return learn


def grid(low: float, high: float, number: int) -> Array:
    """From large to small, for warm starts."""
    return jnp.logspace(jnp.log10(high), jnp.log10(low), number)


def pairs(first: Sequence[float], second: Sequence[float]) -> Array:
    return jnp.array([(a, b) for b in second for a in first])


def feature(rows: TaskRows, gamma: Array) -> Any:
    return feature_learning(*rows, gamma=gamma, max_steps=200, tolerance=1e-3)


def relate(rows: TaskRows, pair: Array) -> Any:
    return relation_learning(*rows, lambda1=pair[0], lambda2=pair[1], intercept=False, max_steps=200, tolerance=1e-3)


MODELS: dict[str, Learner] = {
    "ridge per task": by_fitting(lambda rows, s: ridge_per_task(rows, s), grid(1, 1000, 10)),
    "pooled ridge": by_fitting(lambda rows, s: pooled(rows, s), grid(1, 1e4, 8)),
    "mean-regularised": by_fitting(near_mean, pairs([2000, 600, 200, 60, 20, 6], [0.3, 0.1, 0.03, 0.01])),
    "trace norm": by_penalty(penalties.trace_norm, strengths=grid(10, 1000, 10)),
    "l21": by_penalty(penalties.l21, strengths=grid(3, 300, 10)),
    "learned relation": by_penalty(penalties.learned_relation, strengths=grid(0.03, 3, 8)),
    "robust": by_penalty(
        lambda s: penalties.robust(s[0], s[1]), strengths=pairs([300, 150, 80, 40], [300, 150, 80, 40])
    ),
    "dirty": by_penalty(
        lambda s: penalties.dirty(s[0], s[1]), strengths=pairs([10000, 3000, 1000, 300], [1000, 300, 100, 30])
    ),
    "clustered": by_penalty(
        *(lambda s, k=k: penalties.clustered(k, s[0], eta=s[1]) for k in (1, 2, 5)),
        strengths=pairs([300, 100, 30, 10], [0.3, 0.1, 0.03]),
    ),
    "feature learning": by_fitting(feature, grid(1, 100, 5)),
    "relation learning": by_fitting(relate, pairs([1.0, 0.1], [0.1, 0.3, 1.0])),
    "Gaussian process, rank 1": gaussian_process(1),
    "Gaussian process, rank 2": gaussian_process(2),
}


def school() -> TaskRows:
    """The rows, without the constant feature."""
    found = folder("school")
    if found is None:
        raise SystemExit(missing("school"))
    inputs, scores = real_school(found)
    return pad([x[:, :27].astype(np.float32) for x in inputs], [y.astype(np.float32) for y in scores])


def standardized(train: TaskRows) -> TaskRows:
    """Features of mean 0 and variance 1 over the pupils of the training part, and a constant; targets of mean 0."""
    weight = train.mask[:, :, None] / jnp.sum(train.mask)
    centered = train.inputs - jnp.sum(weight * train.inputs, (0, 1), keepdims=True)
    scale = jnp.sqrt(jnp.sum(weight * jnp.square(centered), (0, 1), keepdims=True))
    inputs = jnp.concatenate([centered / jnp.where(scale > 0, scale, 1.0), jnp.ones_like(centered[:, :, :1])], 2)
    mean = jnp.sum(jnp.where(train.mask, train.targets, 0.0)) / jnp.sum(train.mask)
    return train._replace(inputs=inputs, targets=train.targets - mean)


def run(learner: Learner, folds: int, rows: TaskRows, share: Array, key: Key) -> Array:
    split_key, fold_key = jax.random.split(key)
    train, test = split_rows(split_key, rows, share)
    train = standardized(train)
    return explained_variance(learner(train, fold_key, folds), train._replace(mask=test.mask))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--shares", nargs="+", type=int, default=SHARES)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    rows, facts = school(), timing.machine()
    records, path = [], None
    for name in arguments.models:
        learn = jax.jit(functools.partial(run, MODELS[name], arguments.folds))
        record: dict[str, Any] = {"model": name, "explained variance": {}}
        for share in arguments.shares:
            keys = (jax.random.key(split) for split in range(arguments.splits))
            record["explained variance"][str(share)] = [float(learn(rows, share / 100, key)) for key in keys]
        records.append(record)
        path = timing.write("school", facts, {"folds": arguments.folds, "records": records}, arguments.out)
        print(show(records[-1:]).splitlines()[-1], flush=True)
        jax.clear_caches()
    print("\n" + show(records) + f"\n\nWritten to {path}")


def show(records: Sequence[dict[str, Any]]) -> str:
    shares = list(records[0]["explained variance"])
    lines = []
    for record in records:
        cells = [record["model"]]
        for share in shares:
            found = np.array(record["explained variance"][share])
            spread = f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else ""
            cells.append(f"{found.mean():.2f}{spread}")
        lines.append(cells)
    return timing.table(["model", *(f"{share} %" for share in shares)], lines)


if __name__ == "__main__":
    main()
