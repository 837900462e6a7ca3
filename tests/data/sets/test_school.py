"""School: rows of the file by school, splits within each."""

from __future__ import annotations

import io

import jax
import numpy as np
import pytest
import scipy.io

from mtljax.convex import pad, split_rows
from mtljax.data import banks
from mtljax.data.sets.school import School, load_school

URL = "https://raw.githubusercontent.com/jiayuzhou/MALSAR/ca3d55b878cc4113f0d9603e8ac46538aeb1ecd9/data/school.mat"
PUPILS = (3, 1, 5, 4)


def cells(arrays):
    found = np.empty((1, len(arrays)), object)
    found[0, :] = arrays
    return found


def rows(seed=0):
    """Inputs and scores of four small schools."""
    rng = np.random.default_rng(seed)
    inputs = [rng.integers(0, 2, size=(n, 28)).astype(np.uint8) for n in PUPILS]
    for x in inputs:
        x[:, 3], x[:, 27] = rng.integers(0, 100, size=len(x)), 1
    return inputs, [rng.integers(1, 71, size=(n, 1)).astype(np.uint8) for n in PUPILS]


def mat(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=True)
    return file.getvalue()


@pytest.fixture
def fake(fake_raw):
    inputs, scores = rows()
    fake_raw("school", {URL: mat(X=cells(inputs), Y=cells(scores))})
    return inputs, [y[:, 0] for y in scores]


def test_each_school_is_a_task_with_the_rows_of_the_file(fake, tmp_path, capsys):
    splits = load_school(tmp_path)
    assert capsys.readouterr().out == "", "nothing was downloaded, and nothing says that it was"
    assert list(splits) == ["all"]
    pupils = splits["all"]
    assert pupils.inputs.dtype == pupils.targets["schools"].dtype == np.float32 and pupils.mask == {}
    assert pupils.task["schools"].dtype == np.int32 and list(pupils.targets) == ["schools"]
    for school, (inputs, scores) in enumerate(zip(*fake, strict=True)):
        own = pupils.task["schools"] == school
        np.testing.assert_array_equal(pupils.inputs[own], inputs)
        np.testing.assert_array_equal(pupils.targets["schools"][own], scores)
    (names,) = banks("school").values()
    assert names[0] == "school_001" and names[138] == "school_139" and len(set(names)) == 139
    info = School(data_dir=tmp_path).info
    assert info.file_format.value == "array_record" and info.redistribution_info.license == "none stated"
    assert "Argyriou" in info.citation and info.splits["full"].num_examples == sum(PUPILS)


def test_a_split_is_that_of_split_rows_whatever_jax_is_set_to(fake, tmp_path):
    inputs, scores = fake
    expected, _ = split_rows(jax.random.key(7), pad(inputs, scores), 0.75)
    for setting in (jax.enable_x64(False), jax.enable_x64(True), jax.threefry_partitionable(False)):
        with setting:
            splits = load_school(tmp_path, train_share=0.75, seed=7)
        mask = np.concatenate([row[:size] for row, size in zip(np.asarray(expected.mask), PUPILS, strict=True)])
        for part, rows in (("train", mask), ("test", ~mask)):
            np.testing.assert_array_equal(splits[part].inputs, np.concatenate(inputs)[rows])
            np.testing.assert_array_equal(splits[part].targets["schools"], np.concatenate(scores)[rows])
            np.testing.assert_array_equal(splits[part].task["schools"], np.repeat(np.arange(4), PUPILS)[rows])
    assert np.bincount(splits["train"].task["schools"]).tolist() == [2, 1, 4, 3]
    for share in (0.0, 0.3, 1.0, 0.49999999):  # the last one is a half in float32, in which shares are rounded
        drawn = np.asarray(split_rows(jax.random.key(7), pad(inputs, scores), share)[0].mask)
        mask = np.concatenate([row[:size] for row, size in zip(drawn, PUPILS, strict=True)])
        found = load_school(tmp_path, train_share=share, seed=7)["train"]
        np.testing.assert_array_equal(found.inputs, np.concatenate(inputs)[mask])
    others = [load_school(tmp_path, train_share=0.5, seed=seed)["train"] for seed in range(5)]
    assert len({other.inputs[other.task["schools"] == 2].tobytes() for other in others}) > 1


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share, tmp_path):
    with pytest.raises(ValueError, match=f"load_school: train_share must be at least 0 and at most 1, found {share}"):
        load_school(tmp_path, train_share=share)


def damaged():
    inputs, scores = rows()
    yield mat(X=cells(inputs)), r"school\.mat: expected cells X and Y, .* found no Y"
    yield mat(X=cells(inputs), Y=cells(scores[:3])), r"school\.mat: expected X and Y of equally many .* found 4 and 3"
    yield (
        mat(X=cells([x[:, :27] for x in inputs]), Y=cells(scores)),
        r"school\.mat: expected X \[n, 28\] .* for school 1, found shapes \(3, 27\)",
    )
    yield (
        mat(X=cells(inputs), Y=cells([*scores[:3], scores[3][:2]])),
        r"for school 4, found shapes \(4, 28\) and \(2, 1\)",
    )
    yield (
        mat(X=cells(inputs), Y=cells([y - 0.5 for y in scores])),
        "expected whole numbers .* found others for school 1",
    )


@pytest.mark.parametrize(
    ("content", "message"), list(damaged()), ids=["no Y", "fewer Y", "27 columns", "rows", "halves"]
)
def test_a_file_of_another_form_is_refused_with_what_was_expected_and_found(fake_raw, tmp_path, content, message):
    fake_raw("school", {URL: content})
    with pytest.raises(ValueError, match=message):
        load_school(tmp_path)


@pytest.mark.slow
def test_the_published_file_and_what_a_pooled_ridge_explains(real_data, tmp_path):
    """Explained variance of one ridge for all pupils at 75 %: 33.9 +- 0.9 % over ten splits, measured before."""
    real_data("school")
    everything = load_school(tmp_path)["all"]
    sizes = np.bincount(everything.task["schools"])
    assert (len(sizes), sum(sizes), min(sizes), max(sizes)) == (139, 15_362, 22, 251)
    found = everything.inputs
    assert np.all(found[:, 27] == 1) and np.isin(np.delete(found, [3, 4], 1), (0, 1)).all()
    explained = []
    for seed in range(3):
        splits = load_school(tmp_path, train_share=0.75, seed=seed)
        (x, y), (inputs, targets) = (
            (split.inputs.astype(np.float64), split.targets["schools"].astype(np.float64))
            for split in (splits["train"], splits["test"])
        )
        assert len(x) + len(inputs) == 15_362
        weights = np.linalg.solve(x.T @ x + np.eye(28), x.T @ y)
        error = np.sum((targets - inputs @ weights) ** 2)
        explained.append(100 * (1 - error / np.sum((targets - targets.mean()) ** 2)))
    assert 32.5 < np.mean(explained) < 35.3
