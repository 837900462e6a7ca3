"""SARCOS: which rows, in which units, and what a linear model makes of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.io

from mtljax.data import banks
from mtljax.data.sets.sarcos import Sarcos, load_sarcos

URL = "http://www.gaussianprocess.org/gpml/data/sarcos_inv_test.mat"
ROWS = np.random.default_rng(0).normal(size=(30, 28)).round(6) * np.arange(1, 29)
ROWS[:, 5] = 3.0  # a joint that does not move


def mat(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


def table(batch):
    return np.concatenate([batch.inputs, batch.targets["torques"]], 1)


def test_rows_are_those_of_the_seed_and_standardized_by_the_training_rows(fake_raw, tmp_path):
    fake_raw("sarcos", {URL: mat(sarcos_inv_test=ROWS)})
    order = np.random.default_rng(4).permutation(30)
    train, test = ROWS[order[:10]], ROWS[order[10:25]]

    plain = load_sarcos(tmp_path, train_rows=10, test_rows=15, seed=4, standardize=False)
    assert list(plain) == ["train", "test"]
    for batch, rows in ((plain["train"], train), (plain["test"], test)):
        assert batch.inputs.dtype == np.float32 and batch.mask == {} and batch.inputs.shape == (len(rows), 21)
        assert list(batch.targets) == ["torques"] and batch.targets["torques"].dtype == np.float32
        np.testing.assert_array_equal(table(batch), rows.astype(np.float32))

    scaled = load_sarcos(tmp_path, train_rows=10, test_rows=15, seed=4)
    deviation = train.std(0)
    deviation[5] = 1.0
    for batch, rows in ((scaled["train"], train), (scaled["test"], test)):
        np.testing.assert_allclose(table(batch), (rows - train.mean(0)) / deviation, rtol=1e-4, atol=1e-5)
    assert np.all(scaled["train"].inputs[:, 5] == 0)

    other = load_sarcos(tmp_path, train_rows=10, test_rows=15, seed=5, standardize=False)
    assert not np.array_equal(other["train"].inputs, plain["train"].inputs)
    with pytest.raises(ValueError, match="must be at most 30 together, found 600 and 1400"):
        load_sarcos(tmp_path)
    assert banks("sarcos") == {"torques": tuple(f"torque_{k}" for k in range(1, 8))}
    info = Sarcos(data_dir=tmp_path).info
    assert info.file_format.value == "array_record" and "Vijayakumar" in info.citation


@pytest.mark.parametrize("bad", [{"train_rows": 0}, {"test_rows": 0}, {"seed": -1}])
def test_impossible_splits_are_refused(bad, tmp_path):
    with pytest.raises(ValueError, match=f"load_sarcos: {next(iter(bad))} must be at least"):
        load_sarcos(tmp_path, **bad)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (mat(other=ROWS), r"sarcos_inv_test\.mat: expected sarcos_inv_test \[N, 28\] .* found no such array"),
        (mat(sarcos_inv_test=ROWS[:, :27]), r"expected .* \[N, 28\] of finite numbers, found shape \(30, 27\)"),
        (mat(sarcos_inv_test=np.where(ROWS == 3, np.nan, ROWS)), r"found shape \(30, 28\), 96% finite"),
    ],
    ids=["no array", "27 columns", "gaps"],
)
def test_a_file_of_another_form_is_refused_with_what_was_expected_and_found(fake_raw, tmp_path, content, message):
    fake_raw("sarcos", {URL: content})
    with pytest.raises(ValueError, match=message):
        load_sarcos(tmp_path)


def test_the_published_file_and_the_error_of_a_linear_model(real_data, tmp_path):
    """Mean over torques and seeds of the squared error over the variance of the test targets: .125, measured before."""
    real_data("sarcos")
    errors = []
    for seed in range(3):
        splits = load_sarcos(tmp_path, seed=seed)
        train, test = (table(splits[name]).astype(np.float64) for name in ("train", "test"))
        assert train.shape == (600, 28) and test.shape == (1400, 28)
        x, y = train[:, :21], train[:, 21:]
        outputs = test[:, :21] @ np.linalg.solve(x.T @ x + 1e-3 * np.eye(21), x.T @ y)
        errors.append(np.mean(np.mean((outputs - test[:, 21:]) ** 2, 0) / test[:, 21:].var(0)))
    assert Sarcos(data_dir=tmp_path).info.splits["full"].num_examples == 4449
    # Rows are drawn: over ten seeds the figure goes from .115 to .132.
    np.testing.assert_allclose(np.mean(errors), 0.125, atol=0.005)
