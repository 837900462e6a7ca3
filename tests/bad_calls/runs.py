"""Bad calls of what runs a training: fit, evaluation, checkpoints, logs, stages, recipes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from mtljax.training import checkpoint, log, recipes, stages
from tests.bad_calls.bad import NAN, NO_FLAGS, NO_FUNCTIONS, Bad, count, each

STATE = mtljax.TrainState(
    *(np.int32(3), mtljax.Params({"w": np.ones(2, np.float32)}, {"a": np.ones(1, np.float32)}), {}, ()),
    *(mtljax.MethodState((), ()), np.zeros(2, np.uint32)),
)
FOLDER = Path(tempfile.mkdtemp())
(FOLDER / "file").write_text("mine")


def step(state, batch):
    raise AssertionError("no step is to be made")


def fit(*, step=step, state=STATE, batches=step, num_steps=4, **options):
    return mtljax.training.fit(step, state, batches, **{"num_steps": num_steps, "progress": False, **options})


def evaluate(*, model=None, tasks=None):
    model = mtljax.Model(None, lambda *_, **__: None) if model is None else model
    tasks = {"a": mtljax.Task(mtljax.losses.squared_error)} if tasks is None else tasks
    return mtljax.training.make_evaluate(model, tasks)


def task(**metrics):
    return {"a": mtljax.Task(mtljax.losses.squared_error, metrics=metrics)}


def stage(**fields):
    model, method = mtljax.Model(None, None), mtljax.methods.equal()
    return stages.Stage("one", model, step, method, optax.sgd(0.1), step, 3)._replace(**fields)


def run_stages(*given, key=None, **options):
    key = np.zeros(2, np.uint32) if key is None else key
    return mtljax.training.run_stages(given or [stage()], np.ones(1), key=key, progress=False, **options)


def opened(directory):
    with log.opened(directory):
        pass


def saved(batches):
    with checkpoint.opened(tempfile.mkdtemp()) as folder:
        checkpoint.save(folder, STATE, batches=batches)


class Stateful:
    """An iterator whose state is an array."""

    def __iter__(self):
        return self

    def get_state(self):
        return {"rows": np.arange(3)}

    def set_state(self, state):
        raise AssertionError


BAD = [
    *each(lambda x: fit(step=x), ("fit", "step"), NO_FUNCTIONS, TypeError),
    *each(lambda x: fit(state=x), ("fit", "state", "TrainState"), [None, {}, STATE.params], TypeError),
    *each(lambda x: fit(batches=x), ("fit", "batches"), [None, 3], TypeError),
    Bad(lambda: fit(batches=[]), ("fit", "batches", "step 3")),
    *count(lambda x: fit(num_steps=x), ("fit", "num_steps"), 0, -1),
    Bad(lambda: fit(num_steps=2), ("fit", "num_steps", "at least 3", "found 2")),
    *count(lambda x: fit(log_every=x), ("fit", "log_every"), 0, -1),
    *each(lambda x: fit(evaluate=x), ("fit", "evaluate"), ["loss", 1.0, {}], TypeError),
    *each(lambda x: fit(evaluate=step, eval_every=x), ("fit", "eval_every"), ["1", 2.0, 2.5, NAN, True], TypeError),
    *each(lambda x: fit(evaluate=step, eval_every=x), ("fit", "eval_every"), [0, -1]),
    Bad(lambda: fit(eval_every=5), ("fit", "eval_every", "evaluate", "found 5")),
    *each(
        lambda x: fit(checkpoint_dir=FOLDER / "c", checkpoint_every=x),
        *(("fit", "checkpoint_every"), ["1", 2.0, 2.5, NAN, True], TypeError),
    ),
    *each(lambda x: fit(checkpoint_dir=FOLDER / "c", checkpoint_every=x), ("fit", "checkpoint_every"), [0, -1]),
    Bad(lambda: fit(checkpoint_every=5), ("fit", "checkpoint_every", "checkpoint_dir", "found 5")),
    *each(lambda x: fit(checkpoint_dir=x), ("fit", "checkpoint_dir"), [3, 1.5, [], b""], TypeError),
    *each(lambda x: fit(checkpoint_dir=x), ("fit", "checkpoint_dir"), ["", FOLDER / "file", FOLDER / "file" / "c"]),
    *count(lambda x: fit(checkpoint_dir=FOLDER / "c", keep=x), ("fit", "keep"), 0, -1),
    Bad(lambda: fit(checkpoint_dir=FOLDER / "c", batches=Stateful()), ("fit", "get_state", "['rows']"), TypeError),
    *each(lambda x: fit(log=x), ("fit", "log"), [3, 1.5, {}, [3]], TypeError),
    *each(lambda x: fit(log=x), ("fit", "log"), ["", FOLDER, FOLDER / "file", FOLDER / "file" / "l", "/dev/null"]),
    Bad(lambda: fit(log=[FOLDER / "a", str(FOLDER / "b" / ".." / "a")]), ("fit", "log", "twice")),
    *each(lambda x: fit(config=x), ("fit", "config"), [3, "lr", ["lr"], {1: 2}, {"lr": jnp.ones}], TypeError),
    *each(lambda x: fit(changed=x), ("fit", "changed"), NO_FLAGS, TypeError),
    *each(lambda x: fit(progress=x), ("fit", "progress"), NO_FLAGS, TypeError),
    *each(lambda x: evaluate()(STATE, x), ("evaluate", "batches"), [None, 1, "test", list], TypeError),
    *each(lambda x: evaluate(tasks={"a": x}), ("losses_fn", "task 'a'"), ["mse", None], TypeError),
    Bad(lambda: evaluate(tasks=task(loss=step)), ("losses_fn", "metrics", "'loss'", "'a'")),
    Bad(lambda: evaluate(tasks=task(regularization=step)), ("losses_fn", "metrics", "'regularization'", "'a'")),
    Bad(lambda: evaluate()(STATE, []), ("evaluate", "batches")),
    Bad(lambda: evaluate(model="net"), ("losses_fn", "model"), TypeError),
    *each(lambda x: checkpoint.opened(x).__enter__(), ("opened", "checkpoint_dir"), [None, 3], TypeError),
    *count(lambda x: checkpoint.opened(FOLDER / "c", keep=x).__enter__(), ("opened", "keep"), 0),
    Bad(lambda: saved({"a": jnp.ones(1)}), ("batches.get_state()", "['a']"), TypeError),
    Bad(lambda: saved({(1, jax): 2}), ("batches.get_state()",), TypeError),
    *each(opened, ("opened", "log"), ["", FOLDER, FOLDER / "file"]),
    Bad(lambda: mtljax.training.restore_params(FOLDER, STATE.params), ("restore_params", "directory", "none")),
    *each(
        lambda x: mtljax.training.restore_params(x, STATE.params), ("restore_params", "directory"), [None, 3], TypeError
    ),
    *each(lambda x: run_stages(stage(num_steps=x)), ("run_stages", "num_steps", "'one'"), ["1", 2.5, True], TypeError),
    Bad(lambda: run_stages(stage(num_steps=0)), ("run_stages", "num_steps", "'one'", "found 0")),
    Bad(lambda: mtljax.training.run_stages([], 1, key=None), ("run_stages", "stages")),
    Bad(lambda: run_stages(stage(), stage()), ("run_stages", "names")),
    *each(lambda x: run_stages(stage(name=x)), ("run_stages", "names"), ["", "a/b"]),
    *each(lambda x: run_stages(stage(name=x)), ("run_stages", "names"), [None, 3], TypeError),
    *each(lambda x: run_stages(x), ("run_stages", "stages", "Stage"), [None, step], TypeError),
    *each(lambda x: run_stages(key=x), ("run_stages", "key"), [0, "key"], TypeError),
    *each(lambda x: run_stages(directory=x), ("run_stages", "directory"), [3, b""], TypeError),
    Bad(lambda: run_stages(directory=""), ("run_stages", "directory")),
    *each(lambda x: run_stages(**{x: 1}), ("run_stages", "options"), ["log", "checkpoint_dir", "steps"], TypeError),
    *each(lambda x: run_stages(stage(model=x)), ("run_stages", "model", "'one'"), [None, step], TypeError),
    *each(lambda x: run_stages(stage(method=x)), ("run_stages", "method"), [None, mtljax.methods.pcgrad], TypeError),
    *each(lambda x: run_stages(stage(optimizer=x)), ("run_stages", "optimizer"), [None, optax.adam], TypeError),
    *each(lambda x: run_stages(stage(losses_fn=x)), ("run_stages", "losses_fn"), NO_FUNCTIONS, TypeError),
    *each(lambda x: run_stages(stage(batches=x)), ("run_stages", "batches"), [None, [1]], TypeError),
    *each(lambda x: run_stages(stage(evaluate=x)), ("run_stages", "evaluate"), ["loss", 1.0], TypeError),
    *each(lambda x: run_stages(stage(keep_optimizer=x)), ("run_stages", "keep_optimizer"), NO_FLAGS, TypeError),
    *count(lambda x: recipes.alternate((("a",), 2), (("b",), x)), ("alternate", "steps"), 0, -1),
    *each(lambda x: recipes.alternate(*x), ("alternate", "phases"), [[], [(("a",), 2)]]),
    *each(lambda x: recipes.alternate((("a",), 1), x), ("alternate", "phases"), [None, 3, ("a",)], TypeError),
    *each(lambda x: recipes.alternate((x, 2), (("b",), 1)), ("alternate", "names"), ["ab", 3, None, [1]], TypeError),
    *each(lambda x: recipes.begin_at({"a": x}), ("begin_at", "'a'"), ["1", None, 2.0, NAN, True], TypeError),
    Bad(lambda: recipes.begin_at({"a": -1}), ("begin_at", "'a'")),
    Bad(lambda: recipes.begin_at({}), ("begin_at", "starts")),
    *each(recipes.begin_at, ("begin_at", "starts"), [None, 3, ["a"]], TypeError),
    *each(lambda x: recipes.scheduled(x, step), ("scheduled", "step"), NO_FUNCTIONS, TypeError),
    *each(lambda x: recipes.scheduled(step, x), ("scheduled", "schedule"), NO_FUNCTIONS, TypeError),
    *count(lambda x: recipes.pretrain_then_finetune(stage(), stage(), probe_steps=x), ("finetune", "probe_steps"), -1),
    *count(lambda x: recipes.add_task_later(stage(), stage(), task="a", alone_steps=x), ("later", "alone_steps"), -1),
    *each(lambda x: recipes.add_task_later(stage(), stage(), task=x), ("later", "task"), [None, 3], TypeError),
    *each(lambda x: recipes.add_task_later(x, stage(), task="a"), ("later", "before"), [None, step], TypeError),
    *each(lambda x: recipes.pretrain_then_finetune(stage(), x), ("finetune", "finetune"), [None, step], TypeError),
]
