from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import mtljax
from mtljax.training import checkpoint
from tests.training.problem import assert_same_bits, batch_at, make_state, step


def save(directory, state, **kwargs):
    with checkpoint.opened(directory) as folder:
        checkpoint.save(folder, state, **kwargs)


def read(directory, template, **kwargs):
    found = checkpoint.restore(directory, template, **kwargs)
    assert found is not None
    return found


def restored(directory, template, **kwargs):
    return read(directory, template, **kwargs).state


def resumed(directory, template):
    """As `fit` resumes."""
    with checkpoint.opened(directory) as folder:
        found = checkpoint.resume(folder, template)
    assert found is not None
    return found.state


def names(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != "mtljax.lock")


def at(number: int, **kwargs):
    state = make_state(**kwargs)
    return state._replace(step=jnp.int32(number), params=jax.tree.map(lambda x: x * (number + 1) + 0.1, state.params))


def write_steps(directory, steps, **kwargs):
    with checkpoint.opened(directory, **kwargs) as folder:
        for number in steps:
            checkpoint.save(folder, at(number))


def biggest_file(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def test_an_empty_folder_restores_nothing(tmp_path):
    assert checkpoint.restore(tmp_path / "new", make_state()) is None
    with checkpoint.opened(tmp_path / "new") as folder:
        assert checkpoint.resume(folder, make_state()) is None


def test_restores_to_the_bit_whatever_the_leaves(tmp_path):
    state = at(3)._replace(
        model_state={
            "bf16": jnp.asarray([1.5, -0.0, jnp.nan], jnp.bfloat16),
            "int8": jnp.arange(-3, 3, dtype=jnp.int8),
            "bool": jnp.array([True, False]),
            "special": jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0]),
            "empty": jnp.zeros((0, 3)),
            "no_keys": jax.random.split(jax.random.key(0), 0),
            "none": None,
            "nothing": (),
            "a/b.c": [{"": jnp.ones(1)}],
            "u/v": jnp.ones(1),
            "u": {"v": jnp.zeros(1), "~1": jnp.ones(2)},
            "u~1": {"": jnp.zeros(3)},
            "numbers": {3: jnp.ones(1)},
        },
        opt_state=optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(make_state().params),
        key=jax.random.split(jax.random.key(5, impl="rbg"), 2),
    )
    save(tmp_path, state)
    back = restored(tmp_path, state)
    assert_same_bits(back, state)
    assert back.key.dtype == state.key.dtype
    assert not any(leaf.committed for leaf in jax.tree.leaves(back))


def test_keeps_devices_and_weak_types(tmp_path):
    devices = jax.devices()
    if len(devices) < 8:
        pytest.skip("needs eight devices")
    mesh = jax.make_mesh((8,), ("data",))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    state = at(1)._replace(
        model_state={
            "spread": jax.device_put(jnp.arange(16.0), spread),
            "there": jax.device_put(jnp.ones(3), devices[3]),
            "weak": jnp.asarray(0.1),
            "weak_int": jnp.full((2, 3), 7),
            "weak_there": jax.device_put(jnp.full((2,), -0.0), devices[3]),
        }
    )
    strong = jax.tree.map(lambda x: jax.device_put(np.zeros_like(x), x.sharding), state.model_state)
    save(tmp_path, state)
    back = restored(tmp_path, state._replace(model_state=strong)).model_state
    assert back["spread"].sharding == spread
    assert back["there"].devices() == {devices[3]} and back["there"].committed
    assert not back["spread"].weak_type
    for name in ("weak", "weak_int", "weak_there"):
        assert back[name].weak_type and state.model_state[name].weak_type and not strong[name].weak_type
        assert back[name].shape == state.model_state[name].shape
        assert np.asarray(back[name]).tobytes() == np.asarray(state.model_state[name]).tobytes()
    assert back["weak_there"].devices() == {devices[3]}


@pytest.mark.parametrize("parity", [0, 1])
def test_every_leaf_keeps_its_weak_type(tmp_path, parity):
    """Every other leaf is weakly typed where it is written, and the others are in the template."""
    leaves, form = jax.tree.flatten(make_state()._replace(key=()))

    def typed(first):
        numbers = [7 if jnp.issubdtype(leaf.dtype, jnp.integer) else 2.5 for leaf in leaves]
        return [
            jnp.full(leaf.shape, number, None if place % 2 == first else leaf.dtype)
            for place, (leaf, number) in enumerate(zip(leaves, numbers, strict=True))
        ]

    written, template = typed(parity), typed(1 - parity)
    assert [leaf.weak_type for leaf in written] == [place % 2 == parity for place in range(len(leaves))]
    save(tmp_path, jax.tree.unflatten(form, written))
    back = jax.tree.leaves(restored(tmp_path, jax.tree.unflatten(form, template)))
    assert [leaf.weak_type for leaf in back] == [leaf.weak_type for leaf in written]


def test_a_restored_state_does_not_retrace_the_step(tmp_path):
    jitted: Any = jax.jit(step)
    state = make_state()  # weakly typed in part, which the first step changes
    for number in range(3):
        state, _ = jitted(state, batch_at(number))
    save(tmp_path, state)
    traces = jitted._cache_size()
    jitted(restored(tmp_path, make_state()), batch_at(3))
    assert jitted._cache_size() == traces


def test_a_state_donated_while_it_is_being_written_is_written_whole(tmp_path):
    bump = jax.jit(
        lambda s: s._replace(step=s.step + 1, params=jax.tree.map(lambda x: x + 1, s.params)), donate_argnums=0
    )
    state = at(0)
    state = state._replace(params=state.params._replace(shared={"w": jnp.zeros((512, 512))}))
    with checkpoint.opened(tmp_path, keep=8) as folder:
        for number in range(1, 9):
            state = bump(state)
            checkpoint.save(folder, state)
            for _ in range(20):
                state = bump(state)
            state = state._replace(step=jnp.int32(number))
    assert checkpoint.steps(tmp_path) == list(range(1, 9))
    for number in range(8):
        back = restored(tmp_path, state, step=number + 1)
        np.testing.assert_array_equal(back.params.shared["w"], 21.0 * number + 1)


def test_orbax_reads_it_alone(tmp_path):
    write_steps(tmp_path, [4])
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        arrays = reader.restore(tmp_path / "mtljax_4" / "state")
    np.testing.assert_array_equal(arrays["params/shared/w"], at(4).params.shared["w"])
    facts = json.loads((tmp_path / "mtljax_4" / "facts" / "metadata").read_text())
    assert set(facts["leaves"]) == set(arrays) >= {"step", "key", "params/shared/w", "params/tasks/a/v"}


def test_the_newest_are_kept(tmp_path):
    write_steps(tmp_path, [1, 5, 3 + 7, 20], keep=2)
    assert checkpoint.steps(tmp_path) == [10, 20]
    with pytest.raises(ValueError, match="opened: keep must be at least 1, found 0"):
        write_steps(tmp_path, [], keep=0)


def delete_all(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def truncate(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def delete_metadata(folder):
    (folder / "state" / "_METADATA").unlink()


def delete_facts(folder):
    shutil.rmtree(folder / "facts")


def alter_checksum(folder):
    file = biggest_file(folder / "facts")
    facts = json.loads(file.read_text())
    facts["leaves"]["params/shared/w"]["crc32"] ^= 1
    file.write_text(json.dumps(facts))


def take_facts_of_another_step(folder):
    shutil.rmtree(folder / "facts")
    shutil.copytree(folder.with_name("mtljax_20") / "facts", folder / "facts")


@pytest.mark.parametrize(
    "damage", [delete_all, truncate, delete_metadata, delete_facts, alter_checksum, take_facts_of_another_step]
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage):
    write_steps(tmp_path, [10, 20, 30])
    damage(tmp_path / "mtljax_30")
    (tmp_path / "mtljax_30.damaged").mkdir()  # of a time before
    with pytest.warns(UserWarning, match=rf"{re.escape(str(tmp_path))}/mtljax_30 is damaged .*step 20.*30.damaged.2"):
        assert_same_bits(resumed(tmp_path, make_state()), at(20))
    assert names(tmp_path) == ["mtljax_10", "mtljax_20", "mtljax_30.damaged", "mtljax_30.damaged.2"]
    save(tmp_path, at(30))  # the step can be written again
    assert_same_bits(restored(tmp_path, make_state()), at(30))


def test_reading_alone_changes_nothing(tmp_path):
    write_steps(tmp_path, [10, 20])
    alter_checksum(tmp_path / "mtljax_20")
    before = names(tmp_path)
    with pytest.warns(UserWarning, match="mtljax_20 is damaged"):
        assert_same_bits(restored(tmp_path, make_state()), at(10))
    assert names(tmp_path) == before


def test_one_that_may_not_be_read_is_passed_over_and_stays(tmp_path, monkeypatch):
    write_steps(tmp_path, [10, 20])

    def refuse(path, *args, **kwargs):
        if "mtljax_20" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *args, **kwargs)

    with monkeypatch.context() as patched:  # as for root, who may read everything
        patched.setattr("mtljax.training.checkpoint.reading.open", refuse, raising=False)
        with pytest.warns(UserWarning, match=r"mtljax_20 may not be read \(PermissionError.*; continuing from step 10"):
            assert_same_bits(resumed(tmp_path, make_state()), at(10))
    assert names(tmp_path) == ["mtljax_10", "mtljax_20"]
    with checkpoint.opened(tmp_path, keep=1) as folder:
        checkpoint.save(folder, at(15))
    assert names(tmp_path) == ["mtljax_15", "mtljax_20"]
    save(tmp_path, at(20))
    assert names(tmp_path) == ["mtljax_15", "mtljax_20", "mtljax_20.replaced"]


def test_nothing_of_anybody_else_is_touched(tmp_path):
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(30, args=ocp.args.StandardSave({"w": np.ones(2)}))
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "thesis.tex").write_text("done")
    shutil.copytree(tmp_path / "30", tmp_path / "40.orbax-checkpoint-tmp")
    foreign = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_steps(tmp_path, [1, 2, 3], keep=1)
    assert_same_bits(resumed(tmp_path, make_state()), at(3))
    assert names(tmp_path) == ["3", "30", "40.orbax-checkpoint-tmp", "mtljax_3"]
    assert {path: path.stat().st_mtime_ns for path in foreign} == foreign


def test_somebody_elses_folder_with_such_a_name_is_named_and_left_alone(tmp_path):
    write_steps(tmp_path, [1, 2])
    thesis = tmp_path / "mtljax_9" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("done")
    for again in (restored, resumed):
        with pytest.warns(UserWarning, match="mtljax_9 is not a checkpoint of mtljax, in spite of its name, and is"):
            assert_same_bits(again(tmp_path, make_state()), at(2))
    write_steps(tmp_path, [3, 10], keep=1)
    assert names(tmp_path) == ["mtljax_10", "mtljax_9"] and thesis.read_text() == "done"
    with pytest.raises(ValueError, match=r"save: the checkpoint's folder must be free, found .*mtljax_9, which is no"):
        save(tmp_path, at(9))
    assert thesis.read_text() == "done"


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# Where one array cannot be read, others are still being read when Orbax has closed its event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_taken_for_what_was_written(tmp_path, count):
    """Bits of every file, metadata included: what is read is what was written, or the checkpoint before it."""
    write_steps(tmp_path, [10])
    save(tmp_path, at(20), batches={"seed": 3, 1: [2]}, record={"step": 20})
    rng = random.Random(count)
    files = files_of(tmp_path / "mtljax_20")
    fallen_back = 0
    for number in range(count):
        file = files[number % len(files)]
        data = file.read_bytes()
        if not data:
            continue
        flipped = bytearray(data)
        place = rng.randrange(len(data))
        flipped[place] ^= 1 << rng.randrange(8)
        file.write_bytes(flipped)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = read(tmp_path, make_state())
        assert (found.step == 10) == any("mtljax_20 is damaged" in str(each.message) for each in caught)
        assert_same_bits(found.state, at(found.step))
        assert found.batches == (None if found.step == 10 else {"seed": 3, 1: [2]})
        fallen_back += found.step == 10
        file.write_bytes(data)
    assert fallen_back > 0
    assert restored(tmp_path, make_state()).step == 20


def test_a_flipped_bit_in_an_array_is_noticed(tmp_path):
    write_steps(tmp_path, [1])
    state = at(2)
    state = state._replace(params=state.params._replace(shared={"w": jax.random.normal(state.key, (300, 40))}))
    save(tmp_path, state)
    file = biggest_file(tmp_path / "mtljax_2")
    data = bytearray(file.read_bytes())
    assert len(data) > 30_000  # the array itself, which compresses hardly at all
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(checkpoint.DamagedCheckpoint, match="params/shared/w does not match its checksum"):
        checkpoint.restore(tmp_path, state, step=2)


def test_two_damaged_ones_are_both_named(tmp_path):
    write_steps(tmp_path, [10, 20, 30])
    alter_checksum(tmp_path / "mtljax_20")
    alter_checksum(tmp_path / "mtljax_30")
    with pytest.warns(UserWarning, match="damaged") as caught:
        assert_same_bits(resumed(tmp_path, make_state()), at(10))
    assert len(caught) == 2


def test_when_all_are_damaged_nothing_is_moved(tmp_path):
    write_steps(tmp_path, [10, 20])
    alter_checksum(tmp_path / "mtljax_10")
    alter_checksum(tmp_path / "mtljax_20")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read, of steps \[10, 20\]; the newest: Damaged"):
        resumed(tmp_path, make_state())
    assert names(tmp_path) == ["mtljax_10", "mtljax_20"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s._replace(params=s.params._replace(shared={"w": jnp.zeros((3, 5))})),
            r"/mtljax_7 holds 'params/shared/w' as float32\[3, 4\], the given state as float32\[3, 5\]",
        ),
        (
            lambda s: s._replace(params=s.params._replace(shared={"w": jnp.zeros((3, 4), jnp.bfloat16)})),
            r"/mtljax_7 holds 'params/shared/w' as float32\[3, 4\], the given state as bfloat16\[3, 4\]",
        ),
        (
            lambda s: s._replace(model_state={"mean": jnp.zeros(3)}),
            "/mtljax_7 must have the leaves of the given state, found no leaf 'model_state/mean'",
        ),
        (
            lambda s: s._replace(params=s.params._replace(tasks={"a": s.params.tasks["a"]})),
            "/mtljax_7 must have only the leaves of the given state, found a leaf 'params/tasks/b/v'",
        ),
        (
            lambda s: s._replace(key=jax.random.key(0, impl="rbg")),
            r"/mtljax_7 holds 'key' as uint32\[2\], the given state as uint32\[4\]",
        ),
    ],
)
def test_another_structure_is_an_error_and_no_damage(tmp_path, change, message):
    write_steps(tmp_path, [5, 7])
    with pytest.raises(ValueError, match=message):
        resumed(tmp_path, change(make_state()))
    assert names(tmp_path) == ["mtljax_5", "mtljax_7"]


def test_leftovers_of_a_killed_write_are_ignored(tmp_path):
    write_steps(tmp_path, [5])
    shutil.copytree(tmp_path / "mtljax_5", tmp_path / "mtljax_9.orbax-checkpoint-tmp")
    assert_same_bits(resumed(tmp_path, make_state()), at(5))
    assert names(tmp_path) == ["mtljax_5"]


def test_reading_back_says_nothing_on_standard_error(tmp_path):
    write_steps(tmp_path, [5])
    code = (
        "import sys; from mtljax.training import checkpoint; from tests.training.problem import make_state;"
        "print(checkpoint.restore(sys.argv[1], make_state()).step)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "5\n" and done.stderr == ""


def test_one_run_at_a_time_writes_to_a_folder(tmp_path):
    with checkpoint.opened(tmp_path):
        with pytest.raises(ValueError, match=r"fit: checkpoint_dir .* must be of one run at a time, found another run"):  # noqa: SIM117
            with checkpoint.opened(tmp_path, where="fit"):
                pass
        assert checkpoint.restore(tmp_path, make_state()) is None
    save(tmp_path, at(1))


def test_a_dead_process_holds_no_lock(tmp_path):
    code = (
        "import sys, time; from mtljax.training import checkpoint\n"
        "with checkpoint.opened(sys.argv[1]): print('here', flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        with pytest.raises(ValueError, match="found another run"):
            save(tmp_path, at(1))
        process.kill()
        process.wait()
        save(tmp_path, at(1))


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # root may write everywhere
    with pytest.raises(ValueError, match=r"opened: checkpoint_dir must be a folder that can be written to.*Read-only"):
        save(tmp_path, at(1))


def test_where_batches_stood_comes_back_unchanged(tmp_path):
    place = {1: (2, [3.5, None]), "seed": {"a": True}, "__tuple__": "no", "nan": float("inf")}
    save(tmp_path, at(1), batches=place)
    assert read(tmp_path, make_state()).batches == place
    with pytest.raises(TypeError, match=r"batches.get_state\(\)\['rows'\]\[0\] must be what JSON can hold.*a int64"):
        save(tmp_path, at(2), batches={"rows": [np.int64(3)]})


def test_parameters_alone_from_a_run_of_another_kind(tmp_path):
    """Another optimizer and method, a head more and a head less; a damaged checkpoint is passed over."""
    write_steps(tmp_path, [10, 20])
    alter_checksum(tmp_path / "mtljax_20")
    old = at(10).params
    mine = old._replace(tasks={"a": {"v": jnp.zeros(4)}, "c/d": {"v": jnp.ones(2)}})
    with pytest.warns(UserWarning, match="mtljax_20 is damaged .* parameters are those of step 10"):
        found = mtljax.training.restore_params(tmp_path, jax.tree.map(jnp.zeros_like, mine))
    assert (found.step, found.taken, found.new, found.left) == (
        *(10, ["shared/w", "tasks/a/v"], ["tasks/c~1d/v"], ["tasks/b/v"]),
    )
    assert_same_bits(found.params.shared, old.shared)
    assert_same_bits(found.params.tasks["a"], old.tasks["a"])
    assert not found.params.tasks["c/d"]["v"].any()


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"restore_params: directory must hold a checkpoint .*found .*/none with none"):
        mtljax.training.restore_params(tmp_path / "none", at(1).params)


def test_parameters_that_do_not_fit_are_named(tmp_path):
    params = at(1).params
    write_steps(tmp_path, [1])
    with pytest.raises(ValueError, match=r"'params/shared/w' must be float32\[3, 4\] as in .*, found float32\[3, 5\]"):
        mtljax.training.restore_params(tmp_path, params._replace(shared={"w": jnp.zeros((3, 5))}))
    with pytest.raises(ValueError, match=r"restore_params: params must have a leaf in common with checkpoint"):
        mtljax.training.restore_params(tmp_path, mtljax.Params({"u": jnp.ones(1)}, {}))
