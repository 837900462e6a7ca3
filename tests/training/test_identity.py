"""A checkpoint is not taken up by another run, and is by the same one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import methods
from mtljax.training import checkpoint, identity
from mtljax.training.loop import fit
from tests.training.problem import assert_same_bits, batch_at

ROOT = Path(__file__).resolve().parents[2]
SCALE = np.ones(3, np.float32)


def make(method=None, optimizer=None, scale=SCALE, tasks="ab", dtype=jnp.float32):
    def losses_fn(params, state, batch, key, train):
        hidden = jnp.tanh((batch["x"] * jnp.asarray(scale)[None]).astype(dtype) @ params.shared)
        return {
            name: jnp.mean((hidden @ params.tasks[name] - batch[name]).astype(jnp.float32) ** 2) for name in tasks
        }, mtljax.Aux(state)

    method = methods.pcgrad() if method is None else method
    optimizer = optax.sgd(0.1) if optimizer is None else optimizer
    init, step = mtljax.training.make_train_step(losses_fn, method, optimizer)
    params = mtljax.Params(jnp.ones((3, 2), dtype), {name: jnp.ones(2, dtype) for name in tasks})
    return init(params, key=jax.random.key(0)), step


def batches(start, size=8):
    while True:
        yield {name: value[:size] for name, value in batch_at(start).items()}
        start += 1


def run(directory, num_steps, *, made=None, wrap=mtljax.training.jit, stream=batches, **options):
    state, step = make() if made is None else made
    return fit(wrap(step), state, stream, num_steps=num_steps, checkpoint_dir=directory, progress=False, **options)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    directory = tmp_path_factory.mktemp("begun")
    run(directory, 2, config={"lr": 0.1, "seed": [1, 2]})
    return directory


CHANGES = {
    "method": ({"made": lambda: make(methods.graddrop())}, "step must be the program of .*mtljax_2"),
    "learning rate": ({"made": lambda: make(optimizer=optax.sgd(0.2))}, r"has\n.* -0\.1\S* .*\n.*has\n.* -0\.2"),
    "an array": ({"made": lambda: make(scale=SCALE * 2)}, r"array float32\[3\] [0-9a-f]{16}\n"),
    "batch size": (
        {"stream": lambda start: batches(start, 4)},
        r"leaf 'a' of batch must be float32\[8\] as in .*mtljax_2, found float32\[4\]",
    ),
    "schedule": (
        {"made": lambda: make(optimizer=optax.sgd(optax.cosine_decay_schedule(0.1, 9)))},
        "found no leaf 'opt_state/1/count'",
    ),
    "tasks": ({"made": lambda: make(tasks="a")}, "found a leaf 'params/tasks/b'"),
    "dtype": ({"made": lambda: make(dtype=jnp.bfloat16)}, "holds 'params/shared' as float32.* as bfloat16"),
    "config": ({"config": {"lr": 0.1, "seed": [1, 3]}}, r"config\['seed'\] must be \[1, 2\] as in .*, found \[1, 3\]"),
    "more config": (
        {"config": {"lr": 0.1, "seed": [1, 2], "b": 1}},
        r"config\['b'\] must be nothing .*, found 1",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_run_is_told_what_differs(what, begun):
    options, message = CHANGES[what]
    options = {name: value() if name == "made" else value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        run(begun, 4, **options)
    assert checkpoint.steps(begun) == [2]


@pytest.mark.parametrize("config", [{"lr": 0.1, "seed": [1, 2]}, pytest.param(None, marks=pytest.mark.slow)])
def test_the_same_run_goes_on(config, begun, tmp_path):
    """Made anew, with another number of steps and another state to read into, weakly typed or not."""
    state, step = make()
    strong = jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else jnp.asarray(np.asarray(leaf)), state)
    expected = run(tmp_path / "whole", 4, log_every=1)
    for directory, made in ((tmp_path / "again", None), (tmp_path / "strong", (strong, step))):
        run(directory, 2, config=config)
        assert_same_bits(run(directory, 4, made=made, config=config).state, expected.state)


def test_who_means_it_goes_on(tmp_path):
    run(tmp_path, 2, config={"lr": 0.1})
    faster = make(optimizer=optax.sgd(0.2))
    run(tmp_path, 3, made=faster, config={"lr": 0.2}, changed=True)
    run(tmp_path, 4, made=faster, config={"lr": 0.2})  # by now the checkpoint is of this run


def test_where_jax_is_another_a_warning_says_so(tmp_path, monkeypatch):
    run(tmp_path, 2)
    monkeypatch.setattr(jax, "__version__", "0.0")
    run(tmp_path, 3)  # the program is the same all the same
    monkeypatch.setattr(jax, "__version__", "0.1")
    with pytest.warns(UserWarning, match=r"mtljax_3 was written with jax 0.0, this run has jax 0.1; .*cannot decide"):
        run(tmp_path, 4, made=make(methods.graddrop()))


@pytest.mark.slow
def test_batches_of_many_shapes_are_no_other_run(tmp_path):
    def changing(start):
        for number, batch in enumerate(batches(start), start=start):
            yield {name: value[: 8 - number % 2] for name, value in batch.items()}

    expected = run(tmp_path / "whole", 5, stream=changing).state
    run(tmp_path / "halves", 3, stream=changing)
    assert_same_bits(run(tmp_path / "halves", 5, stream=changing).state, expected)


def test_a_step_that_is_a_plain_function_is_not_called_once_more(tmp_path):
    calls = []

    def wrap(step):
        jitted = jax.jit(step)
        return lambda state, batch: calls.append(int(state.step)) or jitted(state, batch)

    run(tmp_path, 3, wrap=wrap)
    run(tmp_path, 4, wrap=wrap, made=make(methods.graddrop()))  # cannot be seen: `config` is for this
    assert calls == [0, 1, 2, 3]


@pytest.mark.parametrize("way", ["sharded", "pmap"])
def test_parallel_steps_are_known_too(way):
    devices = jax.local_device_count()
    state, step = make()
    if way == "pmap":
        _, step = mtljax.training.make_train_step(
            lambda params, state, batch, key, train: ({n: params.shared.sum() for n in "ab"}, mtljax.Aux(state)),
            *(methods.equal(), optax.sgd(0.1)),
            axis_name="batch",
        )
        text = identity.program(mtljax.training.pmap(step), state, {"x": np.ones((devices, 2))})
    else:
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        text = identity.program(mtljax.training.sharded(step, mesh), state, batch_at(0))
    assert "f32[3,2]" in text and not re.search("0x[0-9a-f]", text)


@pytest.mark.slow
def test_a_program_is_the_same_text_in_every_process():
    code = (
        "import hashlib, jax, mtljax; from tests.training.test_identity import make, batch_at; import optax\n"
        "from mtljax import methods; from mtljax.training import identity\n"
        "for method in (methods.pcgrad(), methods.upgrad(), methods.nash_mtl(), methods.uncertainty()):\n"
        "    state, step = make(method, optax.adam(1e-3))\n"
        "    print(hashlib.sha256(identity.program(jax.jit(step), state, batch_at(0)).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu", "PATH": ""},
            **{"cwd": ROOT, "capture_output": True, "text": True, "check": True},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1 and len(set(next(iter(found)).split())) == 4
