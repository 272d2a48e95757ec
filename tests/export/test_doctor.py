"""The command `maskport doctor`: lines, exit status, and the next command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from export.diagnosis.file import diagnose_file
from export.diagnosis.machine import ProbeResult
from export.doctor import main
from model.errors import ArtifactError

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "examples" / "demo" / "shapes.pth"


@pytest.mark.parametrize(("name", "reason"), [("none.onnx", "no such file"), ("a.txt", "'.txt'")])
def test_no_such_file_and_no_such_suffix(
    name: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("text", "utf-8")
    with pytest.raises(ArtifactError, match=reason):
        diagnose_file(tmp_path / name)
    assert main([str(tmp_path / name)]) == 1
    out, complaint = capsys.readouterr()
    assert out == ""
    assert complaint.startswith("error: ")


def test_too_many_arguments() -> None:
    with pytest.raises(SystemExit) as left:
        main(["a", "b"])
    assert left.value.code == 2


@pytest.mark.slow
def test_the_last_line_runs_as_printed(
    demo_rtx_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "with space.rtx.onnx"
    path.write_bytes(demo_rtx_onnx.read_bytes())
    assert main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line[:9] in ("ok       ", "n/a      ") for line in lines[:-1])
    command = shlex.split(lines[-1].removeprefix("next: "))
    assert command[-4:-1] == ["export.engine", str(path), "--gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.engine"))


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports of torch and ONNX Runtime are only pretended: they take seconds."""
    monkeypatch.setattr("export.diagnosis.machine.probe", lambda code: ProbeResult(True, "fine"))


@pytest.mark.usefixtures("no_probe")
def test_problems_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.onnx").write_bytes(b"no graph")
    assert main([str(tmp_path / "f.onnx")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 problem"


@pytest.mark.usefixtures("no_probe")
def test_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok       Python 3.")
    assert lines[-1].endswith("--help")


def test_help_needs_no_library() -> None:
    code = "import export.doctor, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"torch", "torchvision", "onnx", "onnx_ir", "onnxruntime", "tensorrt_rtx", "cuda"}
    assert not heavy & set(done.stdout.split())
