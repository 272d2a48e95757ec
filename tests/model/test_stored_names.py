"""Class names that a file holds beside its tensors are used; nothing else of it is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import load
from model.spec_options import SpecOptions
from tests.small_checkpoint import sound_state

NAMED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"names": {0: "cat", 1: "dog"}, "nc": 2}, "names"),  # LibreYOLO
    ({"names": {"0": "cat", "1": "dog"}}, "names"),
    ({"class_names": ["cat", "dog"]}, "class_names"),
    ({"hyper_parameters": {"classes": ("background", "cat", "dog")}}, "hyper_parameters.classes"),
)
UNUSED: tuple[dict[str, Any], ...] = (
    {"names": ["a", "b", "c", "d"]},
    {"names": ["a", 1]},
    {"names": {0: "a", 2: "b"}},
    {"names": "ab"},
    {"names": ["a", "x" * 999]},
    {"optimizer": {"param_groups": [{"names": ["a", "b"]}]}},
)


def test_names_in_the_file(tmp_path: Path, subtests: pytest.Subtests) -> None:
    path = tmp_path / "w.pt"
    for beside, place in NAMED:
        with subtests.test(place):
            torch.save({"model": sound_state(), **beside}, path)
            checkpoint = load(path)
            assert checkpoint.spec.classes.names[1:] == ("cat", "dog")
            assert f"class names: '{place}' in the file" in checkpoint.notes
            assert "classes.names" not in {a.field for a in checkpoint.assumptions}
            given = load(path, SpecOptions(names=("a", "b")))
            assert given.spec.classes.names[1:] == ("a", "b")
    for beside in UNUSED:
        with subtests.test(str(beside)[:40]):
            torch.save({"model": sound_state(), **beside}, path)
            checkpoint = load(path)
            assert checkpoint.spec.classes.names[1:] == ("class_1", "class_2")
            assert "classes.names" in {a.field for a in checkpoint.assumptions}
