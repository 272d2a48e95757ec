"""For a table that does not fit, the error names the difference."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from calib.calibration.table import TableKey, require_key
from model.errors import ArtifactError

HOW: dict[str, Any] = {"mean": [1.0], "canvas": [None, None], "batch": 1}
# Written by an earlier version, of rescaled weights.
EQUALISED = {**HOW, "equalise": 0.5, "channels": "ab12"}


def _key(how: object, **others: str) -> TableKey:
    return replace(TableKey("sha", json.dumps(how, sort_keys=True), "mse"), **others)


@pytest.mark.parametrize(
    ("have", "want", "message"),
    [
        (EQUALISED, HOW, "another preprocessing (…"),
        (HOW, {**HOW, "canvas": [320, 448]}, "another canvas (--size): [None, None], expected [3"),
        (HOW, {**HOW, "batch": 4}, "another batch (--batch): 1, expected 4;"),
        (HOW, {**HOW, "batch": 4, "mean": [2.0]}, "another preprocessing (…"),
        ({}, HOW, "another preprocessing (…{}, expected"),
        ([], HOW, "another preprocessing (…[]"),
    ],
)
def test_the_difference_is_named(have: object, want: object, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        require_key(Path("t.json"), asdict(_key(have)), _key(want))
    assert message in str(caught.value)
    assert "delete it or name another with --table" in str(caught.value)


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (None, "another model"),
        ({"model_sha256": "sha", "preprocess": 3, "method": "mse"}, "another preprocessing"),
        ({**asdict(_key(HOW)), "preprocess": "[" * 1_500}, "another preprocessing"),
        ({**asdict(_key(HOW)), "method": "entropy"}, "another method (…entropy, expected …mse)"),
    ],
)
def test_invalid_keys_are_refused(actual: object, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        require_key(Path("t.json"), actual, _key(HOW))
    assert message in str(caught.value)


def test_a_table_that_fits() -> None:
    require_key(Path("t.json"), asdict(_key(HOW)), _key(HOW))
