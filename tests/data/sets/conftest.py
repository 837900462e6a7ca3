"""Fake published files, so that builders are tested where the real ones are not."""

from __future__ import annotations

import hashlib

import pytest

from mtljax.data.sets import raw


@pytest.fixture
def fake_raw(tmp_path, monkeypatch):
    """`fake_raw("mnist", {url: bytes})` puts files where raw ones are looked for and registers them as published.

    Returns the folder. Nothing but these files is found then, neither the real ones nor a download.
    """
    table = dict(raw.registered())
    monkeypatch.setattr(raw, "registered", lambda: table)
    monkeypatch.setattr(raw, "roots", lambda: [tmp_path / "raw"])

    def put(folder, contents):
        place = tmp_path / "raw" / folder
        place.mkdir(parents=True, exist_ok=True)
        for url, content in contents.items():
            name = raw.registered()[url].name
            (place / name).write_bytes(content)
            table[url] = raw.Registered(len(content), hashlib.sha256(content).hexdigest(), name)
        return place

    return put
