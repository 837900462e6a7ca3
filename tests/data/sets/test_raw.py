"""Raw files: found, checked, and asked for by name."""

from __future__ import annotations

import pytest

from mtljax.data.sets import raw
from tests.real_data import folder

SCHOOL = next(url for url in raw.registered() if url.endswith("school.mat"))
SURVEY = next(url for url in raw.registered() if url.startswith(raw.MANUAL) and "survey" in url)


class Downloads:
    """A download manager: what it was asked for, and what it answers."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def download(self, url):
        self.asked.append(url)
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def test_a_file_at_hand_is_used_and_nothing_is_downloaded(fake_raw):
    place = fake_raw("school", {SCHOOL: b"rows"})
    assert raw.fetch(None, "school", [SCHOOL]) == [place / "school.mat"]


@pytest.mark.parametrize("content", [b"row", b"rowz", b""])
def test_a_truncated_or_corrupted_file_is_refused_with_its_name_and_both_checksums(fake_raw, content):
    place = fake_raw("school", {SCHOOL: b"rows"})
    (place / "school.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"school\.mat is damaged: it has \d bytes and sha256 \w{64}, expected 4 "):
        raw.fetch(None, "school", [SCHOOL])


def test_a_file_not_at_hand_is_downloaded_and_checked(fake_raw, tmp_path):
    fake_raw("school", {SCHOOL: b"rows"}).joinpath("school.mat").rename(tmp_path / "cached")
    downloads = Downloads(tmp_path / "cached")
    assert raw.fetch(downloads, "school", [SCHOOL]) == [tmp_path / "cached"] and downloads.asked == [SCHOOL]
    (tmp_path / "cached").write_bytes(b"half")
    with pytest.raises(ValueError, match="cached is damaged"):
        raw.fetch(downloads, "school", [SCHOOL])


def test_a_file_that_cannot_be_had_is_asked_for_by_name_and_place(fake_raw):
    fake_raw("elsewhere", {})
    with pytest.raises(
        FileNotFoundError, match=r"could not download \S*school\.mat \(no route\): .* school/school\.mat"
    ):
        raw.fetch(Downloads(OSError("no route")), "school", [SCHOOL])
    downloads = Downloads(OSError("never asked"))
    with pytest.raises(FileNotFoundError, match=r"put it at computer_survey/conjoint\w+\.mat in the folder"):
        raw.fetch(downloads, "computer_survey", [SURVEY])
    assert not downloads.asked


def test_the_environment_names_the_first_place_to_look(monkeypatch, tmp_path):
    monkeypatch.setenv("MTLJAX_DATA", str(tmp_path))
    assert raw.roots()[0] == tmp_path
    monkeypatch.delenv("MTLJAX_DATA")
    assert [root.parts[-2:] for root in raw.roots()] == [("shared", "data")]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "school", "sarcos", "tox21", "sider", "chembl", "dsprites"])
def test_the_real_files_are_the_registered_ones(real_data, name):
    place = real_data(name)
    known = [entry for url, entry in raw.registered().items() if (place / entry.name).exists()]
    matching = [entry for entry in known if (place / entry.name).stat().st_size == entry.size]
    assert matching
    for entry in matching:
        raw.check(place / entry.name, entry)
    assert folder(name) == place
