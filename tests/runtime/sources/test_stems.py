"""Output names: whatever comes in, in any order, no two are alike."""

from __future__ import annotations

import unicodedata
from typing import Literal

import numpy as np
import pytest

from runtime.sources.stems import Stems


def test_first_comes_unchanged_and_others_are_numbered() -> None:
    stems = Stems()
    given = ["a", "b", "a", "a-2", "a", "A", ""]
    assert [stems.photo(s) for s in given] == ["a", "b", "a-2", "a-2-2", "a-3", "A-4", "photo"]


def test_frames_and_photos_named_like_frames() -> None:
    stems = Stems()
    assert stems.photo("clip-000003") == "clip-000003"
    assert stems.video("clip") == "clip-2"
    assert stems.photo("clip-2-1234567") == "clip-2-1234567-2"
    assert stems.photo("clip-2-12345") == "clip-2-12345"
    assert stems.video("CLIP-2") == "CLIP-2-2"


def test_letters_written_in_two_ways_are_one() -> None:
    stems = Stems()
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert stems.photo(composed) == composed
    assert stems.photo(apart) == f"{apart}-2"


def test_no_two_alike_in_ten_thousand() -> None:
    """Against a plain set of all names, the frames' written out."""
    rng = np.random.default_rng(0)
    words = ["a", "A", "a-2", "a-3", "a-000001", "a-2-000002", "b", "b-000000", "b-2-2"]
    for _ in range(100):
        stems, seen = Stems(), set()
        for word in rng.choice(words, 100):
            if rng.random() < 0.3:
                stem = stems.video(str(word))
                names = {f"{stem}-{n:06d}".casefold() for n in range(4)}
            else:
                names = {stems.photo(str(word)).casefold()}
            assert not names & seen
            seen |= names


def test_many_of_one_name_take_no_longer_each(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = unicodedata.normalize, []

    def normalize(form: Literal["NFC"], text: str) -> str:
        tried.append(text)
        return real(form, text)

    stems = Stems()
    monkeypatch.setattr(unicodedata, "normalize", normalize)
    assert len({stems.photo("a") for _ in range(2000)}) == 2000
    assert len(tried) <= 4 * 2000
