"""One run at a time writes into a folder; a killed run releases it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model.errors import ArtifactError, UsageError
from runtime.formats import lock
from runtime.formats.lock import FolderLock

ROOT = Path(__file__).resolve().parents[3]


def test_a_second_run_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as first:
        with pytest.raises(UsageError, match="another run is writing there; wait until it ends"):
            FolderLock(tmp_path)
        first.close()
        with FolderLock(tmp_path):
            first.close()
            assert [path.name for path in tmp_path.iterdir()] == [".predict.lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_releases_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from runtime.formats.lock import FolderLock;"
        "held = FolderLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another run is writing there"):
            FolderLock(tmp_path)
        child.kill()
    FolderLock(tmp_path).close()


def test_a_file_removed_before_the_lock_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = lock._lock, 0

    def late(file: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            (tmp_path / ".predict.lock").unlink()
        real(file)

    monkeypatch.setattr(lock, "_lock", late)
    with FolderLock(tmp_path):
        assert tries == 2
        with pytest.raises(UsageError, match="another run"):
            FolderLock(tmp_path)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(file: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "_lock", unable)
    with FolderLock(tmp_path), FolderLock(tmp_path):
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".predict.lock").mkdir()
    with pytest.raises(ArtifactError, match=r"cannot write .*\.predict\.lock: .*; name a folder"):
        FolderLock(tmp_path)
