"""The computer survey: 190 people, one input for all, the first 16 computers for training."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.io

from mtljax.data import banks
from mtljax.data.sets.computer_survey import ComputerSurvey, load_computer_survey

URL = "manual:computer_survey/conjointAnalysisComputerBuyers.mat"
RNG = np.random.default_rng(0)
DESIGN = np.concatenate([np.ones((20, 1)), RNG.choice([-1, 1], size=(20, 13))], 1).astype(np.int16)
RATINGS = RNG.integers(0, 11, size=(190, 20)).astype(np.uint8)


def mat(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


def test_each_person_is_a_task_on_the_same_computers(fake_raw, tmp_path):
    fake_raw("computer_survey", {URL: mat(designMarix=DESIGN, likeBuy=RATINGS)})
    splits = load_computer_survey(tmp_path)
    assert list(splits) == ["train", "test"]
    for batch, rows in ((splits["train"], slice(16)), (splits["test"], slice(16, 20))):
        assert batch.inputs.dtype == np.float32 and batch.mask == {}
        np.testing.assert_array_equal(batch.inputs, DESIGN[rows])
        assert list(batch.targets) == ["people"] and batch.targets["people"].dtype == np.float32
        np.testing.assert_array_equal(batch.targets["people"], RATINGS[:, rows].T)
    (names,) = banks("computer_survey").values()
    assert names[0] == "person_001" and names[189] == "person_190" and len(set(names)) == 190
    info = ComputerSurvey(data_dir=tmp_path).info
    assert info.file_format.value == "array_record" and "Lenk" in info.citation


def damaged():
    yield mat(likeBuy=RATINGS), r"expected designMarix \[20, 14\], found no such array"
    yield mat(designMarix=DESIGN, likeBuy=RATINGS[:, :16]), r"Buyers\.mat: expected likeBuy \[190, 20\], .* \(190, 16\)"
    yield mat(designMarix=DESIGN * 2, likeBuy=RATINGS), "expected a constant 1 and attributes -1 or 1 .* other values"
    yield mat(designMarix=DESIGN, likeBuy=RATINGS + 1), "and ratings 0 to 10 in likeBuy, found other values"


@pytest.mark.parametrize(("content", "message"), list(damaged()), ids=["no design", "16 ratings", "design", "ratings"])
def test_a_file_of_another_form_is_refused_with_what_was_expected_and_found(fake_raw, tmp_path, content, message):
    fake_raw("computer_survey", {URL: content})
    with pytest.raises(ValueError, match=message):
        load_computer_survey(tmp_path)


def test_without_the_file_the_message_says_where_to_put_it(fake_raw, tmp_path):
    fake_raw("elsewhere", {})
    with pytest.raises(FileNotFoundError, match=r"put it at computer_survey/conjointAnalysisComputerBuyers\.mat"):
        load_computer_survey(tmp_path)


def test_the_published_file_and_the_error_of_ridge_on_each_person(real_data, tmp_path):
    """Root of the mean squared error on the last four computers, all people together: 1.98, measured before."""
    real_data("computer_survey")
    splits = load_computer_survey(tmp_path)
    (x, y), (inputs, targets) = (
        (splits[name].inputs.astype(np.float64), splits[name].targets["people"].astype(np.float64))
        for name in ("train", "test")
    )
    assert y.shape == (16, 190) and targets.shape == (4, 190)
    weights = np.linalg.solve(x.T @ x + np.eye(14), x.T @ y)
    error = np.sqrt(np.mean((inputs @ weights - targets) ** 2))
    np.testing.assert_allclose(error, 1.98, atol=0.005)
