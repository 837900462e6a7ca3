"""delta_m against published tables, within what the rounding of the printed numbers allows; mean rank by hand."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from scipy import stats

from mtljax.metrics import delta_m, mean_rank

HIGHER = [True, True, False, False, False, False, True, True, True]
TASKS = ["segmentation"] * 2 + ["depth"] * 2 + ["normals"] * 5

# NYUv2 with MTAN: mIoU, pixel accuracy, absolute and relative error of depth, mean and median angle of normals, share
# of normals within 11.25, 22.5 and 30 degrees; then delta_m as printed. The rows of the CAGrad, Nash-MTL and FAMO
# papers, as collected in NTKMTL (NeurIPS 2025), table 1.
NYU_ALONE = "38.30 63.76 0.6754 0.2780 25.01 19.21 30.14 57.20 69.15"
NYU = {
    "LS": ("39.29 65.33 0.5493 0.2263 28.15 23.96 22.09 47.50 61.08", 5.59),
    "PCGrad": ("38.06 64.64 0.5550 0.2325 27.41 22.80 23.86 49.83 63.14", 3.97),
    "CAGrad": ("39.79 65.49 0.5486 0.2250 26.31 21.58 25.61 52.36 65.58", 0.20),
    "Nash-MTL": ("40.13 65.93 0.5261 0.2171 25.26 20.08 28.40 55.47 68.15", -4.04),
    "FAMO": ("38.88 64.90 0.5474 0.2194 25.06 19.57 29.21 56.61 68.98", -4.10),
}

# The same metrics with DeepLabV3+; averaged by task, a gain positive. Rep-MTL (2025), table 1, column Delta p_task.
DEEPLAB_ALONE = "53.50 75.39 0.3926 0.1605 21.99 15.16 39.04 65.00 75.16"
DEEPLAB = {
    "EW": ("53.93 75.53 0.3825 0.1577 23.57 17.01 35.04 60.99 72.05", -1.78),
    "GLS": ("54.59 76.06 0.3785 0.1555 22.71 16.07 36.89 63.11 73.81", 0.30),
    "MGDA": ("53.52 74.76 0.3852 0.1566 22.74 16.00 37.12 63.22 73.84", -0.64),
}


def numbers(row):
    return np.array([float(word) for word in row.split()])


def half_units(row):
    """Half a unit of the last printed digit of each number."""
    return np.array([float(Decimal(1).scaleb(Decimal(word).as_tuple().exponent)) / 2 for word in row.split()])


def rounding(row, base, weights):
    """How far delta_m can be from the printed one because the numbers were rounded."""
    values, alone = numbers(row), numbers(base)
    return 0.005 + 100 * np.sum(weights * (half_units(row) + half_units(base) * values / alone) / alone)


@pytest.mark.parametrize("method", NYU)
def test_published_rows(method):
    row, printed = NYU[method]
    ours = delta_m(numbers(row), numbers(NYU_ALONE), higher_is_better=HIGHER)
    assert abs(ours - printed) <= rounding(row, NYU_ALONE, np.full(9, 1 / 9))


@pytest.mark.parametrize("method", DEEPLAB)
def test_published_rows_averaged_by_task(method):
    row, printed = DEEPLAB[method]
    ours = delta_m(numbers(row), numbers(DEEPLAB_ALONE), higher_is_better=HIGHER, task_of_metric=TASKS)
    weights = np.array([1 / 6] * 4 + [1 / 15] * 5)
    assert abs(-ours - printed) <= rounding(row, DEEPLAB_ALONE, weights)


def test_leading_axes_are_kept():
    table = np.stack([numbers(row) for row, _ in NYU.values()])
    together = delta_m(table, numbers(NYU_ALONE), higher_is_better=HIGHER, task_of_metric=TASKS)
    alone = [delta_m(row, numbers(NYU_ALONE), higher_is_better=HIGHER, task_of_metric=TASKS) for row in table]
    assert together.shape == (5,)
    np.testing.assert_allclose(together, alone, rtol=1e-14)


def test_tasks_need_not_stand_together():
    base, values = np.array([1.0, 2.0, 4.0]), np.array([1.1, 1.0, 8.0])
    ours = delta_m(values, base, higher_is_better=[False] * 3, task_of_metric=["a", "b", "a"])
    assert float(ours) == pytest.approx(((10 + 100) / 2 - 50) / 2)


def test_the_baseline_itself_is_zero():
    assert float(delta_m(numbers(NYU_ALONE), numbers(NYU_ALONE), higher_is_better=HIGHER)) == 0.0


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"metrics must be \[..., M\] and baseline \[M\], found \[2\] and \[3\]",
            lambda: delta_m([1, 2], [1, 2, 3], higher_is_better=[True] * 3),
        ),
        (ValueError, "baseline must be above 0", lambda: delta_m([1, 2], [1, 0], higher_is_better=[True] * 2)),
        (
            TypeError,
            "delta_m: higher_is_better must be bool, found int64",
            lambda: delta_m([1, 2], [1, 2], higher_is_better=[1, 0]),
        ),
        (
            ValueError,
            r"delta_m: higher_is_better must be \[2\], one per metric, found \[1\]",
            lambda: delta_m([1, 2], [1, 2], higher_is_better=[True]),
        ),
        (
            ValueError,
            "task_of_metric must name 2 metrics' tasks, found",
            lambda: delta_m([1, 2], [1, 2], higher_is_better=[True, True], task_of_metric=["a"]),
        ),
    ],
)
def test_delta_m_mistakes(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_mean_rank_by_hand():
    table = [[0.9, 3.0, 5.0], [0.8, 1.0, 5.0], [0.7, 2.0, 9.0]]
    ranks = mean_rank(table, higher_is_better=[True, False, False])
    np.testing.assert_allclose(ranks, [(1 + 3 + 1.5) / 3, (2 + 1 + 1.5) / 3, (3 + 2 + 3) / 3])


def test_mean_rank_equals_scipy_with_many_ties():
    table = np.random.default_rng(0).integers(4, size=(9, 6)).astype(float)
    higher = np.array([True, False] * 3)
    expected = stats.rankdata(np.where(higher, -table, table), axis=0).mean(1)
    np.testing.assert_allclose(mean_rank(table, higher_is_better=higher), expected)


def test_mean_rank_mistakes():
    with pytest.raises(ValueError, match=r"mean_rank: table must be \[N, M\], found \[2\]"):
        mean_rank([1, 2], higher_is_better=[True, True])
    with pytest.raises(ValueError, match=r"mean_rank: table must hold numbers .* found NaN"):
        mean_rank([[1, np.nan]], higher_is_better=[True, True])
