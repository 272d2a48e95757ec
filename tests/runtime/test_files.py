"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from model.errors import ArtifactError
from runtime.files import atomic_path


def write(path: Path, text: str, error: BaseException | None = None) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)
        if error:
            raise error


@pytest.mark.parametrize("before", [None, "old"], ids=["new", "replaced"])
def test_file_appears_whole(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "out.json"
    if before is not None:
        path.write_text(before)
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        assert (path.read_text() if path.exists() else None) == before
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(error):
        write(path, "half", error())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(ArtifactError) as caught, atomic_path(path):
        Path("/dev/full").write_text("new")
    assert str(caught.value).startswith(f"cannot write {path}: No space left on device")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_error_of_any_step_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    path = tmp_path / "out.json"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(ArtifactError, match="Read-only file system; name a folder"):
            write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("path", "kind"),
    [(Path("."), "a folder"), (Path("/"), "a folder"), (Path(os.devnull), "a device")],
    ids=["here", "root", "null-device"],
)
def test_only_files_are_replaced(path: Path, kind: str) -> None:
    with pytest.raises(ArtifactError, match=f"expected a file, got {kind}"):
        write(path, "new")
    assert path.exists()
    assert not path.is_file()


def test_links_long_names_and_permissions_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "real" / "out.json"
    target.write_text("old")
    link.symlink_to(target)
    write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    path = tmp_path / ("n" * 250 + ".json")
    write(path, "new")
    assert path.read_text() == "new"
    path, usual = tmp_path / "out.json", tmp_path / "usual.json"
    write(path, "new")
    usual.write_text("new")
    assert path.stat().st_mode == usual.stat().st_mode


def test_errors_leave_no_file(tmp_path: Path) -> None:
    mine = ArtifactError("mine")
    with pytest.raises(ArtifactError) as caught:
        write(tmp_path / "out.json", "new", mine)
    assert caught.value is mine
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "nowhere" / "out.json"
    with pytest.raises(ArtifactError, match=r"cannot write .*out\.json: No such file or directory"):
        write(path, "new")
    assert list(tmp_path.iterdir()) == []
