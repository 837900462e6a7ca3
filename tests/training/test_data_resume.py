"""An input pipeline's state is part of the checkpoint: a run that was cut off sees the very next batch."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mtljax.data.batches import batches
from mtljax.training import checkpoint
from mtljax.training.loop import fit
from tests.training.problem import assert_same_bits, batch_at, make_state, step

STEP = jax.jit(step)
DATA = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(batch_at(number) for number in range(5)))
PREFETCHED = {"batch_size": 8, "seed": 2, "prefetch": 3, "device": jax.devices()[0]}


class Cut(Exception):
    """Stands for a kill."""


def run(stream, directory=None, *, until=8, cut=None):
    """Train to step 8, or until the step that is cut off; returns the rows seen too."""
    seen = []

    def watched(state, batch):
        if int(state.step) == cut:
            raise Cut
        seen.append(np.asarray(batch["a"]))
        return STEP(state, batch)

    arguments = {"checkpoint_dir": directory, "checkpoint_every": 3} if directory else {}
    try:
        return fit(watched, make_state(), stream, num_steps=until, progress=False, **arguments).state, seen
    except Cut:
        return None, seen


@pytest.mark.parametrize("kind", ["iterator", pytest.param("function", marks=pytest.mark.slow)])
def test_a_run_cut_off_goes_on_with_the_next_batch(tmp_path, kind):
    def stream():
        return (
            batches(DATA, **PREFETCHED) if kind == "iterator" else lambda s: batches(DATA, **PREFETCHED, start_step=s)
        )

    expected, rows = run(stream())
    _, before = run(stream(), tmp_path, cut=5)
    state, after = run(stream(), tmp_path)
    assert_same_bits(state, expected)
    # The last checkpoint was of step 3: two steps are done again.
    assert (len(before), len(after)) == (5, 5)
    np.testing.assert_array_equal(np.stack(before[:3] + after), np.stack(rows))


def test_a_checkpoint_without_a_state_says_so(tmp_path):
    run(lambda s: batches(DATA, **PREFETCHED, start_step=s), tmp_path, until=3)
    with pytest.raises(
        ValueError, match=r"to resume from .*/mtljax_3, which was written without the state of an itera"
    ):
        run(batches(DATA, **PREFETCHED), tmp_path)
    with pytest.raises(ValueError, match=r"to resume from .*/mtljax_3, or an iterator with get_state and set_state"):
        run([batch_at(0)], tmp_path)


@pytest.mark.slow
def test_a_damaged_state_of_batches_is_a_damaged_checkpoint(tmp_path):
    expected, _ = run(batches(DATA, **PREFETCHED))
    run(batches(DATA, **PREFETCHED), tmp_path, cut=7)
    file = tmp_path / "mtljax_6" / "facts" / "metadata"
    assert b'"next_index": 6' in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(b'"next_index": 6', b'"next_index": 5'))
    with pytest.raises(checkpoint.DamagedCheckpoint, match="checksum"):
        checkpoint.restore(tmp_path, make_state(), step=6)
    with pytest.warns(UserWarning, match="mtljax_6 is damaged"):
        state, seen = run(batches(DATA, **PREFETCHED), tmp_path)
    assert_same_bits(state, expected)
    assert len(seen) == 5
