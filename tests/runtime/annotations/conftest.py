"""The photos of the tidy COCO file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.annotations.coco_files import write_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with both photos."""
    write_photos(tmp_path)
    return tmp_path
