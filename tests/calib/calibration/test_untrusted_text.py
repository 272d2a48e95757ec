"""Tables and caches are read only from regular files, up to a size limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from calib.calibration import table, tensorrt_cache
from calib.calibration.table import Table, TableKey
from calib.calibration.tensorrt_cache import read_cache
from calib.calibration.untrusted_text import read_text
from model.errors import ArtifactError

READERS: dict[str, Callable[[Path], object]] = {
    "table": lambda path: Table.load(path, TableKey("sha", "{}", "mse"), ["x"]),
    "cache": lambda path: read_cache(path, ["x"]),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("device", ["/dev/null", "folder"])
def test_only_files_are_read(device: str, reader: Callable[[Path], object], tmp_path: Path) -> None:
    path = Path(device)
    if device == "folder":
        path = tmp_path
    with pytest.raises(ArtifactError, match=r"expected a calibration .*, got a (device|folder)"):
        reader(path)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_file_beyond_the_limit_is_not_read(
    reader: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tensorrt_cache, table):
        monkeypatch.setattr(module, "_MOST_BYTES", 1 << 20)
    path = tmp_path / "long"
    path.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(ArtifactError, match=r"larger than 1 MiB, the limit of a calibration"):
        reader(path)


def test_what_is_not_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"12345678")
    assert read_text(path, 8, "table", "delete it") == "12345678"
    path.write_bytes(b"\xff\xfe")
    for wrong in (path, tmp_path / "none"):
        with pytest.raises(ArtifactError, match=r"not a readable table \(.*\); delete it"):
            read_text(wrong, 8, "table", "delete it")
