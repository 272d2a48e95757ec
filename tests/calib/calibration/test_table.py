"""A table is accepted only if observers could have written it."""

from __future__ import annotations

import base64
import json
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calib.calibration.table import Table, TableKey
from calib.observers.methods import METHODS
from model.errors import ArtifactError

NAMES = ["x", "y"]
DIGESTS = [f"{number:016x}" for number in range(4)]


def _filled(method: str, scale: float = 1.0) -> Table:
    table = Table(TableKey("sha", "{}", method), NAMES)
    rng = np.random.default_rng(0)
    for digest in DIGESTS:
        for name in NAMES:
            table.observe(name, (rng.standard_normal((1, 4, 5)) * scale).astype(np.float32))
        table.photos.append(digest)
    return table


def _loaded(method: str, path: Path) -> Table:
    return Table.load(path, TableKey("sha", "{}", method), NAMES)


def _packed(counts: list[int]) -> str:
    return base64.b85encode(zlib.compress(np.array(counts, "<i8").tobytes())).decode()


def _damaged(method: str, folder: Path, **fields: Any) -> str:
    """The error for a table in which one tensor's fields, or the table's own, differ."""
    path = folder / "t.json"
    _filled(method).save(path)
    document = json.loads(path.read_text())
    for field, value in fields.items():
        where = document if field in document else document["tensors"]["y"]
        where[field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="damaged calibration table") as caught:
        _loaded(method, path)
    return str(caught.value)


def test_a_written_table_can_be_read(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for method, scale in product(METHODS, [1.0, 1e-40, 0.0, 3e38 / 4]):
        with subtests.test(method=method, scale=scale):
            table = _filled(method, scale)
            table.save(tmp_path / "t.json")
            again = _loaded(method, tmp_path / "t.json")
            again.save(tmp_path / "u.json")
            assert (tmp_path / "t.json").read_text() == (tmp_path / "u.json").read_text()
            assert again.largest("y", 127) == table.largest("y", 127)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_without_values_is_no_damage(method: str, tmp_path: Path) -> None:
    table = Table(TableKey("sha", "{}", method), NAMES)
    table.observe("x", np.ones((2, 2), np.float32))
    table.photos.append(DIGESTS[0])
    table.save(tmp_path / "t.json")
    with pytest.raises(ArtifactError, match="no photo reached 1 of 2 tensors"):
        _loaded(method, tmp_path / "t.json").require_observed()


WRONG_FIELDS = [
    ("seen", -5),
    ("seen", 0),
    ("seen", 80.0),
    ("seen", True),
    ("seen", 2**62),
    ("schema_version", True),
    ("schema_version", 2),
    ("photos", "abcdefgh"),
    ("photos", [None] * 8),
    ("photos", [DIGESTS[0]] * 4),
    ("photos", ["", *DIGESTS]),
    ("photos", []),
    ("tensors", []),
]


def test_impossible_fields_are_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for method, (field, value) in product(METHODS, WRONG_FIELDS):
        with subtests.test(method=method, field=field, value=value):
            _damaged(method, tmp_path, **{field: value})


def test_impossible_magnitudes_are_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for value, method in product(
        [1e-300, 1e39, -1.0, float("nan"), float("inf"), "3", True, None, 10**400],
        ["min-max", "mse"],
    ):
        with subtests.test(value=value, method=method):
            _damaged(method, tmp_path, largest=value)


@pytest.mark.parametrize("exponent", [128, -100, None, True, "2", 10**9])
def test_the_exponent_is_that_of_the_largest_magnitude(exponent: object, tmp_path: Path) -> None:
    assert "exponent" in _damaged("mse", tmp_path, largest=0.0)
    assert "exponent" in _damaged("mse", tmp_path, exponent=exponent)


@pytest.mark.parametrize(
    "counts", [pytest.param([], id="none"), pytest.param([80], id="one"), [0] * 8192]
)
def test_counts_end_where_the_largest_magnitude_is(counts: list[int], tmp_path: Path) -> None:
    assert "do not match the range" in _damaged("mse", tmp_path, counts=_packed(counts))


def test_counts_add_up_to_the_number_of_values(tmp_path: Path) -> None:
    state = _filled("mse")
    histogram = state.histogram("y")
    assert histogram is not None
    counts = histogram.counts.tolist()
    assert sum(counts) == 80
    zeros = [0] * len(counts)
    assert "no count at the largest" in _damaged("mse", tmp_path, counts=_packed(zeros))
    short = [*zeros[:-1], counts[-1]]
    assert "values, expected 80" in _damaged("mse", tmp_path, counts=_packed(short))
    # In int64 these add up to 80 again.
    wrapped = [counts[0] + 2**62, counts[1] + 2**62, counts[2] + 2**62, counts[3] + 2**62]
    assert int(np.sum([*wrapped, *counts[4:]], dtype=np.int64)) == 80
    assert "values, expected 80" in _damaged(
        "mse", tmp_path, counts=_packed([*wrapped, *counts[4:]])
    )
    assert "do not match" in _damaged("mse", tmp_path, counts=_packed([*counts[:-1], -counts[-1]]))
    assert "more than 8192 counts" in _damaged("mse", tmp_path, counts=_packed([1] * 8193))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [0.0, 1e-35])
def test_a_tensor_that_was_zero_on_every_photo_has_no_range(method: str, scale: float) -> None:
    table = _filled(method)
    table.require_ranges(NAMES)
    table = _filled(method, scale)
    with pytest.raises(ArtifactError, match=r"2 of 2 tensors were zero on all 4 photos, .*'x'"):
        table.require_ranges(NAMES)
    table.require_ranges([])


@pytest.mark.parametrize("method", METHODS)
def test_a_range_that_is_too_large_is_named(method: str) -> None:
    with pytest.raises(ArtifactError, match=r"tensor 'x' reaches .*expected at most 1e\+30"):
        _filled(method, 1e36).require_ranges(NAMES)
