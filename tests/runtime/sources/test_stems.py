"""Output stems are unique for any names in any order."""

from __future__ import annotations

import unicodedata
from typing import Literal

import numpy as np
import pytest

from runtime.sources.stems import Stems


def test_stems_are_unique() -> None:
    stems = Stems()
    names = ["a", "b", "a", "a-2", "a", "A", ""]
    assert [stems.photo(s) for s in names] == ["a", "b", "a-2", "a-2-2", "a-3", "A-4", "photo"]
    stems = Stems()
    assert stems.photo("clip-000003") == "clip-000003"
    assert stems.video("clip") == "clip-2"
    assert stems.photo("clip-2-1234567") == "clip-2-1234567-2"
    assert stems.photo("clip-2-12345") == "clip-2-12345"
    assert stems.video("CLIP-2") == "CLIP-2-2"
    stems = Stems()
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert stems.photo(composed) == composed
    assert stems.photo(decomposed) == f"{decomposed}-2"


def test_no_duplicates_in_ten_thousand() -> None:
    """Against a set of all names, with the frames listed."""
    rng = np.random.default_rng(0)
    words = ["a", "A", "a-2", "a-3", "a-000001", "a-2-000002", "b", "b-000000", "b-2-2"]
    for _ in range(100):
        stems, used = Stems(), set()
        for word in rng.choice(words, 100):
            if rng.random() < 0.3:
                stem = stems.video(str(word))
                names = {f"{stem}-{n:06d}".casefold() for n in range(4)}
            else:
                names = {stems.photo(str(word)).casefold()}
            assert not names & used
            used |= names


def test_many_duplicates_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real, candidates = unicodedata.normalize, []

    def normalize(form: Literal["NFC"], text: str) -> str:
        candidates.append(text)
        return real(form, text)

    stems = Stems()
    monkeypatch.setattr(unicodedata, "normalize", normalize)
    assert len({stems.photo("a") for _ in range(2000)}) == 2000
    assert len(candidates) <= 4 * 2000
